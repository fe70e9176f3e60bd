"""The database of alarms: one observer has the turn, a message is claimed once, histories are bounded."""

import json
import multiprocessing
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from alarms.seen import T0, Story, measured, sample
from icestream.alarms import alarm_rows, alarm_store
from icestream.alarms.alarm_store import CLAIM_S, AlarmStore
from icestream.alarms.channels import CommandChannel
from icestream.alarms.delivery.sending import Addressed, send_due
from icestream.alarms.document import Policy, parse_session_alarms
from icestream.alarms.judging_machine import sampled_s
from icestream.alarms.machine import Sampler, parse_gpus
from icestream.alarms.notify import plan_messages
from icestream.alarms.observations import Observations
from icestream.alarms.rules import LONGEST_SAMPLED_MINUTES, MeasureRule, SystemRule
from icestream.errors import SessionError, StoreUnavailable

RULE = MeasureRule(name="r", measure="ctf_defocus_micrometers", high=3.0)
POLICY = Policy(rules=(RULE,), channels=(CommandChannel(name="staff", command=("x",)),), repeat_minutes=60.0)


STAFF = ("staff",)


@pytest.fixture
def store(tmp_path: Path) -> AlarmStore:
    return AlarmStore(tmp_path / "s.alarms.db")


def look(store: AlarmStore, value: float, now: float, *, holder: str = "a") -> bool:
    """Evaluate and commit, as an observer does."""
    assert store.take_turn(holder, now=now, lasting_s=60)
    story = Story(RULE)
    story.state = store.load_state()
    evaluated = story.see(Observations(measured=(measured([value]),)), now)
    return store.commit(
        holder,
        evaluated,
        sample(now),
        lambda sent, known: plan_messages(POLICY, evaluated, sent=sent, acknowledged=known, now=now),
    )


def test_one_observer_has_the_turn_until_it_gives_it_back_or_stays_away(store):
    assert store.take_turn("a", now=T0, lasting_s=60)
    assert not store.take_turn("b", now=T0 + 59, lasting_s=60)
    assert store.take_turn("a", now=T0 + 59, lasting_s=60)
    assert not store.take_turn("b", now=T0 + 100, lasting_s=60)
    assert store.take_turn("b", now=T0 + 120, lasting_s=60)
    assert not store.take_turn("a", now=T0 + 121, lasting_s=60)
    store.release("a")
    assert not store.take_turn("a", now=T0 + 121, lasting_s=60)
    store.release("b")
    assert store.take_turn("a", now=T0 + 121, lasting_s=60)
    assert store.take_turn("b", now=T0 - 9e5, lasting_s=60)  # a turn that lies far ahead is of a clock that was wrong


def test_who_lost_the_turn_stores_nothing(store):
    assert look(store, 1.0, T0)
    assert store.take_turn("b", now=T0 + 100, lasting_s=60)
    evaluated = Story(RULE).see(Observations(measured=(measured([9.0]),)), T0 + 101)
    assert not store.commit("a", evaluated, None, lambda *_: pytest.fail("nothing is to be planned"))
    assert store.alarms() == []


def test_a_message_is_claimed_once_and_again_only_after_long(store):
    look(store, 9.0, T0)
    (first,) = store.claim_due(channels=STAFF, now=T0)
    assert (first.channel, first.event, first.number) == ("staff", "raised", 1)
    assert store.claim_due(channels=STAFF, now=T0 + CLAIM_S - 1) == []
    (again,) = store.claim_due(channels=STAFF, now=T0 + CLAIM_S)
    store.mark(again.id, "pending", now=T0 + CLAIM_S, error="no answer", due_at=T0 + CLAIM_S + 30)
    assert store.claim_due(channels=STAFF, now=T0 + CLAIM_S + 29) == []
    (third,) = store.claim_due(channels=STAFF, now=T0 + CLAIM_S + 30)
    store.mark(third.id, "sent", now=T0 + CLAIM_S + 31)
    (kept,) = store.deliveries()
    assert (kept.state, kept.attempts, kept.error) == ("sent", 3, None)
    assert store.waits()
    look(store, 1.0, T0 + CLAIM_S + 60)
    (over,) = store.claim_due(channels=STAFF, now=T0 + CLAIM_S + 61)
    assert over.event == "ended"
    store.mark(over.id, "sent", now=T0 + CLAIM_S + 62)
    assert not store.waits()


