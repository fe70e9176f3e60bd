"""One contract for the engine: every store times every way to execute must bring the same session to the same end."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from icestream.flow.commands.requests import Continue, Override, Recompute, Restart, Set
from icestream.flow.runner.answering import submit
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, open_session
from icestream.settings import Settings
from toys.session import (
    ORDER_FREE,
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
from toys.sites import Site

if TYPE_CHECKING:
    from toys.places import Place

COUNT = 12
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A session that nothing disturbed, on this machine and SQLite."""
    session = make_toy_session(tmp_path_factory.mktemp("calm"), toy_steps(COUNT, fail_on=[4]), numbers=range(COUNT))
    assert run_session(session, Settings(cores=2)).finished
    return session


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def verdicts(session: Session) -> dict[tuple[str, str], tuple[str, str | None]]:
    return {
        (step, unit): (row["status"], row["reason"]) for (step, unit), row in outcomes_of(session).items() if step in ORDER_FREE
    }


def check_accumulator(session: Session, folder: Path, count: int) -> None:
    state, members = replay_log(session, "total", folder)
    assert len(members) == len(set(members)) == json.loads(state)["count"] == count
    assert read_rows(session, schema.lease) == []


def test_a_session_with_failures_ends_the_same_everywhere(place: "Place", site: Site, calm: Session) -> None:
    session = place.session(toy_steps(COUNT, fail_on=[4]), numbers=range(COUNT))
    assert start_runner(session, where=site.where).wait(PATIENCE_S) == 0
    assert results_of(session) == results_of(calm)
    assert verdicts(session) == verdicts(calm)
    check_accumulator(session, place.folder / "replay", COUNT - 1)


@pytest.mark.parametrize(("point", "count"), [("before_commit", 6), ("after_commit", 5), ("after_give", 4), ("after_sync", 1)])
def test_a_runner_that_is_killed_loses_nothing_and_does_nothing_twice(
    place: "Place", site: Site, calm: Session, point: str, count: int
) -> None:
    def make(number: int) -> Session:
        return place.session(toy_steps(COUNT, fail_on=[4]), numbers=range(COUNT), name=f"a{number}")

    session = let_runner_die(make, point, count, where=site.where)
    before = {row["key"]: row["created_at"] for row in read_rows(session, schema.result)}
    assert start_runner(session, where=site.where).wait(PATIENCE_S) == 0
    assert results_of(session) == results_of(calm)
    assert verdicts(session) == verdicts(calm)
    after = {row["key"]: row["created_at"] for row in read_rows(session, schema.result)}
    assert {key: after[key] for key in before} == before
    check_accumulator(session, place.folder / "replay", COUNT - 1)


def test_a_live_edit_and_a_restart_end_as_if_it_had_been_so_from_the_start(place: "Place", site: Site, tmp_path: Path) -> None:
    plain = make_toy_session(tmp_path / "plain", toy_steps(COUNT, factor=7), numbers=range(COUNT))
    assert run_session(plain, Settings(cores=2)).finished
    session = place.session(toy_steps(COUNT, sleep_s=0.05), numbers=range(COUNT - 2))
    runner = start_runner(session, where=site.where)
    try:
        until(lambda: _exists(session) and sum(step == "triple" for step, _ in outcomes_of(session)) >= 3)
        asked: dict[str, Any] = {"author": "eva", "settings": Settings(cores=2), "patience_s": PATIENCE_S}
        assert submit(session, Set(step="triple", params={"factor": 7}), **asked).state == "done"
        assert submit(session, Override(unit="3", verdict="reject"), **asked).state == "done"
        assert submit(session, Restart(step="odd"), **asked).state == "done"
        arrive(place.folder / "a", range(COUNT - 2, COUNT))
        assert runner.wait(PATIENCE_S) == 0
    finally:
        runner.kill()
        runner.wait()
    edited = open_session(session.folder)
    mine, theirs = verdicts(edited), verdicts(plain)
    assert {at: told for at, told in mine.items() if at[1] != "3"} == {at: told for at, told in theirs.items() if at[1] != "3"}
    assert mine["triple", "3"][0] == "skipped"
    values = {key: json.loads(record)["value"] for key, (record, _) in results_of(plain, ("triple",)).items()}
    assert {json.loads(record)["value"] for record, _ in results_of(edited, ("triple",)).values()} <= set(values.values())


