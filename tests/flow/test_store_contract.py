"""What every store keeps to, whatever database it lives in."""

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, insert, select, update

from icestream.errors import SessionBusy, SessionError, StaleRunner, StoreUnavailable
from icestream.flow.runner.loop import Runner
from icestream.flow.runner.supervisor import run_session
from icestream.flow.scheduling.instruction_types import NoticeCause, Notify
from icestream.flow.storage import schema
from icestream.flow.storage.claiming import read_runner_row
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.location import Location, Server
from icestream.flow.storage.session import open_session
from icestream.flow.storage.store import Store, append_command
from icestream.flow.storage.store_schema import SCHEMA_VERSION
from icestream.flow.storage.writing import Writing
from icestream.settings import Settings
from toys.session import arrive, outcomes_of, read_rows, replay_log, results_of, toy_steps

if TYPE_CHECKING:
    from toys.places import Place

CLAIM = (
    "import sys, time; from pathlib import Path; from icestream.flow.storage.session import open_session; "
    "from icestream.flow.storage.store import Store; store = Store(open_session(Path(sys.argv[1])).store_at); store.claim(); "
    "print('claimed', flush=True); time.sleep(600)"
)
APPEND = (
    "import sys; from pathlib import Path; from icestream.flow.storage.session import open_session; "
    "from icestream.flow.storage.store import append_command; location = open_session(Path(sys.argv[1])).store_at; "
    "[append_command(location, 'retry', {'number': i}, author='another process') for i in range(5)]"
)
SHORT_LEASE_S = 0.3


@contextmanager
def claimed(location: Location) -> Iterator[Store]:
    store = Store(location)
    store.claim(lease_s=SHORT_LEASE_S)
    try:
        yield store
    finally:
        store.dispose()


@contextmanager
def other_process(code: str, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def change_runner(location: Location, **values: Any) -> None:
    """Play another machine: change the runner's row behind everybody's back."""
    engine = engine_for(location)
    with engine.begin() as connection:
        connection.execute(update(schema.runner).values(**values))
    engine.dispose()


def rows_of(location: Location, table: Any) -> list[dict[str, Any]]:
    engine = engine_for(location, read_only=True)
    try:
        with engine.begin() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]
    finally:
        engine.dispose()


def notify(store: Store, connection: Connection, message: str) -> None:
    values = {"seq": store.next_seq(), "level": "info", "message": message, "at": 0.0}
    connection.execute(insert(schema.notice).values(values))


def messages(location: Location) -> list[str]:
    return [row["message"] for row in rows_of(location, schema.notice)]


# Claiming ------------------------------------------------------------------------------------------------------------------


def test_a_claim_makes_the_tables_and_raises_the_number(place: "Place") -> None:
    location = place.location()
    for fence in (1, 2):
        with claimed(location) as store:
            assert store.fence == fence
            (row,) = rows_of(location, schema.runner)
            assert (row["state"], row["fence"], row["schema_version"]) == ("running", fence, SCHEMA_VERSION)
            store.close("done")
    (row,) = rows_of(location, schema.runner)
    assert (row["state"], row["note"]) == ("stopped", "done")


def test_a_runner_that_lives_is_not_replaced_and_one_that_was_killed_is_at_once(place: "Place") -> None:
    location = place.location()
    with other_process(CLAIM, place.folder / "a" / "session") as process:
        with pytest.raises(SessionBusy, match=f"by process {process.pid} on"):
            Store(location).claim()
        change_runner(location, last_seq=41)
    engine = engine_for(location)
    with engine.begin() as connection:
        lease = {"revision": 1, "unit": "u", "attempt": "x", "fence": 1, "worker": "w1", "started_at": 0.0}
        connection.execute(insert(schema.lease).values(lease))
    engine.dispose()
    with claimed(location) as store:
        assert (store.fence, store.seq) == (2, 41)
        assert rows_of(location, schema.lease) == []


def test_another_store_of_this_process_is_a_second_runner_too(place: "Place") -> None:
    location = place.location()
    with claimed(location), pytest.raises(SessionBusy):
        Store(location).claim()
    with claimed(location) as store:  # the first one let go without a word, as after an error that lost the store
        assert store.fence == 2


@pytest.mark.parametrize("heartbeat_at", [0.0, 4e9], ids=["clock behind", "clock ahead"])
def test_a_silent_runner_elsewhere_is_replaced_whatever_its_clock_says(place: "Place", heartbeat_at: float) -> None:
    location = place.location()
    with claimed(location):
        pass
    change_runner(location, host="elsewhere", heartbeat_at=heartbeat_at)
    with claimed(location) as store:
        assert store.fence == 2


