"""Observing sessions: what is seen becomes alarms, each told once, however many observers there are."""

import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from paper_acquisition import write_acquisition
from paper_session import PaperSession

from icestream.alarms.machine import Sampler
from icestream.alarms.observations import Observations
from icestream.alarms.rules import MeasureRule
from icestream.facility.observing import (
    Observer,
    Turn,
    account_alarm_store,
    observe_all,
    observing,
    policy_of,
    send_test,
    sessions_in,
)
from icestream.files import SESSION_ALARMS
from icestream.flow.storage import Session, open_session, schema
from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.observe.queries import open_view
from icestream.observe.session_alarms import alarm_store_of
from icestream.observe.watched import watch_session
from icestream.records import CtfFit
from icestream.transfer.anchored import FileStamp
from icestream.transfer.ledger import account_ledger
from toys.session import arrive, make_toy_session, start_runner, toy_steps

RECEIVER = """
import json, os, sys
from pathlib import Path
message = json.load(sys.stdin)
with Path(sys.argv[1]).open("a") as log:
    log.write(json.dumps({**message, "heard": os.environ["ICESTREAM_ALARM_HEADING"]}) + "\\n")
"""


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def paper(tmp_path: Path) -> PaperSession:
    """A session that is running."""
    made = write_acquisition(tmp_path / "paper", 12, name="Ribosome")
    (made.session.folder / DOCUMENT).write_text(dump_document(made.session.document), encoding="utf-8")
    return made


@pytest.fixture
def facility(tmp_path: Path) -> Path:
    """A facility that hands messages to a program, which writes them down."""
    receiver, path = tmp_path / "receiver.py", tmp_path / "facility.yaml"
    receiver.write_text(RECEIVER, encoding="utf-8")
    command = [sys.executable, str(receiver), str(tmp_path / "heard.jsonl")]
    channels = [{"name": "staff", "kind": "command", "command": command}]
    rules = [
        {"name": "thick", "kind": "measure", "measure": "ctf_defocus_micrometers", "high": 3.0, "window": 5, "count": 2},
    ]
    path.write_text(json.dumps({"channels": channels, "rules": rules, "defaults": False}), encoding="utf-8")
    return path


def heard(tmp_path: Path) -> list[dict]:
    path = tmp_path / "heard.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def observer(facility: Path | None, clock: Clock, name: str) -> Observer:
    return Observer(facility, sampler=Sampler(clock=clock, gpus=tuple), clock=clock, holder=name)


def worsen(paper: PaperSession, first: int, count: int, *, defocus_ang: float) -> None:
    """Let exposures arrive that are far from focus."""
    for number in range(first, first + count):
        paper.now += 60
        unit = paper.expose(f"FoilHole_9{number:03d}", number)
        fit = CtfFit(
            defocus_u_ang=defocus_ang, defocus_v_ang=defocus_ang, astigmatism_angle_deg=0.0, score=0.3, resolution_ang=4.0
        )
        paper.make("ctf_a", unit, fit)


def test_an_alarm_is_raised_told_once_and_ends(paper, facility, tmp_path):
    clock = Clock(paper.now + 1)
    two = [observer(facility, clock, name) for name in ("serve", "watch")]
    assert [one.turn(paper.session.folder).opened for one in two] == [(), ()]
    worsen(paper, 13, 3, defocus_ang=36_000)
    clock.now = paper.now + 5
    turns = [one.turn(paper.session.folder) for one in two]
    told = [(turn.evaluated is not None, len(turn.opened), len(turn.deliveries)) for turn in turns]
    assert told == [(True, 1, 1), (False, 0, 0)]
    (message,) = heard(tmp_path)
    assert message["event"] == "raised"
    assert message["rule"] == "thick"
    assert message["subject"] == "ctf_a:ctf_defocus_micrometers"
    assert (message["exposures"], message["first"], message["newest"]) == (3, "FoilHole_9013", "FoilHole_9015")
    assert message["since"] == paper.now - 120
    assert "3.6\N{NO-BREAK SPACE}µm" in message["detail"]
    assert "FoilHole_9015" in message["look_at"]
    assert message["heard"] == message["heading"] == "[icestream] Ribosome: Defocus is outside its limits"
    worsen(paper, 16, 5, defocus_ang=15_000)
    clock.now = paper.now + 5
    turns = [one.turn(paper.session.folder) for one in reversed(two)]  # the first has not come back for long, and lost its turn
    assert [(turn.evaluated is not None, len(turn.ended)) for turn in turns] == [(True, 1), (False, 0)]
    assert [one["event"] for one in heard(tmp_path)] == ["raised", "ended"]
    kept = alarm_store_of(paper.session).alarms()
    assert [(one.alarm.number, one.alarm.ended_because) for one in kept] == [(1, "it is well again")]


