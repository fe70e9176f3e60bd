"""Where a run stands: counts per step, for progress bars and for the end."""

import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from icestream.flow.declaration import outcomes
from icestream.flow.runner.pausing import Hold
from icestream.flow.runner.tasks import Task
from icestream.flow.scheduling import instructions
from icestream.flow.scheduling.scheduler import Scheduler
from icestream.flow.storage import schema
from icestream.flow.storage.revisions import Revision


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


@dataclass(frozen=True)
class RunStatus:
    """All steps at this moment, the notices of this run, oldest first (the last hundred), and why nothing is dispatched."""

    steps: tuple[StepStatus, ...]
    notices: tuple[str, ...] = ()
    hold: Hold | None = None


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
    running: Mapping[str, tuple[Task, str]]  # attempt → task and worker
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    notices: "deque[str]" = field(default_factory=deque)
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

    def status(self, *, hold: Hold | None = None) -> RunStatus:
        """Return where every step stands."""
        at_work = Counter(task.step for task, _ in self.running.values())
        steps = tuple(self._step(name, at_work[name]) for name in self.scheduler.stages)
        return RunStatus(steps, tuple(self.notices), hold)

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
        )

    def report(self, *, finished: bool, reason: str) -> RunReport:
        """Return how the run ended."""
        steps = self.status().steps
        sources = [name for name, stage in self.scheduler.stages.items() if stage.node.type.is_source]
        arrived = sum(sum(self.counts.get(name, Counter()).values()) for name in sources)
        return RunReport(finished, reason, arrived, sum(step.failed for step in steps), steps)


def describe(report: RunReport) -> str:
    """Return the report as JSON."""
    return json.dumps(report, default=lambda value: value.__dict__)
