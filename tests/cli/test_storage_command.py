"""`icestream storage`: the table, a dry run, removing and undoing, rules of a folder of sessions, raw data with a copy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.facility import raw_deletion, retention
from icestream.facility.raw_copies import CopyLedger
from icestream.files import SESSION_STORAGE
from icestream.flow.storage.session import Session, open_session
from toys.session import make_toy_session, toy_steps
from virtual.machine import VirtualMachine
from web.raw_session import note_raw_file


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    session = make_toy_session(folder, toy_steps(4), numbers=range(4))
    VirtualMachine(session).run_out()
    note_raw_file(session, "3")
    return folder


@pytest.fixture
def session(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ICESTREAM_MIN_FREE_GB", "0")
    shutil.copytree(finished, tmp_path / "here")
    return open_session(tmp_path / "here" / "session")


def storage(folder: Path, *options: str, status: int = 0) -> str:
    answer = CliRunner().invoke(app, ["storage", str(folder), *options])
    assert answer.exit_code == status, answer.output
    return answer.output


def test_the_table_a_dry_run_a_removal_and_its_undo(session: Session) -> None:
    found = json.loads(storage(session.folder, "--json"))
    triple = next(one for one in found["steps"] if one["step"] == "triple")
    assert (triple["files"], triple["again"]) == (4, True)
    assert "can be computed again" in storage(session.folder)
    planned = json.loads(storage(session.folder, "--remove", "metadata", "--step", "triple", "--dry-run", "--json"))
    assert (planned["bytes"], planned["kept"]) == (triple["bytes"], {})
    said = storage(session.folder, "--remove", "all", "--step", "triple", "--yes", "--reason", "full")
    assert said.startswith("4 files, 0.0 MB removed (no. 1)")
    assert "4 files" in storage(session.folder)
    assert storage(session.folder, "--undo", "1") == "4 files are put back\n"
    assert json.loads(storage(session.folder, "--json"))["steps"] == found["steps"]
    assert "refused" in storage(session.folder, "--undo", "1", status=1)
    assert storage(session.folder, "--empty") == "nothing in the trash has reached its time\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--remove", "raw", "--dry-run"), "raw: cannot be removed (raw data are deleted by `--delete-raw`)"),
        (("--remove", "everything", "--dry-run"), "'everything'"),
        (("--remove", "all", "--step", "nowhere", "--dry-run"), "no step is called 'nowhere'"),
        (("--delete-raw", "toy"), "no raw file can be deleted (1 file stays: there is no verified copy"),
        (("--verify", "/nowhere"), "/nowhere: is not a folder"),
        (("--keep-raw", "1"), "deletion 1 of raw data: is unknown"),
    ],
)
def test_what_is_not_possible_is_said(session: Session, options: tuple[str, ...], told: str) -> None:
    assert told in storage(session.folder, *options, status=1)


def test_rules_are_applied_to_a_folder_of_sessions(session: Session) -> None:
    (session.folder / SESSION_STORAGE).write_text("rules: [{name: old, kinds: [metadata], steps: [triple], after_hours: 0}]")
    above = session.folder.parent
    assert storage(above, "--apply", "--dry-run") == "session: old: 4 files, 0.0 MB would be removed\n"
    assert "session: old: 4 files, 0.0 MB removed (no. 1)" in storage(above, "--apply")
    assert [one["files"] for one in json.loads(storage(above, "--apply", "--dry-run", "--json"))] == [0]
    (session.folder / SESSION_STORAGE).write_text("rules: [{name: old, kinds: [raw], after_hours: 0}]")
    assert "is not removed by rules" in storage(above, "--apply", status=1)


def test_a_rule_that_is_not_allowed_stops_neither_the_trash_nor_raw_data(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    (session.folder / SESSION_STORAGE).write_text("rules: [{name: a, kinds: [raw], after_hours: 1}]", encoding="utf-8")
    called: list[str] = []

    def note(name: str) -> Callable[..., list[object]]:
        def noted(*_given: object, **_named: object) -> list[object]:
            called.append(name)
            return []

        return noted

    monkeypatch.setattr(retention, "empty_due_trash", note("trash"))
    monkeypatch.setattr(raw_deletion, "carry_out_due", note("raw"))
    assert "is not removed by rules" in storage(session.folder, "--apply", status=1)
    assert called == ["trash", "raw"]


def test_raw_data_are_verified_and_their_deletion_is_withdrawn(session: Session) -> None:
    archive = session.folder.parent / "archive"
    assert storage(session.folder, "--verify", str(archive)).startswith("1 raw files are equal to their copies, 0 were before")
    assert "1 raw files, 8 B, could be deleted" in storage(session.folder, "--delete-raw", "toy", "--dry-run")
    assert "is not the name of this session" in storage(session.folder, "--delete-raw", "session", status=1)
    assert "waiting after" in storage(session.folder, "--delete-raw", "toy", "--reason", "archived")
    assert "deletion 1 of raw data" in storage(session.folder)
    storage(session.folder, "--apply")
    assert (session.folder.parent / "numbers" / "3").exists()
    assert "nothing was deleted" in storage(session.folder, "--keep-raw", "1")
    (archive / "3").write_bytes(b"other")
    assert CopyLedger(session).places([]) == {}
    assert "differs" in storage(session.folder, "--verify", str(archive), status=3)
