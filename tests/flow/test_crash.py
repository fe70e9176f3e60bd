"""Killing the runner at every commit point, and runner and workers at random times: nothing lost, nothing twice."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Table, func, select

from icestream.flow.runner.fault_points import POINTS
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.session import Session
from icestream.settings import Settings
from toys.session import (
    active_steps,
    arrive,
    let_runner_die,
    make_toy_session,
    outcomes_of,
    read_rows,
    replay_log,
    results_of,
    start_runner,
    toy_steps,
)

N_SMALL = 14


def run_out(session: Session) -> bool:
    """Run a session in this process, which spares the start of another one; tell whether it came to its end."""
    return run_session(session, Settings(cores=2, cancel_grace_s=1.0)).finished


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Session:
    session = make_toy_session(tmp_path_factory.mktemp("calm"), toy_steps(N_SMALL, fail_on=[4]), numbers=range(N_SMALL))
    assert run_out(session)
    return session


def check_whole(session: Session, calm: Session, folder: Path) -> None:
    """Compare a disturbed session with an undisturbed one, and its accumulator with a replay of its own log."""
    assert results_of(session) == results_of(calm)
    for (step, unit), outcome in outcomes_of(calm).items():
        if step in ("numbers", "triple", "even", "odd", "both", "any", "gate", "total"):
            mine = outcomes_of(session)[step, unit]
            assert (mine["status"], mine["reason"]) == (outcome["status"], outcome["reason"]), (step, unit)
    state, members = replay_log(session, "total", folder)
    assert len(members) == len(set(members)), "an exposure was consumed twice"
    expected = {row["unit"] for (step, _), row in outcomes_of(session).items() if step == "any" and row["status"] == "item"}
    assert set(members) == expected, "an exposure was lost"
    steps = active_steps(session)
    log = [row for row in read_rows(session, schema.accumulator_log) if steps.get(row["revision"]) == "total"]
    assert all(row["absorbed"] for row in log)
    stored = json.loads(max(log, key=lambda row: int(row["position"]))["state"])
    assert {name: value for name, value in stored.items() if name != "file"} == json.loads(state)
    assert read_rows(session, schema.lease) == []
    assert not list(session.folder.rglob(".*part~*")), "temporary files were left"


ONCE = ("claimed", "source_started", "before_close")
ELSEWHERE = {("after_sync", 1), ("before_commit", 4), ("after_commit", 4), ("after_give", 4)}
"""The contract of the engine has these, of the same session, for every executor and store."""

DEATHS = {(point, 1) for point in POINTS} | {(point, 4) for point in POINTS if point not in ONCE}


@pytest.mark.parametrize(("point", "count"), sorted(DEATHS - ELSEWHERE))
def test_runner_dies_at_a_commit_point(point: str, count: int, tmp_path: Path, undisturbed: Session) -> None:
    def make(number: int) -> Session:
        return make_toy_session(tmp_path / str(number), toy_steps(N_SMALL, fail_on=[4]), numbers=range(N_SMALL))

    session = let_runner_die(make, point, count)
    assert run_out(session)
    check_whole(session, undisturbed, tmp_path / "replay")


def test_runner_and_workers_are_killed_at_random(tmp_path: Path) -> None:
    count = 120
    calm = make_toy_session(tmp_path / "calm", toy_steps(count), numbers=range(count))
    assert run_out(calm)
    session = make_toy_session(tmp_path / "rough", toy_steps(count, sleep_s=0.03), numbers=range(0))
    rng = random.Random(20261122)
    kills, runner = 0, start_runner(session)
    while kills < 24:
        arrive(tmp_path / "rough", range(kills * 5, kills * 5 + 5))  # the last five come for the last kill
        time.sleep(rng.uniform(0.3, 1.1))
        assert runner.poll() is None, "the runner ended by itself"
        victim = runner.pid if _has_died_twice(session) else _pick_victim(runner.pid, rng)
        if victim is None:
            continue
        os.kill(victim, signal.SIGKILL)
        kills += 1
        if victim == runner.pid:
            runner.wait()
            runner = start_runner(session)
    assert runner.wait(240) == 0
    check_whole(session, calm, tmp_path / "replay")


def _has_died_twice(session: Session) -> bool:
    """Tell whether an item would be set aside if one more worker died of it; a runner's death is not counted against items."""
    if _count(session, schema.outcome) == 0:  # or there is no store yet
        return False
    decided = {(row["revision"], row["unit"]) for row in read_rows(session, schema.outcome)}
    deaths = Counter((row["revision"], row["unit"]) for row in read_rows(session, schema.failure) if not row["cleared"])
    return any(count >= 2 and item not in decided for item, count in deaths.items())


