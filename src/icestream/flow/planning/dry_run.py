"""What would become of every unit if a workflow were taken up now: the scheduler's rules, applied without running anything.

A result's key is a hash of what goes into it, so what a map would compute can be looked up. What a changed filter or gate will
say is known only where the same rule has decided the same item before; else everything below it is an upper bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from icestream.flow.declaration.outcomes import Outcome, Status
from icestream.flow.declaration.step import Kind
from icestream.flow.planning.gate_release import find_released, forget_left_out, set_free
from icestream.flow.planning.lookup import Lookup
from icestream.flow.planning.planned_revisions import PlannedRevision
from icestream.flow.scheduling.joins import join_inputs, passed_keys
from icestream.flow.scheduling.overriding import decide_by_hand, source_outcome
from icestream.flow.scheduling.stage import Unit
from icestream.flow.storage import resuming
from icestream.flow.storage.drains import load_drains
from icestream.flow.storage.own_params import Owned, lay_over, load_owned
from icestream.flow.workflow.graph import Graph, Node
from icestream.flow.workflow.keys import canonical_json, result_key

_PAGE = 500
_NEW = "+"
"""A key that stands for a result which does not exist begins with this."""

Inputs = dict[str, tuple[str, ...]]


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

    def __post_init__(self) -> None:
        self._overrides = resuming.load_overrides(self.connection)
        self._owned = load_owned(self.connection) if self.owned is None else self.owned
        drains = load_drains(self.connection)
        self._released = find_released(drains, self.steps)
        self.set_free = set_free(self.graph, self._released)
        self._drained = drains.keys() - self._released.keys()
        self._past = Lookup(self.connection, self.steps)
        self.tallies = {name: Tally() for name in self.steps}
        self._above = {
            name: tuple({link.step for links in step.node.item_links.values() for link in links})
            for name, step in self.steps.items()
        }
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
                forget_left_out(unit, self.graph, self._released)
            yield [
                _Case(unit, {**row.acquisition, **self.acquisition}, row.source) for unit, row in zip(units, rows, strict=True)
            ]

    def _go_through(self, nodes: list[Node], cases: list[_Case]) -> None:
        self._numbers.clear()
        self._made.clear()
        for node in nodes:
            if node.type.is_source:
                for case in cases:
                    self._source(case, self.steps[node.name])
                continue
            self._step(self.steps[node.name], [case for case in cases if node.name not in case.unit.outcomes])

    def _source(self, case: _Case, step: PlannedRevision) -> None:
        name, outcomes = step.node.name, case.unit.outcomes
        if name not in outcomes:
            if case.source != name:
                outcomes[name] = Outcome(Status.ABSENT)
        elif not step.kept:
            outcomes[name] = source_outcome(outcomes[name], self._overrides.get((case.unit.id, name)))
            self.tallies[name].decided += 1

    def _step(self, step: PlannedRevision, cases: list[_Case]) -> None:
        """Decide many units at one step; the keys that maps would have are looked up together."""
        keyed: list[tuple[_Case, str]] = []
        filtered: list[tuple[_Case, Inputs]] = []
        for case in cases:
            inputs = self._join(case, step.node)
            if inputs is None:
                continue
            match step.node.type.kind:
                case Kind.MAP:
                    keyed.append((case, self._key(case, step, inputs)))
                case Kind.FILTER:
                    filtered.append((case, inputs))
                case kind:
                    self._hold(case, step, inputs, kind)
        there = self._past.existing([key for _, key in keyed if not key.startswith(_NEW)])
        for case, key in keyed:
            self._compute(case, step, key, exists=key in there)
        verdicts = self._past.verdicts(step, [case.unit.id for case, _ in filtered])
        for case, inputs in filtered:
            self._filter(case, step, inputs, verdicts.get(case.unit.id, []))

    def _join(self, case: _Case, node: Node) -> Inputs | None:
        """Return what a step would run on, or None where it is skipped, decided by hand, or not to be decided yet."""
        if node.name in self._drained:
            case.unit.outcomes[node.name] = Outcome(Status.ABSENT)
            return None
        if any(step not in case.unit.outcomes for step in self._above[node.name]):
            return None
        joined = join_inputs(node, case.unit.outcomes)
        if joined is None:
            return None
        if self._released.get(node.name):  # the gate may drain it again
            case.uncertain.add(node.name)
        if case.uncertain and not case.uncertain.isdisjoint(self._above[node.name]):
            case.uncertain.add(node.name)
        if joined.outcome is not None:
            case.unit.outcomes[node.name] = joined.outcome
            return None
        forced = self._overrides.get((case.unit.id, node.name))
        by_hand = decide_by_hand(node, joined.inputs, 1, forced) if forced else None
        if by_hand is not None:
            case.unit.outcomes[node.name] = by_hand
            return None
        return self._bind(case, node, joined.inputs) if node.bound else joined.inputs

    def _bind(self, case: _Case, node: Node, inputs: Inputs) -> Inputs | None:
        found = dict(inputs)
        for port in sorted(node.bound):
            keys = []
            for index, link in enumerate(node.links[port]):
                known = case.unit.bound.get((node.name, f"{port}#{index}"))
                known = known or (self._past.newest.get(link.step) if self.steps[link.step].kept else f"{_NEW}{link.step}")
                if known is None:  # it waits for a version that nobody has published
                    self.tallies[node.name].at_most += 1
                    return None
                keys.append(known)
            found[port] = tuple(keys)
        return found

    def _key(self, case: _Case, step: PlannedRevision, inputs: Inputs) -> str:
        """Return the key of a map's result; one that cannot exist, because an input does not, gets a number."""
        revision, node = step.revision, step.node
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
        )

    @staticmethod
    def _rule(step: PlannedRevision, read: Mapping[str, object], params: Mapping[str, object]) -> str:
        """Return what, beside its inputs, makes a result of a step what it is."""
        revision = step.revision
        return canonical_json([revision.type_name, revision.type_version, dict(params), revision.epoch, read])

    def _number(self, *what: object) -> str:
        return self._numbers.setdefault(what, f"{_NEW}{len(self._numbers)}")

    def _compute(self, case: _Case, step: PlannedRevision, key: str, *, exists: bool) -> None:
        name, tally = step.node.name, self.tallies[step.node.name]
        if exists:
            tally.reused += 1
            tally.reused_keys.add(key)
            case.unit.outcomes[name] = Outcome(Status.ITEM, {"out": key})
            return
        made = key if key.startswith(_NEW) else f"{_NEW}{key}"
        if made in self._made:  # a step with the same parameters computes it already
            tally.reused += 1
        elif name in case.uncertain:
            tally.at_most += 1
        else:
            tally.computed += 1
        self._made.add(made)
        case.unit.outcomes[name] = Outcome(Status.ITEM, {"out": made})

    def _filter(self, case: _Case, step: PlannedRevision, inputs: Inputs, verdicts: list[tuple[str, dict[str, str]]]) -> None:
        node, tally = step.node, self.tallies[step.node.name]
        tally.decided += 1
        passed, refused = (passed_keys(node, inputs, accepted=accepted) for accepted in (True, False))
        if ("item", passed) in verdicts:
            case.unit.outcomes[node.name] = Outcome(Status.ITEM, passed)
        elif ("rejected", refused) in verdicts:
            case.unit.outcomes[node.name] = Outcome(Status.REJECTED, refused)
        else:
            case.unit.outcomes[node.name] = Outcome(Status.ITEM, {**passed, **refused})
            case.uncertain.add(node.name)

    def _hold(self, case: _Case, step: PlannedRevision, inputs: Inputs, kind: Kind) -> None:
        node, tally = step.node, self.tallies[step.node.name]
        if kind is Kind.ACCUMULATE:
            if node.name in case.uncertain:
                tally.at_most += 1
            else:
                tally.computed += 1
            keys = {"assignments": self._number(node.name, case.unit.id)} if node.type.assigns is not None else {}
            case.unit.outcomes[node.name] = Outcome(Status.ITEM, keys)
        else:
            tally.decided += 1
            keys = passed_keys(node, inputs, accepted=True) if kind is Kind.GATE else {"batch": inputs["items"][0]}
            case.unit.outcomes[node.name] = Outcome(Status.ITEM, keys)
            case.uncertain.add(node.name)

    def _run_newest(self, step: PlannedRevision) -> None:
        """Count the one run, on the newest versions, of a step that is fed by versions alone."""
        case = _Case(Unit(step.node.name, step.node.domain), self.acquisition)
        inputs = self._bind(case, step.node, {})
        if inputs is not None:
            key = self._key(case, step, inputs)
            there = self._past.existing([] if key.startswith(_NEW) else [key])
            self._compute(case, step, key, exists=key in there)
