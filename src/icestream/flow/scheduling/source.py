"""Sources: they decide nothing, but report what has arrived."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from icestream.flow.declaration import Outcome, Status
from icestream.flow.scheduling import event_types as events
from icestream.flow.scheduling import rules
from icestream.flow.scheduling.instruction_types import Forget, Settle
from icestream.flow.scheduling.overriding import source_outcome
from icestream.flow.scheduling.stage import Core, Stage, Unit


@dataclass
class Source(Stage):
    """A source of exposures, or of versions of a snapshot."""

    troubles: dict[str, str] = field(default_factory=dict)
    """Files and folders that it cannot take at present, with the reason: listed as failed, though no exposures."""

    def is_over(self, core: Core) -> bool:
        """Tell whether it was drained; else it says itself when it has ended."""
        return self.drained is not None

    def finish(self, core: Core) -> None:
        """Close the stream."""
        self.close(core, self.closing_reason)

    def arrived(self, core: Core, event: events.Arrived) -> None:
        """Let a unit in, or leave it to the backlog; one whose file had arrived broken gets the outcome of what arrived now."""
        if event.unit in core.units:
            self._arrived_again(core, core.units[event.unit], event)
            return
        unit = Unit(event.unit, "exposure", dict(event.known))
        unit.outcomes[self.name] = outcome = self._outcome_of(core, event)
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

    def _outcome_of(self, core: Core, event: events.Arrived) -> Outcome:
        status = Status.FAILED if event.error else Status.ITEM
        keys = {"out": event.key} if event.key and not event.error else {}
        outcome = Outcome(status, keys, event.weight, event.error)
        override = core.overrides.get((event.unit, self.name))
        return outcome if override is None else source_outcome(outcome, override)

    def _arrived_again(self, core: Core, unit: Unit, event: events.Arrived) -> None:
        rules.reopen_below(self, core, "a file was written again")
        self.closed = False
        self.mark(core, "open", "new data")
        self.count_failure(core, failed=event.error is not None)
        if self.name in unit.outcomes:
            core.forget(unit, self)
        core.settle(unit, self, self._outcome_of(core, event))

    def published(self, core: Core, event: events.Published) -> None:
        """Take a version of a snapshot; what could not be taken before it does not matter any more."""
        self._set_troubles(core, {})
        rules.published(self, core, event)

    def troubled(self, core: Core, event: events.Troubled) -> None:
        """Note what cannot be taken at present, and what can be again."""
        self._set_troubles(core, event.reasons)

    def _set_troubles(self, core: Core, reasons: Mapping[str, str]) -> None:
        for subject in [subject for subject, reason in self.troubles.items() if reasons.get(subject) != reason]:
            del self.troubles[subject]
            core.emit(Forget(self.name, subject, Status.FAILED))
        for subject, reason in reasons.items():
            if subject not in self.troubles:
                self.troubles[subject] = reason
                core.emit(Settle(self.name, subject, Outcome(Status.FAILED, reason=reason, weight=0)))

    def ended(self, core: Core, event: events.SourceClosed) -> None:
        """Close the stream, as the source says."""
        self.close(core, event.reason)

    def overridden(self, core: Core, event: events.Overridden) -> None:
        """Put a decision on what arrived, or take it off."""
        unit = core.units.get(event.unit)
        if unit is None:
            return
        rules.reopen_below(self, core, "an override was made or withdrawn")
        known = unit.outcomes.get(self.name)
        if known is None:
            return
        outcome = source_outcome(known, core.overrides.get((unit.id, self.name)), error=event.error)
        if outcome != known:
            core.forget(unit, self)
            core.settle(unit, self, outcome)
