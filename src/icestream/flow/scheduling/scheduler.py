"""The scheduler: ``(state, event) → instructions``, without input, output or clock.

Every unit (exposure, batch or version) gets an outcome from every step of its domain; joins wait for outcomes, so nothing can
hang. A unit leaves the memory when its last step has decided: the cost of an event does not grow with the session.

Here is what concerns units on their way through the steps. What a step does with a unit is its kind's matter (`stage`, and a
module a kind); what an event means for which kind is a table (`transitions`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from icestream.flow.declaration import Outcome, Status
from icestream.flow.scheduling.collecting import Timed
from icestream.flow.scheduling.deciding import Judges
from icestream.flow.scheduling.event_types import Event, Tick
from icestream.flow.scheduling.instruction_types import Forget, Instruction, Release, Settle
from icestream.flow.scheduling.joins import join_inputs
from icestream.flow.scheduling.overriding import Overrides
from icestream.flow.scheduling.stage import Stage, Unit
from icestream.flow.scheduling.transitions import TRANSITIONS, stage_for
from icestream.flow.workflow import Graph


class InvalidState(AssertionError):
    """The scheduler's state contradicts itself: its rules have a fault."""


@dataclass
class Scheduler:
    """The state, and the way of units through it; ``checked`` validates all of it after every event (slow: for tests)."""

    graph: Graph
    judges: Judges
    overrides: Overrides = field(default_factory=dict)
    backlog: bool = False  # unsettled exposures of earlier runs are still to be admitted: no stream may close
    stages: dict[str, Stage] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    delayed: list[tuple[float, str, str]] = field(default_factory=list)  # (when, step, unit or entry) to try again
    out: list[Instruction] = field(default_factory=list)
    uptime_s: float = 0.0
    checked: bool = False
    decides: frozenset[str] | None = None
    """The steps that decide; what the others say of a unit is given with it. Unset: all."""

    def __post_init__(self) -> None:
        self.stages = {name: stage_for(node, self.judges) for name, node in self.graph.nodes.items()}
        stages = self.stages
        self._inputs = {name: [stages[step] for step in self.graph.inputs_of(name)] for name in stages}
        self._dependents = {name: [stages[node.name] for node in self.graph.dependents(name)] for name in stages}
        self._takers = {
            name: [stage for stage in found if stage.node.takes_items_of(name) and self._lets_decide(stage)]
            for name, found in self._dependents.items()
        }
        self._followers = {name: [stages[step] for step in self.graph.followers(name)] for name in stages}
        self._below: dict[str, list[Stage]] = {}
        self._domains: dict[str, list[Stage]] = {}
        for stage in stages.values():
            if not stage.node.publishes_only and self._lets_decide(stage):
                self._domains.setdefault(stage.node.domain, []).append(stage)
        self._timed = [stage for stage in stages.values() if isinstance(stage, Timed)]

    def _lets_decide(self, stage: Stage) -> bool:
        return self.decides is None or stage.name in self.decides

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event and return what is to be done, in order."""
        self.out = []
        if isinstance(event, Tick):
            self.tick(event)
        else:
            stage = self.stages[event.step]
            TRANSITIONS[type(event)][stage.node.type.kind](stage, self, event)
        self._close_what_is_done()
        if self.checked:
            self.validate()
        return self.out

    def resume(self, units: Iterable[Unit]) -> list[Instruction]:
        """Go on with the logs and snapshots of an earlier run, and with its unsettled units, in their order."""
        self.out = []
        for stage in self.stages.values():
            stage.start_logged_work(self)
        out = [*self.out, *self.admit(units, more=self.backlog)]
        self.out = []
        for stage in self.stages.values():
            stage.run_newest(self)
        return out + self.out

    def admit(self, units: Iterable[Unit], *, more: bool) -> list[Instruction]:
        """Take unsettled units of an earlier run; ``more`` tells that others are still to come."""
        self.out = []
        self.backlog = more
        for unit in units:
            if unit.id not in self.units:
                self.add_unit(unit)
        return self.out

    def readmit(self, unit: Unit) -> None:
        """Take back a settled unit whose outcome is about to change."""
        self.units[unit.id] = unit

    def tick(self, event: Tick) -> None:
        """Let time pass: try again what failed and has waited long enough, ask the rules that wanted to be asked by now."""
        self.uptime_s = max(self.uptime_s, event.uptime_s)
        due = [entry for entry in self.delayed if entry[0] <= event.now_s]
        if due:
            self.delayed = [entry for entry in self.delayed if entry[0] > event.now_s]
        for _, step, unit_id in due:
            self.stages[step].try_now(self, unit_id)
        for stage in self._timed:
            stage.ask_by_time(self)

    def _close_what_is_done(self) -> None:
        """Close every step that has nothing more to expect, inputs first; none while earlier exposures are still to come."""
        if self.backlog:
            return
        for stage in self.stages.values():
            if not stage.closed and stage.is_over(self):
                stage.finish(self)

    # Units -----------------------------------------------------------------------------------------------------------------

    def add_unit(self, unit: Unit) -> None:
        """Let a unit in and decide whatever can be decided about it."""
        self.units[unit.id] = unit
        stages = self.stages_of(unit.domain)
        self._note_absence(unit, stages)
        for stage in stages:
            if stage.name not in unit.outcomes:
                stage.undecided += 1
                stage.closed = False
        for stage in stages:
            if stage.name not in unit.outcomes:
                self.decide(unit, stage)
        self.release(unit)

    def _note_absence(self, unit: Unit, stages: list[Stage]) -> None:
        """Note at every other source that the unit did not come from there (sources may be added to a session)."""
        sources = [stage.name for stage in stages if stage.node.type.is_source]
        origin = [name for name in sources if name in unit.outcomes and unit.outcomes[name].status is not Status.ABSENT]
        for name in sources:
            if name not in unit.outcomes:
                unit.outcomes[name] = other = Outcome(Status.ABSENT, reason=f"came from {''.join(origin)}", weight=0)
                self.emit(Settle(name, unit.id, other))

    def decide(self, unit: Unit, stage: Stage) -> None:
        """Run, pass, hold or skip a unit if its inputs are known."""
        name = stage.name
        if name in unit.running or stage.has(unit.id):
            return
        unit.weighed[name] = unit.n_changes
        shut = stage.shut
        if shut and (unit.id, name) not in self.overrides:  # what people decide by hand needs no work
            self.settle(unit, stage, Outcome(Status.ABSENT, reason=shut, weight=0))
            return
        joined = join_inputs(stage.node, unit.outcomes)
        if joined is None:
            return
        if joined.outcome is not None:
            self.settle(unit, stage, joined.outcome)
            return
        if stage.hold_back(self, unit):
            return
        chosen = stage.decide_at_once(self, unit, joined.inputs)
        if chosen is not None:
            self.settle(unit, stage, chosen)
            return
        bound = stage.bind(self, unit)
        if bound is not None:
            stage.take(self, unit, {**joined.inputs, **bound})

    def settle(self, unit: Unit, stage: Stage, outcome: Outcome) -> None:
        """Give a unit its outcome at a step and decide what depends on it."""
        name = stage.name
        unit.running.discard(name)
        stage.awaiting_version.pop(unit.id, None)
        stage.held.pop(unit.id, None)
        stage.note(unit.outcomes.get(name), outcome)
        unit.outcomes[name] = outcome
        unit.n_changes += 1
        change = unit.n_changes
        self.out.append(Settle(name, unit.id, outcome))
        if outcome.status not in (Status.SKIPPED, Status.ABSENT):
            stage.mark(self, "open", "its first outcome")
        unit.settling += 1  # one that decides at once must not release a unit that others below have still to decide again
        for dependent in self._takers[name]:
            known = unit.weighed.get(dependent.name, -1) >= change  # through another input that this one decided at once
            if dependent.node.domain == unit.domain and not known:
                self._decide_again(unit, dependent)
        unit.settling -= 1
        self.release(unit)

    def _decide_again(self, unit: Unit, stage: Stage) -> None:
        known = unit.outcomes.get(stage.name)
        if known is not None and known.status is Status.ITEM and (stage.keeps_what_it_took or stage.shut):
            stage.leave_taken(self, unit)
            return
        if known is not None:
            self.forget(unit, stage)
        if stage.name in unit.running:
            unit.stale.add(stage.name)
        stage.drop(unit.id)
        self.decide(unit, stage)

    def forget(self, unit: Unit, stage: Stage) -> None:
        """Take the outcome of a unit back."""
        known = unit.outcomes.pop(stage.name)
        stage.note(known, None)
        if not stage.node.type.is_source:  # it may have closed early, as one of its inputs had
            stage.closed = False
        self.out.append(Forget(stage.name, unit.id, known.status))

    def release(self, unit: Unit) -> None:
        """Let a unit go when every step of its domain has decided."""
        at_rest = unit.id in self.units and not unit.running and not unit.settling
        if at_rest and all(stage.name in unit.outcomes for stage in self.stages_of(unit.domain)):
            del self.units[unit.id]
            self.out.append(Release(unit.id))

    # What the rules of steps ask for ---------------------------------------------------------------------------------------

    def emit(self, *instructions: Instruction) -> None:
        """Want something done, after all that was wanted before."""
        self.out.extend(instructions)

    def try_later(self, stage: Stage, unit_id: str, *, at_s: float) -> None:
        """Try something again that failed."""
        self.delayed.append((at_s, stage.name, unit_id))

    def leave_to_backlog(self) -> None:
        """Note that a unit waits in the store: no stream may close."""
        self.backlog = True

    def leave_out(self, stage: Stage) -> None:
        """Decide, at a step that takes nothing new, every unit that has not begun there: it is absent."""
        for unit in list(self.units.values()):
            if unit.id in self.units and unit.domain == stage.node.domain and stage.name not in unit.outcomes:
                self.decide(unit, stage)

    def wake_dependents(self, stage: Stage) -> None:
        """Decide the units that waited for a version of ``stage``."""
        for dependent in self._dependents[stage.name]:
            for unit_id in list(dependent.awaiting_version):
                if unit_id in self.units:
                    self.decide(self.units[unit_id], dependent)
            dependent.run_newest(self)

    def start_followers(self, stage: Stage) -> None:
        """Start what waited for the stream of ``stage`` to close."""
        for follower in self._followers[stage.name]:
            follower.start_held(self)

    def inputs_of(self, stage: Stage) -> list[Stage]:
        """Return the steps that ``stage`` reads."""
        return self._inputs[stage.name]

    def below(self, stage: Stage) -> list[Stage]:
        """Return the steps that are fed by ``stage``, itself among them, inputs first."""
        if stage.name not in self._below:
            names = self.graph.descendants(stage.name)
            self._below[stage.name] = [other for name, other in self.stages.items() if name in names]
        return self._below[stage.name]

    def stages_of(self, domain: str) -> list[Stage]:
        """Return the steps that decide units of ``domain``, inputs first (sources of snapshots decide none)."""
        return self._domains.get(domain, [])

    # Checks ----------------------------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Check that nothing in the whole state contradicts itself, between two events.

        Raises
        ------
        InvalidState
            Naming every contradiction.
        """
        problems = [f"{name} {problem}" for name, stage in self.stages.items() for problem in stage.problems(self)]
        for name, unit in self.units.items():
            if name != unit.id:
                problems.append(f"{unit.id} is kept as {name}")
            if unit.settling:
                problems.append(f"{name} is being settled {unit.settling} times")
            known = {stage.name for stage in self.stages_of(unit.domain)}
            problems += [f"{name} runs at {step}, which does not decide it" for step in sorted(unit.running - known)]
        problems += [f"{step} is no step, and is to be tried again" for _, step, _ in self.delayed if step not in self.stages]
        if problems:
            raise InvalidState("; ".join(problems))
