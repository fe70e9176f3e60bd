"""Rules of what is removed, applied to sessions; and raw data, which only go with a verified copy, a typed name and time."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from icestream.errors import SessionError
from icestream.facility import raw_deletion
from icestream.facility.raw_copies import CopyLedger
from icestream.facility.raw_deletion import (
    A_LINK,
    CHANGED,
    NO_COPY,
    ask_for_deletion,
    carry_out_due,
    plan_raw_deletion,
    read_deletions,
    withdraw_deletion,
)
from icestream.facility.raw_needs import PROCESSED
from icestream.facility.retention import apply_rules, empty_due_trash, rules_for, write_rules_text
from icestream.files import SESSION_STORAGE
from icestream.flow.commands.removable import BROUGHT_BACK
from icestream.flow.commands.requests import Restart
from icestream.flow.storage import engine_for, schema
from icestream.flow.storage.session import Session, open_session
from icestream.settings import Settings
from toys.session import make_toy_session, read_rows, toy_steps
from virtual.machine import VirtualMachine

RULES = """
rules:
  - {name: old, kinds: [metadata], steps: [triple, nowhere], after_hours: 0, undo_hours: 5}
  - {name: sums, kinds: [micrographs, particles], state: finished, after_hours: 0}
  - {name: bad, kinds: [metadata], state: rejected, after_hours: 24}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session that has run to its end, whose numbers have content and are noted as the raw files that they were taken from."""
    folder = tmp_path_factory.mktemp("finished")
    session = make_toy_session(folder, toy_steps(4), numbers=range(4))
    VirtualMachine(session).run_out()
    engine = engine_for(session.store_at)
    with engine.begin() as connection:
        for row in connection.execute(select(schema.exposure.c.unit, schema.exposure.c.name)).all():
            path = folder / "numbers" / row.name
            path.write_bytes(row.name.encode() * 1000)
            seen = path.stat()
            values = {
                "step": "numbers",
                "ref": f"numbers:{row.name}",
                "size_bytes": seen.st_size,
                "modified_ns": seen.st_mtime_ns,
            }
            connection.execute(insert(schema.source_file).values(unit=row.unit, **values))
    engine.dispose()
    return folder


@pytest.fixture
def session(finished: Path, tmp_path: Path) -> Session:
    shutil.copytree(finished, tmp_path / "here")
    found = open_session(tmp_path / "here" / "session")
    engine = engine_for(found.store_at)
    with engine.begin() as connection:  # its files are as old as their results
        connection.execute(update(schema.result).values(created_at=time.time() - 1))
    engine.dispose()
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cores=1, min_free_gb=0, state=tmp_path / "state")


@pytest.fixture
def copy(session: Session, tmp_path: Path) -> Path:
    """A copy of the raw data, verified."""
    shutil.copytree(session.folder.parent / "numbers", tmp_path / "archive")
    found = CopyLedger(session).verify("numbers", tmp_path / "archive")
    assert (found.verified, found.known, found.refused) == (4, 0, {})
    return tmp_path / "archive"


def raw(session: Session) -> set[str]:
    return {path.name for path in (session.folder.parent / "numbers").iterdir()}


def ask(session: Session, settings: Settings, **changes: Any) -> int:
    given: dict[str, Any] = {"typed_name": "toy", "author": "eva", "undo_hours": 2.0} | changes
    return ask_for_deletion(session, settings, **given).id


def later(session: Session, settings: Settings) -> float:
    return read_deletions(session, state=settings.state)[0].goes_at + 1


def test_rules_remove_and_say_so_in_the_history(session: Session, settings: Settings) -> None:
    write_rules_text(session.folder, RULES)
    planned = list(apply_rules(session, settings, author="eva", dry_run=True))
    assert [(one.rule, len(one.found.files), one.answer) for one in planned if one.found] == [
        ("old", 4, None),
        ("sums", 0, None),
        ("bad", 0, None),
    ]
    assert read_rows(session, schema.removal) == []
    done = {one.rule: one.answer for one in apply_rules(session, settings, author="eva", dry_run=False)}
    assert str(done["old"]).startswith("4 files")
    (row,) = read_rows(session, schema.removal)
    assert (row["author"], row["state"], round(row["goes_at"] - row["at"])) == ("eva", "trash", 5 * 3600)
    assert next(empty_due_trash(session, settings, author="eva")).answer == "nothing in the trash has reached its time"
    assert [row["kind"] for row in read_rows(session, schema.command)] == ["remove", "empty_trash"]
    assert any("the rule old of eva" in row["message"] for row in read_rows(session, schema.notice))


def test_a_rule_does_not_remove_again_what_was_just_put_back(session: Session, settings: Settings) -> None:
    write_rules_text(session.folder, RULES)
    engine = engine_for(session.store_at)
    with engine.begin() as connection:
        connection.execute(update(schema.result).values(created_at=time.time() - 3 * 3600))
    engine.dispose()
    (first, *_) = apply_rules(session, settings, author="eva", dry_run=True)
    assert first.found is not None
    assert dict(first.found.kept) == {BROUGHT_BACK: 4}, "their files are newer than their results"
    write_rules_text(session.folder, "rules: [{name: old, kinds: [metadata], after_hours: 1, undo_hours: 0}]")
    (first, *_) = apply_rules(session, settings, author="eva", dry_run=True)
    assert first.found is not None
    assert set(first.found.kept) == {BROUGHT_BACK}, "age counts from when they were put back"
    write_rules_text(session.folder, "rules: [{name: old, kinds: [metadata], steps: [triple], after_hours: 0, undo_hours: 0}]")
    (first, *_) = apply_rules(session, settings, author="eva", dry_run=True)
    assert first.found is not None
    assert len(first.found.files) == 4


def test_the_rules_of_a_session_come_before_those_of_the_facility(session: Session, tmp_path: Path) -> None:
    facility = tmp_path / "facility.yaml"
    facility.write_text(RULES)
    write_rules_text(session.folder, "without: [sums]\nrules:\n  - {name: old, kinds: [thumbnails], after_hours: 1}\n")
    assert [(one.name, one.kinds) for one in rules_for(session, facility)] == [("old", ("thumbnails",)), ("bad", ("metadata",))]
    with pytest.raises(SessionError, match="without: 'sums' is not a rule of the facility; there are none"):
        rules_for(session, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules: [{name: a, kinds: [raw], after_hours: 1}]", r"rule 'a': kinds: 'raw' is not removed by rules"),
        ("rules: [{name: a, kinds: [metadata], after_hours: -1}]", r"rule 'a': after_hours: .*\(got -1\)"),
        ("rules: [{name: a, kinds: [metadata]}]", r"rule 'a': after_hours: field required"),
        ("rules: [{name: a, kinds: [metadata], after_hours: 1}, {name: a, kinds: [metadata], after_hours: 1}]", "there twice"),
        ("rules: [1]", "rule 1"),
        ("[]", "must be a map"),
        ("rules: {", "storage.yaml"),
    ],
)
def test_a_rule_that_is_not_allowed_is_told(session: Session, text: str, told: str) -> None:
    with pytest.raises(SessionError, match=told):
        write_rules_text(session.folder, text)
    assert not (session.folder / SESSION_STORAGE).exists()


def test_without_rules_nothing_is_removed(session: Session, settings: Settings) -> None:
    assert list(apply_rules(session, settings, author="eva", dry_run=False)) == []


def test_raw_data_without_a_verified_copy_stay(session: Session, settings: Settings, tmp_path: Path) -> None:
    assert plan_raw_deletion(session, state=session.folder).kept == {NO_COPY: 4}
    with pytest.raises(SessionError, match=f"no raw file can be deleted \\(4 files stay: {NO_COPY}\\)"):
        ask(session, settings)
    numbers = session.folder.parent / "numbers"
    with pytest.raises(SessionError, match="is the folder of the raw data itself"):
        CopyLedger(session).verify("numbers", numbers)
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "0").write_bytes(b"other")
    os.link(numbers / "1", archive / "1")
    (archive / "2").symlink_to(numbers / "2")
    refused = CopyLedger(session).verify("numbers", archive).refused
    assert {ref.partition(":")[2]: why.rpartition(": ")[2] for ref, why in refused.items()} == {
        "0": "differs",
        "1": "is the same file",
        "2": "is missing, a link, or reached through a link",
        "3": "is missing, a link, or reached through a link",
    }
    assert plan_raw_deletion(session, state=session.folder).files == []


def test_raw_data_are_deleted_after_their_time_and_not_before(session: Session, settings: Settings, copy: Path) -> None:
    with pytest.raises(SessionError, match="'Toy': is not the name of this session"):
        ask(session, settings, typed_name="Toy")
    with pytest.raises(SessionError, match="can be kept for 1 hours or longer"):
        ask(session, settings, undo_hours=0.1)
    number = ask(session, settings, reason="archived")
    assert carry_out_due(session, settings) == []
    assert raw(session) == set("0123")
    (done,) = carry_out_due(session, settings, now=later(session, settings))
    assert (raw(session), done.state, done.note) == (set(), "deleted", None)
    assert {path.name for path in copy.iterdir()} == set("0123")
    assert carry_out_due(session, settings, now=later(session, settings)) == []
    stages = [row["answer"] for row in read_rows(session, schema.command) if row["kind"] == "raw_deletion"]
    assert stages[0].startswith("4 raw files, 0.0 MB, are deleted after ")
    assert stages[1] == f"4 raw files, 0.0 MB, were deleted (no. {number})"
    assert all(row["author"] == "eva" for row in read_rows(session, schema.command))


def test_a_deletion_of_raw_data_can_be_withdrawn(session: Session, settings: Settings, copy: Path) -> None:
    number = ask(session, settings)
    withdraw_deletion(session, settings, number, author="ana")
    assert carry_out_due(session, settings, now=later(session, settings)) == []
    assert raw(session) == set("0123")
    with pytest.raises(SessionError, match="does not wait any more"):
        withdraw_deletion(session, settings, number, author="ana")


def test_what_has_changed_since_is_kept(session: Session, settings: Settings, copy: Path, tmp_path: Path) -> None:
    ask(session, settings)
    numbers, precious = session.folder.parent / "numbers", tmp_path / "precious"
    precious.write_bytes(b"0" * 1000)
    (numbers / "0").unlink()
    (numbers / "0").symlink_to(precious)
    (numbers / "1").write_bytes(b"x" * 1000)
    seen = (copy / "2").stat()
    (copy / "2").write_bytes(b"y" * seen.st_size)
    os.utime(copy / "2", ns=(seen.st_atime_ns, seen.st_mtime_ns))  # only reading it whole tells
    (done,) = carry_out_due(session, settings, now=later(session, settings))
    assert raw(session) == {"0", "1", "2"}
    assert precious.exists()
    assert str(done.note) == f"2 files stay: {CHANGED}; 1 file stays: {NO_COPY}"


def test_raw_files_that_are_links_stay(session: Session, tmp_path: Path, copy: Path) -> None:
    numbers = session.folder.parent / "numbers"
    shutil.move(numbers / "0", tmp_path / "elsewhere")
    (numbers / "0").symlink_to(tmp_path / "elsewhere")
    assert plan_raw_deletion(session, state=session.folder).kept == {A_LINK: 1}


def test_an_interrupted_deletion_goes_on(
    session: Session, settings: Settings, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(session, settings)

    class Died(BaseException):
        pass

    def die(_name: str) -> None:
        raise Died

    monkeypatch.setattr(raw_deletion, "fault_point", die)
    with pytest.raises(Died):
        carry_out_due(session, settings, now=later(session, settings))
    monkeypatch.undo()
    assert len(raw(session)) == 3
    (done,) = carry_out_due(session, settings)
    assert (raw(session), done.state, done.note) == (set(), "deleted", None)


def test_a_raw_file_that_a_step_needs_again_stays(session: Session, settings: Settings, copy: Path) -> None:
    ask(session, settings)
    machine = VirtualMachine(session)
    machine.ask(Restart(step="triple"))
    machine.answer_here()
    (done,) = carry_out_due(open_session(session.folder), settings, now=later(session, settings))
    assert raw(session) == set("0123")
    assert done.note == f"4 files stay: {PROCESSED}"