def _pick_victim(runner_pid: int, rng: random.Random) -> int | None:
    if rng.random() < 0.5:
        return runner_pid
    try:
        children = psutil.Process(runner_pid).children()
    except psutil.NoSuchProcess:
        return None
    return rng.choice(children).pid if children else None


def test_workers_die_with_their_runner(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(60, sleep_s=0.2), numbers=range(50))
    runner = start_runner(session)
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while len(children) < 3 and time.monotonic() < deadline:
        children = psutil.Process(runner.pid).children()
        time.sleep(0.05)
    runner.kill()
    runner.wait()
    deadline = time.monotonic() + 60
    while any(_lives(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(children) == 3
    assert not any(_lives(child) for child in children)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_an_item_that_kills_its_worker_three_times_is_set_aside(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(8, crash_on=[6]), numbers=range(8))
    assert run_out(session)
    outcome = outcomes_of(session)["triple", "6"]
    assert outcome["status"] == "failed"
    assert "worker died" in outcome["reason"]
    assert sum(row["kind"] == "worker_died" for row in read_rows(session, schema.failure)) == 3
    assert outcomes_of(session)["triple", "7"]["status"] == "item"


def test_deaths_are_counted_across_restarts(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(8, crash_on=[6]), numbers=range(8))
    runner = start_runner(session)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _count_deaths(session) < 1:
        time.sleep(0.02)
    runner.kill()
    runner.wait()
    assert run_out(session)
    assert outcomes_of(session)["triple", "6"]["status"] == "failed"
    assert _count_deaths(session) == 3


def _count_deaths(session: Session) -> int:
    return _count(session, schema.failure)


def _count(session: Session, table: Table) -> int:
    if not session.store_path.exists():
        return 0
    engine = engine_for(session.store_path, read_only=True)
    try:
        with engine.connect() as connection:
            known = "select count(*) from sqlite_master where name = ?"
            if not connection.exec_driver_sql(known, (table.name,)).scalar():
                return 0
            return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
    finally:
        engine.dispose()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stopped_runner_finishes_what_runs_and_the_next_goes_on(name: str, tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(30, sleep_s=0.1), numbers=range(30))
    runner = start_runner(session)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _count(session, schema.outcome) < 40:
        time.sleep(0.02)
    runner.send_signal(getattr(signal, name))
    assert runner.wait(60) == 0
    (row,) = read_rows(session, schema.runner)
    assert (row["state"], row["note"]) == ("stopped", "stopped by its operator")
    assert read_rows(session, schema.lease) == []
    before = {row["key"] for row in read_rows(session, schema.result)}
    assert run_out(session)
    assert before < {row["key"] for row in read_rows(session, schema.result)}
    assert {outcome["status"] for (step, _), outcome in outcomes_of(session).items() if step == "triple"} == {"item"}


@pytest.mark.parametrize("another_in_its_place", [False, True])
def test_a_session_that_is_deleted_while_it_runs_ends_the_runner(another_in_its_place: bool, tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(60), numbers=range(3))
    runner = start_runner(session)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _count(session, schema.outcome) < 5:
        time.sleep(0.02)
    session.folder.rename(tmp_path / "elsewhere")
    if another_in_its_place:
        session.folder.mkdir()
    assert runner.wait(30) not in (0, -signal.SIGKILL)
