"""What the scheduler remembers of a unit and of a step, and the rules that all kinds of step share.

A `Stage` is one step: each kind has a subclass with its own state and rules. What
reaches beyond one step goes through `Core`. What an event means for which kind is a table in `transitions`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from icestream.counting import counted
from icestream.flow.declaration import Outcome, Status
from icestream.flow.scheduling.draining import DrainReason
from icestream.flow.scheduling.instruction_types import (
    Bind,
    Instruction,
    MarkStale,
    MarkStream,
    NoticeCause,
    Notify,
    PublishVersion,
)
from icestream.flow.scheduling.joins import Joined, first_weight, join_inputs
from icestream.flow.scheduling.overriding import ManualVerdict, decide_by_hand
from icestream.flow.scheduling.retry import ALERT_AFTER_FAILURES
from icestream.flow.workflow import Node

Inputs = Mapping[str, tuple[str, ...]]


@dataclass
class Unit:
    """An exposure, batch or version that some step has not decided yet."""

    id: str
    domain: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)  # steps that run on inputs that have changed since
    settling: int = 0  # so many outcomes are being handed down to what depends on them
    n_changes: int = 0
    weighed: dict[str, int] = field(default_factory=dict)  # step -> how many changes it has taken into account
    bound: dict[tuple[str, str], str] = field(default_factory=dict)  # (step, port#index) -> key of the snapshot used


class Core(Protocol):
    """What the rules of one step may ask of the scheduler."""

    units: dict[str, Unit]
    stages: "dict[str, Stage]"
    overrides: Mapping[tuple[str, str], ManualVerdict]
    uptime_s: float

    def emit(self, *instructions: Instruction) -> None:
        """Want something done, after all that was wanted before."""

    def add_unit(self, unit: Unit) -> None:
        """Let a unit in and decide whatever can be decided about it."""

    def leave_to_backlog(self) -> None:
        """Note that a unit waits in the store: no stream may close."""

    def decide(self, unit: Unit, stage: "Stage") -> None:
        """Run, pass, hold or skip a unit if its inputs are known."""

    def settle(self, unit: Unit, stage: "Stage", outcome: Outcome) -> None:
        """Give a unit its outcome and decide what depends on it."""

    def forget(self, unit: Unit, stage: "Stage") -> None:
        """Take the outcome of a unit back."""

    def release(self, unit: Unit) -> None:
        """Let a unit go when every step of its domain has decided."""

    def try_later(self, stage: "Stage", unit_id: str, *, at_s: float) -> None:
        """Try something again that failed."""

    def start_followers(self, stage: "Stage") -> None:
        """Start what waited for the stream of ``stage`` to close."""

    def below(self, stage: "Stage") -> "list[Stage]":
        """Return the steps that are fed by ``stage``, itself among them."""

    def wake_dependents(self, stage: "Stage") -> None:
        """Decide the units that waited for a version of ``stage``."""

    def leave_out(self, stage: "Stage") -> None:
        """Decide, at a step that takes nothing new, every unit that has not begun there: it is absent."""

    def inputs_of(self, stage: "Stage") -> "list[Stage]":
        """Return the steps that ``stage`` reads."""


@dataclass
class Stage:
    """One step: the state that all kinds have, and the rules that most share."""

    keeps_what_it_took: ClassVar[bool] = False
    """What it made of a unit stays when the unit's inputs change: it took many together."""

    node: Node
    closed: bool = False
    """Its stream has ended."""
    marked: str = "new"
    """The state of the stream in the store."""
    drained: DrainReason | None = None
    """Why the step takes nothing new, if it was told so."""
    wait_reason: str = ""
    undecided: int = 0
    decided: Counter[Status] = field(default_factory=Counter)
    """How many units have which outcome."""
    held: dict[str, None] = field(default_factory=dict)
    """Units that wait until other streams have closed."""
    awaiting_version: dict[str, None] = field(default_factory=dict)
    """Units that wait for the first version of a snapshot."""
    version: int = 0
    version_key: str | None = None
    failures: dict[str, dict[str, int]] = field(default_factory=dict)
    n_failed: int = 0
    """How many failed in a row."""
    stale: set[str] = field(default_factory=set)
    """What was taken and is no item any more, or another."""

    def __post_init__(self) -> None:
        self.name = self.node.name

    @property
    def shut(self) -> str:
        """Why the step takes nothing new, if it does not."""
        return f"{self.name} was drained: {self.drained.sentence}" if self.drained else ""

    @property
    def n_waiting(self) -> int:
        """How many units wait for its rule or for their turn, beside those on their way to it."""
        return 0

    @property
    def is_busy(self) -> bool:
        """It works on something that is no unit of its own domain: an entry of a log, a run on new versions."""
        return False

    # What a kind does in its own way ---------------------------------------------------------------------------------------

    def take(self, core: Core, unit: Unit, inputs: Inputs) -> None:
        """Run, pass or let wait a unit whose inputs are all known and bound."""

    def has(self, unit_id: str) -> bool:
        """Tell whether the step has taken a unit, and not decided it yet."""
        return False

    def disregards(self, core: Core, unit_id: str) -> bool:
        """Tell whether the end of an attempt counts for nothing."""
        return False

    def drop(self, unit_id: str) -> None:
        """Take a waiting unit back: its inputs have changed."""

    def decide_at_once(self, core: Core, unit: Unit, inputs: Inputs) -> Outcome | None:
        """Return what is said of a unit without any work; None if nothing."""
        override = core.overrides.get((unit.id, self.name))
        return None if override is None else decide_by_hand(self.node, inputs, self.weight_of(unit), override)

    def weight_of(self, unit: Unit) -> int:
        """Return the weight that a unit has here, by its inputs."""
        return first_weight(self.node, unit.outcomes)

    def is_over(self, core: Core) -> bool:
        """Tell whether nothing new will be taken: it was told so, or its inputs have closed."""
        return bool(self.shut) or _no_more_units_come(core, self)

    def finish(self, core: Core) -> None:
        """Close the stream, if all is decided."""
        if not self.undecided:
            self.close(core, self.closing_reason)

    def ask(self, core: Core, *, stream_closed: bool = False, released: bool = False) -> bool:
        """Ask the rule of a gate, batch or accumulator whether to act now, and act; others have none."""
        return False

    def start_logged_work(self, core: Core) -> None:
        """Compute again what stands in a log and was not finished by an earlier run."""

    def run_newest(self, core: Core) -> None:
        """Run on the newest versions, if the step is fed by snapshots alone and idle."""

    def catches_up(self, steps: set[str]) -> bool:
        """Tell whether it is making a version from a newer one of these steps: who binds both waits for it."""
        return False

    def drop_all(self) -> None:
        """Take back all that waits and will not pass: the step is drained."""

    def retake(self, unit: Unit) -> None:
        """Note that a unit is about to be decided again because of a retry."""

    def give_up(self, core: Core, unit_id: str, message: str) -> None:
        """Mark a unit failed for good."""
        unit = core.units.get(unit_id)
        if unit is not None:
            self.count_failure(core, failed=True)
            core.settle(unit, self, Outcome(Status.FAILED, reason=message, weight=0))

    def try_now(self, core: Core, unit_id: str) -> None:
        """Try again what failed and has waited long enough."""
        if unit_id in core.units:
            unit = core.units[unit_id]
            unit.running.discard(self.name)
            core.decide(unit, self)

    def taken(self, known: Outcome) -> Mapping[str, str] | None:
        """Return port → key of what an outcome was made of, where that is kept; None where every change counts."""
        return None

    def problems(self, core: Core) -> Iterator[str]:
        """Say what contradicts itself in the state of this step; nothing must."""
        mine = [unit for unit in core.units.values() if unit.domain == self.node.domain]
        open_units = {unit.id for unit in mine if self.name not in unit.outcomes}
        if not self.node.publishes_only and self.undecided != len(open_units):
            yield f"counts {self.undecided} units as undecided; {len(open_units)} are"
        for what, waiting in (("until streams close", self.held), ("for a version", self.awaiting_version)):
            strangers = sorted(waiting.keys() - open_units)
            if strangers:
                yield f"lets units wait {what} that it has nothing to decide of: {strangers}"
        running = {unit.id for unit in mine if self.name in unit.running}
        twice = running & (self.held.keys() | self.awaiting_version.keys()) | (self.held.keys() & self.awaiting_version.keys())
        if twice:
            yield f"has units at two places at once: {sorted(twice)}"
        if self.closed and self.undecided and all(one.closed for one in core.inputs_of(self)):
            yield f"has closed with {self.undecided} units undecided"
        negative = sorted(status.value for status, count in self.decided.items() if count < 0)
        if negative:
            yield f"counts fewer than no outcomes: {negative}"

    # What all kinds do in the same way -------------------------------------------------------------------------------------

    @property
    def closing_reason(self) -> str:
        """Why the stream closes."""
        return self.shut or "its inputs closed and everything was decided"

    def mark(self, core: Core, state: str, reason: str) -> None:
        """Store that the stream opened or closed, if that is new."""
        if self.marked != state:
            self.marked = state
            core.emit(MarkStream(self.name, state, reason))

    def note(self, before: Outcome | None, after: Outcome | None) -> None:
        """Count that a unit has another outcome than before; None is none."""
        self.undecided += (after is None) - (before is None)
        if before is not None:
            self.decided[before.status] -= 1
        if after is not None:
            self.decided[after.status] += 1

    def close(self, core: Core, reason: str) -> None:
        """End the stream; what waited for that starts, what waited for a version of it learns that none will come."""
        self.closed = True
        if self.marked != "closed":
            self.alert_if_all_failed(core)
        self.mark(core, "closed", reason)
        core.wake_dependents(self)
        core.start_followers(self)

    def awaited(self, core: Core) -> list[str]:
        """Return the steps whose streams must close before this one starts anything; what the store says of them counts."""
        return [step for step in self.node.after if core.stages[step].marked != "closed"]

    def hold_back(self, core: Core, unit: Unit) -> bool:
        """Keep a unit waiting, if the step waits for other streams."""
        steps = self.awaited(core)
        if not steps:
            return False
        self.held[unit.id] = None
        listed = f"{steps[0]} has" if len(steps) == 1 else f"{', '.join(steps[:-1])} and {steps[-1]} have"
        self.wait_reason = f"is waiting until {listed} closed"
        return True

    def start_held(self, core: Core) -> None:
        """Start what waited for a stream that has closed, if it was the last one to wait for."""
        if self.awaited(core):
            return
        held, self.held = list(self.held), {}
        if held:
            self.wait_reason = ""
        for unit_id in held:
            if unit_id in core.units:
                core.decide(core.units[unit_id], self)
        self.run_newest(core)

    def publish(self, core: Core, key: str, version: int | None = None) -> None:
        """Store a new version of the step's snapshot; let those run that waited for it."""
        self.version, self.version_key = version or self.version + 1, key
        self.mark(core, "open", "new data")
        core.emit(PublishVersion(self.name, self.version, key))
        core.wake_dependents(self)

    def bind(self, core: Core, unit: Unit) -> Inputs | None:
        """Return port → keys of the snapshots a unit uses: those bound before, else the newest; None while one is to come."""
        chosen, binds = dict[str, tuple[str, ...]](), list[Bind]()
        together = {link.step for port in self.node.bound for link in self.node.links[port]}
        for port in sorted(self.node.bound):
            keys: list[str] = []
            for index, link in enumerate(self.node.links[port]):
                producer = core.stages[link.step]
                known = unit.bound.get((self.name, f"{port}#{index}"))
                if known is None:
                    if producer.version_key is None or producer.catches_up(together):
                        self._await_version(core, unit, producer)
                        return None
                    known = producer.version_key
                    binds.append(Bind(self.name, unit.id, f"{port}#{index}", producer.version, known))
                keys.append(known)
            chosen[port] = tuple(keys)
        self.awaiting_version.pop(unit.id, None)
        unit.bound |= {(self.name, one.port): one.key for one in binds}
        core.emit(*binds)
        return chosen

    def _await_version(self, core: Core, unit: Unit, producer: "Stage") -> None:
        if producer.closed:
            reason = f"{producer.name} closed without publishing anything"
            core.settle(unit, self, Outcome(Status.SKIPPED, root=producer.name, reason=reason, weight=0))
        else:
            self.awaiting_version[unit.id] = None

    def leave_taken(self, core: Core, unit: Unit) -> None:
        """Leave a unit that was taken and is not decided again, though its inputs have changed; that is noted."""
        self.note_stale(core, unit)

    def note_stale(self, core: Core, unit: Unit) -> None:
        """Note whether what was taken long ago is still what the unit has there."""
        joined, known = join_inputs(self.node, unit.outcomes), unit.outcomes.get(self.name)
        if joined is None or known is None:
            return
        reason = self._why_stale(known, joined)
        if reason is None:
            if unit.id in self.stale:
                self.stale.discard(unit.id)
                core.emit(MarkStale(self.name, unit.id, None))
        elif unit.id not in self.stale:
            self.stale.add(unit.id)
            core.emit(MarkStale(self.name, unit.id, reason))

    def _why_stale(self, known: Outcome, joined: Joined) -> str | None:
        if joined.outcome is not None:
            return joined.outcome.reason or "is no longer an item"
        taken = self.taken(known)
        if taken is None:
            return "its input was decided again while it took nothing new"
        now = {port: keys[0] for port, keys in joined.inputs.items() if keys}
        changed = [port for port in taken if port in now and taken[port] != now[port]]
        return f"has another result now ({', '.join(changed)})" if changed else None

    def count_failure(self, core: Core, *, failed: bool) -> None:
        """Alert when the step fails for everything, once until it works again."""
        self.n_failed = self.n_failed + 1 if failed else 0
        if failed and self.n_failed == ALERT_AFTER_FAILURES:
            core.emit(
                Notify(
                    "alert",
                    f"{self.name} failed for {counted(self.n_failed, 'exposure')} in a row",
                    self.name,
                    cause=NoticeCause.STEP_FAILING,
                )
            )

    def alert_if_all_failed(self, core: Core) -> None:
        """Alert when the stream closes and all it had failed, too few for the alert that comes meanwhile."""
        failed = self.decided[Status.FAILED]
        worked = self.decided[Status.ITEM] + self.decided[Status.REJECTED]
        if failed and not worked and self.n_failed < ALERT_AFTER_FAILURES:
            one = self.node.domain.partition(":")[0]
            many = {"batch": "batches"}.get(one, f"{one}s")
            what = f"the only {one} it had" if failed == 1 else f"all {failed} {many} it had"
            core.emit(Notify("alert", f"{self.name} failed for {what}", self.name, cause=NoticeCause.STEP_FAILING))

    def set_drained(self, why: DrainReason | None) -> None:
        """Note that the step takes nothing new; with None, that it goes on."""
        self.drained = why
        self.wait_reason = f"takes nothing new: {why.sentence}" if why else ""

    def reopen(self, core: Core, reason: str) -> None:
        """Open the stream again: something is decided again."""
        self.closed = False
        self.mark(core, "open", reason)


def _no_more_units_come(core: Core, stage: Stage) -> bool:
    """Tell whether all inputs have closed, or so many of one port that every later unit would be skipped."""
    inputs = core.inputs_of(stage)
    n_closed = sum(one.closed for one in inputs)
    if n_closed in (0, len(inputs)):
        return n_closed > 0
    node = stage.node
    for port, links in node.item_links.items():
        needed = node.min_inputs if port in node.list_ports else 1
        if sum(not core.stages[link.step].closed for link in links) < needed:
            return True
    return False
