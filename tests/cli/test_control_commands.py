"""Controlling a session from the command line: each command against a session of small steps."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from icestream.cli import app
from icestream.cli.edit import read_params
from icestream.cli.planned import size, span
from icestream.errors import WorkflowError
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, open_session
from icestream.settings import Settings
from toys.session import make_toy_session, outcomes_of, read_rows, toy_steps


def call(*words: str | Path, input: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=input)


def done(*words: str | Path, input: str | None = None) -> str:
    result = call(*words, input=input)
    assert result.exit_code == 0, result.output
    return result.output


def told(*words: str | Path) -> Any:
    return json.loads(done(*words, "--json"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a session that has run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    run_session(make_toy_session(folder, toy_steps(6), numbers=range(6)), Settings(cores=2))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, as the folder of the session."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy" / "session"


def at(session: Session, step: str, unit: str) -> dict[str, Any]:
    return outcomes_of(session)[step, unit]


def test_a_pause_is_shown_and_ends_with_resume(folder: Path) -> None:
    done("pause", folder, "--reason", "changing the [gain]")
    assert "paused by " in done("status", folder)
    assert "changing the [gain]" in done("status", folder)
    assert told("status", folder)["overview"]["pause"]["reason"] == "changing the [gain]"
    assert "changing the [gain]" in done("why", folder)
    assert done("resume", folder) == "resumed\n"
    assert told("status", folder)["overview"]["pause"] is None


def test_what_nobody_carries_out_is_refused_with_a_status(folder: Path) -> None:
    for words in (("close", folder, "nothing_there"), ("set", folder, "odd", "factr=3"), ("restart", folder, "--from", "oddd")):
        result = call(*words)
        assert (result.exit_code, result.stderr[:8]) == (1, "refused:"), words
    assert call("close", folder, "nothing_there", "--json").exit_code == 1
    assert "not running" in call("stop", folder).stderr


def test_set_has_a_dry_run_and_goes_back_to_the_default(folder: Path) -> None:
    plan = told("set", folder, "odd", "factor=7", "--dry-run")
    steps = {step["step"]: step for step in plan["steps"]}
    assert (steps["odd"]["computed"], steps["any"]["computed"], steps["any"]["reused"]) == (3, 3, 3)
    assert "results to compute" in done("set", folder, "odd", "factor=7", "--dry-run")
    assert open_session(folder).document.steps["odd"].params == {"factor": 5}
    assert told("set", folder, "odd", "factor=7", "--reason", "why not")["answer"] == "applied: odd (factor: 5 → 7)"
    assert done("set", folder, "odd", "factor=") == "applied: odd (factor: 7 → default)\n"
    assert open_session(folder).document.steps["odd"].params == {}
    history = done("history", folder)
    assert "set odd factor=7 (why not)" in history
    assert "odd got revision 3" in history


def test_values_are_yaml_and_names_come_once() -> None:
    assert read_params(["a=[1, 2.5]", "b=true", "c=", "d=null"]) == {"a": [1, 2.5], "b": True, "c": None, "d": None}
    with pytest.raises(WorkflowError, match="a: given twice"):
        read_params(["a=1", "a=2"])


def test_branch_restart_and_apply(folder: Path) -> None:
    assert {s["step"] for s in told("branch", folder, "newest", "--as", "other", "--dry-run")["steps"]} == {"other"}
    assert "other is new" in done("branch", folder, "newest", "--as", "other")
    assert "nothing changes" in done("apply", folder)
    assert "nothing would be recomputed" in done("apply", folder, "--dry-run")
    assert told("restart", folder, "--from", "sums", "--dry-run")["computed"] == len(
        read_rows(open_session(folder), schema.batch)
    )
    assert "recomputed: sums" in done("restart", folder, "--from", "sums")


def test_reset_and_clean_free_the_disk(folder: Path) -> None:
    done("reset", folder, "--from", "odd", "--yes")
    lines = {step["step"]: step for step in told("clean", folder, "--dry-run")["steps"]}
    assert (lines["odd"]["results"], lines["odd"]["files"]) == (3, 3)
    assert "in total" in done("clean", folder, "--dry-run")
    assert "results" in done("clean", folder, "--yes")
    assert done("clean", folder, "--dry-run") == "nothing to clean up\n"


def test_exposures_are_rejected_by_name_pattern_file_and_pipe(folder: Path, tmp_path: Path) -> None:
    session = open_session(folder)
    (tmp_path / "list").write_text("4\n\n 5 \n")
    assert done("reject", folder, "1", "--reason", "ice") == "1 is rejected at numbers\n"
    assert done("reject", folder, "[23]", "--step", "triple").count("rejected at triple") == 2
    assert [one["state"] for one in told("reject", folder, "--from-file", tmp_path / "list")] == ["done", "done"]
    assert done("reject", folder, "-", input="0\n") == "0 is rejected at numbers\n"
    assert at(session, "numbers", "1")["reason"].endswith(": ice")
    assert at(session, "triple", "2")["status"] == "rejected"
    assert "rejected by hand" in done("trace", folder, "1")
    assert done("accept", folder, "1") == "1 is accepted at numbers\n"
    assert done("withdraw", folder, "2", "1").count("no longer overridden") == 2
    assert at(session, "triple", "2")["status"] == "item"
    assert "3 at triple: rejected by hand" in done("history", folder)
    assert "overridden" in done("status", folder)


def test_mistakes_in_naming_exposures(folder: Path) -> None:
    assert "no exposure given" in call("reject", folder).stderr
    assert "no exposure of this session" in call("reject", folder, "x*").stderr
    assert "could be any of" not in call("reject", folder, "77").stderr
    assert call("reject", folder, "77").exit_code == 1
    assert "there is no override for" in call("withdraw", folder, "2").stderr


def test_revisions_are_listed_and_compared(folder: Path) -> None:
    assert done("revisions", folder) == "every step still has its initial parameters\n"
    done("set", folder, "even", "divisor=4")
    done("set", folder, "triple", "factor=4")
    run_session(open_session(folder), Settings(cores=2))
    listed = {row["number"]: row for row in told("revisions", folder, "triple")}
    assert listed[2]["changed"]["factor"] == [3, 4]
    assert listed[1]["counts"] == listed[2]["counts"] == {"item": 6}
    assert "factor: 3 → 4" in done("revisions", folder)
    compared = told("revisions", folder, "triple", "--compare", "1", "2")
    assert compared["medians"] == [{"field": "value", "first": 7.5, "second": 10.0, "n_first": 6, "n_second": 6}]
    differing = {
        one["exposure"]: (one["first"], one["second"])
        for one in told("revisions", folder, "even", "--compare", "1", "3")["differing"]
    }
    assert differing == {"1": ("rejected", "item"), "3": ("rejected", "item"), "5": ("rejected", "item")}
    assert "rejected" in done("revisions", folder, "even", "--compare", "1", "3")
    assert "has no revision 9" in call("revisions", folder, "even", "--compare", "1", "9").stderr
    assert "name the step" in call("revisions", folder, "--compare", "1", "2").stderr


def test_a_version_of_a_whole_shows_what_it_was_made_from(folder: Path) -> None:
    newest = told("trace", folder, "total")
    assert sorted(newest["members"]) == list("012345")
    assert newest["params"] == {"fail_on": []}
    first = told("trace", folder, "total:1")
    assert first["version"] == 1
    assert set(first["members"]) <= set(newest["members"])
    assert told("trace", folder, newest["key"])["version"] == newest["version"]
    assert f"made from {len(newest['members'])} exposures" in done("trace", folder, "total")
    assert "no version 99" in call("trace", folder, "total:99").stderr


def test_why_names_the_end_of_a_finished_exposure(folder: Path) -> None:
    assert "has been decided by every step" in done("why", folder, "2")
    assert "rejected: 3 is no multiple of 2" in done("why", folder, "1")
    assert "no exposure" in call("why", folder, "99").stderr
    assert {line["step"] for line in told("why", folder)} == {None, *toy_steps(6)}


def test_the_report_tells_who_did_what(folder: Path) -> None:
    done("pause", folder, "--reason", "<b>lunch</b>")
    done("reject", folder, "1", "--reason", "ice")
    call("restart", folder, "--from", "nothing")
    page = Path(done("report", folder).removeprefix("report: ").strip()).read_text(encoding="utf-8")
    assert "What people did" in page
    assert "&lt;b&gt;lunch&lt;/b&gt;" in page
    assert "<b>lunch</b>" not in page
    assert "reject 1 (ice)" in page
    assert "refused: no step is called" in page
    assert "rejected by hand by " in page


def test_numbers_are_written_for_people() -> None:
    assert [span(value) for value in (None, 0, 0.2, 42.4, 600, 90000)] == ["unknown", "", "< 1 s", "42 s", "10 min", "25.0 h"]
    assert [size(value) for value in (None, 0, 12, 1500, 2_500_000_000)] == ["unknown", "", "12 B", "1.5 kB", "2.5 GB"]
