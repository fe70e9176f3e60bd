"""What would become of every unit if a workflow were applied now: the scheduler itself is asked, and nothing is run.

It is told what workers would say. A result's key is a hash of what goes into it, so what a map would compute can be looked up;
one that does not exist is counted, and a key that stands for it goes on. What a changed filter or gate will say is known only
where the same rule has decided the same item before; else everything below it is an upper bound. Each page of units has a
scheduler of its own, so the memory does not grow with the session.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from icestream.flow.declaration import Member, Outcome, Progress, Status, Verdict
from icestream.flow.planning.lookup import Lookup
from icestream.flow.planning.planned_revisions import PlannedRevision
from icestream.flow.scheduling import (
    Absorbed,
    Cause,
    Consume,
    Decided,
    Dispatch,
    DrainReason,
    Gate,
    Inputs,
    Instruction,
    Scheduler,
    Settle,
    Unit,
    passed_keys,
    source_outcome,
)
from icestream.flow.storage import Owned, lay_over, load_drains, load_owned, resuming
from icestream.flow.workflow import Graph, Node, canonical_json, result_key

_PAGE = 500
_NEW = "+"
"""A key that stands for a result which does not exist begins with this."""


@dataclass
class Tally:
    """What one step would do: the units it computes, those it may compute, those it decides again, those it takes over."""

    computed: int = 0
    at_most: int = 0
    decided: int = 0
    reused: int = 0
    reused_keys: set[str] = field(default_factory=set)


@dataclass
class _Case:
    """One unit on its way through the steps."""

    unit: Unit
    acquisition: Mapping[str, object]
    source: str | None = None
    uncertain: set[str] = field(default_factory=set)  # steps whose outcome is not known for sure


@dataclass
class DryRun:
    """Goes through the units of a session, page by page."""

    connection: Connection
    graph: Graph
    steps: Mapping[str, PlannedRevision]
    acquisition: Mapping[str, object]
    owned: Owned | None = None
    """What exposures have of their own; unset: as the store says."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    _numbers: dict[tuple[object, ...], str] = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)
    _cases: dict[str, _Case] = field(default_factory=dict)
    _answers: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    _pending: dict[str, list[Dispatch]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._overrides = resuming.load_overrides(self.connection)
        self._owned = load_owned(self.connection) if self.owned is None else self.owned
        drains = load_drains(self.connection)
        self._released = _find_released(drains, self.steps)
        self.set_free = {name for step in self._released for name in self.graph.descendants(step)}
        self._drained = {step: why for step, why in drains.items() if step not in self._released}
        self._graph = Graph({name: replace(node, after=()) for name, node in self.graph.nodes.items()})
        self._past = Lookup(self.connection, self.steps)
        self.tallies = {name: Tally() for name in self.steps}
        self._above = {name: step.node.item_steps for name, step in self.steps.items()}
        self._unread = {
            name: self._rule(step, {}, step.revision.params) for name, step in self.steps.items() if not step.node.type.reads
        }

    def look(self, *, unsettled_only: bool = False) -> dict[str, Tally]:
        """Return a tally for each step; steps that keep their revision are counted where they have not decided yet."""
        wanted = self._wanted(unsettled_only)
        exposures = [node for node in self.graph.nodes.values() if node.domain == "exposure" and node.name in wanted]
        if any(not self.steps[node.name].kept for node in exposures) or unsettled_only or self._released:
            for cases in self._pages(wanted, unsettled_only):
                self._go_through(exposures, cases)
        for name, step in self.steps.items():
            if step.node.type.collects and step.kept:
                nodes = [node for node in self.graph.nodes.values() if node.domain == f"batch:{name}"]
                if unsettled_only or any(not self.steps[node.name].kept for node in nodes):
                    self._go_through(nodes, [_Case(unit, self.acquisition) for unit in self._past.batches(name)])
            if step.node.domain == f"version:{name}" and (unsettled_only or not step.kept):
                self._run_newest(step)
        return self.tallies

    def look_from(self, name: str, units: Sequence[str]) -> dict[str, Tally]:
        """Return a tally for each step if some exposures were decided again from one step on; what is taken stays taken."""
        below = {step for step in self.graph.descendants(name) if self.graph.nodes[step].domain == "exposure"}
        known = {step: foreseen.revision for step, foreseen in self.steps.items()}
        frozen = {step for step in below if self.graph.nodes[step].type.takes_many}
        nodes = [node for node in self.graph.nodes.values() if node.name in below]
        for rows in self._past.pages(_PAGE, unsettled_only=False, units=units):
            cases = []
            for unit, row in zip(resuming.load_exposures(self.connection, known, [row.unit for row in rows]), rows, strict=True):
                for step in below & unit.outcomes.keys():
                    if step not in frozen or unit.outcomes[step].status is not Status.ITEM:
                        del unit.outcomes[step]
                cases.append(_Case(unit, {**row.acquisition, **self.acquisition}, row.source))
            self._go_through(nodes, cases)
        return self.tallies

    def _wanted(self, unsettled_only: bool) -> set[str]:
        """Return the steps to look at: those that change, and what they read."""
        changed = {name for name, step in self.steps.items() if unsettled_only or not step.kept} | self.set_free
        return changed | {above for name in changed for above in self.graph.inputs_of(name)}

    def _pages(self, wanted: set[str], unsettled_only: bool) -> Iterable[list[_Case]]:
        known = {name: self.steps[name].revision for name in wanted if self.steps[name].kept}
        for name in wanted:  # a source that is read again finds what it found before
            before = self.steps[name].before
            if self.steps[name].node.type.is_source and before is not None:
                known[name] = before
        for rows in self._past.pages(_PAGE, unsettled_only=unsettled_only):
            units = resuming.load_exposures(self.connection, known, [row.unit for row in rows])
            for unit in units:
                _forget_left_out(unit, self.graph, self._released)
            yield [
                _Case(unit, {**row.acquisition, **self.acquisition}, row.source) for unit, row in zip(units, rows, strict=True)
            ]

    def _go_through(self, nodes: list[Node], cases: list[_Case]) -> None:
        """Let a scheduler decide some units at some steps; what workers would say of them is looked up for all together."""
        for memory in (self._numbers, self._made, self._answers):
            memory.clear()
        for node in nodes:
            if node.type.is_source:
                for case in cases:
                    self._source(case, self.steps[node.name])
        deciding = [node for node in nodes if not node.type.is_source]
        self._begin(deciding)
        self._cases = {case.unit.id: case for case in cases}
        self._carry_out(self._scheduler.admit([case.unit for case in cases], more=True))
        for node in deciding:
            self._answer(self.steps[node.name], self._pending.pop(node.name, []))
            stage, tally = self._scheduler.stages[node.name], self.tallies[node.name]
            tally.at_most += len(stage.awaiting_version)  # nobody has published a version
            if node.type.collects:
                tally.decided += stage.n_waiting

    def _begin(self, nodes: list[Node]) -> None:
        """Make a scheduler whose gates are open, whose batches stay open, and whose accumulators take all that comes."""
        names = frozenset(node.name for node in nodes)
        scheduler = self._scheduler = Scheduler(self._graph, _judge, self._overrides, backlog=True, decides=names)
        for name, stage in scheduler.stages.items():
            stage.set_drained(self._drained.get(name))
            stage.version_key = self._past.newest.get(name) if self.steps[name].kept else f"{_NEW}{name}"
            if isinstance(stage, Gate):
                stage.opened = True

    def _carry_out(self, wanted: Iterable[Instruction]) -> None:
        """Keep what is to be computed, and note what is decided."""
        queue = deque(wanted)
        while queue:
            match queue.popleft():
                case Settle(step, unit, outcome):
                    self._note(step, unit, outcome)
                case Dispatch(step, unit) as dispatch if (step, unit) not in self._answers:
                    self._is_uncertain(step, unit)
                    self._pending[step].append(dispatch)
                case Dispatch(step, unit):  # decided meanwhile by the same inputs
                    queue.extend(self._scheduler.handle(Decided(step, unit, self._answers[step, unit])))
                case Consume(step, position, members):
                    queue.extend(self._scheduler.handle(self._absorb(step, position, members)))
                case _:
                    pass

    def _is_uncertain(self, step: str, unit: str) -> bool:
        """Tell whether it is not sure what a step will say of a unit, or whether it comes to it at all."""
        case = self._cases[unit]
        if self._released.get(step) or not case.uncertain.isdisjoint(self._above[step]):  # a gate may drain it again
            case.uncertain.add(step)
        return step in case.uncertain

    def _note(self, step: str, unit: str, outcome: Outcome) -> None:
        node = self.steps[step].node
        if outcome.status is not Status.ABSENT:
            self._is_uncertain(step, unit)
        if node.type.is_gate and outcome.status is Status.ITEM and (unit, step) not in self._overrides:
            self.tallies[step].decided += 1
            self._cases[unit].uncertain.add(step)

    def _absorb(self, step: str, position: int, members: Sequence[Member]) -> Absorbed:
        node, tally, assignments = self.steps[step].node, self.tallies[step], {}
        for unit, _ in members:
            if self._is_uncertain(step, unit):
                tally.at_most += 1
            else:
                tally.computed += 1
            if node.type.assigns is not None:
                assignments[unit] = self._number(step, unit)
        return Absorbed(step, position, self._scheduler.stages[step].version_key or f"{_NEW}{step}", assignments)

    def _source(self, case: _Case, step: PlannedRevision) -> None:
        name, outcomes = step.node.name, case.unit.outcomes
        if name not in outcomes:
            if case.source != name:
                outcomes[name] = Outcome(Status.ABSENT)
        elif not step.kept:
            outcomes[name] = source_outcome(outcomes[name], self._overrides.get((case.unit.id, name)))
            self.tallies[name].decided += 1

    def _answer(self, step: PlannedRevision, asked: list[Dispatch]) -> None:
        """Say what workers would say; the keys that maps would have are looked up together."""
        if step.node.type.computes:
            keyed = [(one, self._key(self._cases[one.unit], step, one)) for one in asked]
            there = self._past.existing([key for _, key in keyed if not key.startswith(_NEW)])
            answers = [(one, self._compute(self._cases[one.unit], step, key, exists=key in there)) for one, key in keyed]
        else:
            verdicts = self._past.verdicts(step, [one.unit for one in asked])
            answers = [(one, self._filter(self._cases[one.unit], step, one.inputs, verdicts.get(one.unit, []))) for one in asked]
        for one, outcome in answers:
            self._answers[one.step, one.unit] = outcome
            self._carry_out(self._scheduler.handle(Decided(one.step, one.unit, outcome)))

    def _key(self, case: _Case, step: PlannedRevision, asked: Dispatch) -> str:
        """Return the key of a map's result; one that cannot exist, because an input does not, gets a number."""
        revision, node, inputs = step.revision, step.node, asked.inputs
        read = {name: value for name, value in case.acquisition.items() if name in node.type.reads}
        unsure = node.name in case.uncertain and any(port.many for port in node.type.ports)
        own = self._owned.get((case.unit.id, node.name))
        params = revision.params if own is None else lay_over(node, revision.params, own.params, own.contents).identity
        if unsure or any(key.startswith(_NEW) for keys in inputs.values() for key in keys):
            shared = self._unread.get(node.name) if own is None else None
            return self._number(shared or self._rule(step, read, params), tuple(sorted(inputs.items())))
        return result_key(
            revision.type_name,
            revision.type_version,
            params=params,
            epoch=revision.epoch,
            inputs=inputs,
            acquisition=read,
            names=asked.names,
        )

    @staticmethod
    def _rule(step: PlannedRevision, read: Mapping[str, object], params: Mapping[str, object]) -> str:
        """Return what, beside its inputs, makes a result of a step what it is."""
        revision = step.revision
        return canonical_json([revision.type_name, revision.type_version, dict(params), revision.epoch, read])

    def _number(self, *what: object) -> str:
        return self._numbers.setdefault(what, f"{_NEW}{len(self._numbers)}")

    def _compute(self, case: _Case, step: PlannedRevision, key: str, *, exists: bool) -> Outcome:
        name, tally = step.node.name, self.tallies[step.node.name]
        if exists:
            tally.reused += 1
            tally.reused_keys.add(key)
            return Outcome(Status.ITEM, {"out": key})
        made = key if key.startswith(_NEW) else f"{_NEW}{key}"
        if made in self._made:  # a step with the same parameters computes it already
            tally.reused += 1
        elif name in case.uncertain:
            tally.at_most += 1
        else:
            tally.computed += 1
        self._made.add(made)
        return Outcome(Status.ITEM, {"out": made})

    def _filter(self, case: _Case, step: PlannedRevision, inputs: Inputs, verdicts: list[tuple[str, dict[str, str]]]) -> Outcome:
        node = step.node
        self.tallies[node.name].decided += 1
        passed, refused = (passed_keys(node, inputs, accepted=accepted) for accepted in (True, False))
        if ("item", passed) in verdicts:
            return Outcome(Status.ITEM, passed)
        if ("rejected", refused) in verdicts:
            return Outcome(Status.REJECTED, refused)
        case.uncertain.add(node.name)
        return Outcome(Status.ITEM, {**passed, **refused})

    def _run_newest(self, step: PlannedRevision) -> None:
        """Count the one run, on the newest versions, of a step that is fed by versions alone."""
        self._go_through([step.node], [_Case(Unit(step.node.name, step.node.domain), self.acquisition)])


def _judge(node: Node) -> tuple[Callable[[Progress], Verdict], int]:
    """Let accumulators take what comes, and batches nothing: how they are cut depends on the order of arrival."""
    return lambda _: Verdict(accepted=node.type.accumulates), 1


def _find_released(drains: Mapping[str, DrainReason], steps: Mapping[str, PlannedRevision]) -> dict[str, bool]:
    """Return the drained steps that go on, as their gate is asked again; for each, whether the gate may drain it again."""
    gates = {name: step.node for name, step in steps.items() if step.node.type.is_gate and not step.kept}
    return {
        step: step in gates[why.by].closes
        for step, why in drains.items()
        if step in steps and why.cause is Cause.GATE and why.by in gates
    }


def _forget_left_out(unit: Unit, graph: Graph, released: Iterable[str]) -> None:
    """Take back that steps left a unit out while they were drained, and that it was skipped below."""
    for step in released:
        known = unit.outcomes.get(step)
        if known is not None and known.status is Status.ABSENT:
            below = graph.descendants(step)
            for name in [name for name, outcome in unit.outcomes.items() if name in below and outcome.status is Status.SKIPPED]:
                del unit.outcomes[name]
            del unit.outcomes[step]
