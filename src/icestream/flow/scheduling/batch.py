"""Batches: what waits is cut into batches that never change again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from icestream.flow.declaration import Outcome, Status, Verdict
from icestream.flow.scheduling import event_types as events
from icestream.flow.scheduling.collecting import Timed
from icestream.flow.scheduling.instruction_types import CloseBatch, OpenGate
from icestream.flow.scheduling.stage import Core, Unit


def batch_unit(step: str, number: int, keys: Sequence[str], weight: int) -> Unit:
    """Return the unit of a closed batch; its outcome at the collecting step lists the members' keys in order."""
    members = {f"member{index:06d}": key for index, key in enumerate(keys)}
    return Unit(batch_id(step, number), f"batch:{step}", {step: Outcome(Status.ITEM, members, weight)})


def batch_id(step: str, number: int) -> str:
    """Return the id of the unit of a closed batch."""
    return f"{step}:{number:06d}"


@dataclass
class Batch(Timed):
    """A step that collects batches."""

    keeps_what_it_took: ClassVar[bool] = True

    next_number: int = 1
    gathered: list[str] = field(default_factory=list)
    """Of a cumulative step: the keys of all members so far."""

    @property
    def n_batches(self) -> int:
        """How many batches were closed before."""
        return self.next_number - 1

    def act(self, core: Core, verdict: Verdict) -> bool:
        """Close a batch of what waits."""
        if not self.waiting:
            return False
        self._close_batch(core, remainder=False, last=verdict.last)
        return True

    def _close_batch(self, core: Core, *, remainder: bool, last: bool = False) -> None:
        """Close a batch of everything that waits (if cumulative, and of all before); it never changes again."""
        members, weight = self.take_members()
        number = self.next_number
        self.next_number += 1
        self.passed += len(members)
        self.passed_weight += weight
        self.clock_s = self.ask_at_s = None
        core.emit(CloseBatch(self.name, number, members, weight, remainder))
        keys = [keys["items"] for _, keys in members]
        if self.node.type.cumulative:
            self.gathered += keys
            keys, weight = self.gathered, self.passed_weight
        if last:
            self.spent = True
            core.emit(OpenGate(self.name, f"batch {number} was the last", last=True))
        for unit_id, own in members:
            self.settle_member(core, unit_id, {"batch": own["items"]})
        core.add_unit(batch_unit(self.name, number, keys, weight))
        if last:
            core.leave_out(self)

    def finish(self, core: Core) -> None:
        """Close a last batch of what is left, and the stream."""
        if self.undecided > len(self.waiting):
            return
        if self.waiting:
            self._close_batch(core, remainder=True)
        self.close(core, self.closing_reason)

    def released(self, core: Core, event: events.Released) -> None:
        """Ask the rule, which sees that a person lets the batch close."""
        self.ask(core, released=True)

    def taken(self, known: Outcome) -> Mapping[str, str]:
        """Return port → key of what went into a batch."""
        return {"items": known.keys["batch"]} if "batch" in known.keys else {}

    def problems(self, core: Core) -> Iterator[str]:
        """Say what contradicts itself."""
        yield from super().problems(core)
        if self.node.type.cumulative and len(self.gathered) != self.passed:
            yield f"counts {self.passed} exposures in its batches; {len(self.gathered)} are in the last"
        if self.passed and self.next_number == 1:
            yield f"counts {self.passed} exposures in its batches, and has closed none"
