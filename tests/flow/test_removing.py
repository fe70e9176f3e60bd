"""Removing files to free the disk: rows stay, what needs a file has it back first, and a crash anywhere costs nothing."""

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from icestream.flow.commands.removable import EXPORTED, NO_FILE, NOT_AGAIN, Removable, find_removable
from icestream.flow.commands.removing import plan_removal
from icestream.flow.commands.requests import (
    BringBack,
    ChangeSteps,
    Clean,
    Command,
    EmptyTrash,
    Override,
    Remove,
    Restart,
    RestoreFiles,
    Set,
)
from icestream.flow.runner.restoring import Restoring
from icestream.flow.runner.tasks import Task
from icestream.flow.storage import TRASH, Writing, move_to_trash, pack_session, read_removals, reading, schema
from icestream.flow.storage.session import Session, open_session
from toys.session import TOYS, active_steps, make_toy_session, outcomes_of, read_rows, toy_steps
from virtual.machine import VirtualMachine

MADE = Remove(steps=("triple",))
CHAIN: dict[str, Any] = {
    "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 6}},
    "triple": {"use": f"{TOYS}:multiply", "in": {"number": "numbers"}, "params": {"factor": 3}},
    "again": {"use": f"{TOYS}:read_back", "in": {"number": "triple"}},
    "third": {"use": f"{TOYS}:read_back", "in": {"number": "again"}},
    "even": {"use": f"{TOYS}:keep_multiples", "in": {"number": "third"}, "params": {"divisor": 24}},
    "total": {"use": f"{TOYS}:AddUp", "in": {"number": "even"}},
    "added": {"use": f"{TOYS}:AddUpFiles", "in": {"number": "third"}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a session in which every step reads the file of the one before, run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    VirtualMachine(make_toy_session(folder, CHAIN, numbers=range(6))).run_out()
    return folder


@pytest.fixture
def machine(finished: Path, tmp_path: Path) -> VirtualMachine:
    """A machine with a copy of it."""
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    return VirtualMachine(open_session(tmp_path / "copy" / "session"))


def do(machine: VirtualMachine, command: Command) -> str:
    number = machine.ask(command)
    machine.answer_here()
    state, text = answer_of(machine.session, number)
    assert state == "done", text
    return text


def refused(machine: VirtualMachine, command: Command) -> str:
    number = machine.ask(command)
    machine.answer_here()
    state, text = answer_of(machine.session, number)
    assert state == "refused", text
    return text


def answer_of(session: Session, number: int) -> tuple[str, str]:
    return next((row["state"], row["answer"] or "") for row in read_rows(session, schema.command) if row["id"] == number)


def files(session: Session, step: str = "triple") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (session.folder / "steps" / step).rglob("*") if path.is_file()}


def results(session: Session) -> dict[str, str]:
    return {row["key"]: row["record"] for row in read_rows(session, schema.result)}


def states(session: Session) -> list[str]:
    with reading(session) as connection:
        assert connection is not None
        return [one.state for one in read_removals(connection)]


def away(session: Session) -> set[str]:
    return {row["ref"] for row in read_rows(session, schema.removed_file)}


def notices(session: Session) -> list[str]:
    return [row["message"] for row in read_rows(session, schema.notice) if row["cause"] == "removed"]


def trash(session: Session) -> list[Path]:
    return [path for path in (session.folder / "steps" / TRASH).rglob("*") if path.is_file()]


def test_a_removal_can_be_undone(machine: VirtualMachine) -> None:
    session = machine.session
    before, kept = files(session), results(session)
    planned = plan_removal(session, MADE)
    assert (len(planned.files), planned.n_bytes, planned.exposures) == (6, sum(map(len, before.values())), 6)
    assert [(one.step, one.kind, one.files) for one in planned.by_step()] == [("triple", "metadata", 6)]
    assert files(session) == before
    assert do(machine, MADE).startswith("6 files, 0.0 MB removed (no. 1); this can be undone until ")
    assert files(session) == {}
    assert len(away(session)) == len(trash(session)) == 6
    assert states(session) == ["trash"]
    assert plan_removal(session, MADE).files == []
    do(machine, Clean())  # the trash is no garbage
    assert len(trash(session)) == 6
    assert do(machine, BringBack(removal=1)) == "6 files are put back"
    assert (files(session), away(session), states(session), trash(session)) == (before, set(), ["undone"], [])
    assert results(session) == kept
    assert "was undone" in refused(machine, BringBack(removal=1))
    assert "removal 7: is unknown; there are 1" in refused(machine, BringBack(removal=7))
    assert [text for text in notices(session) if "eva" in text] == notices(session)


def test_what_a_person_wants_back_is_computed_again(machine: VirtualMachine) -> None:
    session = machine.session
    before, kept, decided = files(session), results(session), outcomes_of(session)
    do(machine, MADE)
    do(machine, EmptyTrash(removal=1))
    assert (states(session), trash(session)) == (["gone"], [])
    machine.run_out()
    assert files(session) == {}, "nothing asked for them"
    assert do(machine, RestoreFiles(kinds=("micrographs",))) == "no file of this kind was removed"
    do(machine, RestoreFiles(steps=("triple",), unit="2"))
    machine.run_out()
    assert len(files(session)) == 1
    do(machine, RestoreFiles())
    machine.run_out()
    assert (files(session), away(session)) == (before, set())
    assert (results(session), outcomes_of(session)) == (kept, decided)
    assert notices(session)[-1] == "5 results have their removed files again"


def test_a_step_that_asks_for_a_removed_file_has_it_computed_again_first(machine: VirtualMachine) -> None:
    session = machine.session
    before = files(session), files(session, "again")
    do(machine, Remove())
    do(machine, EmptyTrash(removal=1))
    assert files(session, "third") == {}
    do(machine, Set(step="third", params={"factor": 7}))
    machine.run_out()
    assert (files(session), files(session, "again")) == before, "what third reads, and what that is made of"
    assert len(files(session, "third")) == 6
    values = {
        unit: json.loads(results(session)[row["keys"]["out"]])["value"]
        for (step, unit), row in outcomes_of(session).items()
        if step == "third"
    }
    assert values == {str(number): number * 3 * 2 * 7 for number in range(6)}
    assert read_rows(session, schema.failure) == []
    assert len(away(session)) == 6, "the files of the old revision of third"


def test_an_accumulator_that_takes_them_again_has_all_its_files_at_once(
    machine: VirtualMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, lacked, real = machine.session, list[str](), Restoring.lacks
    do(machine, Remove())
    do(machine, EmptyTrash(removal=1))
    do(machine, Restart(step="added"))

    def lacks(self: Restoring, writing: Writing, task: Task, ref: str) -> str | None:
        lacked.append(task.step)
        return real(self, writing, task, ref)

    monkeypatch.setattr(Restoring, "lacks", lacks)
    machine.run_out()
    sums = [row["value"] for row in map(json.loads, results(session).values()) if row.get("count") == 6]
    assert set(sums) == {12 * 15}, "before and after"
    assert (len(files(session, "third")), len(files(session))) == (6, 6)
    (newest,) = [revision for revision, step in active_steps(session).items() if step == "added"]
    log = [json.loads(row["members"]) for row in read_rows(session, schema.accumulator_log) if row["revision"] == newest]
    taken = [len(members) for members in log if members]
    assert (sum(taken), lacked) == (6, ["added"] * len(taken)), "an entry fails once, however many files it lacks"
    assert len(taken) < 6


def test_moving_a_threshold_computes_nothing_again(machine: VirtualMachine) -> None:
    session = machine.session
    do(machine, Remove())
    do(machine, Set(step="even", params={"divisor": 12}))
    ran = machine.counts.steps_run
    machine.run_out()
    assert machine.counts.steps_run > ran
    assert files(session) == files(session, "third") == {}
    assert {row["status"] for (step, _), row in outcomes_of(session).items() if step == "even"} == {"item"}


def test_a_file_in_the_trash_is_put_back_and_not_computed(machine: VirtualMachine) -> None:
    session = machine.session
    before = files(session, "again")
    marked = {name: content + b" as it was" for name, content in before.items()}
    for path in (session.folder / "steps" / "again").rglob("*.txt"):
        path.write_bytes(marked[path.name])
    do(machine, Remove(steps=("again",)))
    do(machine, Set(step="third", params={"factor": 7}))
    machine.run_out()
    assert files(session, "again") == marked


def test_what_cannot_be_computed_again_stays_unless_that_is_wanted(machine: VirtualMachine) -> None:
    session = machine.session
    do(machine, Set(step="triple", params={"factor": 4}))
    machine.run_out()
    planned = plan_removal(session, MADE)
    assert (len(planned.files), planned.kept) == (6, {NOT_AGAIN: 6})
    do(machine, MADE.model_copy(update={"even_if_lost": True}))
    do(machine, EmptyTrash(removal=1))
    do(machine, RestoreFiles())
    machine.run_out()
    assert len(files(session)) == 6
    assert any("cannot be computed again: its step has other parameters" in text for text in notices(session))
    machine.run_out()
    assert len(away(session)) == 6


def test_a_step_whose_input_is_lost_for_good_fails_and_says_why(machine: VirtualMachine) -> None:
    session = machine.session
    do(machine, Remove(steps=("triple", "again")))
    do(machine, EmptyTrash(removal=1))
    document = (session.folder / "session.yaml").read_text()
    (session.folder / "session.yaml").write_text(document.replace("factor: 3", "factor: 3\n      fail_on: [0, 1, 2, 3, 4, 5]"))
    do(machine, Set(step="third", params={"factor": 7}))
    machine.run_out()
    failed = {unit: row["reason"] for (step, unit), row in outcomes_of(session).items() if row["status"] == "failed"}
    assert set(failed) == set("012345")


def test_a_new_step_that_asks_for_files_which_are_lost_fails_once_and_says_why(machine: VirtualMachine) -> None:
    session = machine.session
    do(machine, Set(step="triple", params={"factor": 4}))
    machine.run_out()
    do(machine, MADE.model_copy(update={"even_if_lost": True}))
    do(machine, EmptyTrash(removal=1))
    new = {
        "old": {"use": f"{TOYS}:multiply", "in": {"number": "numbers"}, "params": {"factor": 3}},
        "reader": {"use": f"{TOYS}:read_back", "in": {"number": "old"}, "params": {"factor": 11}},
        "below": {"use": f"{TOYS}:read_back", "in": {"number": "reader"}},
    }
    do(machine, ChangeSteps.model_validate({"steps": new}))
    machine.run_out()
    reasons = {row["status"]: row["reason"] for (step, _), row in outcomes_of(session).items() if step == "reader"}
    assert set(reasons) == {"failed"}
    assert "removed, and cannot be computed again: its step has other parameters" in reasons["failed"]
    assert len(read_rows(session, schema.failure)) == 6
    assert [text for text in notices(session) if "cannot be computed" in text] == []


def test_only_the_files_of_rejected_exposures(machine: VirtualMachine) -> None:
    session = machine.session
    rejected = {unit for (step, unit), row in outcomes_of(session).items() if step == "even" and row["status"] == "rejected"}
    assert rejected == {"1", "3", "5"}
    assert plan_removal(session, Remove(rejected=True)).files == [], "another branch without a filter has taken them"
    do(machine, ChangeSteps(steps={"added": None}))
    machine.run_out()
    do(machine, Override(unit="2", verdict="reject", reason="ice"))
    machine.run_out()
    planned = plan_removal(session, Remove(rejected=True))
    named = {one.ref.rpartition("/")[2][0] for one in planned.files}
    assert named == {"1", "2", "3", "5"}
    assert len(planned.files) == 4 * 3


def test_what_is_being_processed_or_exported_or_a_link_stays(machine: VirtualMachine, tmp_path: Path) -> None:
    session = machine.session
    first, second, third = sorted((session.folder / "steps" / "triple").rglob("*.txt"))[:3]
    outside = tmp_path / "precious.txt"
    outside.write_text("precious")
    second.unlink()
    second.symlink_to(outside)
    (session.folder / "exports").mkdir()
    (session.folder / "exports" / "linked.txt").symlink_to(first)
    third.unlink()
    planned = plan_removal(session, MADE)
    assert (len(planned.files), planned.kept) == (3, {EXPORTED: 1, NO_FILE: 2})
    do(machine, MADE)
    assert (first.exists(), second.is_symlink(), outside.read_text()) == (True, True, "precious")
    (session.folder.parent / "numbers" / "6").touch()
    assert len(plan_removal(session, Remove(steps=("again",))).files) == 6


def test_nothing_is_moved_or_deleted_through_a_folder_that_is_a_link(machine: VirtualMachine, tmp_path: Path) -> None:
    session = machine.session
    elsewhere = tmp_path / "elsewhere"
    shutil.move(session.folder / "steps" / "triple", elsewhere)
    (session.folder / "steps" / "triple").symlink_to(elsewhere)
    assert plan_removal(session, MADE).kept == {NO_FILE: 6}
    do(machine, Remove(steps=("again",)))
    there = sorted(elsewhere.rglob("*"))
    shutil.move(session.folder / "steps" / TRASH / "1", tmp_path / "moved")
    (session.folder / "steps" / TRASH / "1").symlink_to(elsewhere)
    do(machine, EmptyTrash(removal=1))
    assert sorted(elsewhere.rglob("*")) == there
    assert "reached through a link" in str([*notices(session), *machine_troubles(machine)])


def machine_troubles(machine: VirtualMachine) -> list[str]:
    machine.run_out()
    return notices(machine.session)


def test_a_removal_that_cannot_be_moved_holds_up_no_other(machine: VirtualMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    session, order = machine.session, list[int]()

    def move(folder: Path, removal: int, refs: Iterable[str]) -> None:
        order.append(removal)
        if removal == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        move_to_trash(folder, removal, refs)

    monkeypatch.setattr("icestream.flow.runner.trash_sweep.move_to_trash", move)
    do(machine, MADE)
    do(machine, Remove(steps=("again",)))
    assert (states(session), len(trash(session))) == (["trash", "moving"], 6)
    do(machine, Remove(steps=("third",)))
    order.clear()
    do(machine, EmptyTrash(removal=2))
    assert (states(session), len(trash(session)), order) == (["trash", "gone", "moving"], 6, [1])
    monkeypatch.undo()
    machine.run_out()
    assert (states(session)[-1], len(trash(session))) == ("trash", 12)


def test_others_can_write_while_a_removal_is_planned_and_what_is_needed_by_then_stays(
    machine: VirtualMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = machine.session

    def find(*args: Any, **kwargs: Any) -> Removable:
        found = find_removable(*args, **kwargs)
        with closing(sqlite3.connect(str(session.store_at), timeout=0)) as other, other:
            assert other.execute("UPDATE exposure SET settled_by = NULL WHERE name = '2'").rowcount == 1
        return found

    monkeypatch.setattr("icestream.flow.commands.removing.find_removable", find)
    assert do(machine, MADE).startswith("5 files, ")
    assert (len(files(session)), len(trash(session)), states(session)) == (1, 5, ["trash"])


def test_a_packed_copy_misses_nothing_and_can_compute_again(machine: VirtualMachine, tmp_path: Path) -> None:
    session = machine.session
    before = files(session)
    do(machine, MADE)
    report = pack_session(session, tmp_path / "packed")
    assert report.missing == ()
    shutil.copytree(session.folder.parent / "numbers", tmp_path / "numbers")
    copy = VirtualMachine(open_session(tmp_path / "packed"))
    assert states(copy.session) == ["gone"]
    do(copy, RestoreFiles())
    copy.run_out()
    assert files(copy.session) == before


def test_files_of_a_toy_batch_and_of_its_members_stay_until_it_is_processed(tmp_path: Path) -> None:
    machine = VirtualMachine(make_toy_session(tmp_path, toy_steps(8), numbers=range(8)))
    machine.start()
    for _ in range(12):
        machine.turn()
    machine.kill()
    planned = plan_removal(machine.session, Remove())
    settled = {row["unit"] for row in read_rows(machine.session, schema.exposure) if row["settled_by"]}
    assert planned.exposures <= len(settled)
    machine.run_out()
    assert plan_removal(machine.session, Remove(steps=("triple",))).exposures == 8


@pytest.mark.parametrize("begun", ["remove", "undo", "empty", "restore"])
def test_a_runner_may_die_at_every_point_between_rows_and_files(finished: Path, tmp_path: Path, begun: str) -> None:
    died = []
    for point in (*range(1, 6), *range(6, 40, 2)):
        shutil.copytree(finished, tmp_path / str(point))
        machine = VirtualMachine(open_session(tmp_path / str(point) / "session"))
        session = machine.session
        before, kept = files(session), results(session)
        if begun != "remove":
            do(machine, MADE)
        if begun == "restore":
            do(machine, EmptyTrash(removal=1))
        command = {"remove": MADE, "undo": BringBack(removal=1), "empty": EmptyTrash(removal=1), "restore": RestoreFiles()}[begun]
        machine.ask(command)
        machine.kill_in = point
        machine.answer_here()
        if not machine.counts.kills:
            break
        died += list(machine.counts.killed_at)
        machine.kill_in = None
        machine.answer_here()
        if begun == "restore":
            machine.run_out()
        there, state = begun in ("undo", "restore"), {"remove": "trash", "undo": "undone"}.get(begun, "gone")
        assert (files(session), states(session)[0]) == (before if there else {}, state), point
        assert (len(trash(session)), len(away(session))) == (6 * (begun == "remove"), 6 * (not there))
        assert results(session) == kept
    assert len(died) > 5
    assert begun == "restore" or {"before_trash", "within_trash", "after_trash"} <= set(died)
