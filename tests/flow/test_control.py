"""Control of a session that runs: each test asks a live runner for something and looks at what comes of it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from icestream.errors import StoreUnavailable
from icestream.flow.commands.requests import (
    Apply,
    Branch,
    Close,
    Command,
    Continue,
    Override,
    Pause,
    Release,
    Reopen,
    Reset,
    Restart,
    Resume,
    Retry,
    Set,
    Stop,
    ask,
)
from icestream.flow.runner.answering import submit
from icestream.flow.runner.engine import Engine
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, open_session
from icestream.flow.storage.store import Store
from icestream.settings import Settings
from toys.session import (
    TOYS,
    active_steps,
    arrive,
    make_toy_session,
    outcomes_of,
    read_rows,
    replay_log,
    results_of,
    start_runner,
    toy_steps,
)

LIMIT_S = 60.0


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


@contextmanager
def live(session: Session) -> Iterator[Any]:
    runner = start_runner(session)
    try:
        until(lambda: session.store_path.exists() and _running(session))
        yield runner
    finally:
        runner.kill()
        runner.wait()


def _running(session: Session) -> bool:
    try:
        return any(row["state"] == "running" for row in read_rows(session, schema.runner))
    except Exception:  # noqa: BLE001 - the tables are being made
        return False


def answer(session: Session, command: Command) -> tuple[str, str]:
    number = ask(session, command, author="eva")

    def row() -> dict[str, Any]:
        return next(row for row in read_rows(session, schema.command) if row["id"] == number)

    until(lambda: row()["state"] != "asked")
    return row()["state"], row()["answer"]


def settled(session: Session, step: str) -> dict[str, dict[str, Any]]:
    return {unit: row for (name, unit), row in outcomes_of(session).items() if name == step}


def value(session: Session, step: str, number: str) -> int:
    key = settled(session, step)[number]["keys"]["out"]
    record = next(row["record"] for row in read_rows(session, schema.result) if row["key"] == key)
    return int(json.loads(record)["value"])


def steps_for(count: int, **changes: Any) -> dict[str, Any]:
    return {**toy_steps(count), **changes}


def test_a_parameter_set_while_it_runs_recomputes_only_what_depends_on_it(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(10), numbers=range(8))
    with live(session) as runner:
        until(lambda: len(settled(session, "both")) == 8)
        made = {row["key"]: row["created_at"] for row in read_rows(session, schema.result)}
        state, text = answer(session, Set(step="odd", params={"factor": 7}, reason="sharper"))
        assert state == "done", text
        assert "factor: 5 → 7" in text
        arrive(tmp_path, range(8, 10))
        assert runner.wait(LIMIT_S) == 0
    edited = open_session(session.folder)
    assert edited.document.steps["odd"].params["factor"] == 7
    assert {number: value(edited, "odd", number) for number in ("1", "9")} == {"1": 21, "9": 189}
    assert len(settled(edited, "odd")) == 10
    triples = {row["keys"]["out"] for row in settled(edited, "triple").values()}
    after = {row["key"]: row["created_at"] for row in read_rows(edited, schema.result)}
    assert all(after[key] == made[key] for key in triples & set(made))
    old = next(row for row in read_rows(edited, schema.revision) if row["step"] == "odd" and row["number"] == 1)
    assert old["state"] == "frozen"
    assert [row for row in read_rows(edited, schema.outcome) if row["revision"] == old["id"]]
    (document,) = read_rows(edited, schema.document)
    assert (document["author"], document["reason"]) == ("eva", "sharper")


def test_an_edited_session_ends_as_one_that_had_the_parameters_from_the_start(tmp_path: Path) -> None:
    plain = make_toy_session(tmp_path / "plain", toy_steps(12, factor=9), numbers=range(12))
    run_session(plain, Settings(cores=2))
    session = make_toy_session(tmp_path / "edited", toy_steps(12, sleep_s=0.05), numbers=range(12))
    with live(session) as runner:
        until(lambda: len(settled(session, "triple")) >= 3)
        assert answer(session, Set(step="triple", params={"factor": 9}))[0] == "done"
        assert runner.wait(LIMIT_S) == 0
    edited = open_session(session.folder)
    wanted = {key: json.loads(record)["value"] for key, (record, _) in results_of(plain).items()}
    found = {key: json.loads(record)["value"] for key, (record, _) in results_of(edited).items()}
    assert wanted == {key: found.get(key) for key in wanted}
    state, members = replay_log(edited, "total", tmp_path / "replay")
    assert sorted(members) == sorted(row["unit"] for row in read_rows(edited, schema.exposure))
    assert json.loads(state)["count"] == 12


def test_what_cannot_run_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(3), numbers=range(2))
    with live(session):
        state, text = answer(session, Set(step="odd", params={"factr": 7}))
        assert (state, "has no parameter 'factr'" in text) == ("refused", True)
        state, text = answer(session, Set(step="odds", params={"factor": 7}))
        assert (state, "no step is called 'odds'" in text) == ("refused", True)
        state, text = answer(session, Branch(step="odd", name="even", params={}))
        assert (state, "a step called even" in text) == ("refused", True)
        state, text = answer(session, Override(unit="77", verdict="reject"))
        assert (state, text) == ("refused", "no exposure is called '77'")
    assert open_session(session.folder).document == session.document


def test_a_document_edited_by_hand_is_taken_up_when_asked(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(4), numbers=range(3))
    with live(session) as runner:
        until(lambda: len(settled(session, "triple")) == 3)
        path = session.folder / "session.yaml"
        data = yaml.safe_load(path.read_text())
        data["steps"]["triple"]["params"]["factor"] = 11
        data["steps"]["extra"] = {"use": f"{TOYS}:multiply", "in": {"number": "triple"}}
        path.write_text(yaml.safe_dump(data))
        assert answer(session, Set(step="odd", params={"factor": 7}))[0] == "refused"
        state, text = answer(session, Apply())
        assert (state, "extra is new" in text) == ("done", True)
        arrive(tmp_path, range(3, 4))
        assert runner.wait(LIMIT_S) == 0
    edited = open_session(session.folder)
    assert value(edited, "extra", "2") == 44


def test_a_branch_runs_beside_the_first_and_shares_what_is_above(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(6), numbers=range(5))
    with live(session) as runner:
        until(lambda: len(settled(session, "odd")) == 5)
        assert answer(session, Branch(step="odd", name="odder", params={"factor": 50}))[0] == "done"
        arrive(tmp_path, range(5, 6))
        assert runner.wait(LIMIT_S) == 0
    edited = open_session(session.folder)
    assert (value(edited, "odd", "1"), value(edited, "odder", "1")) == (15, 150)
    assert {"odder", "any_odder", "total_odder", "late_odder", "newest_odder"} <= set(edited.document.steps)
    assert value(edited, "any_odder", "1") == 150
    assert len([row for row in read_rows(edited, schema.revision) if row["step"] == "triple"]) == 1


def test_restart_computes_afresh_from_a_step_on(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(5), numbers=range(4))
    with live(session) as runner:
        until(lambda: len(settled(session, "both")) == 4)
        before = {unit: row["keys"]["out"] for unit, row in settled(session, "triple").items()}
        assert answer(session, Restart(step="triple"))[0] == "done"
        arrive(tmp_path, range(4, 5))
        assert runner.wait(LIMIT_S) == 0
    after = {unit: row["keys"]["out"] for unit, row in settled(session, "triple").items()}
    assert set(after) == {"0", "1", "2", "3", "4"}
    assert not set(before.values()) & set(after.values())
    assert len([row for row in read_rows(session, schema.revision) if row["step"] == "numbers"]) == 1


def test_reset_drops_results_until_the_session_is_continued(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(5), numbers=range(4))
    with live(session) as runner:
        until(lambda: len(settled(session, "both")) == 4)
        old = next(number for number, step in active_steps(session).items() if step == "both")
        state, text = answer(session, Reset(step="both"))
        assert state == "done", text
        assert not [row for row in read_rows(session, schema.outcome) if row["revision"] == old]
        until(lambda: len(settled(session, "both")) == 4)
        assert {row["status"] for row in settled(session, "both").values()} == {"absent"}
        assert "is open again" in answer(session, Continue())[1]
        arrive(tmp_path, range(4, 5))
        assert runner.wait(LIMIT_S) == 0
    assert len(settled(session, "triple")) == 5
    assert {row["status"] for row in settled(session, "both").values()} == {"item", "skipped"}


def test_a_stream_is_closed_by_hand_and_opened_again(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(6), numbers=range(3))
    with live(session) as runner:
        until(lambda: len(settled(session, "odd")) == 3)
        assert answer(session, Close(step="odd"))[0] == "done"
        arrive(tmp_path, range(3, 5))
        until(lambda: len(settled(session, "odd")) == 5)
        assert settled(session, "odd")["3"]["status"] == "absent"
        assert "by hand, by eva" in settled(session, "odd")["3"]["reason"]
        assert answer(session, Reopen(step="odd"))[0] == "done"
        until(lambda: settled(session, "odd").get("3", {}).get("status") == "item")
        arrive(tmp_path, range(5, 6))
        assert runner.wait(LIMIT_S) == 0
    assert len(settled(session, "any")) == 6


def test_a_gate_is_released_by_hand(tmp_path: Path) -> None:
    steps = toy_steps(4)
    steps["gate"] = {"use": "trigger", "in": {"items": "both"}, "params": {"mode": "growing", "count": 1000}}
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    with live(session) as runner:
        until(lambda: len(settled(session, "both")) == 3)
        assert answer(session, Release(step="odd"))[0] == "refused"
        assert not settled(session, "gate") or "item" not in {row["status"] for row in settled(session, "gate").values()}
        assert answer(session, Release(step="gate"))[0] == "done"
        until(lambda: "item" in {row["status"] for row in settled(session, "gate").values()})
        arrive(tmp_path, range(3, 4))
        assert runner.wait(LIMIT_S) == 0


def test_a_pause_holds_through_a_restart_until_somebody_resumes(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(6), numbers=range(2))
    with live(session):
        until(lambda: len(settled(session, "any")) == 2)
        assert answer(session, Pause(reason="lunch"))[0] == "done"
        assert json.loads(read_rows(session, schema.runner)[0]["hold"])["reason"] == "lunch"
    arrive(tmp_path, range(2, 6))
    with live(session) as runner:
        uptime = read_rows(session, schema.runner)[0]["uptime_s"]
        assert answer(session, Pause())[1] == "paused; 0 running calls will finish"
        assert read_rows(session, schema.runner)[0]["uptime_s"] == uptime
        assert len(settled(session, "numbers")) == 2
        assert answer(session, Resume()) == ("done", "resumed")
        assert runner.wait(LIMIT_S) == 0
    assert len(settled(session, "any")) == 6
    assert read_rows(session, schema.runner)[0]["hold"] is None


def test_stop_by_command_is_like_a_signal(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(6), numbers=range(2))
    with live(session) as runner:
        assert answer(session, Stop())[0] == "done"
        assert runner.wait(LIMIT_S) == 0
    (row,) = read_rows(session, schema.runner)
    assert (row["state"], row["note"]) == ("stopped", "stopped by eva")


def test_a_rejection_by_hand_holds_through_re_runs_and_can_be_taken_back(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(6), numbers=range(5))
    with live(session) as runner:
        until(lambda: len(settled(session, "both")) == 5)
        assert answer(session, Override(unit="2", verdict="reject", reason="ice"))[0] == "done"
        until(lambda: settled(session, "both").get("2", {}).get("status") == "skipped")
        assert settled(session, "numbers")["2"]["reason"] == "rejected by hand by eva: ice"
        assert settled(session, "triple")["2"]["reason"] == "rejected by hand by eva: ice"
        assert answer(session, Restart(step="triple"))[0] == "done"
        until(lambda: len(settled(session, "both")) == 5)
        assert settled(session, "triple")["2"]["status"] == "skipped"
        assert answer(session, Override(unit="2", verdict="accept"))[0] == "done"
        until(lambda: settled(session, "both").get("2", {}).get("status") == "item")
        arrive(tmp_path, range(5, 6))
        assert runner.wait(LIMIT_S) == 0
    assert len(settled(session, "both")) == 6


def test_a_filter_can_be_overruled_both_ways(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(5), numbers=range(4))
    with live(session) as runner:
        until(lambda: len(settled(session, "any")) == 4)
        assert settled(session, "even")["1"]["status"] == "rejected"
        assert answer(session, Override(unit="1", verdict="accept", reason="looks fine"))[0] == "done"
        until(lambda: settled(session, "even").get("1", {}).get("status") == "item")
        assert answer(session, Override(unit="2", step="even", verdict="reject"))[0] == "done"
        until(lambda: settled(session, "even").get("2", {}).get("status") == "rejected")
        state, text = answer(session, Override(unit="2", step="total", verdict="reject"))
        assert (state, "accept or reject at a step upstream of it" in text) == ("refused", True)
        arrive(tmp_path, range(4, 5))
        assert runner.wait(LIMIT_S) == 0
    assert settled(session, "even")["1"]["reason"] == "accepted by hand by eva: looks fine"
    assert settled(session, "odd")["1"]["status"] == "skipped"
    assert value(session, "both", "1") == 4
    assert value(session, "odd", "2") == 30


def test_an_accumulator_knows_what_it_took_and_is_no_item_any_more(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(4), numbers=range(4))
    patient = Settings(cores=2, rebuild_fraction=0.5)
    run_session(session, patient)
    ask(session, Override(unit="2", verdict="reject", reason="bad"), author="eva")
    run_session(session, patient)
    (stale,) = read_rows(session, schema.stale)
    assert active_steps(session)[stale["revision"]] == "total"
    ask(session, Override(unit="2", verdict="lift"), author="eva")
    run_session(session, patient)
    assert read_rows(session, schema.stale) == []


def test_an_accumulator_that_lost_much_is_built_anew_beside_the_old_one(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(6), numbers=range(6))
    run_session(session, Settings(cores=2))
    for number in ("2", "4"):
        ask(session, Override(unit=number, verdict="reject"), author="eva")
    run_session(session, Settings(cores=2))
    built = [row for row in read_rows(session, schema.revision) if row["step"] == "total"]
    assert [(row["state"], row["epoch"]) for row in built] == [("frozen", 0), ("active", 1)]
    state, members = replay_log(session, "total", tmp_path / "replay")
    assert json.loads(state)["count"] == len(members) == 4
    assert [row for row in read_rows(session, schema.snapshot) if row["revision"] == built[0]["id"]]


def test_identical_steps_share_one_computation(tmp_path: Path) -> None:
    steps = {
        "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 3}},
        "one": {"use": f"{TOYS}:multiply", "in": {"number": "numbers"}, "params": {"sleep_s": 0.2}},
        "same": {"use": f"{TOYS}:multiply", "in": {"number": "numbers"}, "params": {"sleep_s": 0.2}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    run_session(session, Settings(cores=2))
    keys = {step: [row["keys"]["out"] for row in settled(session, step).values()] for step in ("one", "same")}
    assert keys["one"] == keys["same"]
    assert len(list((session.folder / "steps").rglob("*.txt"))) == 3


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_backlog_of_many_pages_is_worked_off(tmp_path: Path, newest_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_toy_session(tmp_path, toy_steps(40), numbers=range(40))
    run_session(session, Settings(cores=2))
    monkeypatch.setattr("icestream.flow.runner.backlog.PAGE", 7)
    monkeypatch.setattr("icestream.flow.runner.engine.LOW_WATER", 3)
    ask(session, Set(step="triple", params={"factor": 4}), author="eva")
    run_session(session, Settings(cores=2, newest_first=newest_first))
    edited = open_session(session.folder)
    assert {int(number): value(edited, "triple", number) for number in settled(edited, "triple")} == {n: 4 * n for n in range(40)}
    _, members = replay_log(edited, "total", tmp_path / "replay")
    assert len(members) == len(set(members)) == 40


def test_a_flood_of_exposures_waits_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icestream.flow.runner.backlog.PAGE", 5)
    monkeypatch.setattr("icestream.flow.runner.backlog.MOST_UNITS", 6)
    monkeypatch.setattr("icestream.flow.runner.engine.LOW_WATER", 3)
    most: list[int] = []
    watched = Engine.handle

    def handle(engine: Engine, writing: Any, event: Any) -> None:
        watched(engine, writing, event)
        most.append(len(engine.workflow.scheduler.units))

    monkeypatch.setattr(Engine, "handle", handle)
    session = make_toy_session(tmp_path, toy_steps(60), numbers=range(60))
    report = run_session(session, Settings(cores=2))
    assert report.finished
    assert max(most) < 40
    assert len(settled(session, "any")) == 60
    _, members = replay_log(session, "total", tmp_path / "replay")
    assert len(members) == len(set(members)) == 60


def test_a_full_disk_is_not_the_items_fault(tmp_path: Path) -> None:
    steps = toy_steps(4)
    steps["triple"] = {"use": f"{TOYS}:multiply", "in": {"number": "numbers"}, "params": {"full_until": "session:room"}}
    session = make_toy_session(tmp_path, steps, numbers=range(4))
    with live(session) as runner:
        until(lambda: "hold" in (row := read_rows(session, schema.runner)[0]) and row["hold"])
        assert "No space left on device" in json.loads(read_rows(session, schema.runner)[0]["hold"])["reason"]
        (session.folder / "room").touch()
        assert runner.wait(LIMIT_S) == 0
    assert {row["status"] for row in settled(session, "triple").values()} == {"item"}
    assert {row["kind"] for row in read_rows(session, schema.failure)} == {"environment"}


def test_a_full_disk_pauses_the_session_which_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_toy_session(tmp_path, toy_steps(3), numbers=range(3))
    holds: list[str] = []
    full = [True]
    monkeypatch.setattr("icestream.flow.runner.pausing._LOOK_S", 0.05)
    monkeypatch.setattr("icestream.flow.runner.health.Health.trouble", lambda _self: "the disk is full" if full[0] else None)

    def watch(status: Any) -> None:
        if status.pause is not None:
            holds.append(status.pause.sentence)
            full[0] = len(holds) < 5

    report = run_session(session, Settings(cores=2), on_change=watch)
    assert report.finished
    assert holds[0] == "paused by itself: the disk is full; resumes as soon as that is fixed"
    assert {row["level"] for row in read_rows(session, schema.notice)} == {"alert", "info"}


def test_trouble_that_only_a_step_meets_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = toy_steps(3)
    steps["triple"] = {"use": f"{TOYS}:multiply", "in": {"number": "numbers"}, "params": {"full_until": "session:room"}}
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    monkeypatch.setattr("icestream.flow.runner.pausing._LOOK_S", 0.02)
    monkeypatch.setattr("icestream.flow.runner.pausing._TRY_AGAIN_S", (0.05, 0.2))

    def mend(status: Any) -> None:
        if status.pause is not None and len(read_rows(session, schema.failure)) >= 5:
            (session.folder / "room").touch()

    assert run_session(session, Settings(cores=1), on_change=mend).finished
    assert [row["message"] for row in read_rows(session, schema.notice)] == [
        "paused by itself: triple: OSError: [Errno 28] No space left on device",
        "the problem is gone; the session continues",
    ]
    assert {row["status"] for row in settled(session, "triple").values()} == {"item"}


def test_what_is_asked_of_a_resting_session_is_carried_out_at_once(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(4), numbers=range(4))
    settings = Settings(cores=2, rebuild_fraction=1.0)
    answer = submit(session, Set(step="triple", params={"factor": 4}), author="eva", settings=settings)
    assert (answer.state, answer.text) == ("done", "applied: triple (factor: 3 → 4)")
    session = open_session(session.folder)
    run_session(session, settings)
    assert value(session, "triple", "3") == 12
    made = {row["key"] for row in read_rows(session, schema.result)}
    assert submit(session, Override(unit="3", verdict="reject"), author="eva", settings=settings).state == "done"
    assert settled(session, "numbers")["3"]["status"] == "rejected"
    assert submit(session, Retry(step="triple", unit=None), author="eva", settings=settings).text == "0 to be retried"
    run_session(session, settings)
    assert settled(session, "triple")["3"]["status"] == "skipped"
    assert {row["key"] for row in read_rows(session, schema.result)} - made == set()


@pytest.mark.parametrize("failing", [5, 9, 14])
def test_a_store_that_was_away_is_taken_up_again(tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_toy_session(tmp_path, toy_steps(8), numbers=range(8))
    monkeypatch.setattr("icestream.flow.runner.supervisor._LOOK_S", 0.05)
    calls, holds = [0], []
    working = Store.transaction

    @contextmanager
    def transaction(store: Store, *, durable: bool = False) -> Iterator[Any]:
        calls[0] += 1
        with working(store, durable=durable) as connection:
            yield connection
            if failing <= calls[0] < failing + 3:  # what was written in it is lost
                raise StoreUnavailable("the disk is away")

    monkeypatch.setattr(Store, "transaction", transaction)
    report = run_session(session, Settings(cores=2), on_change=lambda status: holds.append(status.pause))
    assert report.finished
    assert any(hold is not None and "the disk is away" in hold.reason for hold in holds)
    assert len(settled(session, "any")) == 8
    assert read_rows(session, schema.failure) == []
    _, members = replay_log(session, "total", tmp_path / "replay")
    assert len(members) == len(set(members)) == 8


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_toy_session(tmp_path, toy_steps(8), numbers=range(8))
    true_time, jumps = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: true_time() + jumps[0])

    def jump(_status: Any) -> None:
        jumps[0] = -86400.0 if jumps[0] > 0 else 86400.0

    assert run_session(session, Settings(cores=2), on_change=jump).finished
    assert len(settled(session, "any")) == 8
    _, members = replay_log(session, "total", tmp_path / "replay")
    assert len(members) == len(set(members)) == 8
