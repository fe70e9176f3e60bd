"""The state of a run: counts per step, for progress bars and for the end."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, func, insert, select

from icestream.flow.declaration import outcomes
from icestream.flow.scheduling import Scheduler, Source, instructions
from icestream.flow.storage import ActivePause, Revision, schema

_INTERVAL_S = 1.0


@dataclass(frozen=True)
class StepStatus:
    """One step at this moment."""

    name: str
    waiting: int
    running: int
    done: int
    failed: int
    rejected: int
    closed: bool
    note: str
    skipped: int = 0
    absent: int = 0


@dataclass(frozen=True)
class RunStatus:
    """All steps at this moment, the notices of this run, oldest first (the last hundred), and why nothing is dispatched."""

    steps: tuple[StepStatus, ...]
    notices: tuple[str, ...] = ()
    pause: ActivePause | None = None


@dataclass(frozen=True)
class RunReport:
    """How a run ended."""

    finished: bool
    reason: str
    n_exposures: int
    n_failed: int
    steps: tuple[StepStatus, ...]


@dataclass
class Board:
    """Counts outcomes as they are settled."""

    scheduler: Scheduler
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def load(self, connection: Connection, revisions: Mapping[str, Revision]) -> None:
        """Count what earlier runs settled."""
        steps = {revision.id: revision.step for revision in revisions.values()}
        table = schema.outcome
        rows = select(table.c.revision, table.c.status, func.count().label("n")).group_by(table.c.revision, table.c.status)
        for row in connection.execute(rows):
            if row.revision in steps:
                self.counts.setdefault(steps[row.revision], Counter())[row.status] = row.n

    def count(self, instruction: instructions.Settle | instructions.Forget) -> None:
        """Count an outcome, or take it back."""
        counts = self.counts.setdefault(instruction.step, Counter())
        if isinstance(instruction, instructions.Settle):
            counts[instruction.outcome.status] += 1
        else:
            counts[instruction.status] -= 1

    def steps(self, running: Mapping[str, int]) -> tuple[StepStatus, ...]:
        """Return where every step stands; ``running`` tells how many of its calls run."""
        return tuple(self._step(name, running.get(name, 0)) for name in self.scheduler.stages)

    def _step(self, name: str, at_work: int) -> StepStatus:
        stage = self.scheduler.stages[name]
        counts = self.counts.get(name, Counter())
        return StepStatus(
            name=name,
            waiting=stage.n_waiting if stage.node.type.accumulates and stage.is_busy else max(0, stage.undecided - at_work),
            running=at_work,
            done=counts[outcomes.Status.ITEM] or (stage.version if stage.node.type.is_source else 0),
            failed=counts[outcomes.Status.FAILED],
            rejected=counts[outcomes.Status.REJECTED],
            closed=stage.closed,
            note=self.notes.get(name) or stage.wait_reason,
            skipped=counts[outcomes.Status.SKIPPED],
            absent=counts[outcomes.Status.ABSENT],
        )

    def report(self, running: Mapping[str, int], *, finished: bool, reason: str) -> RunReport:
        """Return how the run ended."""
        steps = self.steps(running)
        arrived = sum(self._arrived(stage) for stage in self.scheduler.stages.values() if isinstance(stage, Source))
        return RunReport(finished, reason, arrived, sum(step.failed for step in steps), steps)

    def _arrived(self, source: Source) -> int:
        """Count the exposures of a source: neither those of another one, nor what it could not take."""
        counts = self.counts.get(source.name, Counter())
        return counts.total() - counts[outcomes.Status.ABSENT] - len(source.troubles)


@dataclass
class StatusTable:
    """What the runner tells readers of each step at this moment, at most once a second: the rows of the table ``board``."""

    _rows: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    _published_at: float = 0.0

    def is_due(self) -> bool:
        """The last time is long enough ago."""
        return time.monotonic() - self._published_at >= _INTERVAL_S

    def publish(self, connection: Connection, steps: tuple[StepStatus, ...]) -> None:
        """Write the rows that changed."""
        self._published_at = time.monotonic()
        rows = {step.name: (step.waiting, step.running, step.note) for step in steps}
        changed = [name for name in {*rows, *self._rows} if rows.get(name) != self._rows.get(name)]
        if changed or not self._rows:
            table, at = schema.board, time.time()
            connection.execute(delete(table) if not self._rows else delete(table).where(table.c.step.in_(changed)))
            columns = ("waiting", "running", "note")
            written = [
                {"step": name, "at": at, **dict(zip(columns, rows[name], strict=True))} for name in changed if name in rows
            ]
            if written:
                connection.execute(insert(table), written)
            self._rows = rows
