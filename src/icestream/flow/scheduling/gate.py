"""Gates: they hold the stream until their rule lets it pass, and stay open."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from icestream.flow.declaration import Outcome, Status, Verdict
from icestream.flow.scheduling import event_types as events
from icestream.flow.scheduling import rules
from icestream.flow.scheduling.collecting import Timed
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.scheduling.instruction_types import OpenGate
from icestream.flow.scheduling.joins import join_inputs, passed_keys
from icestream.flow.scheduling.stage import Core, Inputs, Unit


@dataclass
class Gate(Timed):
    """A gate."""

    admit: Callable[[str], Verdict] | None = None
    """Keeps or rejects each exposure by itself, before it waits."""
    opened: bool = False

    def take(self, core: Core, unit: Unit, inputs: Inputs) -> None:
        """Let a unit pass, or wait."""
        if self.opened:
            keys = passed_keys(self.node, inputs, accepted=True)
            core.settle(unit, self, Outcome(Status.ITEM, keys, self.weight_of(unit)))
        else:
            super().take(core, unit, inputs)

    def decide_at_once(self, core: Core, unit: Unit, inputs: Inputs) -> Outcome | None:
        """Return what a person, or the gate's own rule for single exposures, says of a unit."""
        if self.admit is None or (unit.id, self.name) in core.overrides:
            return super().decide_at_once(core, unit, inputs)
        verdict = self.admit(unit.id)
        if verdict.accepted:
            return None
        return Outcome(Status.REJECTED, {"rejected": inputs["items"][0]}, self.weight_of(unit), verdict.reason)

    def may_be_asked(self) -> bool:
        """Tell whether the rule has anything to say now."""
        return not self.opened and not self.shut

    def act(self, core: Core, verdict: Verdict) -> bool:
        """Open for good and let everything through that waits; then drain the steps that it closes."""
        self.opened, self.spent = True, verdict.last
        reason = verdict.reason or "its condition was met"
        core.emit(OpenGate(self.name, reason, verdict.last))
        members, _ = self.take_members()
        for unit_id, keys in members:
            self.settle_member(core, unit_id, {"out": keys["items"]})
        if self.spent:
            core.leave_out(self)
        for step in self.node.closes:
            rules.drained(core.stages[step], core, events.Drained(step, DrainReason(Cause.GATE, self.name, reason)))
        return True

    def drop_all(self) -> None:
        """Take back all that waits: it is left out, as the gate has not opened."""
        self.take_members()

    def finish(self, core: Core) -> None:
        """Ask for the last time, and close the stream unless the gate waits on for a time or a person."""
        if self.undecided > len(self.waiting):
            return
        if self.waiting and not self.ask(core, stream_closed=True):
            if self.ask_at_s is not None:
                return
            reason = f"the stream closed before the gate opened: {self.wait_reason}"
            for unit_id, _ in self.take_members()[0]:
                core.settle(core.units[unit_id], self, Outcome(Status.ABSENT, reason=reason, weight=0))
        self.close(core, self.closing_reason)

    def leave_taken(self, core: Core, unit: Unit) -> None:
        """Pass on what a unit that has passed has now."""
        joined, known = join_inputs(self.node, unit.outcomes), unit.outcomes[self.name]
        if joined is None or joined.outcome is not None:
            return
        keys = passed_keys(self.node, joined.inputs, accepted=True)
        if keys != known.keys:
            core.forget(unit, self)
            core.settle(unit, self, replace(known, keys=keys, weight=self.weight_of(unit)))

    def released(self, core: Core, event: events.Released) -> None:
        """Ask the rule, which sees that a person lets the gate open."""
        self.ask(core, released=True)

    def problems(self, core: Core) -> Iterator[str]:
        """Say what contradicts itself."""
        yield from super().problems(core)
        if self.waiting and (self.opened or self.shut):
            yield f"is {'open' if self.opened else 'shut'}, and {len(self.waiting)} units wait"
        if self.spent and not self.opened:
            yield "has passed on all, and never opened"
