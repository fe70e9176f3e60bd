"""Accumulators: what waits is appended to a log, entry by entry; each entry that was computed publishes a version."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from icestream.flow.declaration import Keys, Member, Outcome, Status, Verdict
from icestream.flow.scheduling import event_types as events
from icestream.flow.scheduling.collecting import Collecting
from icestream.flow.scheduling.instruction_types import Consume, DropEntry, NoticeCause, Notify
from icestream.flow.scheduling.stage import Core

TAKEN = "taken."
"""An outcome of an accumulator names what it took under this and the name of the port."""


def note_taken(keys: Keys) -> dict[str, str]:
    """Return what the outcome of a member of an accumulator's log says of the results that were taken."""
    return {f"{TAKEN}{port}": key for port, key in keys.items()}


@dataclass(frozen=True)
class Entry:
    """An entry of an accumulator's log that is being computed."""

    position: int
    members: tuple[Member, ...]
    weight: int
    closing: bool


@dataclass
class Accumulating(Collecting):
    """An accumulator."""

    keeps_what_it_took: ClassVar[bool] = True

    portion: int = 1
    """The most members that an entry has."""
    next_number: int = 1
    entry: Entry | None = None
    """What is being computed."""
    owes_closing: bool = False
    """What it computed last was not told that the stream has closed."""

    @property
    def is_busy(self) -> bool:
        """An entry is being computed."""
        return self.entry is not None

    def has(self, unit_id: str) -> bool:
        """Tell whether a unit waits here, or is in the entry that is being computed."""
        return unit_id in self.waiting or (self.entry is not None and any(unit_id == member for member, _ in self.entry.members))

    def may_be_asked(self) -> bool:
        """Tell whether the rule has anything to say now."""
        return self.entry is None and not self.shut

    def act(self, core: Core, verdict: Verdict) -> bool:
        """Append an entry."""
        if self.waiting:
            self._consume(core, closing=False)
        return True

    def _consume(self, core: Core, *, closing: bool, count: int | None = None) -> None:
        """Append the first waiting members (at most a portion) to the log."""
        members, weight = self.take_members(count or self.portion)
        self.entry = Entry(self.next_number, members, weight, closing)
        self.next_number += 1
        self.mark(core, "open", "new data")
        core.emit(Consume(self.name, self.entry.position, members, weight, closing))

    def finish(self, core: Core) -> None:
        """Compute a last entry, which knows that it is the last, then close the stream."""
        if self.undecided > len(self.waiting) or self.entry is not None:
            return
        if self.waiting or self.owes_closing:
            self._consume(core, closing=len(self.waiting) <= self.portion)
        else:
            self.close(core, self.closing_reason)

    def start_logged_work(self, core: Core) -> None:
        """Compute an entry that is in the log already (again)."""
        if self.entry is not None:
            entry = self.entry
            core.emit(Consume(self.name, entry.position, entry.members, entry.weight, entry.closing, stored=True))

    def try_now(self, core: Core, unit_id: str) -> None:
        """Compute the entry again."""
        self.start_logged_work(core)

    def absorbed(self, core: Core, event: events.Absorbed) -> None:
        """Settle the members of an entry that was computed, and publish the new version, if there is one."""
        entry = self.entry
        if entry is None or entry.position != event.position:
            return
        self.entry = None
        self.passed += len(entry.members)
        self.passed_weight += entry.weight
        self.owes_closing = not entry.closing
        self.failures.pop(str(entry.position), None)
        for unit_id, keys in entry.members:
            own = {"assignments": event.assignments[unit_id]} if unit_id in event.assignments else {}
            unit = core.units[unit_id]
            self.settle_member(core, unit_id, {**own, **note_taken(keys)})
            self.note_stale(core, unit)  # it may have been decided again meanwhile
        if event.key is None:
            self.wait_reason = event.reason or ""
        else:
            self.publish(core, event.key, entry.position)
        if self.waiting:
            self.ask(core)

    def close(self, core: Core, reason: str) -> None:
        """End the stream; warn if it took something and never published anything."""
        if self.marked != "closed" and self.passed and self.version_key is None:
            text = f"{self.name} closed without publishing anything" + (f": {self.wait_reason}" if self.wait_reason else "")
            core.emit(Notify("warning", text, self.name, cause=NoticeCause.NOTHING_FOUND))
        super().close(core, reason)

    def give_up(self, core: Core, unit_id: str, message: str) -> None:
        """Halve an entry that cannot be computed until the culprit stands alone and is marked failed."""
        entry = self.entry
        if entry is None:
            return
        self.entry = None
        self.next_number = entry.position
        core.emit(DropEntry(self.name, entry.position))
        if len(entry.members) > 1:
            self._put_first(core, entry.members)
            self._consume(core, closing=False, count=len(entry.members) // 2)
            return
        if not entry.members:
            self.owes_closing = False
            core.emit(Notify("alert", f"{self.name} could not finish: {message}", self.name, cause=NoticeCause.STEP_FAILING))
        for member, _ in entry.members:
            core.settle(core.units[member], self, Outcome(Status.FAILED, reason=message, weight=0))
        if self.waiting:
            self.ask(core)

    def _put_first(self, core: Core, members: tuple[Member, ...]) -> None:
        later = self.waiting
        self.waiting, self.waiting_weight = {}, 0
        for unit_id, keys in members:
            self.put(unit_id, keys, self.weight_of(core.units[unit_id]))
        for unit_id, (keys, weight) in later.items():
            self.put(unit_id, keys, weight)

    def taken(self, known: Outcome) -> Mapping[str, str]:
        """Return port → key of what was taken; nothing where an older version of icestream did not note it."""
        return {name.removeprefix(TAKEN): key for name, key in known.keys.items() if name.startswith(TAKEN)}

    def problems(self, core: Core) -> Iterator[str]:
        """Say what contradicts itself."""
        yield from super().problems(core)
        if self.entry is None:
            return
        if self.entry.position != self.next_number - 1:
            yield f"computes entry {self.entry.position}; the last of its log is {self.next_number - 1}"
        members = [member for member, _ in self.entry.members]
        missing = sorted(set(members) - core.units.keys())
        if missing:
            yield f"computes with units that are not there: {missing}"
        twice = sorted(set(members) & (self.waiting.keys() | self.held.keys() | self.awaiting_version.keys()))
        if twice or len(set(members)) < len(members):
            yield f"computes with units that are at two places at once: {twice or members}"