def test_what_rules_are_judged_by_is_read_from_the_store(paper):
    rules = (MeasureRule(name="r", measure="ctf_defocus_micrometers", high=3.0),)
    unit = paper.expose("FoilHole_9001", 13)
    paper.fail("align", unit, "frame 7 is broken")
    paper.add(
        schema.failure, seq=paper.store.next_seq(), revision=paper.revisions["ctf_a"], unit=unit, attempt="x", kind="worker_died",
        error_type="WorkerDied", message="killed", traceback="", cleared=False, at=paper.now,
    )  # fmt: skip
    with open_view(paper.session) as view:
        seen, shown = watch_session(view, rules, ()), view.arrivals().per_hour
    assert (seen.runner.state, seen.runner.paused, seen.totals.exposures) == ("running", False, 13)
    assert [one.id for one in seen.measured] == ["ctf_a:ctf_defocus_micrometers", "ctf_b:ctf_defocus_micrometers"]
    (first, _) = seen.measured
    assert (first.unit, first.label, len(first.values)) == ("µm", "Defocus", 11)
    assert 0.8 < first.values[0].value < 2.2
    assert [one.exposure[-4:] for one in first.values[:3]] == ["0001", "0002", "0004"]
    steps = {one.name: one for one in seen.steps}
    assert [(one.exposure, one.status) for one in steps["align"].recent][:2] == [
        ("FoilHole_9001", "failed"),
        (steps["align"].recent[1].exposure, "item"),
    ]
    assert steps["ctf_a"].recent == ()
    assert steps["ctf_a"].waiting == 1
    assert [(one.exposure, one.step) for one in seen.lost_workers] == [("FoilHole_9001", "CTF (first program)")]
    assert (seen.arrivals.newest, seen.arrivals.usual_s, seen.arrivals.expected) == ("FoilHole_9001", 60.0, False)
    assert seen.arrivals.recent == 13
    assert seen.arrivals.per_hour(paper.now) == pytest.approx(shown)
    assert seen.runner.started_at == pytest.approx(psutil.Process().create_time(), abs=1)
    paper.stream("movies", "open", "new data")
    with open_view(paper.session) as view:
        assert watch_session(view, rules, ()).arrivals.expected


def test_a_transfer_of_a_whole_disk_is_watched_by_the_sessions_that_it_fills(paper, tmp_path, monkeypatch):
    monkeypatch.setenv("ICESTREAM_STATE", str(tmp_path / "state"))
    ledger = account_ledger(tmp_path / "state")
    raw = Path(next(path for name, path in paper.session.roots.items() if name != "session"))
    row = ledger.open_transfer(Path("/mnt/krios"), raw.parent)
    ledger.tell(row.id, "paused", "the disk is full")
    ledger.put(row.id, f"{raw.name}/1.eer", FileStamp(5, 5), "failed", reason="Input/output error")
    ledger.put(row.id, "of another session/1.eer", FileStamp(5, 5), "failed", reason="Input/output error")
    ledger.open_transfer(Path("/mnt/glacios"), tmp_path / "elsewhere")
    with open_view(paper.session) as view:
        (seen,) = watch_session(view, (), ()).transfers
    assert (seen.source, seen.doing, seen.note, seen.failed) == ("/mnt/krios", "paused", "the disk is full", 1)


