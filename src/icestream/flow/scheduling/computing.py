"""Maps and filters: each unit is dispatched to a worker, whose answer decides it.

One that is fed by snapshots alone has no exposures to wait for: it runs on the newest versions when it is idle, and skips those
between.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from icestream.flow.declaration import Status
from icestream.flow.scheduling import event_types as events
from icestream.flow.scheduling.instruction_types import Dispatch
from icestream.flow.scheduling.joins import name_inputs
from icestream.flow.scheduling.stage import Core, Inputs, Stage, Unit


@dataclass
class Computing(Stage):
    """A map or filter."""

    def take(self, core: Core, unit: Unit, inputs: Inputs) -> None:
        """Dispatch a unit."""
        unit.running.add(self.name)
        unit.stale.discard(self.name)
        names = name_inputs(self.node, unit.outcomes) if self.node.type.names_inputs else None
        core.emit(Dispatch(self.name, unit.id, inputs, names))

    def answered(self, core: Core, event: events.Decided) -> None:
        """Take the answer of a worker."""
        if self.disregards(core, event.unit):
            return
        self.count_failure(core, failed=False)
        self.failures.pop(event.unit, None)
        core.settle(core.units[event.unit], self, event.outcome)
        if event.outcome.status is Status.ITEM and self.node.publishes_versions:
            self.publish(core, event.outcome.keys["out"])
        self._note_end(core, event.unit)

    def disregards(self, core: Core, unit_id: str) -> bool:
        """Tell whether the end of an attempt counts for nothing; a unit whose inputs have changed meanwhile is decided again."""
        unit = core.units.get(unit_id)
        if unit is None or self.name not in unit.running:
            return True
        if self.name not in unit.stale:
            return False
        self.try_now(core, unit_id)
        return True

    def withdrawn(self, core: Core, event: events.Withdrawn) -> None:
        """Take back a unit whose task had not begun."""
        unit = core.units.get(event.unit)
        if unit is None or self.name not in unit.running:
            return
        self.try_now(core, unit.id)
        self._note_end(core, event.unit)

    def give_up(self, core: Core, unit_id: str, message: str) -> None:
        """Mark a unit failed for good."""
        super().give_up(core, unit_id, message)
        self._note_end(core, unit_id)

    def _note_end(self, core: Core, unit_id: str) -> None:
        """Note that nothing more is done about a unit."""

    def problems(self, core: Core) -> Iterator[str]:
        """Say what contradicts itself."""
        yield from super().problems(core)
        for unit in core.units.values():
            if self.name in unit.running and (unit.domain != self.node.domain or self.name in unit.outcomes):
                yield f"works on {unit.id}, about which it has nothing to decide"


@dataclass
class VersionRuns(Computing):
    """A map that is fed by snapshots alone: its units are its runs."""

    next_number: int = 1
    used_versions: str = ""
    """The keys that the last run was given, in the order of the step's links."""
    current: str | None = None
    """The run it is busy with."""

    @property
    def is_busy(self) -> bool:
        """A run has not ended."""
        return self.current is not None

    def finish(self, core: Core) -> None:
        """Close the stream, if no run is under way."""
        if self.current is None:
            super().finish(core)

    def run_newest(self, core: Core) -> None:
        """Run on the newest versions, when idle."""
        if self.current is not None or self.drained or self.awaited(core):
            return
        producers = [core.stages[link.step] for group in self.node.links.values() for link in group]
        newest = ",".join(producer.version_key or "" for producer in producers)
        if newest == self.used_versions or any(producer.version_key is None for producer in producers):
            return
        self.used_versions = newest
        self.current = self._unit_id(self.next_number)
        self.next_number += 1
        core.add_unit(Unit(self.current, self.node.domain))

    def catches_up(self, steps: set[str]) -> bool:
        """Tell whether a run on a newer version of one of these steps has not ended."""
        return self.current is not None and any(link.step in steps for group in self.node.links.values() for link in group)

    def restore(self, last: Unit) -> None:
        """Go on after the last run of an earlier session."""
        self.next_number = 1 + int(last.id.rpartition(":v")[2])
        slots = [f"{port}#{index}" for port, group in self.node.links.items() for index in range(len(group))]
        self.used_versions = ",".join(last.bound.get((self.name, slot), "") for slot in slots)
        self.current = None if self.name in last.outcomes else last.id

    def is_latest(self, unit_id: str) -> bool:
        """Tell whether a unit is the last run; earlier ones were overtaken and stay as they are."""
        return unit_id == self._unit_id(self.next_number - 1)

    def retake(self, unit: Unit) -> None:
        """Note that the step is busy with its last run again."""
        if unit.domain == self.node.domain:
            self.current = unit.id

    def _unit_id(self, number: int) -> str:
        return f"{self.name}:v{number:06d}"

    def _note_end(self, core: Core, unit_id: str) -> None:
        if self.current == unit_id:
            self.current = None
            self.run_newest(core)
            core.wake_dependents(self)

    def problems(self, core: Core) -> Iterator[str]:
        """Say what contradicts itself."""
        yield from super().problems(core)
        if self.current is not None and self.current not in core.units:
            yield f"is busy with {self.current}, which is not there"
        if self.current is not None and not self.is_latest(self.current):
            yield f"is busy with {self.current}, which was overtaken"