def _claim(path: Path, found: "multiprocessing.Queue[int]", start: "multiprocessing.synchronize.Event") -> None:
    start.wait()
    found.put(len(AlarmStore(path).claim_due(channels=STAFF, now=T0)))


def test_processes_that_claim_at_the_same_time_share_the_messages(store):
    look(store, 9.0, T0)
    context = multiprocessing.get_context("spawn")
    found, start = context.Queue(), context.Event()
    processes = [context.Process(target=_claim, args=(store.path, found, start)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    counts = sorted(found.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    found.close()
    found.join_thread()
    assert counts == [0, 0, 0, 1]


def test_acknowledging(store):
    look(store, 9.0, T0)
    assert store.acknowledge([1, 7], by="anna", note="is being filled", now=T0 + 5) == [1]
    assert store.acknowledge([1], by="bea", note="", now=T0 + 6) == []
    (kept,) = store.alarms()
    assert (kept.acknowledged_by, kept.acknowledged_at, kept.note) == ("anna", T0 + 5, "is being filled")
    (claimed,) = store.claim_due(channels=STAFF, now=T0)
    store.mark(claimed.id, "sent", now=T0)
    look(store, 9.0, T0 + 9000)
    assert [one.event for one in store.deliveries()] == ["raised"]
    (kept,) = store.alarms()  # what is seen later leaves it acknowledged
    assert kept.acknowledged_by == "anna"
    look(store, 1.0, T0 + 9060)
    assert store.acknowledge([1], by="anna", note="", now=T0 + 9061) == []


def test_histories_are_bounded(store, monkeypatch):
    monkeypatch.setattr(alarm_rows, "MOST_SAMPLES", 5)
    monkeypatch.setattr(alarm_rows, "MOST_ENDED", 2)
    for number in range(8):
        look(store, 9.0, T0 + 100 * number)
        look(store, 1.0, T0 + 100 * number + 50)
    assert [one.alarm.number for one in store.alarms()] == [8, 7]
    assert {one.number for one in store.deliveries()} == {8, 7}
    assert [one.at for one in store.samples(since=0)] == [T0 + 550, T0 + 600, T0 + 650, T0 + 700, T0 + 750]


def test_samples_are_kept_for_as_long_as_a_rule_may_ask(store):
    for at in (T0, T0 + 1800, T0 + alarm_rows.SAMPLES_KEPT_S + 60):
        look(store, 1.0, at)
    assert [one.at - T0 for one in store.samples(since=0)] == [1800, alarm_rows.SAMPLES_KEPT_S + 60]
    assert alarm_rows.SAMPLES_KEPT_S >= 60 * LONGEST_SAMPLED_MINUTES
    assert sampled_s((SystemRule(name="r", value="cpu", high=1, for_minutes=LONGEST_SAMPLED_MINUTES),)) == 24 * 3600
    for kind in ({"kind": "system", "value": "cpu", "high": 1, "for_minutes": 1500}, {"kind": "disk_full", "fit_minutes": 1500}):
        with pytest.raises(SessionError, match="less than or equal to 1440"):
            parse_session_alarms(json.dumps({"rules": [{"name": "r", **kind}]}))


def test_a_message_that_waited_is_not_sent_after_its_alarm_is_over(store):
    look(store, 9.0, T0)
    (raised,) = store.claim_due(channels=STAFF, now=T0)
    look(store, 1.0, T0 + 60)  # meanwhile it is being sent, so that its end is told
    store.mark(raised.id, "pending", now=T0 + 61, error="is not there", due_at=T0 + 61)
    policy = replace(POLICY, channels=(CommandChannel(name="staff", command=("true",)),))
    done = list(send_due(store, policy, Addressed("Ribosome", "/sessions/r", "r"), lambda: T0 + 90))
    assert [(one.delivery.event, one.error) for one in done] == [("ended", None)]
    assert [(one.event, one.state) for one in store.deliveries()] == [("ended", "sent"), ("raised", "dropped")]


def test_nobody_has_observed(store):
    assert (store.exists, store.alarms(), store.deliveries(), store.samples(since=0)) == (False, [], [], [])
    assert store.observer().looked_at is None
    with pytest.raises(SessionError, match="nobody has observed"):
        store.acknowledge([1], by="a", note="", now=T0)
    assert not store.exists


def test_what_is_no_database_is_told(store):
    store.path.write_text("not a database, but long enough to be looked at as one" * 20, encoding="utf-8")
    with pytest.raises(SessionError, match="is no database of alarms"):
        store.alarms()
    store.path.unlink()
    look(store, 1.0, T0)
    with closing(sqlite3.connect(store.path)) as database, database:
        database.execute("UPDATE observer SET state = '{'")
    database.close()
    with pytest.raises(SessionError, match="was written by another version"):
        store.load_state()


def test_who_has_no_facility_document_waits_for_those_who_have_one(store):
    def take(holder: str, after_s: float, facility: str | None = None) -> bool:
        return store.take_turn(holder, now=T0 + after_s, lasting_s=60, facility=facility)

    assert take("plain", 0)
    assert take("equipped", 10, "d")  # goes before who has none
    assert not take("plain", 20)
    assert not take("second", 20, "d")
    store.release("equipped")  # such as `icestream monitor --once`, which comes again
    assert not take("plain", 30)
    assert take("second", 30, "d")
    assert not take("plain", 30 + alarm_store.AWAY_S - 1)
    assert take("plain", 30 + alarm_store.AWAY_S)


def test_a_message_to_a_channel_that_nobody_has_fails_at_last(store):
    look(store, 9.0, T0)
    assert store.claim_due(channels=("mail",), now=T0 + 60) == []
    assert store.claim_due(channels=("mail",), now=T0 + alarm_rows.UNSENT_KEPT_S + 1) == []
    (given_up,) = store.deliveries()
    assert (given_up.state, given_up.error) == (
        "failed",
        "not sent for a day: no observer has this channel, or it came with the folder",
    )


def test_rows_of_another_version_are_told_and_counted(store):
    look(store, 9.0, T0)
    with closing(sqlite3.connect(store.path)) as database, database:
        database.execute("UPDATE alarm SET content = '{}'")
        database.execute('UPDATE sample SET content = \'{"at": "when"}\'')
    database.close()
    for asked in (store.alarms, lambda: store.alarm(1), lambda: store.samples(since=0)):
        with pytest.raises(SessionError, match="was written by another version"):
            asked()
    assert store.count_open() == 1


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path):
    with pytest.raises(StoreUnavailable, match="cannot be used as the database of alarms"):
        AlarmStore(tmp_path / "missing" / "x.db").take_turn("a", now=T0, lasting_s=60)


NVIDIA = """0, NVIDIA H200, 37, 1024, 143771, 44
1, NVIDIA A100-SXM4-80GB MIG 1g.10gb, [N/A], 0, 9728, [N/A]
"""


def test_the_machine_is_sampled(tmp_path):
    first, second = parse_gpus(NVIDIA)
    assert (first.index, first.name, first.use_percent, first.temperature_c) == (0, "NVIDIA H200", 37.0, 44.0)
    assert first.memory_percent == pytest.approx(100 * 1024 / 143771)
    assert (second.name, second.use_percent, second.temperature_c) == ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None, None)
    assert parse_gpus("No devices were found\n") == ()
    now = [T0]
    sampler = Sampler(clock=lambda: now[0], gpus=lambda: (first,))
    begun = sampler.sample(tmp_path)
    assert (begun.cpu_percent, begun.network_in_mb_s, begun.gpus) == (None, None, (first,))
    assert 0 < (begun.memory_percent or 0) <= 100
    assert (begun.disk_free_gb or 0) > 0
    now[0] = T0 + 1
    assert sampler.sample(tmp_path).cpu_percent is None  # asked for another session a moment later, it is the same
    now[0] = T0 + 30
    later = sampler.sample(tmp_path / "missing")
    assert 0 <= (later.cpu_percent or 0) <= 100
    assert later.disk_free_gb is None
    assert (
        min(later.disk_read_mb_s or 0, later.disk_write_mb_s or 0, later.network_in_mb_s or 0, later.network_out_mb_s or 0) >= 0
    )