@pytest.mark.parametrize("heartbeat_at", [0.0, 4e9], ids=["clock behind", "clock ahead"])
def test_a_runner_elsewhere_whose_heart_beats_is_not_replaced(place: "Place", heartbeat_at: float) -> None:
    location = place.location()
    with claimed(location):
        pass
    change_runner(location, host="elsewhere", heartbeat_at=heartbeat_at)
    over = threading.Event()

    def beat() -> None:
        beats = 0
        while not over.wait(0.02):
            beats += 1
            change_runner(location, heartbeat_at=heartbeat_at + beats)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(SessionBusy, match="on elsewhere"):
            Store(location).claim(lease_s=60)
    finally:
        over.set()
        heart.join()


def test_a_clock_that_was_set_does_not_make_a_living_runner_look_dead(place: "Place") -> None:
    location = place.location()
    with other_process(CLAIM, place.folder / "a" / "session") as process:
        (row,) = rows_of(location, schema.runner)
        change_runner(location, pid_started=row["pid_started"] - 3600)
        with pytest.raises(SessionBusy, match=f"by process {process.pid} on"):
            _claim_while_beating(location)


def _claim_while_beating(location: Location) -> None:
    over = threading.Event()

    def beat() -> None:
        beats = itertools.count(1.0)
        while not over.wait(0.2):
            change_runner(location, heartbeat_at=next(beats))

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        Store(location).claim(lease_s=60)
    finally:
        over.set()
        heart.join()


def test_a_runner_elsewhere_that_stops_while_it_is_watched_makes_room_at_once(place: "Place") -> None:
    location = place.location()
    with claimed(location):
        pass
    change_runner(location, host="elsewhere")
    leaving = threading.Timer(0.2, change_runner, args=(location,), kwargs={"state": "stopped"})
    leaving.start()
    store = Store(location)
    store.claim(lease_s=60)
    leaving.join()
    assert store.fence == 2
    store.close("done")


def test_a_store_of_a_newer_schema_is_refused_and_left_alone(place: "Place") -> None:
    location = place.location()
    with claimed(location) as store:
        store.close("done")
    change_runner(location, schema_version=99)
    with pytest.raises(SessionError, match=f"has schema 99, but this version of icestream reads {SCHEMA_VERSION} and older"):
        Store(location).claim()
    (row,) = rows_of(location, schema.runner)
    assert (row["fence"], row["state"], row["schema_version"]) == (1, "stopped", 99)


# Writing -------------------------------------------------------------------------------------------------------------------


def test_a_stale_writer_cannot_commit(place: "Place") -> None:
    location = place.location()
    with claimed(location) as stale:
        change_runner(location, fence=stale.fence + 1)
        with pytest.raises(StaleRunner, match="taken over"), stale.transaction() as connection:
            notify(stale, connection, "late")
        assert messages(location) == []
        assert not stale.give_back("tried")
        (row,) = rows_of(location, schema.runner)
        assert row["state"] == "running"  # it belongs to the other one


def test_a_takeover_waits_for_the_open_transaction_and_ends_the_next(place: "Place") -> None:
    location = place.location()
    fresh = Store(location)
    with claimed(location) as old:
        change_runner(location, host="elsewhere")
        claimer = threading.Thread(target=fresh.claim, kwargs={"lease_s": SHORT_LEASE_S})
        with old.transaction() as connection:
            notify(old, connection, "in time")
            claimer.start()
            time.sleep(3 * SHORT_LEASE_S)  # the lease is over, and still nobody can have taken the session
            assert fresh.fence == 0
        claimer.join()
        assert fresh.fence == old.fence + 1
        with pytest.raises(StaleRunner), old.transaction() as connection:
            notify(old, connection, "too late")
        with fresh.transaction() as connection:
            notify(fresh, connection, "mine")
    assert messages(location) == ["in time", "mine"]
    fresh.close("done")


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(place: "Place") -> None:
    location = place.location()
    with claimed(location) as store:
        before = rows_of(location, schema.runner)
        with pytest.raises(ZeroDivisionError), store.transaction() as connection:
            notify(store, connection, "half")
            raise ZeroDivisionError
        assert messages(location) == []
        assert rows_of(location, schema.runner) == before
        with pytest.raises(SessionError) as refused, store.transaction() as connection:
            notify(store, connection, "half")
            store.seq -= 1
            notify(store, connection, "the same number twice")
        assert not isinstance(refused.value, StoreUnavailable)
        assert messages(location) == []
        with store.transaction() as connection:
            notify(store, connection, "whole")
        assert messages(location) == ["whole"]
        (row,) = rows_of(location, schema.runner)
        assert row["last_seq"] == store.seq


