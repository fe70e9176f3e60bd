"""What has been decided in a session, counted along its change sequence, so that a look costs what is new and not what there is.

All rows are counted at the first look, and after whatever may drop outcomes: a command, another runner, or what shows by more
decisions than there are exposures; and now and then while something changes. Between, only rows with a higher number are added.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, Integer, func, literal_column, select

from icestream.flow.storage import schema
from icestream.observe.activity import Pulse

RECOUNT_S = 600.0
SOONEST_RECOUNT_S = 60.0

OfRevision = tuple[int, str]


@dataclass(frozen=True)
class Counted:
    """What a look has added: after which number of the change sequence, 0 for all; and revision → items."""

    since_seq: int
    items: Mapping[int, int]


@dataclass
class Tally:
    """Counts of one session; the first part of a key is the id of a revision."""

    clock: Callable[[], float] = time.monotonic
    exposures: int = 0
    statuses: Counter[OfRevision] = field(default_factory=Counter)
    """How many units have which outcome now."""
    decisions: Counter[OfRevision] = field(default_factory=Counter)
    """How often which outcome was decided: never falls, even where an outcome is replaced."""
    failures: Counter[OfRevision] = field(default_factory=Counter)
    """Attempts that ended badly, by their kind."""
    weights: Counter[int] = field(default_factory=Counter)
    """Particles, or what else counts, of the items."""
    _pulse: Pulse | None = None
    _failures_seq: int = 0
    _ordinal: int = -1
    _recounted_at: float = float("-inf")
    _trusted: bool = True

    def follow(self, connection: Connection, pulse: Pulse, on_exposures: Collection[int]) -> Counted:
        """Count what is new.

        ``on_exposures`` are the revisions that decide exposures, and so have no more outcomes than there are.
        """
        known, age_s = self._pulse, self.clock() - self._recounted_at
        same_run = known is not None and (known.fence, known.answered) == (pulse.fence, pulse.answered)
        if known is None or not same_run or pulse.seq < known.seq or not self._trusted:
            return self._recount(connection, pulse)
        if pulse.seq == known.seq:
            return Counted(known.seq, {})
        if age_s >= RECOUNT_S:
            return self._recount(connection, pulse)
        new = Counted(known.seq, self._add(connection, known.seq))
        self._pulse = pulse
        most = max((self.decided(one) for one in on_exposures), default=0)
        return self._recount(connection, pulse) if most > self.exposures and age_s >= SOONEST_RECOUNT_S else new

    def distrust(self) -> None:
        """Count everything at the next look: this one did not come to its end."""
        self._trusted = False

    def decided(self, revision: int) -> int:
        """Return how many units have an outcome at a revision."""
        return sum(count for (mine, _), count in self.statuses.items() if mine == revision)

    def _recount(self, connection: Connection, pulse: Pulse) -> Counted:
        before = self.decisions
        if self._pulse is not None and pulse.seq < self._pulse.seq:  # another session has taken the name
            before = Counter()
            self.failures, self._failures_seq = Counter(), 0
        self.statuses, self.weights, self.decisions = Counter(), Counter(), Counter()
        self.exposures, self._ordinal = 0, -1
        new = self._add(connection, None)
        self.decisions |= before  # the larger of both
        self._pulse, self._recounted_at, self._trusted = pulse, self.clock(), True
        return Counted(0, new)

    def _add(self, connection: Connection, seq: int | None) -> Mapping[int, int]:
        """Add the outcomes with a number above ``seq``; all of them are counted from the index alone."""
        table = schema.outcome
        # To group by the bare column, SQLite would scan the whole (revision, status) index even for a few new rows.
        by_revision = table.c.revision if seq is None else literal_column("+outcome.revision", Integer)
        counted = select(by_revision, table.c.status, func.count(), func.sum(table.c.weight))
        counted = counted.group_by(by_revision, table.c.status)
        new = {}
        for revision, status, count, weight in connection.execute(counted if seq is None else counted.where(table.c.seq > seq)):
            self.statuses[revision, status] += count
            self.decisions[revision, status] += count
            if status == "item":
                self.weights[revision] += int(weight)
                new[revision] = int(count)
        self._add_exposures(connection)
        self._add_failures(connection)
        return new

    def _add_exposures(self, connection: Connection) -> None:
        ordinal = schema.exposure.c.ordinal
        count, newest = connection.execute(select(func.count(), func.max(ordinal)).where(ordinal > self._ordinal)).one()
        self.exposures += count
        self._ordinal = self._ordinal if newest is None else newest

    def _add_failures(self, connection: Connection) -> None:
        table = schema.failure
        counted = select(table.c.revision, table.c.kind, func.count(), func.max(table.c.seq))
        rows = connection.execute(counted.where(table.c.seq > self._failures_seq).group_by(table.c.revision, table.c.kind)).all()
        for revision, kind, count, newest in rows:
            self.failures[revision, kind] += count
            self._failures_seq = max(self._failures_seq, newest)
