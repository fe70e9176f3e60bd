"""The scheduler: ``(state, event) → instructions``, without input, output or clock.

Every unit (exposure, batch or version) gets an outcome from every step of its domain; joins wait for outcomes, so nothing can
hang. A unit leaves the memory when its last step has decided: the cost of an event does not grow with the session.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from icestream.flow.declaration.context import Progress, Verdict
from icestream.flow.declaration.outcomes import Outcome, Status
from icestream.flow.declaration.step import Kind
from icestream.flow.scheduling import after, closing, collecting, draining, overriding, retry, stale_inputs, versions
from icestream.flow.scheduling.deciding import admission_for
from icestream.flow.scheduling.events import (
    Absorbed,
    Arrived,
    Decided,
    Event,
    Failed,
    Halted,
    Lifted,
    Overridden,
    Published,
    Released,
    Retried,
    SourceClosed,
    Tick,
    Withdrawn,
)
from icestream.flow.scheduling.instructions import Dispatch, Forget, Instruction, MarkStream, Release, Settle
from icestream.flow.scheduling.joins import Joined, first_weight, join_inputs, member_keys, passed_keys
from icestream.flow.scheduling.stage import Stage, Unit
from icestream.flow.workflow.graph import Graph, Node
from icestream.records import Snapshot

Judges = Callable[[Node], tuple[Callable[[Progress], Verdict], int]]


@dataclass
class Scheduler:
    """The state, and the transitions as methods."""

    graph: Graph
    judges: Judges
    overrides: overriding.Overrides = field(default_factory=dict)
    backlog: bool = False  # unsettled exposures of earlier runs are still to be admitted: no stream may close
    stages: dict[str, Stage] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    delayed: list[tuple[float, str, str]] = field(default_factory=list)
    out: list[Instruction] = field(default_factory=list)
    uptime_s: float = 0.0

    def __post_init__(self) -> None:
        self._dependents = {name: self.graph.dependents(name) for name in self.graph.nodes}
        self._followers = {
            name: [node for node in nodes if node.takes_items_of(name)] for name, nodes in self._dependents.items()
        }
        self._inputs = {name: self.graph.inputs_of(name) for name in self.graph.nodes}
        self._domains: dict[str, list[Node]] = {}
        for node in self.graph.nodes.values():
            if not _publishes_only(node):
                self._domains.setdefault(node.domain, []).append(node)
        for node in self.graph.nodes.values():
            stage = Stage(node)
            if node.type.kind in (Kind.GATE, Kind.COLLECT, Kind.ACCUMULATE):
                stage.judge, stage.portion = self.judges(node)
            stage.admit = admission_for(node)
            self.stages[node.name] = stage
        self._timed = [stage for stage in self.stages.values() if stage.node.type.kind in (Kind.GATE, Kind.COLLECT)]

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event and return what is to be done, in order."""
        self.out = []
        match event:
            case Arrived():
                self._arrived(event)
            case Published():
                versions.publish(self, self.stages[event.step], event.key, version=event.version)
            case Decided():
                self._decided(event)
            case Failed():
                retry.fail(self, event)
            case Absorbed():
                collecting.absorb(self, event)
            case SourceClosed():
                closing.close_stage(self, self.stages[event.step], event.reason)
            case Retried():
                retry.try_again(self, event)
            case Overridden():
                overriding.decide_anew(self, event)
            case Released():
                collecting.judge(self, self.stages[event.step], released=True)
            case Halted() | Lifted() | Withdrawn():
                draining.take(self, event)
            case Tick():
                self.uptime_s = max(self.uptime_s, event.uptime_s)
                retry.try_what_is_due(self, event.now_s)
                collecting.ask_by_time(self, self._timed)
        closing.close_what_is_done(self)
        return self.out

    def resume(self, units: Iterable[Unit]) -> list[Instruction]:
        """Go on with the logs and snapshots of an earlier run, and with its unsettled units, in their order."""
        self.out = []
        for stage in self.stages.values():
            collecting.compute_entry(self, stage)
        out = [*self.out, *self.admit(units, more=self.backlog)]
        self.out = []
        for stage in self.stages.values():
            versions.run_newest(self, stage)
        return out + self.out

    def admit(self, units: Iterable[Unit], *, more: bool) -> list[Instruction]:
        """Take unsettled units of an earlier run; ``more`` tells that others are still to come."""
        self.out = []
        self.backlog = more
        for unit in units:
            if unit.id not in self.units:
                self.add_unit(unit)
        return self.out

    # Units -----------------------------------------------------------------------------------------------------------------

    def add_unit(self, unit: Unit) -> None:
        """Let a unit in and decide whatever can be decided about it."""
        self.units[unit.id] = unit
        nodes = self.nodes_of(unit.domain)
        self._note_absence(unit)
        for node in nodes:
            if node.name not in unit.outcomes:
                self.stages[node.name].undecided += 1
        for node in nodes:
            if node.name not in unit.outcomes:
                self.decide(unit, node)
        self.release(unit)

    def _note_absence(self, unit: Unit) -> None:
        """Note at every other source that the unit did not come from there (sources may be added to a session)."""
        sources = [node.name for node in self.nodes_of(unit.domain) if node.type.kind is Kind.SOURCE]
        origin = [name for name in sources if name in unit.outcomes and unit.outcomes[name].status is not Status.ABSENT]
        for name in sources:
            if name not in unit.outcomes:
                unit.outcomes[name] = other = Outcome(Status.ABSENT, reason=f"came from {''.join(origin)}", weight=0)
                self.out.append(Settle(name, unit.id, other))

    def readmit(self, unit: Unit) -> None:
        """Take back a settled unit whose outcome is about to change."""
        self.units[unit.id] = unit

    def nodes_of(self, domain: str) -> list[Node]:
        """Return the steps that decide units of ``domain``, inputs first (sources of snapshots decide none)."""
        return self._domains.get(domain, [])

    def dependents(self, step: str) -> list[Node]:
        """Return the nodes that read an output of ``step``."""
        return self._dependents[step]

    def inputs_of(self, step: str) -> set[str]:
        """Return the steps that ``step`` reads."""
        return self._inputs[step]

    def mark(self, stage: Stage, state: str, reason: str) -> None:
        """Store that a stream opened or closed, if that is new."""
        if stage.marked != state:
            stage.marked = state
            self.out.append(MarkStream(stage.node.name, state, reason))

    def settle(self, unit: Unit, node: Node, outcome: Outcome) -> None:
        """Give ``unit`` its outcome at ``node`` and decide what depends on it."""
        stage = self.stages[node.name]
        unit.running.discard(node.name)
        stage.awaiting_version.pop(unit.id, None)
        stage.held.pop(unit.id, None)
        stage.note(unit.outcomes.get(node.name), outcome)
        unit.outcomes[node.name] = outcome
        self.out.append(Settle(node.name, unit.id, outcome))
        if outcome.status not in (Status.SKIPPED, Status.ABSENT):
            self.mark(stage, "open", "its first outcome")
        unit.settling += 1  # one that decides at once must not release a unit that others below have still to decide again
        for dependent in self._followers[node.name]:
            if dependent.domain == unit.domain:
                self._decide_again(unit, dependent)
        unit.settling -= 1
        self.release(unit)

    def _decide_again(self, unit: Unit, node: Node) -> None:
        known = unit.outcomes.get(node.name)
        taken = node.type.kind in (Kind.COLLECT, Kind.ACCUMULATE)
        if (taken or self.stages[node.name].shut) and known is not None and known.status is Status.ITEM:
            stale_inputs.leave_taken(self, unit, self.stages[node.name])
            return
        if known is not None:
            self.forget(unit, node)
        if node.name in unit.running:
            unit.stale.add(node.name)
        self.stages[node.name].drop(unit.id)
        self.decide(unit, node)

    def forget(self, unit: Unit, node: Node) -> None:
        """Take the outcome of ``unit`` at ``node`` back."""
        known = unit.outcomes.pop(node.name)
        self.stages[node.name].note(known, None)
        self.out.append(Forget(node.name, unit.id, known.status))

    def release(self, unit: Unit) -> None:
        """Let a unit go when every step of its domain has decided."""
        at_rest = unit.id in self.units and not unit.running and not unit.settling
        if at_rest and all(node.name in unit.outcomes for node in self.nodes_of(unit.domain)):
            del self.units[unit.id]
            self.out.append(Release(unit.id))

    def decide(self, unit: Unit, node: Node) -> None:
        """Run, pass, hold or skip ``unit`` at ``node`` if its inputs are known."""
        stage = self.stages[node.name]
        if node.name in unit.running or stage.has(unit.id):
            return
        shut = stage.shut if (unit.id, node.name) not in self.overrides else ""  # what people decide by hand needs no work
        absent = Joined({}, outcome=Outcome(Status.ABSENT, reason=shut, weight=0)) if shut else None
        joined = absent or join_inputs(node, unit.outcomes)
        if joined is None:
            return
        if joined.outcome is not None:
            self.settle(unit, node, joined.outcome)
            return
        if after.hold_back(self, unit, stage):
            return
        weight = first_weight(node, unit.outcomes)
        chosen = overriding.decide_at_once(self, unit, stage, joined.inputs, weight)
        if chosen is not None:
            self.settle(unit, node, chosen)
            return
        bound = versions.bind(self, unit, stage)
        if bound is None:
            return
        if node.type.kind in (Kind.MAP, Kind.FILTER):
            unit.running.add(node.name)
            unit.stale.discard(node.name)
            self.out.append(Dispatch(node.name, unit.id, {**joined.inputs, **bound}))
        elif node.type.kind is Kind.GATE and stage.opened:
            self.settle(unit, node, Outcome(Status.ITEM, passed_keys(node, joined.inputs, accepted=True), weight))
        else:
            stage.put(unit.id, member_keys({**joined.inputs, **bound}), weight)
            collecting.judge(self, stage)

    # Events ----------------------------------------------------------------------------------------------------------------

    def _arrived(self, event: Arrived) -> None:
        unit = Unit(event.unit, "exposure", dict(event.known))
        status = Status.FAILED if event.error else Status.ITEM
        keys = {"out": event.key} if event.key and not event.error else {}
        outcome = Outcome(status, keys, event.weight, event.error)
        unit.outcomes[event.step] = outcome = self._as_decided_by_hand(event, outcome)
        self.stages[event.step].decided[outcome.status] += 1
        retry.count_failure(self, self.stages[event.step], failed=event.error is not None)
        self.stages[event.step].closed = False
        self.mark(self.stages[event.step], "open", "new data")
        self.out.append(Settle(event.step, event.unit, outcome))
        if event.later:
            self.backlog = True
        else:
            self.add_unit(unit)

    def _as_decided_by_hand(self, event: Arrived, outcome: Outcome) -> Outcome:
        forced = self.overrides.get((event.unit, event.step))
        return outcome if forced is None else overriding.source_outcome(outcome, forced)

    def _decided(self, event: Decided) -> None:
        unit = self.units.get(event.unit)
        stage = self.stages[event.step]
        if unit is None or event.step not in unit.running:
            return
        if event.step in unit.stale:
            self.run_again(unit, stage.node)
            return
        retry.count_failure(self, stage, failed=False)
        stage.failures.pop(event.unit, None)
        self.settle(unit, stage.node, event.outcome)
        if event.outcome.status is Status.ITEM and _makes_snapshot(stage.node):
            versions.publish(self, stage, event.outcome.keys["out"])
        versions.finish_version(self, stage, event.unit)

    def run_again(self, unit: Unit, node: Node) -> None:
        """Decide a unit anew whose attempt at ``node`` is over."""
        unit.running.discard(node.name)
        self.decide(unit, node)


def _publishes_only(node: Node) -> bool:
    return node.type.kind is Kind.SOURCE and _makes_snapshot(node)


def _makes_snapshot(node: Node) -> bool:
    return node.type.output is not None and issubclass(node.type.output, Snapshot)