def test_durable_commits_are_synced_and_others_need_not_be(place: "Place") -> None:
    location = place.location()
    question = "SHOW synchronous_commit" if isinstance(location, Server) else "PRAGMA synchronous"
    expected = ("on", "off") if isinstance(location, Server) else (2, 1)
    with claimed(location) as store:
        answers = []
        for durable in (True, False):
            with store.transaction(durable=durable) as connection:
                answers.append(connection.exec_driver_sql(question).scalar())
    assert tuple(answers) == expected


def test_the_first_result_of_a_key_stays(place: "Place") -> None:
    location = place.location()
    with claimed(location) as store, store.transaction() as connection:
        writing = Writing(store, connection, {}, "")
        new = {"step": "s", "number": 1, "use": "u", "type": "t", "type_version": 1, "kind": "map", "params": "{}"}
        new |= {"links": "{}", "epoch": 0, "definition": "", "software": "", "state": "active", "created_at": 0.0}
        made = connection.execute(insert(schema.revision).values(new))
        assert made.inserted_primary_key is not None
        common = {"revision": made.inserted_primary_key[0], "unit": "u", "record_type": "R", "record_version": 1, "weight": 1}
        common |= {"inputs": "{}", "params": "{}", "acquisition": "{}", "wall_s": 0.0, "cpu_s": 0.0, "host": "", "software": ""}
        for record, block in (("first", b"\x00\xff"), ("second", None)):
            writing.put_result(key="k", record=record, block=block, **common)
    (row,) = rows_of(location, schema.result)
    assert (row["record"], bytes(row["block"])) == ("first", b"\x00\xff")


def test_texts_that_are_no_texts_are_stored_readably(place: "Place") -> None:
    location = place.location()
    with claimed(location) as store, store.transaction() as connection:
        writing = Writing(store, connection, {}, "")
        writing.notify(Notify("info", "null \0 and a name that is no UTF-8 \udcff", "µ", cause=NoticeCause.WORKERS))
        writing.flush()
    assert messages(location) == ["null \N{REPLACEMENT CHARACTER} and a name that is no UTF-8 \\udcff"]


def test_commands_come_from_other_processes(place: "Place") -> None:
    location = place.location()
    with claimed(location):
        folder = place.folder / "a" / "session"
        subprocess.run([sys.executable, "-c", APPEND, str(folder)], check=True)
        numbers = [append_command(location, "retry", {}, author="µ"), append_command(location, "retry", {}, author="me")]
    found = rows_of(location, schema.command)
    assert sorted(row["id"] for row in found)[-2:] == numbers
    assert [row["author"] for row in found].count("another process") == 5


# Reading -------------------------------------------------------------------------------------------------------------------


def test_a_reader_along_the_sequence_misses_nothing_and_sees_whole_transactions(place: "Place") -> None:
    location = place.location()
    with claimed(location) as store:
        over = threading.Event()

        def write() -> None:
            try:
                for number in range(150):
                    with store.transaction(durable=number % 10 == 0) as connection:
                        notify(store, connection, str(number))
                        drain = {"seq": store.next_seq(), "step": "s", "state": "resumed", "by": "", "reason": "", "at": 0.0}
                        connection.execute(insert(schema.drain).values(drain))
            finally:
                over.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen: list[int] = []
        reader = engine_for(location, read_only=True)
        last_round = False
        while not last_round:
            last_round = over.is_set()
            with reader.begin() as connection:
                numbers = []
                for table in (schema.notice, schema.drain):
                    later = table.c.seq > (seen[-1] if seen else 0)
                    numbers.append(list(connection.execute(select(table.c.seq).where(later)).scalars()))
                    time.sleep(0.002)
            assert len(numbers[0]) == len(numbers[1]), "a transaction was seen in part"
            seen += sorted(numbers[0] + numbers[1])
        writer.join()
        reader.dispose()
    assert seen == list(range(1, 301))


def test_a_reader_cannot_write(place: "Place") -> None:
    location = place.location()
    with claimed(location):
        reader = engine_for(location, read_only=True)
        with pytest.raises(Exception, match=r"read-?only"), reader.begin() as connection:
            connection.execute(update(schema.runner).values(fence=0))
        reader.dispose()


# Trouble -------------------------------------------------------------------------------------------------------------------


