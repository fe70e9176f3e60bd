"""Programs of other people: found before anything starts, part of the key, and pinned by the revision."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from icestream.errors import DeclarationError, SessionError, WorkflowError
from icestream.flow import Program, ProgramSettings
from icestream.flow.commands.editing import plan_edit
from icestream.flow.commands.requests import Restart, Set
from icestream.flow.runner.answering import submit
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, dump_document, open_session
from icestream.flow.workflow.program_environment import clean_environment
from icestream.flow.workflow.programs import find_program, read_program_settings
from icestream.observe.queries import open_view
from icestream.observe.why import why_step
from icestream.settings import Settings
from toys.programs import FAKE, write_program
from toys.session import TOYS, arrive, make_toy_session, outcomes_of, read_rows

LOOK = {"rescan_s": 0.1}


def steps_with(count: int, words: list[str]) -> dict[str, Any]:
    return {
        "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": count}},
        "fake": {"use": "toys.programs:run_fake", "in": {"number": "numbers"}, "params": {"words": words}},
        "next": {"use": f"{TOYS}:multiply", "in": {"number": "fake"}, "params": {"factor": 2}},
    }


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fake program at a place that a facility's file of programs says."""
    path = write_program(tmp_path / "bin/fake_program")
    (tmp_path / "programs.yaml").write_text(yaml.safe_dump({"fake_program": {"path": str(path)}}))
    monkeypatch.setenv("ICESTREAM_PROGRAMS", str(tmp_path / "programs.yaml"))
    return path


def settings() -> Settings:
    return Settings(cores=2, min_free_gb=0, cancel_grace_s=1.0)


def revisions_of(session: Session, step: str) -> list[dict[str, Any]]:
    return [row for row in read_rows(session, schema.revision) if row["step"] == step]


def said_of(session: Session, step: str) -> list[str]:
    with open_view(session) as view:
        return [one.sentence for one in why_step(view, step) if one.step == step]


def software_of(session: Session, step: str) -> list[str]:
    mine = {row["id"] for row in revisions_of(session, step)}
    return [row["software"] for row in read_rows(session, schema.result) if row["revision"] in mine]


