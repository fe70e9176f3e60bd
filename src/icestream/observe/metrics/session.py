"""The metrics of one session: what is read in one short transaction, at a cost that does not grow with the session."""

import threading
from dataclasses import dataclass, field

import psutil
from sqlalchemy import Connection, select

from icestream.flow.storage import schema
from icestream.observe.activity import read_notices, read_pulse
from icestream.observe.measured import pixel_size_of
from icestream.observe.metrics import names
from icestream.observe.metrics.families import Samples
from icestream.observe.metrics.newest import Newest, ResultReader
from icestream.observe.metrics.steps import StepMetrics, read_newest_versions
from icestream.observe.metrics.tally import Tally
from icestream.observe.order import ActiveRevision, works_on_exposures
from icestream.observe.pace import WORK, Clock, read_clock, read_paces
from icestream.observe.people import read_pause
from icestream.observe.queries import RECENT_MINUTES, Counts, SessionView
from icestream.observe.summary import read_arrivals, read_runner, read_streams

STATES = ("not started", "running", "finished", "stopped", "interrupted")
N_NOTICES = 50


@dataclass
class SessionMetrics:
    """One session that is looked at again and again; what was counted before is kept here."""

    name: str
    """What the label ``session`` says: the name of the folder."""
    tally: Tally = field(default_factory=Tally)
    newest: Newest = field(default_factory=Newest)
    state: str = "not started"
    """One of `STATES`, as it was read last."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """What is counted is followed from one read to the next, so one is read at a time."""

    def read(self, view: SessionView) -> Samples:
        """Return the samples of the session.

        Raises
        ------
        SessionError
            The store cannot be read.
        """
        with self._lock:
            try:
                return self._read(view)
            except Exception:
                self.tally.distrust()
                raise

    def _read(self, view: SessionView) -> Samples:
        samples, size, catalog = Samples(), pixel_size_of(view), view.catalog()
        self._add_disks(samples, view)
        with view.reading() as connection:
            if connection is None:
                self._add_state(samples, "not started")
                return samples
            revisions = view.revisions(connection)
            reader = ResultReader(connection, catalog, size)
            wholes = frozenset(connection.execute(select(schema.snapshot.c.revision).distinct()).scalars())
            counts = self._count(reader, revisions, wholes)
            closed = self._add_steps(samples, view, reader, revisions, counts)
            versions = read_newest_versions(connection, {name: one for name, one in revisions.items() if one.id in wholes})
            for name, version in versions.items():
                step = StepMetrics(samples, self.name, revisions[name])
                step.add_version(version, reader.catalog, pixel_size_ang=size)
            self._add_session(samples, view, connection, revisions, all_closed=closed)
        return samples

    def _count(self, reader: ResultReader, revisions: dict[str, ActiveRevision], wholes: frozenset[int]) -> dict[int, Counts]:
        connection = reader.connection
        on_exposures = {one.id for name, one in revisions.items() if works_on_exposures(name, revisions, wholes)}
        new = self.tally.follow(connection, read_pulse(connection), on_exposures)
        running: dict[int, int] = {}
        for revision in connection.execute(select(schema.lease.c.revision)).scalars():
            running[revision] = running.get(revision, 0) + 1
        counts = {}
        for one in revisions.values():
            by_status = {status: self.tally.statuses[one.id, status] for status in (*WORK, "skipped", "absent")}
            at_work = running.get(one.id, 0) if one.kind in ("map", "filter") else 0
            waiting = self.tally.exposures - sum(by_status.values()) - at_work if one.id in on_exposures else 0
            counts[one.id] = Counts(**by_status, running=running.get(one.id, 0), waiting=max(0, waiting))
            self.newest.follow(reader, one, since_seq=new.since_seq, new=new.items.get(one.id, 0))
        self.newest.forget({one.id for one in revisions.values()})
        return counts

    def _add_steps(
        self,
        samples: Samples,
        view: SessionView,
        reader: ResultReader,
        revisions: dict[str, ActiveRevision],
        counts: dict[int, Counts],
    ) -> bool:
        """Add every step, and tell whether the streams of all have closed."""
        connection = reader.connection
        runner, streams = read_runner(connection), read_streams(connection)
        clock = read_clock(connection, recent_minutes=RECENT_MINUTES, alive=runner.alive)
        paces = read_paces(connection, revisions, counts, clock)
        for name, revision in revisions.items():
            step, spec = StepMetrics(samples, self.name, revision), view.session.document.steps[name]
            step.add_info(spec.use, spec.label or name)
            step.add_counts(counts[revision.id], self.tally)
            step.add_pace(paces[revision.id].per_minute, is_open=streams.get(revision.id, ("open", ""))[0] == "open")
            seen = self.newest.of(revision.id)
            step.add_newest(seen, reader.catalog, particles=self.tally.weights[revision.id])
        self._add_times(samples, clock)
        known = [streams.get(revisions[name].id, ("open", ""))[0] for name in view.order if name in revisions]
        return len(known) == len(view.order) and all(state == "closed" for state in known)

    def _add_times(self, samples: Samples, clock: Clock) -> None:
        samples.add(names.STARTED, clock.started_at, self.name)
        samples.add(names.CHANGED, clock.updated_at, self.name)

    def _add_session(
        self,
        samples: Samples,
        view: SessionView,
        connection: Connection,
        revisions: dict[str, ActiveRevision],
        *,
        all_closed: bool,
    ) -> None:
        newest = max(revisions.values(), key=lambda one: one.id, default=None)
        software = "" if newest is None else newest.software
        samples.add(names.SESSION, 1, self.name, view.session.document.name, software)
        self._add_state(samples, read_runner(connection, all_closed=all_closed).state)
        samples.add(names.PAUSED, read_pause(connection) is not None, self.name)
        heartbeat = connection.execute(select(schema.runner.c.heartbeat_at)).scalar()
        samples.add(names.HEARTBEAT, heartbeat, self.name)
        samples.add(names.EXPOSURES, self.tally.exposures, self.name)
        arrivals = read_arrivals(connection)
        samples.add(names.LAST_EXPOSURE, arrivals.at, self.name)
        samples.add(names.EXPOSURE_RATE, None if arrivals.per_hour is None else arrivals.per_hour / 3600, self.name)
        holding = [one.level for one in read_notices(connection, limit=N_NOTICES) if not one.over]
        for level in ("info", "warning", "error"):
            samples.add(names.NOTICES, holding.count(level), self.name, level)

    def _add_state(self, samples: Samples, state: str) -> None:
        self.state = state
        for one in STATES:
            samples.add(names.STATE, one == state, self.name, one)

    def _add_disks(self, samples: Samples, view: SessionView) -> None:
        for root, folder in view.session.roots.items():
            try:
                usage = psutil.disk_usage(str(folder))
            except OSError:
                continue  # a folder that is not mounted has no space; that it is missing is said by the session itself
            samples.add(names.DISK_FREE, usage.free, self.name, root)
            samples.add(names.DISK_SIZE, usage.total, self.name, root)
