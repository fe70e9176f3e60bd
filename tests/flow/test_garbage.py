"""Cleaning up: nothing that is needed goes, everything else does, and a crash in the middle costs nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from icestream.flow.commands.garbage import plan_cleaning
from icestream.flow.commands.requests import Clean, Command, Override, Pause, Reset, Resume, Set, ask
from icestream.flow.declaration.file_refs import files_named_in
from icestream.flow.runner.answering import submit
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.read_connection import reading
from icestream.flow.storage.session import Session, open_session
from icestream.settings import Settings
from toys.session import arrive, make_toy_session, outcomes_of, read_rows, start_runner, toy_steps

SETTINGS = Settings(cores=2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a session that has run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    run_session(make_toy_session(folder, toy_steps(8), numbers=range(8)), SETTINGS)
    return folder


@pytest.fixture
def session(finished: Path, tmp_path: Path) -> Session:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "copy")
    return open_session(tmp_path / "copy" / "session")


def do(session: Session, command: Command) -> str:
    answer = submit(session, command, author="eva", settings=SETTINGS)
    assert answer.state == "done", answer.text
    return answer.text


def results(session: Session) -> set[str]:
    return {row["key"] for row in read_rows(session, schema.result)}


def files(session: Session) -> set[str]:
    return {path.relative_to(session.folder).as_posix() for path in (session.folder / "steps").rglob("*") if path.is_file()}


def check_whole(session: Session) -> None:
    """Every record that stays has its files, every reference its record, every file a record or state that names it."""
    kept = {row["key"]: row["record"] for row in read_rows(session, schema.result)}
    pruned = {row["key"] for row in read_rows(session, schema.snapshot) if row["pruned"]}
    states = [row["state"] for row in read_rows(session, schema.accumulator_log) if row["state"]]
    named = [record for key, record in kept.items() if key not in pruned] + states
    wanted = {ref.removeprefix("session:") for record in named for ref in files_named_in(record)}
    assert wanted == files(session)
    for row in read_rows(session, schema.outcome):
        assert set(json.loads(row["keys"]).values()) <= set(kept)
    assert {row["key"] for row in read_rows(session, schema.snapshot)} <= set(kept)


def continue_with_nothing_new(session: Session) -> None:
    before = results(session)
    report = run_session(open_session(session.folder), SETTINGS)
    assert report.finished
    assert results(session) == before


def test_there_is_nothing_to_clean_in_a_session_that_only_ran(session: Session) -> None:
    before, there = results(session), files(session)
    garbage = plan_cleaning(session, old_revisions=False)
    assert (garbage.results, garbage.checkpoints) == ({}, {})
    do(session, Clean())
    assert results(session) == before
    assert files(session) == there - set(garbage.files)
    check_whole(session)
    continue_with_nothing_new(session)


def test_what_a_reset_dropped_goes_and_nothing_else(session: Session) -> None:
    made = {row["keys"]["out"] for (step, _), row in outcomes_of(session).items() if step in ("odd", "any") and row["keys"]}
    others = {row["keys"]["out"] for (step, _), row in outcomes_of(session).items() if step == "triple"}
    do(session, Reset(step="odd"))
    garbage = plan_cleaning(session, old_revisions=False)
    assert made <= set(garbage.results)
    steps = {line.step: line for line in garbage.by_step()}
    assert (steps["odd"].results, steps["odd"].files) == (4, 4)
    assert steps["odd"].bytes == sum(
        (session.folder / path).stat().st_size for path in garbage.files if path.startswith("steps/odd/")
    )
    text = do(session, Clean())
    assert text.startswith(f"{len(garbage.results)} results, {len(garbage.files)} files")
    assert not made & results(session)
    assert others <= results(session)
    check_whole(session)
    run_session(open_session(session.folder), SETTINGS)
    check_whole(session)
    assert len({unit for step, unit in outcomes_of(session) if step == "any"}) == 8


def test_old_revisions_stay_unless_they_are_to_go(session: Session) -> None:
    do(session, Set(step="triple", params={"factor": 5}))
    run_session(open_session(session.folder), SETTINGS)
    old = {row["id"] for row in read_rows(session, schema.revision) if row["state"] == "frozen"}
    before = results(session)
    do(session, Clean())
    assert results(session) == before
    do(session, Clean(old_revisions=True))
    assert results(session) < before
    assert not [row for row in read_rows(session, schema.outcome) if row["revision"] in old]
    check_whole(session)
    continue_with_nothing_new(session)


def test_what_exposures_still_to_come_take_over_from_old_revisions_stays(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(session, Set(step="triple", params={"factor": 5}))
    run_session(open_session(session.folder), SETTINGS)
    again = {
        row["keys"]["out"]
        for (step, _), row in outcomes_of(session).items()
        if step in ("triple", "odd", "both", "any") and row["keys"]
    }
    do(session, Set(step="even", params={"divisor": 4}))
    monkeypatch.setattr("icestream.flow.runner.engine.LOW_WATER", 0)  # no exposure is looked at: all are still to come
    do(session, Set(step="even", params={"divisor": None}))
    do(session, Clean(old_revisions=True))
    assert not {unit for step, unit in outcomes_of(session) if step == "odd"}
    assert again <= results(session)
    monkeypatch.undo()
    run_session(open_session(session.folder), SETTINGS)
    assert {unit for step, unit in outcomes_of(session) if step == "odd"} == set("01234567")
    check_whole(session)


def test_orphans_of_killed_attempts_and_checkpoints_of_finished_results_go(session: Session) -> None:
    folder = session.folder / "steps" / "triple" / "1"
    (folder / "1_deadbeef.txt").write_text("nobody names me")
    (folder / ".1.part~77.txt").write_text("half")
    (folder / "link").symlink_to(session.folder / "session.yaml")
    done = next(iter(results(session)))
    for name in (done, "0" * 32):
        (session.folder / "checkpoints" / name).mkdir(parents=True)
        (session.folder / "checkpoints" / name / "state").write_text("xyz")
    garbage = plan_cleaning(session, old_revisions=False)
    assert {"steps/triple/1/1_deadbeef.txt", "steps/triple/1/.1.part~77.txt"} <= set(garbage.files)
    assert garbage.checkpoints == {f"checkpoints/{done}": 3}
    do(session, Clean())
    assert not (folder / "1_deadbeef.txt").exists()
    assert not (session.folder / "checkpoints" / done).exists()
    assert (session.folder / "checkpoints" / ("0" * 32)).is_dir()
    assert (folder / "link").is_symlink()


def test_what_was_rejected_by_hand_loses_only_what_hung_on_it(session: Session) -> None:
    do(session, Override(unit="2", verdict="reject"))
    run_session(session, SETTINGS)
    do(session, Clean())
    do(session, Override(unit="2", verdict="lift"))
    run_session(session, SETTINGS)
    assert outcomes_of(session)["any", "2"]["status"] == "item"
    check_whole(session)


def test_a_crash_between_rows_and_files_leaves_a_whole_session(session: Session) -> None:
    do(session, Reset(step="odd"))
    ask(session, Clean(), author="eva")
    runner = start_runner(session, die_at="before_drop_files")
    assert runner.wait(60) != 0
    kept = {row["key"]: row["record"] for row in read_rows(session, schema.result)}
    for row in read_rows(session, schema.outcome):
        assert set(json.loads(row["keys"]).values()) <= set(kept)
    assert {ref.removeprefix("session:") for record in kept.values() for ref in files_named_in(record)} <= files(session)
    run_session(session, SETTINGS)
    do(session, Clean())
    check_whole(session)


def test_nothing_is_deleted_under_a_worker(tmp_path: Path) -> None:
    steps: dict[str, Any] = {name: spec for name, spec in toy_steps(3, sleep_s=1.0).items() if name in ("numbers", "triple")}
    session = make_toy_session(tmp_path, steps, numbers=range(2))
    runner = start_runner(session)
    try:
        while not at_work(session):
            assert runner.poll() is None
        answer = submit(session, Clean(), author="eva", settings=SETTINGS)
        assert (answer.state, "pause the session" in answer.text) == ("refused", True)
        do(session, Pause())
        while read_rows(session, schema.lease):
            assert runner.poll() is None
        do(session, Clean())
        do(session, Resume())
        arrive(tmp_path, range(2, 3))
        assert runner.wait(60) == 0
    finally:
        runner.kill()
        runner.wait()
    check_whole(session)


def at_work(session: Session) -> bool:
    with reading(session) as connection:
        if connection is None:
            return False
    return bool(read_rows(session, schema.lease))


def test_a_reset_counts_what_it_drops_and_a_second_one_drops_nothing(session: Session) -> None:
    below = session.graph().descendants("odd")
    rows = [row for (name, _), row in outcomes_of(session).items() if name in below]
    decided = [row for row in rows if row["status"] in ("item", "rejected", "failed")]
    assert 0 < len(decided) < len(rows)
    assert do(session, Reset(step="odd")).startswith(f"{len(decided)} outcomes of {len(below)} steps dropped: ")
    assert do(session, Reset(step="odd")).startswith(f"0 outcomes of {len(below)} steps dropped: ")