@pytest.mark.parametrize(
    ("version", "oldest", "below", "supported"),
    [
        ("3.1.3", "3.1", "6", True),
        ("4.0.1-commit-9ab", "3.1", "6", True),
        ("3.0.9", "3.1", "6", False),
        ("6.0", "3.1", "6", False),
        ("10.2", "9", None, True),
        ("1", None, None, True),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, oldest: str | None, below: str | None, supported: bool) -> None:
    assert Program("p", oldest=oldest, below=below).supports(version) is supported


def test_a_program_is_declared_by_a_bare_name_and_a_pattern_with_a_group() -> None:
    with pytest.raises(DeclarationError, match="bare name"):
        Program("/usr/bin/ls")
    with pytest.raises(DeclarationError, match="no group"):
        Program("ls", version="version .*")


def test_a_program_is_found_in_path_or_where_the_facility_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_program(tmp_path / "a b/fake_program")
    monkeypatch.setenv("PATH", f"/usr/bin:{path.parent}")
    assert find_program(FAKE, ProgramSettings()).path == path
    other = write_program(tmp_path / "other", "2.0-beta")
    found = find_program(FAKE, ProgramSettings(path=str(other), arguments=("--say", "x")))
    assert (found.path, found.version, found.identity) == (other, "2.0-beta", "2.0-beta --say x")
    assert find_program(FAKE, ProgramSettings(path=str(other), version="1.5")).version == "1.5"


def test_a_program_of_an_environment_of_its_own_is_found_there(tmp_path: Path) -> None:
    path = write_program(tmp_path / "env/bin/fake_program")
    found = find_program(FAKE, ProgramSettings(prefix=tmp_path / "env"))
    assert (found.path, clean_environment(found.settings)["CONDA_PREFIX"]) == (path, str(tmp_path / "env"))


def test_modules_are_loaded_by_a_login_shell_and_their_names_never_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write_program(tmp_path / "fake;touch${IFS}pwned/fake_program")
    profile = 'module() { [ "$1" = load ] && shift; for m in "$@"; do [ -d "$HOME/$m" ] || { echo "no $m" >&2; return 1; }; '
    (tmp_path / ".bash_profile").write_text(profile + 'export PATH="$HOME/$m:$PATH"; done; }\n')
    assert find_program(FAKE, ProgramSettings(modules=("fake;touch${IFS}pwned",))).path == path
    with pytest.raises(WorkflowError, match="modules relion/9 could not be loaded: no relion/9"):
        find_program(FAKE, ProgramSettings(modules=("relion/9",)))
    with pytest.raises(ValueError, match="pattern"):
        ProgramSettings(modules=("--force",))
    assert not list(tmp_path.rglob("pwned"))


def test_a_container_is_started_with_the_private_folder_and_its_image_is_watched(tmp_path: Path) -> None:
    container, image = tmp_path / "apptainer", tmp_path / "fake.sif"
    image.write_text("1.4")
    container.write_text('#!/bin/sh\n[ "$1 $2 $4 $5" = "exec --pwd $IMAGE fake_program" ] && echo "fake version $(cat "$4")"\n')
    container.chmod(0o755)
    launcher = (str(container), "exec", "--pwd", "{work}", str(image))
    said = ProgramSettings(launcher=launcher, environment={"IMAGE": str(image)})
    found = find_program(FAKE, said)
    assert (found.version, found.path) == ("1.4", Path("fake_program"))
    assert found.command_in(tmp_path) == [str(container), "exec", "--pwd", str(tmp_path), str(image), "fake_program"]
    image.write_text("1.5.1")
    assert find_program(FAKE, said).version == "1.5.1"
    with pytest.raises(
        WorkflowError, match=r"nothing, which the file of programs .ICESTREAM_PROGRAMS. wants to start fake_program"
    ):
        find_program(FAKE, ProgramSettings(launcher=("nothing",)))


def test_a_program_that_was_never_run_says_so() -> None:
    assert (FAKE.note, Program("p", never_run=True).note[:18]) == ("", "never run for real")


def test_an_upgrade_of_the_executable_is_seen(tmp_path: Path) -> None:
    path = write_program(tmp_path / "fake_program")
    said = ProgramSettings(path=str(path))
    assert find_program(FAKE, said).version == "1.2.3"
    write_program(tmp_path / "new", "1.3").replace(path)
    assert find_program(FAKE, said).version == "1.3"


@pytest.mark.parametrize(
    ("version", "told"),
    [
        (None, "is not at .*fake_program, where the file of programs .ICESTREAM_PROGRAMS. says"),
        ("0.9", "has version 0.9, tested versions: 1.0 or later, below 3"),
        ("", "reports no version; it printed 'fake version'"),
    ],
)
def test_a_program_that_cannot_be_used_is_told_by_name(tmp_path: Path, version: str | None, told: str) -> None:
    path = tmp_path / "fake_program"
    if version is not None:
        write_program(path, version)
    with pytest.raises(WorkflowError, match=told):
        find_program(FAKE, ProgramSettings(path=str(path)))
    if version == "0.9":
        assert find_program(FAKE, ProgramSettings(path=str(path), allow_untested=True)).version == "0.9"


def test_a_file_of_programs_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "programs.yaml"
    assert read_program_settings(None) == {}
    for text, told in [("ctffind: {pth: /x}", "ctffind.pth"), ("[1]", "dictionary"), ("a: {", "is not YAML")]:
        path.write_text(text)
        with pytest.raises(SessionError, match=told):
            read_program_settings(path)
    with pytest.raises(SessionError, match="cannot be read"):
        read_program_settings(tmp_path / "none.yaml")


def test_a_missing_program_is_told_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("ICESTREAM_PROGRAMS", raising=False)
    session = make_toy_session(tmp_path, steps_with(1, []), numbers=range(1))
    told = r"step 'fake' \(run_fake\): fake_program was not found in PATH \(/usr/bin:/bin\); install it, or give its `path`"
    with pytest.raises(WorkflowError, match=told):
        run_session(session, settings())
    with pytest.raises(WorkflowError, match=told):
        plan_edit(session, Set(step="fake", params={"words": ["--say", "x"]}), cores=1)
    assert not (session.folder / "icestream.db").exists()


def test_results_say_which_program_made_them_and_an_upgrade_computes_nothing_again(tmp_path: Path, program: Path) -> None:
    session = make_toy_session(tmp_path, steps_with(2, ["--say", "x"]), numbers=range(2))
    assert run_session(session, settings()).n_failed == 0
    first = outcomes_of(session)
    (made,) = set(software_of(session, "fake"))
    assert made.endswith(f", run_fake 1, fake_program 1.2.3 ({program})")
    assert json.loads(revisions_of(session, "fake")[0]["params"])["fake_program.program"] == "1.2.3"
    assert not list((session.folder / "work").iterdir())

    write_program(program, "1.9")
    arrive(tmp_path, range(3))
    more = {"steps": steps_with(3, ["--say", "x"])}
    document = session.document.model_validate({**session.document.model_dump(by_alias=True), **more})
    (session.folder / "session.yaml").write_text(dump_document(document))
    upgraded = open_session(session.folder)
    assert run_session(upgraded, settings()).n_failed == 0
    now = outcomes_of(session)
    assert [now["fake", name]["keys"] for name in "01"] == [first["fake", name]["keys"] for name in "01"]
    assert sorted(text.partition("fake_program ")[2][:5] for text in software_of(session, "fake")) == ["1.2.3", "1.2.3", "1.9 ("]
    assert len(revisions_of(session, "fake")) == 1
    told = "fake_program is 1.9 now; this revision was begun with 1.2.3 and continues without recomputing anything"
    assert [one.partition(" (")[0] for one in said_of(session, "fake") if "fake_program" in one] == [told]

    submit(upgraded, Restart(step="fake"), author="ann", settings=settings())
    assert run_session(upgraded, settings()).n_failed == 0
    assert [json.loads(row["params"])["fake_program.program"] for row in revisions_of(session, "fake")] == ["1.2.3", "1.9"]
    assert len(revisions_of(session, "next")) == 2
    assert [one for one in said_of(session, "fake") if "fake_program" in one] == []
    assert {now["fake", "0"]["keys"]["out"]} & {outcomes_of(session)["fake", "0"]["keys"]["out"]} == set()


def test_an_edit_begins_a_revision_with_the_program_of_today(tmp_path: Path, program: Path) -> None:
    session = make_toy_session(tmp_path, steps_with(1, ["--say", "x"]), numbers=range(1))
    run_session(session, settings())
    write_program(program, "1.9")
    submit(session, Set(step="fake", params={"words": ["--say", "y"]}), author="ann", settings=settings())
    run_session(open_session(session.folder), settings())
    assert [json.loads(row["params"])["fake_program.program"] for row in revisions_of(session, "fake")] == ["1.2.3", "1.9"]


def test_an_item_fails_with_the_end_of_the_log_and_its_folder_may_be_kept(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICESTREAM_KEEP_FAILED_WORK", "1")
    session = make_toy_session(tmp_path, steps_with(1, ["--say", "no such camera", "--exit", "4"]), numbers=range(1))
    assert run_session(session, settings()).n_failed == 1
    reason = outcomes_of(session)["fake", "0"]["reason"]
    assert "fake_program ended with exit status 4; its log is kept as session:logs/programs/fake/0_" in reason
    assert reason.endswith("\nno such camera")
    (log,) = (session.folder / "logs/programs/fake").iterdir()
    assert log.read_text() == "no such camera\n"
    (kept,) = (session.folder / "work").iterdir()
    assert kept.name.startswith("kept_fake_0_")
    assert (kept / "fake_program.log").read_text() == "no such camera\n"


def test_one_call_for_several_exposures_gives_an_item_for_each(tmp_path: Path, program: Path) -> None:
    calls = tmp_path / "calls"
    steps = {
        "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 6}},
        "doubled": {
            "use": "toys.programs:DoubleTogether",
            "in": {"number": "numbers"},
            "params": {"together": 3, "count_calls": str(calls)},
        },
        "next": {"use": f"{TOYS}:multiply", "in": {"number": "doubled.assignments"}, "params": {"factor": 10}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(6))
    assert run_session(session, settings()).n_failed == 0
    found = outcomes_of(session)
    records = {
        row["key"]: json.loads(row["record"])["value"]
        for row in read_rows(session, schema.result)
        if row["unit"] in {unit["unit"] for unit in read_rows(session, schema.exposure)}
    }
    assert [records[found["next", str(number)]["keys"]["out"]] for number in range(6)] == [20 * number for number in range(6)]
    assert 2 <= len(calls.read_text().splitlines()) < 6