def test_what_failed_is_retried_on_request(place: "Place", site: Site) -> None:
    session = place.session(toy_steps(6, fail_on=[2], heal_file="session:healed"), numbers=range(6))
    assert start_runner(session, where=site.where).wait(PATIENCE_S) == 0
    assert outcomes_of(session)["triple", "2"]["status"] == "failed"
    (session.folder / "healed").touch()
    assert submit(session, Continue(), author="eva", settings=Settings(cores=2)).state == "done"
    assert start_runner(session, where=site.where).wait(PATIENCE_S) == 0
    assert outcomes_of(session)["triple", "2"]["status"] == "item"
    check_accumulator(session, place.folder / "replay", 6)


@pytest.mark.parametrize("die_at", ["after_commit:2"])
def test_an_exposure_with_parameters_of_its_own_keeps_them_everywhere(place: "Place", site: Site, die_at: str) -> None:
    session = place.session(toy_steps(6), numbers=range(6))
    assert start_runner(session, where=site.where).wait(PATIENCE_S) == 0
    common = outcomes_of(session)
    asked: dict[str, Any] = {"author": "eva", "settings": Settings(cores=2)}
    assert submit(session, Recompute(unit="2", step="triple", params={"factor": 8}, reason="ice"), **asked).state == "done"
    start_runner(session, where=site.where, die_at=die_at).wait(PATIENCE_S)
    assert start_runner(session, where=site.where).wait(PATIENCE_S) == 0
    assert (_value(session, "triple", "2"), _value(session, "any", "2"), _value(session, "both", "4")) == (16, 16, 16)
    assert submit(session, Set(step="triple", params={"factor": 4}), **asked).state == "done"
    session = open_session(session.folder)
    assert start_runner(session, where=site.where).wait(PATIENCE_S) == 0
    assert (_value(session, "triple", "2"), _value(session, "triple", "4")) == (16, 16)
    assert submit(session, Set(step="triple", params={"factor": 3}), **asked).state == "done"
    assert submit(session, Recompute(unit="2", step="triple", lift=True), **asked).state == "done"
    session = open_session(session.folder)
    assert start_runner(session, where=site.where).wait(PATIENCE_S) == 0
    again = outcomes_of(session)
    assert {at: again[at]["keys"] for at in again if at[0] in ORDER_FREE} == {
        at: common[at]["keys"] for at in common if at[0] in ORDER_FREE
    }
    (row,) = read_rows(session, schema.recompute)
    assert (row["author"], row["reason"], bool(row["active"])) == ("eva", "ice", False)
    check_accumulator(session, place.folder / "replay", 6)


def _value(session: Session, step: str, number: str) -> int:
    key = outcomes_of(session)[step, number]["keys"]["out"]
    return int(json.loads(next(row["record"] for row in read_rows(session, schema.result) if row["key"] == key))["value"])


def test_a_stopped_runner_goes_on_elsewhere(place: "Place", site: Site, calm: Session) -> None:
    session = place.session(toy_steps(COUNT, fail_on=[4]), numbers=range(COUNT))
    runner = start_runner(session, where=site.where)
    until(lambda: _exists(session) and len(outcomes_of(session)) > COUNT)
    os.kill(runner.pid, signal.SIGTERM)
    assert runner.wait(PATIENCE_S) == 0
    assert start_runner(session).wait(PATIENCE_S) == 0
    assert results_of(session) == results_of(calm)
    check_accumulator(session, place.folder / "replay", COUNT - 1)


def _exists(session: Session) -> bool:
    try:
        return bool(read_rows(session, schema.exposure))
    except Exception:  # noqa: BLE001 - the tables are being made
        return False
