"""Sources: they decide nothing, but report what has arrived."""

from dataclasses import dataclass

from icestream.flow.declaration.outcomes import Outcome, Status
from icestream.flow.scheduling import events, rules
from icestream.flow.scheduling.instructions import Settle
from icestream.flow.scheduling.overriding import source_outcome
from icestream.flow.scheduling.stage import Core, Stage, Unit


@dataclass
class Source(Stage):
    """A source of exposures, or of versions of a snapshot."""

    def is_over(self, core: Core) -> bool:
        """Tell whether it was drained; else it says itself when it has ended."""
        return self.drained is not None

    def finish(self, core: Core) -> None:
        """Close the stream."""
        self.close(core, self.closing_reason)

    def arrived(self, core: Core, event: events.Arrived) -> None:
        """Let a unit in, or leave it to the backlog."""
        unit = Unit(event.unit, "exposure", dict(event.known))
        status = Status.FAILED if event.error else Status.ITEM
        keys = {"out": event.key} if event.key and not event.error else {}
        outcome = Outcome(status, keys, event.weight, event.error)
        override = core.overrides.get((event.unit, self.name))
        unit.outcomes[self.name] = outcome = outcome if override is None else source_outcome(outcome, override)
        self.decided[outcome.status] += 1
        self.count_failure(core, failed=event.error is not None)
        self.closed = False
        self.mark(core, "open", "new data")
        core.emit(Settle(self.name, event.unit, outcome))
        if event.later:
            core.leave_to_backlog()
        else:
            core.add_unit(unit)

    def revised(self, core: Core, event: events.Revised) -> None:
        """Put another record in the place of the one that a unit arrived with, and decide again what depends on it."""
        unit = core.units.get(event.unit)
        if unit is None:
            return
        rules.reopen_below(self, core, f"{self.name} has another record of an exposure")
        arrived = Outcome(Status.ITEM, {"out": event.key}, event.weight)
        override = core.overrides.get((unit.id, self.name))
        if self.name in unit.outcomes:
            core.forget(unit, self)
        core.settle(unit, self, arrived if override is None else source_outcome(arrived, override))

    def ended(self, core: Core, event: events.SourceClosed) -> None:
        """Close the stream, as the source says."""
        self.close(core, event.reason)

    def overridden(self, core: Core, event: events.Overridden) -> None:
        """Put a decision on what arrived, or take it off."""
        unit = core.units.get(event.unit)
        if unit is None:
            return
        rules.reopen_below(self, core)
        known = unit.outcomes.get(self.name)
        if known is None:
            return
        outcome = source_outcome(known, core.overrides.get((unit.id, self.name)))
        if outcome != known:
            core.forget(unit, self)
            core.settle(unit, self, outcome)
