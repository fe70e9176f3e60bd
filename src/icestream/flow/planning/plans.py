"""Dry runs: what an edit, a branch, a restart or a reset would do, step by step, without doing it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Connection, select

from icestream.errors import SessionError
from icestream.flow.planning.costs import Cost, cost_of, count_results, count_stale
from icestream.flow.planning.dry_run import DryRun, Tally
from icestream.flow.planning.planned_revisions import PlannedRevision, plan_revisions
from icestream.flow.storage import (
    OwnParams,
    Session,
    SessionDocument,
    check_own_params,
    check_owned,
    find_exposure,
    load_owned,
    reading,
    schema,
    with_own_contents,
)
from icestream.flow.workflow import Graph, look_into_files, require_programs
from icestream.settings import Settings

Change = Literal["new", "revised", "gone", "again", "rebuilt"]
"""``again``: some exposures are decided again, as one computed with other parameters, or left out while a gate drained the step;
``rebuilt``: an accumulator is rebuilt, as too much of it has changed."""


@dataclass(frozen=True)
class StepPlan:
    """What would happen to one step. Counts are units (exposures, batches, versions) that the session knows now."""

    step: str
    kind: str
    change: Change
    computed: int = 0
    """How many results are recomputed."""
    at_most: int = 0
    """At most how many more: a filter or gate upstream is decided again, or a version is still to come."""
    decided: int = 0
    """How many are decided again, which is cheap."""
    reused: int = 0
    """How many results already exist and are reused as they are."""
    exact: bool = True
    """Unset where what is computed depends on the order of arrival: batches, versions, what is made of them."""
    seconds: float | None = 0.0
    """Roughly how long with all cores of this machine; unset where no earlier result allows an estimate."""
    new_bytes: int | None = 0
    """Roughly how many bytes of new files; unset where no earlier result allows an estimate."""
    old_bytes: int | None = 0
    """Roughly how many bytes of files that only the present revision uses: they stay with it until it is cleaned up."""


@dataclass(frozen=True)
class Plan:
    """What a command would do; steps that are not named stay as they are."""

    steps: tuple[StepPlan, ...]
    cores: int

    @property
    def computed(self) -> int:
        """Results that are computed again for sure."""
        return sum(step.computed for step in self.steps)

    @property
    def at_most(self) -> int:
        """Results that may be computed on top."""
        return sum(step.at_most for step in self.steps)

    @property
    def seconds(self) -> float | None:
        """About how long it takes; unset where that is not known for every step."""
        known = [step.seconds for step in self.steps]
        return None if None in known else sum(one for one in known if one is not None)


def plan_document(session: Session, document: SessionDocument, *, afresh: frozenset[str], cores: int) -> Plan:
    """Return what an edited document would do if it were taken up now; the steps in ``afresh`` are computed from the start.

    Nothing is changed, and a runner may be at work.

    Raises
    ------
    WorkflowError
        The edited workflow cannot run.
    SessionError
        No step has this name, or the store cannot be read.
    """
    edited = Session(session.folder, document)
    graph = edited.graph()
    look_into_files(graph, edited.roots)
    require_programs(graph, Settings().programs)
    with reading(session) as connection:
        if connection is None:
            return Plan((), cores)
        acquisition = document.acquisition.model_dump(exclude_none=True)
        owned = with_own_contents(load_owned(connection), graph, edited.roots)
        check_owned(connection, graph, owned)
        steps = plan_revisions(connection, graph, acquisition, afresh=afresh)
        foresight = DryRun(connection, graph, steps, acquisition, owned)
        tallies = foresight.look()
        estimate = _Estimate(connection, session, steps, cores)
        lines = []
        for name, step in steps.items():
            if not step.kept:
                lines.append(estimate.line(step, tallies[name]))
            elif name in foresight.set_free and tallies[name] != Tally():
                lines.append(replace(estimate.line(step, tallies[name]), change="again", old_bytes=0))
        return Plan((*lines, *estimate.gone()), cores)


def plan_recompute(
    session: Session, step: str, exposures: Sequence[str], params: Mapping[str, Any], *, cores: int, rebuild_fraction: float
) -> Plan:
    """Return what computing some exposures (names or ids) again at ``step``, with ``params`` of their own, would do now.

    Raises
    ------
    WorkflowError
        The parameters are none that the step can have.
    SessionError
        No step or exposure is called so, or the store cannot be read.
    """
    graph = session.graph()
    look_into_files(graph, session.roots)
    require_programs(graph, Settings().programs)
    if step not in graph.nodes:
        raise SessionError(f"no step is called {step!r}; known: {', '.join(graph.nodes)}")
    own = OwnParams(check_own_params(graph.nodes[step], params), "", "")
    with reading(session) as connection:
        if connection is None:
            raise SessionError(f"{session.folder}: has not been run yet, so it has no exposures")
        units = list(dict.fromkeys(find_exposure(connection, name)[0] for name in exposures))
        acquisition = session.document.acquisition.model_dump(exclude_none=True)
        steps = plan_revisions(connection, graph, acquisition)
        owned = with_own_contents({**load_owned(connection), **{(unit, step): own for unit in units}}, graph, session.roots)
        tallies = DryRun(connection, graph, steps, acquisition, owned).look_from(step, units)
        estimate = _Estimate(connection, session, steps, cores)
        lines = [
            replace(estimate.line(steps[name], tally), change="again", old_bytes=0)
            for name, tally in tallies.items()
            if tally != Tally()
        ]
        lines += _rebuilt(estimate, graph, step, units, rebuild_fraction)
        by_step = {line.step: line for line in lines}  # what is rebuilt is more than some exposures of it
        return Plan(tuple(by_step[name] for name in graph.nodes if name in by_step), cores)


def _rebuilt(estimate: "_Estimate", graph: Graph, step: str, units: Sequence[str], fraction: float) -> list[StepPlan]:
    """Return a line for each accumulator that would be rebuilt, and for what hangs on it."""
    lines = []
    for name in (name for name in graph.nodes if name in graph.descendants(step)):
        node, before = graph.nodes[name], estimate.steps[name].before
        if not node.type.accumulates or before is None:
            continue
        n_changed, n_taken = count_stale(estimate.connection, before.id, units)
        if n_taken and n_changed >= fraction * n_taken:
            lines.append(
                replace(estimate.line(estimate.steps[name], Tally(computed=n_taken)), change="rebuilt", exact=False, old_bytes=0)
            )
            hanging = (below for below in graph.nodes if below in graph.descendants(name) - {name})
            for below in hanging:
                revision = estimate.steps[below].before
                count = 0 if revision is None else count_results(estimate.connection, revision.id)
                if count and graph.nodes[below].type.computes:
                    line = estimate.line(estimate.steps[below], Tally(at_most=count))
                    lines.append(replace(line, change="again", exact=False, old_bytes=0))
    return lines


@dataclass
class _Estimate:
    connection: Connection
    session: Session
    steps: dict[str, PlannedRevision]
    cores: int

    def line(self, step: PlannedRevision, tally: Tally) -> StepPlan:
        """Return the line of a step that changes."""
        step_type, cost = step.node.type, self._cost(step)
        items, exact = tally.computed + tally.at_most, self._is_exact(step)
        present = 0 if step.before is None else count_results(self.connection, step.before.id)
        results = items
        if step_type.accumulates and step.before is not None:
            results = present  # a version for each portion; how the stream is cut into portions is not known beforehand
        if not step_type.makes_results:
            results, present = 0, 0
        used = min(step_type.cores, self.cores)
        lanes = 1 if step_type.accumulates else self.cores / used  # versions are made one after another
        return StepPlan(
            step=step.node.name,
            kind=step_type.kind.value,
            change="revised" if step.before is not None else "new",
            computed=tally.computed,
            at_most=tally.at_most,
            decided=tally.decided,
            reused=tally.reused,
            exact=exact,
            seconds=0.0 if not results else None if cost.wall_s is None else results * cost.wall_s / lanes,
            new_bytes=_bytes(results, cost),
            old_bytes=_bytes(max(0, present - tally.reused), cost),
        )

    def _cost(self, step: PlannedRevision) -> Cost:
        """Take a sample of the step's own results, else of another step of the same type."""
        if step.before is not None:
            own = cost_of(self.connection, self.session, [step.before.id])
            if own.wall_s is not None:
                return own
        table = schema.revision
        mine = select(table.c.id).where(table.c.type == step.revision.type_name).order_by(table.c.id.desc())
        return cost_of(self.connection, self.session, list(self.connection.execute(mine).scalars()))

    def _is_exact(self, step: PlannedRevision) -> bool:
        """Tell whether the units of a step are known beforehand."""
        kind, _, owner = step.node.domain.partition(":")
        if step.node.type.takes_many:
            return False
        if kind == "batch":
            return self.steps[owner].kept
        if kind == "version":
            return all(self.steps[link.step].kept for links in step.node.links.values() for link in links)
        return not step.node.type.is_source or step.before is not None

    def gone(self) -> list[StepPlan]:
        """Return a line for each step that the edited workflow has no more."""
        table = schema.revision
        active = self.connection.execute(select(table.c.id, table.c.step, table.c.kind).where(table.c.state == "active"))
        return [
            StepPlan(row.step, row.kind, "gone", old_bytes=self._stays(row.id, row.kind))
            for row in active.all()
            if row.step not in self.steps
        ]

    def _stays(self, revision: int, kind: str) -> int | None:
        if kind not in ("map", "accumulate"):
            return 0
        return _bytes(count_results(self.connection, revision), cost_of(self.connection, self.session, [revision]))


def _bytes(count: int, cost: Cost) -> int | None:
    if not count:
        return 0
    return None if cost.file_bytes is None else round(count * cost.file_bytes)
