"""How fast the steps go now, and over the whole session."""

import statistics
import time
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from icestream.flow.storage import json_text, schema
from icestream.observe.answers import Counts, Pace, Trend
from icestream.observe.newest import UNINDEXED_REVISION, read_newest
from icestream.observe.order import ActiveRevision

STEADY_WITHIN = 0.1
"""A rate within so much of the mean is steady."""

N_COSTS = 101
"""The median cost is taken over so many of the newest results."""

LEAST_SPAN_S = 10.0
"""Over less time than this there is no rate: what is decided in one moment has none."""

WORK = ("item", "rejected", "failed")
"""What a step has worked on; skipped and absent units cost nothing."""


@dataclass(frozen=True)
class Clock:
    """The span of a session, and where its recent part begins in the change sequence."""

    started_at: float | None
    updated_at: float | None
    ends_at: float
    recent_minutes: float
    recent_seq: int


def read_clock(connection: Connection, *, recent_minutes: float, alive: bool = False) -> Clock:
    """Return the session's clock; it stops at the last outcome when no runner is alive."""
    table = schema.exposure
    ends = select(table.c.arrived_at).order_by(table.c.ordinal).limit(1)
    started_at = connection.execute(ends).scalar()
    if started_at is None:
        started_at = connection.execute(select(func.min(schema.revision.c.created_at))).scalar()
    newest = select(schema.outcome.c.at).order_by(schema.outcome.c.seq.desc()).limit(1)
    updated_at = connection.execute(newest).scalar() or started_at
    ends_at = time.time() if alive or updated_at is None else updated_at
    return Clock(started_at, updated_at, ends_at, recent_minutes, _first_seq_at(connection, ends_at - 60 * recent_minutes))


def _first_seq_at(connection: Connection, moment: float) -> int:
    """Find where in the change sequence ``moment`` lies, by bisection: times grow with it."""
    table = schema.outcome
    low, high = 0, int(connection.execute(select(func.max(table.c.seq))).scalar() or 0) + 1
    while low < high:
        middle = (low + high) // 2
        at = connection.execute(select(table.c.at).where(table.c.seq >= middle).order_by(table.c.seq).limit(1)).scalar()
        if at is None or at >= moment:
            high = middle
        else:
            low = middle + 1
    return low


def read_paces(
    connection: Connection, revisions: dict[str, ActiveRevision], counts: dict[int, Counts], clock: Clock
) -> dict[int, Pace]:
    """Return the recent and the mean rate of each revision."""
    table = schema.outcome
    unindexed = UNINDEXED_REVISION  # SQLite would else scan the whole (revision, status) index
    rows = connection.execute(
        select(unindexed, func.count()).where((table.c.seq >= clock.recent_seq) & table.c.status.in_(WORK)).group_by(unindexed)
    )
    recent: dict[int, int] = {row[0]: row[1] for row in rows}
    return {
        revision.id: _pace(recent.get(revision.id, 0), counts[revision.id], revision, clock) for revision in revisions.values()
    }


def _pace(n_recent: int, counts: Counts, revision: ActiveRevision, clock: Clock) -> Pace:
    n_total = counts.item + counts.rejected + counts.failed
    started_at = max(revision.created_at, clock.started_at or 0.0)
    minutes = (clock.ends_at - started_at) / 60
    if n_total == 0 or minutes * 60 < LEAST_SPAN_S:
        return Pace()
    per_minute, mean = n_recent / min(clock.recent_minutes, minutes), n_total / minutes
    trend = trend_of(per_minute, mean) if minutes > clock.recent_minutes else None
    return Pace(per_minute, mean, trend)


def trend_of(per_minute: float, mean_per_minute: float) -> Trend:
    """Compare a rate with its mean."""
    if per_minute > mean_per_minute * (1 + STEADY_WITHIN):
        return "rising"
    return "falling" if per_minute < mean_per_minute * (1 - STEADY_WITHIN) else "steady"


def median_cost(connection: Connection, revision: ActiveRevision) -> tuple[float | None, float | None]:
    """Return the median wall and processor seconds of a step's newest results; None where it computes none."""
    result, outcome, snapshot = schema.result, schema.outcome, schema.snapshot
    if revision.kind == "accumulate":
        newest = select(snapshot.c.key).where(snapshot.c.revision == revision.id).order_by(snapshot.c.version.desc())
        keys = [key for key in connection.execute(newest.limit(N_COSTS)).scalars() if key]
    elif revision.kind in ("map", "source"):
        key = json_text(outcome.c["keys"], "out").label("key")
        keys = [row["key"] for row in read_newest(connection, (key,), revision.id, limit=N_COSTS) if row["key"]]
    else:
        return None, None
    costs = connection.execute(select(result.c.wall_s, result.c.cpu_s).where(result.c.key.in_(keys))).all()
    if not costs:
        return None, None
    return statistics.median(wall_s for wall_s, _ in costs), statistics.median(cpu_s for _, cpu_s in costs)