def test_a_transfer_of_the_account_raises_an_alarm_while_no_session_runs(paper, facility, tmp_path):
    channels = json.loads(facility.read_text(encoding="utf-8"))["channels"]
    facility.write_text(json.dumps({"channels": channels}), encoding="utf-8")
    ledger, clock = account_ledger(tmp_path / "state"), Clock(time.time())
    raw = Path(next(path for name, path in paper.session.roots.items() if name != "session"))
    row = ledger.open_transfer(Path("/mnt/krios"), raw.parent)
    ledger.tell(row.id, "paused", "the disk is full")
    clock.now += 3600
    one = observer(facility, clock, "serve")
    at_work = Turn("paper", at_work=True, raw=(raw.resolve(),))
    assert one.turn_of_account(tmp_path / "state", [at_work]).opened == ()  # the session raises it
    (turn,) = observe_all(one, list, account=tmp_path / "state")
    assert [(alarm.what, alarm.subject) for alarm in turn.opened] == [("A transfer has died", f"/mnt/krios to {raw.parent}")]
    (message,) = heard(tmp_path)
    assert (message["session"], message["event"]) == ("transfers of the facility", "raised")
    assert observe_all(one, list, account=tmp_path / "state")[0].opened == ()
    (kept,) = account_alarm_store(tmp_path / "state").alarms(only_open=True)
    assert "last sign of life" in kept.alarm.detail
    ledger.tell(row.id, "running")
    clock.now = time.time()
    assert [alarm.number for alarm in observe_all(one, list, account=tmp_path / "state")[0].ended] == [1]
    assert observe_all(one, list, account=tmp_path / "nothing was transferred") == []


@pytest.mark.parametrize("into", ["..", ".", "square 7", "another"])
def test_a_transfer_raises_its_alarm_in_one_place(paper, facility, tmp_path, monkeypatch, into):
    monkeypatch.setenv("ICESTREAM_STATE", str(tmp_path / "state"))
    channels = json.loads(facility.read_text(encoding="utf-8"))["channels"]
    facility.write_text(json.dumps({"channels": channels}), encoding="utf-8")
    ledger = account_ledger(tmp_path / "state")
    raw = Path(next(path for name, path in paper.session.roots.items() if name != "session"))
    target = tmp_path / "another" if into == "another" else (raw / into).resolve()
    row = ledger.open_transfer(Path("/mnt/krios"), target)
    ledger.tell(row.id, "paused", "the disk is full")
    with open_view(paper.session) as view:
        seen = watch_session(view, (), ()).transfers
    at_work = Turn("paper", at_work=True, raw=(raw.resolve(),))
    opened = observer(facility, Clock(time.time() + 3600), "serve").turn_of_account(tmp_path / "state", [at_work]).opened
    assert (len(seen), len(opened)) == ((0, 1) if into == "another" else (1, 0))


def test_a_channel_that_does_not_answer_is_left_in_peace_for_a_moment(paper, tmp_path):
    code = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(1)"
    channel = {"name": "staff", "kind": "command", "command": [sys.executable, "-c", code, str(tmp_path / "tried")]}
    rules = [{"name": name, "kind": "measure", "measure": "ctf_defocus_micrometers", "low": 3.0} for name in ("a", "b", "c")]
    path = tmp_path / "facility.yaml"
    path.write_text(json.dumps({"channels": [channel], "rules": rules, "defaults": False}), encoding="utf-8")
    clock = Clock(paper.now)
    one = observer(path, clock, "serve")
    assert [len(one.turn(paper.session.folder).opened) for _ in range(2)] == [6, 0]
    assert (tmp_path / "tried").read_text(encoding="utf-8") == "x"
    clock.now += 16
    one.turn(paper.session.folder)
    assert (tmp_path / "tried").read_text(encoding="utf-8") == "xx"


def test_a_session_that_ends_ends_its_alarms_and_is_left_alone(paper, facility, tmp_path):
    clock = Clock(paper.now + 1)
    worsen(paper, 13, 3, defocus_ang=36_000)
    one = observer(facility, clock, "serve")
    assert len(one.turn(paper.session.folder).opened) == 1
    paper.store.close("every stream closed")
    (ended,) = one.turn(paper.session.folder).ended
    assert ended.ended_because == "the session is not running any more"
    assert [message["event"] for message in heard(tmp_path)] == ["raised", "ended"]
    one.turn(paper.session.folder)
    before = alarm_store_of(paper.session).path.stat().st_mtime_ns
    assert [one.turn(paper.session.folder).evaluated for _ in range(3)] == [None] * 3
    assert alarm_store_of(paper.session).path.stat().st_mtime_ns == before


def test_a_session_that_has_ended_long_ago_gets_no_database(paper, facility):
    paper.store.close("every stream closed")
    turn = observer(facility, Clock(paper.now), "serve").turn(paper.session.folder)
    assert (turn.at_work, turn.evaluated, turn.trouble) == (False, None, None)
    assert not alarm_store_of(paper.session).exists


