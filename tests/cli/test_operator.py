"""What an operator meets: a session that is shown, edited and continued by hand, and what is said when it cannot go on."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from icestream.cli import app
from icestream.flow.runner.health import Health
from icestream.flow.runner.status import RunStatus
from icestream.flow.runner.supervisor import Supervisor
from icestream.flow.storage import schema
from icestream.flow.storage.pauses import ActivePause
from icestream.flow.storage.session import open_session
from icestream.settings import Settings
from toys.files import YAML_BOMB
from toys.session import arrive, make_toy_session, read_rows, toy_steps


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words: str | Path) -> str:
    result = call(*words)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A session that has run to its end, with three exposures and more versions of a whole."""
    session = make_toy_session(tmp_path, toy_steps(3), numbers=range(3))
    assert "3 exposures" in done("run", session.folder, "--quiet")
    return session.folder


def test_data_of_the_next_day_are_taken_and_nothing_is_done_twice(folder: Path) -> None:
    assert "was not closed by hand; new exposures open it automatically" in done("reopen", folder, "numbers")
    assert "takes nothing new" in done("close", folder, "numbers")
    done("set", folder, "numbers", "stop_after=5")
    arrive(folder.parent, range(5))
    assert "3 exposures" in done("run", folder, "--quiet")
    assert "numbers: takes nothing new: closed by hand, by " in done("status", folder)
    assert "numbers: takes nothing new: closed by hand, by " in done("why", folder, "numbers")
    done("reopen", folder, "numbers")
    assert "5 exposures" in done("run", folder, "--quiet")
    made = [row["unit"] for row in read_rows(open_session(folder), schema.result)]
    assert "3 exposures" not in done("status", folder)
    done("run", folder, "--quiet")
    assert [row["unit"] for row in read_rows(open_session(folder), schema.result)] == made


def test_a_reset_says_how_to_go_on(folder: Path) -> None:
    assert "triple takes nothing new until `icestream continue`" in done("reset", folder, "--from", "triple")
    done("continue", folder)
    done("run", folder, "--quiet")
    assert "nothing would be recomputed" in done("apply", folder, "--dry-run")


def test_a_plan_that_costs_nothing_names_no_time(folder: Path) -> None:
    done("set", folder, "triple", "factor=5")
    told = done("branch", folder, "odd", "--as", "odder", "factor=9", "--only", "--dry-run")
    assert told.splitlines()[-1] == "0 results to compute"


def test_revisions_count_in_words(folder: Path) -> None:
    done("set", folder, "even", "divisor=3")
    done("run", folder, "--quiet")
    assert "3 done" in done("revisions", folder, "even")
    assert " item" not in done("revisions", folder)


def test_an_exposure_that_was_rejected_everywhere_has_no_result(tmp_path: Path) -> None:
    steps = {name: spec for name, spec in toy_steps(3).items() if name in ("numbers", "triple")}
    folder = make_toy_session(tmp_path, steps, numbers=range(3)).folder
    done("run", folder, "--quiet")
    done("reject", folder, "1", "--reason", "ice")
    assert done("why", folder, "1").splitlines()[0] == "has been decided by every step, without a result"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"- a\n- b\n", "is not a mapping of names to values"),
        (b"\xff\xfe\x00\x81", "is not text"),
        (b"steps: [", "is not YAML"),
        (YAML_BOMB.encode(), "holds more than 50000 values, those behind aliases included"),
        (b"steps: &a [*a]", "is not YAML: an alias stands for what it is part of"),
    ],
)
def test_a_corrupt_document_is_named_in_one_sentence(folder: Path, content: bytes, said: str) -> None:
    (folder / "session.yaml").write_bytes(content)
    for command in ("status", "why", "run"):
        result = call(command, folder)
        assert result.exit_code == 1
        assert f"session.yaml: {said}" in result.stderr


def test_a_part_is_added_to_a_template_that_asks_for_the_microscope_in_its_own_words(tmp_path: Path) -> None:
    values = ("--movies", tmp_path, "--diameter", "100", "120", "--no-input")
    done("new", tmp_path / "first", *values)
    first = tmp_path / "first" / "session.yaml"
    document = yaml.safe_load(first.read_text())
    for name in ("junk", "clean_picks", "edited_picks"):
        del document["steps"][name]  # what is left has no other inputs than the micrographs
    for reader in ("particles", "relion"):
        document["steps"][reader]["in"]["picks"] = "picks"
    first.write_text(yaml.safe_dump(document, sort_keys=False))
    done("export-workflow", tmp_path / "first", "--from", "picks", "-o", tmp_path / "part.yaml")
    done("new", tmp_path / "second", "--template", "movies_to_ctf", "--add", tmp_path / "part.yaml", *values)
    steps = yaml.safe_load((tmp_path / "second" / "session.yaml").read_text())["steps"]
    assert steps["picks"]["in"] == {"micrograph": "good.micrograph"}
    assert list(steps)[-1] == "relion"


def test_a_store_that_failed_is_tried_again_before_all_the_room_wanted_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def trouble(self: Health) -> str | None:
        asked.append(self.min_free_gb)
        return "the disk is full" if len(asked) < 3 else None

    monkeypatch.setattr(Health, "trouble", trouble)
    monkeypatch.setattr("icestream.flow.runner.supervisor._LOOK_S", 0.01)
    said: list[ActivePause | None] = []

    def note(status: RunStatus) -> None:
        said.append(status.pause)

    attendance = Supervisor(open_session(folder), Settings(min_free_gb=50.0), note, None)
    attendance._wait_until_well("cannot be written", 0)  # noqa: SLF001
    assert set(asked) == {0.0}
    assert [hold.reason for hold in said if hold is not None][:2] == ["the disk is full", "the disk is full"]
