"""What is known of who waits for what, gathered in one look at the store."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from icestream.flow.declaration import FailureKind
from icestream.flow.scheduling import retry_delay_s
from icestream.flow.storage import ActivePause, is_there, schema
from icestream.observe.answers import Marks, RunnerState, StepSummary
from icestream.observe.order import ActiveRevision


@dataclass(frozen=True)
class Lease:
    """A unit that a worker computes."""

    step: str
    unit: str
    name: str
    """Name of the exposure, or the beginning of the unit's id where it is none."""
    worker: str
    started_at: float


@dataclass(frozen=True)
class Trouble:
    """Attempts at a unit that has no outcome yet."""

    count: int
    message: str
    delay_s: float | None


@dataclass(frozen=True)
class Facts:
    """Everything that the sentences are made of."""

    runner: RunnerState
    pause: ActivePause | None
    here: str
    """Name of this machine."""
    steps: Mapping[str, StepSummary]
    links: Mapping[str, Mapping[str, list[str]]]
    """Step → port → ``step`` or ``step.output``."""
    notes: Mapping[str, str]
    marks: Mapping[str, Marks]
    leases: tuple[Lease, ...] = ()
    not_taken: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Source → file or folder that it cannot take → why."""
    versions: frozenset[str] = frozenset()
    """Steps that have published a version of a whole."""
    after: Mapping[str, list[str]] = field(default_factory=dict)
    """Step → steps that are to close before it starts."""
    programs: Mapping[str, list[str]] = field(default_factory=dict)
    """Step → what is to be known of the programs it runs."""


def read_notes(connection: Connection) -> dict[str, str]:
    """Return what the runner last said of each step."""
    if not is_there(connection, schema.board):
        return {}
    rows = connection.execute(select(schema.board.c.step, schema.board.c.note))
    return {row[0]: row[1] for row in rows}


def read_leases(connection: Connection, revisions: Mapping[str, ActiveRevision]) -> tuple[Lease, ...]:
    """Return what workers compute now, the longest first."""
    steps = {revision.id: name for name, revision in revisions.items()}
    table, exposure = schema.lease, schema.exposure
    named = select(table, exposure.c.name).select_from(table.outerjoin(exposure, exposure.c.unit == table.c.unit))
    rows = connection.execute(named.order_by(table.c.started_at)).mappings()
    return tuple(
        Lease(steps[row["revision"]], row["unit"], row["name"] or row["unit"][:12], row["worker"], row["started_at"])
        for row in rows
        if row["revision"] in steps
    )


def read_versions(connection: Connection, revisions: Mapping[str, ActiveRevision]) -> frozenset[str]:
    """Return the steps that have published a version."""
    published = set(connection.execute(select(schema.snapshot.c.revision).distinct()).scalars())
    return frozenset(name for name, revision in revisions.items() if revision.id in published)


def read_troubles(connection: Connection, unit: str, revisions: Mapping[str, ActiveRevision]) -> dict[str, Trouble]:
    """Return step → the attempts at ``unit`` that ended badly and still count."""
    steps = {revision.id: name for name, revision in revisions.items()}
    table = schema.failure
    mine = (table.c.unit == unit) & table.c.revision.in_(steps) & ~table.c.cleared
    found: dict[str, Trouble] = {}
    for row in connection.execute(select(table.c.revision, table.c.kind, table.c.message).where(mine).order_by(table.c.seq)):
        count = 1 + (found[steps[row[0]]].count if steps[row[0]] in found else 0)
        found[steps[row[0]]] = Trouble(count, row[2], retry_delay_s(FailureKind(row[1]), count))
    return found


def count_before(connection: Connection, revision: ActiveRevision, ordinal: int) -> int:
    """Return how many exposures that came earlier have no outcome at a step."""
    exposure, outcome = schema.exposure, schema.outcome
    decided = select(outcome.c.unit).where((outcome.c.revision == revision.id) & (outcome.c.unit == exposure.c.unit)).exists()
    earlier = select(func.count()).select_from(exposure).where((exposure.c.ordinal < ordinal) & ~decided)
    return int(connection.execute(earlier).scalar_one())
