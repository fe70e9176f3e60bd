"""Raw data that must stay: where the copy is the file itself, where something needs it, where somebody has changed their mind."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, update

from icestream.errors import SessionError
from icestream.facility import raw_copies, raw_deletion, raw_needs
from icestream.facility.deletion_requests import DeletionRequests
from icestream.facility.raw_copies import CopyLedger
from icestream.facility.raw_deletion import (
    ITSELF,
    NO_COPY,
    ask_for_deletion,
    carry_out_due,
    plan_raw_deletion,
    read_deletions,
    withdraw_deletion,
)
from icestream.facility.raw_needs import EXPORTED, FAILED, NOT_REJECTED, ONLY_SOURCE, SHARED, UNKNOWN
from icestream.flow.storage import DOCUMENT, engine_for, schema
from icestream.flow.storage.session import Session, open_session
from icestream.settings import Settings
from toys.session import make_toy_session, read_rows, toy_steps
from virtual.machine import VirtualMachine

ALL = {"0", "1"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    session = make_toy_session(folder, toy_steps(2), numbers=range(2))
    VirtualMachine(session).run_out()
    with writing(session) as connection:
        for row in read_rows(session, schema.exposure):
            path = folder / "numbers" / row["name"]
            path.write_bytes(row["name"].encode() * 1000)
            seen = path.stat()
            told = {"ref": f"numbers:{row['name']}", "size_bytes": seen.st_size, "modified_ns": seen.st_mtime_ns}
            connection.execute(insert(schema.source_file).values(unit=row["unit"], step="numbers", **told))
    return folder


def writing(session: Session) -> AbstractContextManager[Connection]:
    return engine_for(session.store_at).begin()


@pytest.fixture
def session(finished: Path, tmp_path: Path) -> Session:
    shutil.copytree(finished, tmp_path / "here")
    found = open_session(tmp_path / "here" / "session")
    shutil.copytree(tmp_path / "here" / "numbers", tmp_path / "archive")
    assert CopyLedger(found).verify("numbers", tmp_path / "archive").verified == 2
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cores=1, min_free_gb=0, state=tmp_path / "state")


def numbers(session: Session) -> Path:
    return session.folder.parent / "numbers"


def raw(session: Session) -> set[str]:
    return {path.name for path in numbers(session).iterdir()}


def ask(session: Session, settings: Settings, *, rejected: bool = False) -> int:
    asked = ask_for_deletion(session, settings, typed_name="toy", author="eva", undo_hours=2.0, rejected=rejected)
    return asked.id


def carry_out(session: Session, settings: Settings) -> str | None:
    (done,) = carry_out_due(session, settings, now=time.time() + 3 * 3600)
    return done.note


def kept(session: Session, settings: Settings) -> dict[str, int]:
    return dict(plan_raw_deletion(session, state=settings.state).kept)


def during_reading(monkeypatch: pytest.MonkeyPatch, event: Callable[[], object]) -> None:
    """Let something happen while a copy is read again."""
    read = raw_copies.digest_of

    def digest_of(path: Path) -> str:
        event()
        return read(path)

    monkeypatch.setattr(raw_copies, "digest_of", digest_of)


def test_raw_data_are_no_copy_of_themselves_by_another_path(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "resolve", Path.absolute)  # as two mounts, which no path tells apart
    (tmp_path / "mounted").symlink_to(numbers(session))
    with pytest.raises(SessionError, match="is the folder of the raw data itself, by another path"):
        CopyLedger(session).verify("numbers", tmp_path / "mounted")
    assert raw(session) == ALL


def test_folders_that_nobody_can_tell_apart_are_refused(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_made_in: Path, _looked_in: Path) -> bool:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(raw_copies, "are_one_folder", refuse)
    with pytest.raises(SessionError, match="neither can be written"):
        CopyLedger(session).verify("numbers", tmp_path / "archive")


def test_a_copy_that_has_become_the_file_itself_is_none(
    session: Session, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(session, settings)
    with CopyLedger(session).open() as connection, connection:  # somebody has written that the file is its own copy
        for name in ALL:
            path = numbers(session) / name
            connection.execute("UPDATE copy SET place = ?, place_stamp = stamp WHERE ref = ?", (str(path), f"numbers:{name}"))
    assert kept(session, settings) == {NO_COPY: 2}
    monkeypatch.setattr(raw_copies, "is_one_file", lambda _one, _other: False)  # as with two devices
    monkeypatch.setattr(raw_deletion, "is_one_file", lambda _one, _other: False)
    assert carry_out(session, settings) == f"2 files stay: {ITSELF}"
    assert raw(session) == ALL


def test_a_place_behind_a_link_is_no_copy(session: Session, settings: Settings, tmp_path: Path) -> None:
    shutil.move(tmp_path / "archive", tmp_path / "moved")
    (tmp_path / "archive").symlink_to(tmp_path / "moved")
    assert kept(session, settings) == {NO_COPY: 2}


def test_what_is_no_longer_rejected_is_kept(session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    units = {row["unit"] for row in read_rows(session, schema.exposure)}
    monkeypatch.setattr(raw_needs, "find_rejected", lambda *_given: units)
    assert read_deletions(session, state=settings.state) == []
    ask(session, settings, rejected=True)
    monkeypatch.setattr(raw_needs, "find_rejected", lambda *_given: set())
    assert carry_out(session, settings) == f"2 files stay: {NOT_REJECTED}"
    assert raw(session) == ALL


def test_a_copy_of_a_session_carries_no_request(session: Session, settings: Settings, tmp_path: Path) -> None:
    ask(session, settings)
    later = time.time() + 3 * 3600
    twin = tmp_path / "there"
    shutil.copytree(tmp_path / "here", twin)
    assert carry_out_due(open_session(twin / "session"), settings, now=later) == []
    (tmp_path / "here").rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "here")
    assert carry_out_due(open_session(session.folder), settings, now=later) == [], "it is at the same path"
    assert not any("deletion" in str(path) for path in session.folder.rglob("*"))


def test_raw_files_that_an_export_leads_to_stay(session: Session, settings: Settings) -> None:
    (session.folder / "exports" / "one").mkdir(parents=True)
    (session.folder / "exports" / "one" / "movie").symlink_to(numbers(session) / "0")
    assert kept(session, settings) == {EXPORTED: 1}


def test_raw_files_of_another_session_stay(session: Session, settings: Settings) -> None:
    other = session.folder.parent / "other"
    other.mkdir()
    shutil.copy(session.folder / DOCUMENT, other / DOCUMENT)
    assert kept(session, settings) == {SHARED: 2}
    (other / DOCUMENT).write_text("{", encoding="utf-8")
    assert kept(session, settings) == {UNKNOWN: 2}


def test_raw_files_of_failed_exposures_stay(session: Session, settings: Settings) -> None:
    unit = next(row["unit"] for row in read_rows(session, schema.exposure) if row["name"] == "0")
    with writing(session) as connection:
        connection.execute(update(schema.outcome).where(schema.outcome.c.unit == unit).values(status="failed"))
    assert kept(session, settings) == {FAILED: 1}


@pytest.mark.parametrize(("what", "expected"), [("{}", {ONLY_SOURCE: 1}), ('{"even_if_lost": true}', {})])
def test_raw_files_from_which_removed_files_come_back_stay(
    session: Session, settings: Settings, what: str, expected: dict[str, int]
) -> None:
    unit = next(row["unit"] for row in read_rows(session, schema.exposure) if row["name"] == "0")
    key = next(row["key"] for row in read_rows(session, schema.result) if row["unit"] == unit)
    with writing(session) as connection:
        told = {"author": "eva", "reason": "", "state": "gone", "n_files": 1, "n_bytes": 1, "at": 1.0, "goes_at": 1.0}
        connection.execute(insert(schema.removal).values(id=1, what=what, **told))
        connection.execute(
            insert(schema.removed_file).values(ref="session:steps/a/1/b", key=key, removal=1, size_bytes=1, wanted=False)
        )
    assert kept(session, settings) == expected


def test_what_is_needed_while_its_copy_is_read_again_stays(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(session, settings)

    def fail() -> None:
        with writing(session) as connection:
            connection.execute(update(schema.outcome).values(status="failed"))

    during_reading(monkeypatch, fail)
    assert carry_out(session, settings) == f"2 files stay: {FAILED}"
    assert raw(session) == ALL


def test_a_deletion_can_be_withdrawn_while_it_is_carried_out(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = ask(session, settings)
    monkeypatch.setattr(raw_deletion, "fault_point", lambda _name: withdraw_deletion(session, settings, number, author="ana"))
    done = carry_out_due(session, settings, now=time.time() + 3 * 3600)
    assert [one.state for one in done] == ["withdrawn"]
    assert len(raw(session)) == 1
    assert carry_out_due(session, settings, now=time.time() + 3 * 3600) == []


def test_a_file_is_not_deleted_that_was_being_read_when_it_was_withdrawn(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = DeletionRequests(session, settings.state)
    number = ask(session, settings)

    def withdraw() -> None:
        if requests.is_going_on(number):
            withdraw_deletion(session, settings, number, author="ana")

    during_reading(monkeypatch, withdraw)
    carry_out(session, settings)
    assert raw(session) == ALL


def test_a_copy_that_cannot_be_read_is_told_and_is_none(
    session: Session, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(session, settings)

    def fail(_path: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(raw_copies, "digest_of", fail)
    assert carry_out(session, settings) == f"2 files stay: {NO_COPY}"
    assert raw(session) == ALL
    shutil.copytree(tmp_path / "archive", tmp_path / "second")
    refused = CopyLedger(session).verify("numbers", tmp_path / "second").refused
    assert all("cannot be read: Input/output error" in why for why in refused.values())
    assert len(refused) == 2


def test_two_processes_never_delete_at_once(session: Session, settings: Settings) -> None:
    ask(session, settings)
    with DeletionRequests(session, settings.state).held() as ours:
        assert ours
        assert carry_out_due(session, settings, now=time.time() + 3 * 3600) == []
        assert raw(session) == ALL
    assert carry_out(session, settings) is None
    assert raw(session) == set()


def test_stamps_do_not_change_where_a_disk_is_mounted_again(session: Session) -> None:
    seen = os.lstat(numbers(session) / "0")
    mounted_again = os.stat_result((*seen[:2], seen.st_dev + 1, *seen[3:]), {"st_mtime_ns": seen.st_mtime_ns})
    assert raw_copies.stamp(mounted_again) == raw_copies.stamp(seen)