def test_a_store_that_another_process_locks_is_unavailable_until_it_lets_go(
    place: "Place", monkeypatch: pytest.MonkeyPatch
) -> None:
    location = place.location()
    monkeypatch.setattr("icestream.flow.storage.database.LOCK_WAIT_S", 0.2)
    with claimed(location) as store:
        other = engine_for(location)
        with other.begin() as connection:
            read_runner_row(connection, lock=True)
            with pytest.raises(StoreUnavailable, match="cannot be written"), store.transaction() as mine:
                notify(store, mine, "locked out")
        other.dispose()
        with store.transaction() as mine:
            notify(store, mine, "let in")
    assert messages(location) == ["let in"]


def test_a_store_that_is_lost_is_unavailable_and_comes_back(place: "Place") -> None:
    location = place.location()
    with claimed(location) as store:
        if isinstance(location, Path):
            location.rename(location.with_name("elsewhere.db"))
            with pytest.raises(StoreUnavailable, match="is missing"), store.transaction():
                pass
            assert not location.exists()
            location.with_name("elsewhere.db").rename(location)
        else:
            with pytest.raises(StoreUnavailable, match="cannot be written"), store.transaction() as connection:
                notify(store, connection, "lost")
                _end_connections(location)
                notify(store, connection, "lost too")
        with store.transaction() as connection:
            notify(store, connection, "back")
    assert messages(location) == ["back"]


def test_a_connection_that_was_lost_between_two_transactions_is_made_again(place: "Place") -> None:
    location = place.location()
    with claimed(location) as store:
        for number in range(2):
            with store.transaction() as connection:
                notify(store, connection, str(number))
            if isinstance(location, Server):
                _end_connections(location)
            else:
                store._disconnect()  # noqa: SLF001 - what a file can lose
    assert messages(location) == ["0", "1"]


def _end_connections(server: Server) -> None:
    """Play a server that is restarted: end the connections of writers."""
    engine = engine_for(server, read_only=True)
    with engine.begin() as connection:
        end = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'icestream'"
        connection.exec_driver_sql(f"{end} and pid <> pg_backend_pid()")
    engine.dispose()


# Runs ----------------------------------------------------------------------------------------------------------------------


def test_an_error_in_the_run_loop_gives_the_session_back(place: "Place", monkeypatch: pytest.MonkeyPatch) -> None:
    session = place.session(toy_steps(4), numbers=range(4))
    for method in ("_meet_store", "_cycle"):
        with monkeypatch.context() as patch:

            def fail(_runner: Runner) -> None:
                raise ZeroDivisionError("the engine has a fault")

            patch.setattr(Runner, method, fail)
            with pytest.raises(ZeroDivisionError):
                run_session(session, Settings(cores=1))
        (row,) = read_rows(session, schema.runner)
        assert row["state"] == "stopped"
        assert "the engine has a fault" in row["note"]
    assert run_session(session, Settings(cores=2)).finished


@pytest.mark.parametrize("store_kind", [pytest.param("postgresql", marks=pytest.mark.services)])
def test_a_session_with_kills_comes_to_the_same_results_as_an_undisturbed_one_on_sqlite(place: "Place") -> None:
    count = 40
    calm = replace(place, store=None).session(toy_steps(count, fail_on=[4]), numbers=range(count), name="calm")
    assert run_session(calm, Settings(cores=2)).finished
    session = place.session(toy_steps(count, fail_on=[4]), numbers=range(2))
    come = 2
    for die_at in ("claimed:1", "before_commit:4", "after_commit:4", "after_give:4", "after_sync:1"):
        runner = place.start(session, die_at=die_at)
        while runner.poll() is None and come < count - 1:  # the last number is kept back: no life ends otherwise
            come += 1
            arrive(place.folder / "a", range(come))
            with suppress(subprocess.TimeoutExpired):
                runner.wait(1.5)
        assert runner.wait(60.0) == -9
    arrive(place.folder / "a", range(count))
    assert place.start(session).wait(120) == 0
    assert results_of(session) == results_of(calm)
    mine, theirs = outcomes_of(session), outcomes_of(calm)
    for step, unit in theirs:
        if step in ("numbers", "triple", "even", "odd", "both", "any", "gate", "total"):
            assert (mine[step, unit]["status"], mine[step, unit]["reason"]) == (
                theirs[step, unit]["status"],
                theirs[step, unit]["reason"],
            )
    _, members = replay_log(session, "total", place.folder / "replay")
    assert len(members) == len(set(members)) == count - 1
    assert read_rows(session, schema.lease) == []
    made = {row["key"]: row["created_at"] for row in read_rows(session, schema.result)}
    assert run_session(open_session(session.folder), Settings(cores=2)).finished
    assert {row["key"]: row["created_at"] for row in read_rows(session, schema.result)} == made
