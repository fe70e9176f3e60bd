"""Observing sessions: a turn looks at each, judges it by its rules, stores what it found, and sends what is due.

Any number of observers may be running: `icestream serve`, `watch` and `monitor`, on this machine and on others. The database of a
session's alarms lets one of them look, and each message be sent by one (decision 0038).
"""

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from icestream.alarms.alarm_rows import Mark
from icestream.alarms.alarm_store import AlarmStore
from icestream.alarms.delivery.sending import Addressed, Delivered, Resting, send_due
from icestream.alarms.document import AlarmsDocument, Policy, make_policy, read_facility_alarms, read_session_alarms
from icestream.alarms.evaluate import evaluate
from icestream.alarms.judging_machine import sampled_s
from icestream.alarms.machine import Sampler
from icestream.alarms.notify import plan_messages
from icestream.alarms.observations import Observations
from icestream.alarms.rules import TransferRule
from icestream.alarms.state import Alarm, Evaluated
from icestream.errors import IcestreamError, SessionError
from icestream.facility.origin import meet
from icestream.flow.declaration import CallFailure, call_step
from icestream.flow.storage import DOCUMENT, Session, open_session
from icestream.logs import log_event
from icestream.observe.queries import open_view
from icestream.observe.session_alarms import alarm_store_of as alarm_store_of  # noqa: PLC0414 - who observes needs it
from icestream.observe.watched import fills, read_runner_seen, read_transfers_seen, watch_session
from icestream.transfer.ledger import account_ledger

EVERY_S = 15.0
TURN_S = 60.0
"""An observer that has not come back for so long loses its turn."""
SEEN_S = 6 * 3600.0
"""Rules see the samples of so long, or of as long as one of them needs."""
CLOSING_S = 5.0

ACCOUNT = "transfers of the facility"
"""What alarms of transfers that belong to no session are said to be of."""

_LOG = logging.getLogger(__name__)


def policy_of(session: Session, facility: Path | None) -> Policy:
    """Return what holds for a session.

    Raises
    ------
    SessionError
        One of the two documents is not allowed.
    """
    return make_policy(read_facility_alarms(facility), read_session_alarms(session.folder))


def digest_of(facility: Path | None) -> str | None:
    """Return what tells the facility's document from others, whether it is right or not; None where there is none."""
    if facility is None:
        return None
    try:
        return hashlib.sha256(facility.read_bytes()).hexdigest()
    except OSError:
        return "unreadable"


@dataclass(frozen=True)
class Turn:
    """What one turn at one session gave; ``trouble`` says why it could not be looked at."""

    session: str
    at_work: bool = False
    evaluated: Evaluated | None = None
    """What was found, where this observer looked."""
    deliveries: tuple[Delivered, ...] = ()
    trouble: str | None = None
    raw: tuple[Path, ...] = ()
    """Its folders of raw data."""

    @property
    def opened(self) -> tuple[Alarm, ...]:
        """Alarms that were raised."""
        return () if self.evaluated is None else self.evaluated.opened

    @property
    def ended(self) -> tuple[Alarm, ...]:
        """Alarms that are over."""
        return () if self.evaluated is None else self.evaluated.ended


