"""Folders that are away for a while: the session waits for them, and no exposure is to blame."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from icestream.errors import SourceGone
from icestream.flow import Context, Field, Params, step
from icestream.flow.runner.health import Health
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.session import DOCUMENT, Session, SessionDocument, dump_document, open_session
from icestream.settings import Settings
from toys.session import TOYS, make_toy_session, outcomes_of, read_rows
from toys.steps import Number

HERE = __name__
SETTINGS = Settings(cores=1)


class ReadParams(Params):
    """When to read."""

    away: str = Field("", description="This folder of the session is moved away before number 1 is read; a marker says so")


@step.map("reread", version=1)
def reread(number: Number, params: ReadParams, ctx: Context) -> Number:
    """Read a number from its file, as a later step reads an image."""
    assert number.file is not None
    path, mark = ctx.path(number.file), ctx.path("session:moved")
    if params.away and not mark.exists():
        mark.touch()
        home = ctx.path("session:.")
        (home / params.away).resolve().rename(home / "elsewhere")
    if not path.exists() or (params.away and not (ctx.path("session:.") / params.away).exists()):
        raise SourceGone(f"{path}: the file is not there")
    return Number(value=int(path.read_text().split()[0]))


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icestream.flow.runner.pausing._LOOK_S", 0.05)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # workers find the step of this file


def steps_for(count: int, **params: Any) -> dict[str, Any]:
    return {
        "n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": count}},
        "double": {"use": f"{TOYS}:multiply", "in": {"number": "n"}},
        "read": {"use": f"{HERE}:reread", "in": {"number": "double"}, "params": params},
    }


def statuses(session: Session, name: str) -> list[str]:
    return [row["status"] for (of, _), row in outcomes_of(session).items() if of == name]


def test_results_that_vanish_for_a_while_pause_the_session_and_fail_nothing(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, steps_for(6, away="steps"), numbers=range(6))
    folder, elsewhere = session.folder / "steps", session.folder / "elsewhere"
    held: list[str] = []

    def watch(status: Any) -> None:
        if status.pause is not None and elsewhere.is_dir():
            held.append(status.pause.reason)
            assert not folder.exists(), "somebody made the folder anew"
            if len(held) == 5:
                elsewhere.rename(folder)

    assert run_session(session, SETTINGS, on_change=watch).finished
    assert held[0] == f"{folder}: the folder of results is missing"
    assert statuses(session, "read") == ["item"] * 6
    assert read_rows(session, schema.failure) == []
    assert [row["level"] for row in read_rows(session, schema.notice)] == ["alert", "info"]


def test_results_that_are_back_before_anybody_looked_fail_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_toy_session(tmp_path, steps_for(3, away="steps"), numbers=range(3))
    real = Health.trouble

    def back_by_then(self: Health) -> str | None:
        if (session.folder / "elsewhere").is_dir():
            (session.folder / "elsewhere").rename(session.folder / "steps")
        return real(self)

    monkeypatch.setattr(Health, "trouble", back_by_then)
    assert run_session(session, SETTINGS).finished
    assert statuses(session, "read") == ["item"] * 3


def test_a_single_file_that_is_gone_is_a_clear_failure(tmp_path: Path) -> None:
    steps = steps_for(3)
    del steps["read"]
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    run_session(session, SETTINGS)
    gone = next((session.folder / "steps/double").rglob("1_*"))
    gone.unlink()
    session = edited(session, steps_for(3))
    assert run_session(session, SETTINGS).finished
    failed = [row for (step_name, _), row in outcomes_of(session).items() if (step_name, row["status"]) == ("read", "failed")]
    assert [row["reason"] for row in failed] == [f"{gone}: the file is not there"]
    assert {row["kind"] for row in read_rows(session, schema.failure)} == {"gone"}
    assert read_rows(session, schema.notice) == []


def edited(session: Session, steps: dict[str, Any]) -> Session:
    document = SessionDocument.model_validate(session.document.model_dump(by_alias=True, exclude_unset=True) | {"steps": steps})
    (session.folder / DOCUMENT).write_text(dump_document(document))
    return open_session(session.folder)


def test_what_fails_while_raw_data_are_away_is_not_counted(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, steps_for(3, away="../numbers"), numbers=range(3))
    elsewhere, held = session.folder / "elsewhere", []

    def watch(status: Any) -> None:
        if status.pause is not None and elsewhere.is_dir():
            held.append(status.pause.reason)
            elsewhere.rename(tmp_path / "numbers")

    assert run_session(session, SETTINGS, on_change=watch).finished
    assert "was there before and is missing now" in held[0]
    assert read_rows(session, schema.failure) == []


def test_a_folder_of_results_that_is_empty_or_missing_at_the_start_is_waited_for(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, steps_for(2), numbers=range(2))
    run_session(session, SETTINGS)
    folder = session.folder / "steps"
    folder.rename(session.folder / "elsewhere")
    assert looked(session) == f"{folder}: the folder of results is missing"
    folder.mkdir()
    assert looked(session) == f"{folder}: is empty although the session has results; was the disk unmounted?"
    folder.rmdir()
    folder.symlink_to(tmp_path / "no_disk")
    assert looked(session) == f"{folder}: the folder of results is missing"
    folder.unlink()
    (session.folder / "elsewhere").rename(folder)
    assert looked(session) is None


def looked(session: Session) -> str | None:
    look = Health(session, 0.0)
    engine = engine_for(session.store_at)
    with engine.connect() as connection:
        look.expect_results(connection)
    engine.dispose()
    return look.trouble()


def test_results_on_another_disk_than_before_are_no_results(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, steps_for(0), numbers=range(0))
    (session.folder / "steps").mkdir()
    look = Health(session, 0.0)
    assert look.trouble() is None
    look.devices[str(session.folder / "steps")] += 1
    assert look.trouble() == f"{session.folder / 'steps'}: is on a different file system than before; was the disk unmounted?"


def test_a_folder_of_results_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_toy_session(tmp_path, steps_for(0), numbers=range(0))
    (session.folder / "steps").mkdir()
    real = Path.write_bytes

    def write(self: Path, data: bytes) -> int:
        if self.parent.name == "steps":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    assert Health(session, 0.0).trouble() == f"{session.folder / 'steps'}: cannot be written to: Read-only file system"