def test_a_mistake_is_told_where_alarms_are_shown_and_stops_no_other_session(paper, facility, tmp_path):
    (paper.session.folder / SESSION_ALARMS).write_text("rules: [{name: a, kind: stalled, minuts: 3}]", encoding="utf-8")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / DOCUMENT).write_text("name: [", encoding="utf-8")
    turns = observe_all(observer(facility, Clock(paper.now), "serve"), lambda: sessions_in(tmp_path))
    troubles = {turn.session: turn.trouble or "" for turn in turns}
    assert "rule 'a': minuts: extra inputs are not permitted" in troubles["paper"]
    assert "is not YAML" in troubles["broken"]
    assert "minuts" in (alarm_store_of(paper.session).observer().trouble or "")
    (paper.session.folder / SESSION_ALARMS).unlink()
    assert observer(facility, Clock(paper.now + 99), "watch").turn(paper.session.folder).evaluated is not None
    assert alarm_store_of(paper.session).observer().trouble is None


def test_a_database_of_another_version_stops_no_other_session(paper, facility, tmp_path):
    other = write_acquisition(tmp_path / "zother", 3, name="Other")
    (other.session.folder / DOCUMENT).write_text(dump_document(other.session.document), encoding="utf-8")
    clock = Clock(paper.now + 1)
    one = observer(facility, clock, "serve")
    one.turn(paper.session.folder)
    for change, told in (
        ("UPDATE sample SET content = '{}'", "was written by another version"),
        ("UPDATE observer SET holder = 'x', until = 'soon'", "TypeError"),
    ):
        with closing(sqlite3.connect(alarm_store_of(paper.session).path)) as database, database:
            database.execute(change)
        database.close()
        turns = {turn.session: turn for turn in observe_all(one, lambda: sessions_in(tmp_path))}
        assert told in (turns["paper"].trouble or "")
        assert turns["zother"].evaluated is not None


def test_a_folder_of_sessions_that_raises_something_ends_no_observer(facility):
    def folders():
        raise KeyError("a place")

    assert observe_all(observer(facility, Clock(0.0), "serve"), folders) == []


def test_an_observer_without_the_facilitys_document_takes_no_alarm_away(paper, facility, tmp_path):
    clock = Clock(paper.now + 1)
    worsen(paper, 13, 3, defocus_ang=36_000)
    (paper.session.folder / SESSION_ALARMS).write_text("defaults: false", encoding="utf-8")
    plain, equipped = observer(None, clock, "plain"), observer(facility, clock, "equipped")
    assert plain.turn(paper.session.folder).opened == ()
    (alarm,) = equipped.turn(paper.session.folder).opened
    assert [message["event"] for message in heard(tmp_path)] == ["raised"]
    store = alarm_store_of(paper.session)
    store.add_test(["staff"], now=clock.now)
    assert plain.turn(paper.session.folder).deliveries == ()
    assert store.deliveries()[0].state == "pending"
    clock.now += 700  # the other has gone away
    turn = plain.turn(paper.session.folder)
    assert (turn.evaluated is not None, turn.ended, turn.deliveries) == (True, (), ())
    turn = equipped.turn(paper.session.folder)
    assert (turn.ended, [(one.delivery.event, one.error) for one in turn.deliveries]) == ((), [("test", None)])
    facility.write_text(facility.read_text(encoding="utf-8").replace('"thick"', '"other"'), encoding="utf-8")
    (ended,) = equipped.turn(paper.session.folder).ended  # its own document has changed
    assert (ended.number, ended.ended_because) == (alarm.number, "its rule does not hold any more")