@dataclass
class Observer:
    """Observes sessions, one turn after another."""

    facility: Path | None = None
    """The facility's document."""
    sampler: Sampler = field(default_factory=Sampler)
    clock: Callable[[], float] = time.time
    every_s: float = EVERY_S
    holder: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{os.urandom(3).hex()}")
    _held: dict[Path, AlarmStore] = field(default_factory=dict)
    _said: dict[Path, str] = field(default_factory=dict)
    _noted: dict[Path, str] = field(default_factory=dict)
    _idle: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    """Sessions with nothing to do, and when their files were written last."""
    _resting: Resting = field(default_factory=Resting)

    def turn(self, folder: Path) -> Turn:
        """Look at one session, unless another observer does; a session that cannot be looked at says why and stops nothing."""
        done = call_step(self._turn, folder)  # whatever is in a folder, the other sessions are looked at
        if isinstance(done, Turn):
            return done
        told = done.message if isinstance(done, CallFailure) else repr(done)
        return self._not_looked_at(folder, f"an error in icestream: {told}")

    def _turn(self, folder: Path) -> Turn:
        try:
            session = open_session(folder)
            store = alarm_store_of(session)
            stamp = _stamp_of(session)
            if stamp is not None and self._idle.get(folder) == stamp:
                return Turn(folder.name)
            turn = self._look(session, store)
            self._idle.pop(folder, None)
            if stamp is not None and not turn.at_work and not store.waits():
                self._idle[folder] = stamp
            return turn
        except (IcestreamError, OSError) as error:
            return self._not_looked_at(folder, str(error))

    def _not_looked_at(self, folder: Path, told: str) -> Turn:
        if self._said.get(folder) != told:
            log_event(_LOG, logging.WARNING, "session not observed", session=str(folder), reason=told)
            self._said[folder] = told
        return Turn(folder.name, trouble=told)

    def turn_of_account(self, state: Path, turns: Sequence[Turn]) -> Turn:
        """Judge transfers of the account; those that fill sessions at work raise alarms there, unless one is open here.

        ``state`` is the state folder of the account, ``turns`` are those at sessions just now.
        """
        done = call_step(self._turn_of_account, state, [path for turn in turns if turn.at_work for path in turn.raw])
        if isinstance(done, Turn):
            return done
        told = done.message if isinstance(done, CallFailure) else repr(done)
        return self._not_looked_at(Path(ACCOUNT), f"an error in icestream: {told}")

    def _turn_of_account(self, state: Path, elsewhere: Sequence[Path]) -> Turn:
        store = account_alarm_store(state)
        try:
            now, facility = self.clock(), digest_of(self.facility)
            policy = make_policy(read_facility_alarms(self.facility), AlarmsDocument())
            if not store.take_turn(self.holder, now=now, lasting_s=max(TURN_S, 3 * self.every_s), facility=facility):
                return Turn(ACCOUNT)
            self._held[store.path] = store
            self._meet(store)
            known = store.load_state()
            told = {alarm.subject for alarm in known.open.values()}
            transfers = tuple(
                one
                for one in read_transfers_seen(account_ledger(state), now)
                if one.subject in told or not any(fills(Path(one.target).resolve(), path) for path in elsewhere)
            )
            rules = tuple(one for one in policy.rules if isinstance(one, TransferRule))
            all_rules = store.knows_all_rules(self.holder, facility=facility, now=now)
            evaluated = evaluate(rules, known, Observations(transfers=transfers), now, all_rules=all_rules)
            done = store.commit(
                self.holder,
                evaluated,
                None,
                lambda sent, acknowledged: plan_messages(policy, evaluated, sent=sent, acknowledged=acknowledged, now=now),
                facility=facility,
            )
            addressed = Addressed(ACCOUNT, str(state), "")
            sent = send_due(store, policy, addressed, self.clock, resting=self._resting, mark=self._meet(store))
            return Turn(ACCOUNT, evaluated=evaluated if done else None, deliveries=tuple(sent))
        except (IcestreamError, OSError) as error:
            return self._not_looked_at(Path(ACCOUNT), str(error))

    def release(self) -> None:
        """Let other observers go on at once."""
        for store in self._held.values():
            try:
                store.release(self.holder)
            except (SessionError, OSError) as error:
                log_event(_LOG, logging.WARNING, "turn not given back", reason=str(error))
        self._held.clear()

    def _look(self, session: Session, store: AlarmStore) -> Turn:
        with open_view(session) as view:
            at_work = read_runner_seen(view.overview()).at_work
            if not at_work and not store.exists:
                return Turn(session.folder.name)
            now = self.clock()
            over = not at_work and not store.load_state().open
            facility, lasting_s = digest_of(self.facility), max(TURN_S, 3 * self.every_s)
            if over or not store.take_turn(self.holder, now=now, lasting_s=lasting_s, facility=facility):
                policy = policy_of(session, self.facility)
                return Turn(session.folder.name, at_work, deliveries=self._send(session, store, policy), raw=_raw_of(session))
            self._held[session.folder] = store
            self._meet(store)  # before anything is to be sent
            try:
                policy = policy_of(session, self.facility)
            except SessionError as error:
                store.complain(self.holder, str(error), now=now)
                raise
            sample = self.sampler.sample(session.folder)
            since = now - max(SEEN_S, sampled_s(policy.rules))
            seen = watch_session(view, policy.rules, (*store.samples(since=since), sample))
        all_rules = store.knows_all_rules(self.holder, facility=facility, now=now)
        evaluated = evaluate(policy.rules, store.load_state(), seen, now, all_rules=all_rules)
        done = store.commit(
            self.holder,
            evaluated,
            sample,
            lambda sent, acknowledged: plan_messages(policy, evaluated, sent=sent, acknowledged=acknowledged, now=now),
            facility=facility,
        )
        self._said.pop(session.folder, None)
        self._tell_note(session.folder, policy.note)
        sent = self._send(session, store, policy)
        return Turn(session.folder.name, at_work, evaluated if done else None, sent, raw=_raw_of(session))

    def _tell_note(self, folder: Path, note: str | None) -> None:
        if note is not None and self._noted.get(folder) != note:
            log_event(_LOG, logging.WARNING, "not all addresses get mail", session=str(folder), reason=note)
            self._noted[folder] = note

    def _meet(self, store: AlarmStore) -> Mark:
        try:
            return meet(store)
        except OSError as error:
            told = f"alarms are not sent: what is noted of {store.path} cannot be read or written: {error}"
            store.complain(self.holder, told, now=self.clock())
            raise SessionError(told) from error

    def _send(self, session: Session, store: AlarmStore, policy: Policy) -> tuple[Delivered, ...]:
        mark = self._meet(store)
        return tuple(send_due(store, policy, _address(session), self.clock, resting=self._resting, mark=mark))


def send_test(session: Session, store: AlarmStore, policy: Policy, wanted: str) -> list[Delivered]:
    """Send a test message to a channel, or to all of them, at once and without trying again.

    Raises
    ------
    SessionError
        The facility has no such channel.
    """
    names = [one.name for one in policy.channels]
    if not names or wanted not in ("all", *names):
        raise SessionError(f"channel {wanted[:80]!r}: the facility has {', '.join(names) or 'none; see ICESTREAM_ALARMS'}")
    mark = meet(store)
    ids = store.add_test(names if wanted == "all" else [wanted], now=time.time())
    return list(send_due(store, policy, _address(session), time.time, only=ids, mark=mark))


def account_alarm_store(state: Path) -> AlarmStore:
    """Return the alarms of transfers that belong to no session at work."""
    return AlarmStore(state / "transfers.alarms.db")


def _raw_of(session: Session) -> tuple[Path, ...]:
    return tuple(Path(path).resolve() for name, path in session.roots.items() if name != "session")


def _address(session: Session) -> Addressed:
    return Addressed(session.document.name, str(session.folder), session.folder.name)


def _stamp_of(session: Session) -> tuple[int, ...] | None:
    """Return when the files of a session were written last; None where its store is on a server."""
    location = session.store_at
    if not isinstance(location, Path):
        return None
    paths = (session.folder / DOCUMENT, location, location.with_name(f"{location.name}-wal"), alarm_store_of(session).path)
    return tuple(path.stat().st_mtime_ns for path in paths if path.exists())


def sessions_in(folder: Path) -> list[Path]:
    """Return the session that a folder is, or those in it."""
    if (folder / DOCUMENT).is_file():
        return [folder]
    return sorted(path for path in folder.iterdir() if (path / DOCUMENT).is_file())


@contextmanager
def observing(observer: Observer | None, folders: Callable[[], Iterable[Path]], *, account: Path | None = None) -> Iterator[None]:
    """Observe sessions beside whatever else a process does; None observes nothing.

    With ``account``, the state folder of the account, its transfers are observed as well.

    At the end the turn that is going on is waited for, but not for long where a mail server does not answer.
    """
    if observer is None:
        yield
        return
    ends = threading.Event()
    thread = threading.Thread(target=_observe_until, args=(ends, observer, folders, account), name="observer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join(timeout=CLOSING_S)


def _observe_until(
    ends: threading.Event, observer: Observer, folders: Callable[[], Iterable[Path]], account: Path | None
) -> None:
    while not ends.is_set():
        observe_all(observer, folders, ends.is_set, account=account)
        ends.wait(observer.every_s)
    observer.release()


def observe_all(
    observer: Observer,
    folders: Callable[[], Iterable[Path]],
    ended: Callable[[], bool] = lambda: False,
    *,
    account: Path | None = None,
) -> list[Turn]:
    """Give every session one turn, and then the transfers of the ``account`` whose state folder this is."""
    found = call_step(lambda: list(folders()))
    if isinstance(found, CallFailure):
        log_event(_LOG, logging.WARNING, "folder not observed", reason=found.message)
        return []
    turns = []
    for folder in found:
        if ended():
            break
        turns.append(observer.turn(folder))
    if account is not None and not ended() and account_ledger(account).exists:
        turns.append(observer.turn_of_account(account, turns))
    return turns