def elsewhere(monkeypatch, tmp_path: Path) -> None:
    """Go on as another account, or on another machine."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("came", ["copied", "received", "put back"])
def test_what_came_with_a_folder_is_not_sent(paper, facility, tmp_path, monkeypatch, came):
    clock = Clock(paper.now + 1)
    worsen(paper, 13, 3, defocus_ang=36_000)
    observer(facility, clock, "sender").turn(paper.session.folder)
    store = alarm_store_of(paper.session)
    store.release("sender")
    store.add_test(["staff"], now=clock.now)
    with closing(sqlite3.connect(store.path)) as database, database:
        database.execute("UPDATE delivery SET state = 'pending', claimed_until = 0")
    database.close()
    (tmp_path / "heard.jsonl").unlink()
    shutil.copytree(paper.session.folder, tmp_path / "came")
    folder = tmp_path / "came"
    if came == "put back":
        shutil.rmtree(paper.session.folder)
        folder = folder.rename(paper.session.folder)
    session = open_session(folder)
    if came == "received":
        elsewhere(monkeypatch, tmp_path)
    turn = observer(facility, clock, "ours").turn(folder)
    assert (turn.evaluated is not None, turn.deliveries, heard(tmp_path)) == (True, (), [])
    states = {one.state for one in alarm_store_of(session).deliveries()}
    assert states == ({"dropped"} if came == "copied" else {"pending"})
    clock.now += 5 * 3600
    observer(facility, clock, "ours").turn(folder)  # nor is anybody reminded of the sender's alarm
    assert heard(tmp_path) == []
    (tried,) = send_test(session, alarm_store_of(session), policy_of(session, facility), "all")
    assert (tried.error, [message["event"] for message in heard(tmp_path)]) == (None, ["test"])


def test_what_waits_is_sent_where_it_was_made(paper, facility, tmp_path):
    clock = Clock(paper.now + 1)
    one = observer(facility, clock, "serve")
    one.turn(paper.session.folder)
    alarm_store_of(paper.session).add_test(["staff"], now=clock.now)
    assert [each.error for each in observer(facility, clock, "again").turn(paper.session.folder).deliveries] == [None]


def test_a_machine_is_judged_over_as_many_hours_as_a_rule_says(paper, tmp_path):
    path = tmp_path / "hours.yaml"
    rule = {"name": "busy", "kind": "system", "value": "memory", "high": 1e-9, "for_minutes": 600}
    path.write_text(json.dumps({"rules": [rule], "defaults": False}), encoding="utf-8")
    clock = Clock(paper.now)
    one, begun = observer(path, clock, "serve"), paper.now
    for hours in range(9):
        clock.now = begun + 3600 * hours
        turn = one.turn(paper.session.folder)
        assert ([each.rule for each in turn.opened], turn.trouble) == (["busy"] if hours == 8 else [], None)


def test_a_session_whose_first_exposure_never_comes_is_told(tmp_path, facility):
    session = make_toy_session(tmp_path, toy_steps(40), numbers=range(0))
    rules = "{defaults: false, without: [thick], rules: [{name: stalled, kind: stalled, minutes: 15}]}"
    (session.folder / SESSION_ALARMS).write_text(rules, encoding="utf-8")
    runner = start_runner(session)
    try:
        wait_until(lambda: watched(session).arrivals.expected)
        clock = Clock(time.time() + 14 * 60)
        one = observer(facility, clock, "serve")
        assert one.turn(session.folder).opened == ()
        clock.now += 120
        (alarm,) = one.turn(session.folder).opened
        assert (alarm.rule, alarm.detail[:42]) == ("stalled", "none has come; the session was started 16 ")
    finally:
        runner.terminate()
        runner.wait(60)


def watched(session: Session) -> Observations:
    with open_view(session) as view:
        return watch_session(view, (), ())


def test_a_running_session_is_watched_beside_other_work(tmp_path, facility):
    """A real runner, of which a step fails for everything, and two observers that are threads, as `serve` and `watch` have."""
    session = make_toy_session(tmp_path, toy_steps(40, fail_on=list(range(40))), numbers=range(8))
    rules = "rules: [{name: step-failing, kind: step_failing, step: triple, count: 4}]"
    (session.folder / SESSION_ALARMS).write_text(rules, encoding="utf-8")
    runner = start_runner(session)
    try:
        threads = [Observer(facility, sampler=Sampler(gpus=tuple), every_s=0.1, holder=name) for name in ("serve", "watch")]
        with observing(threads[0], lambda: [session.folder]), observing(threads[1], lambda: [session.folder]):
            wait_until(lambda: heard(tmp_path))
            arrive(tmp_path, range(8, 10))
            store = alarm_store_of(session)
            wait_until(lambda: (store.alarms()[0].alarm.exposures or 0) >= 10)
        (message,) = heard(tmp_path)
        assert (message["rule"], message["what"], message["first_unit"] is not None) == (
            "step-failing",
            "triple fails for everything",
            True,
        )
        assert len(store.samples(since=0)) > 1
        assert store.take_turn("another", now=time.time(), lasting_s=60, facility="d")  # both have given the turn back
    finally:
        runner.terminate()
        runner.wait(60)


def wait_until(what: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)
