"""What the scheduler remembers about one step and one unit."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from icestream.flow.declaration.context import Progress, Verdict
from icestream.flow.declaration.outcomes import Keys, Member, Outcome, Status
from icestream.flow.declaration.step import Kind
from icestream.flow.workflow.graph import Node

Judge = Callable[[Progress], Verdict]


@dataclass
class Unit:
    """An exposure, batch or version that some step has not decided yet."""

    id: str
    domain: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)  # steps that run on inputs that have changed since
    settling: int = 0  # so many outcomes are being handed down to what depends on them
    bound: dict[tuple[str, str], str] = field(default_factory=dict)  # (step, port#index) -> key of the snapshot used


@dataclass
class Entry:
    """An entry of an accumulator's log that is being computed."""

    position: int
    members: tuple[Member, ...]
    weight: int
    closing: bool


@dataclass
class Stage:
    """One step as the scheduler sees it."""

    node: Node
    judge: Judge | None = None
    admit: Callable[[str], Verdict] | None = None  # of a gate that keeps or rejects each exposure by itself
    portion: int = 1
    closed: bool = False
    marked: str = "new"  # the state of the stream in the store
    undecided: int = 0
    waiting: dict[str, tuple[Keys, int]] = field(default_factory=dict)
    waiting_weight: int = 0
    passed: int = 0
    passed_weight: int = 0
    opened: bool = False
    spent: bool = False  # a gate that has passed all it ever will, or a batch step after its last batch
    halted: str = ""  # why the step takes nothing new, if it does not
    clock_s: float | None = None  # the uptime at which something first waited
    ask_at_s: float | None = None  # the uptime at which its rule is to be asked again
    held: dict[str, None] = field(default_factory=dict)  # units that wait until other streams have closed
    gathered: list[str] = field(default_factory=list)  # of a cumulative batch step: the keys of all members so far
    wait_reason: str = ""
    next_number: int = 1
    entry: Entry | None = None
    owes_closing: bool = False
    version: int = 0
    version_key: str | None = None
    awaiting_version: dict[str, None] = field(default_factory=dict)
    used_versions: str = ""
    version_unit: str | None = None
    failures: dict[str, dict[str, int]] = field(default_factory=dict)
    n_failed: int = 0  # in a row
    decided: Counter[Status] = field(default_factory=Counter)  # how many units have which outcome
    stale: set[str] = field(default_factory=set)  # what was taken and is no item any more

    @property
    def shut(self) -> str:
        """Why the step takes nothing new, if it does not."""
        if self.halted:
            return self.halted
        return f"{self.node.name} has passed on all that it was to pass on" if self.spent else ""

    def note(self, before: Outcome | None, after: Outcome | None) -> None:
        """Count that a unit has another outcome than before; None is none."""
        self.undecided += (after is None) - (before is None)
        if before is not None:
            self.decided[before.status] -= 1
        if after is not None:
            self.decided[after.status] += 1

    def has(self, unit: str) -> bool:
        """Tell whether the step has taken a unit: it waits here, or is in the entry that is being computed."""
        return unit in self.waiting or (self.entry is not None and any(unit == member for member, _ in self.entry.members))

    def progress(self, *, stream_closed: bool, uptime_s: float = 0.0, released: bool = False) -> Progress:
        """Return what a gate, batch or accumulator is asked to decide on."""
        return Progress(
            waiting=len(self.waiting),
            waiting_weight=self.waiting_weight,
            passed=self.passed,
            passed_weight=self.passed_weight,
            stream_closed=stream_closed,
            elapsed_s=0.0 if self.clock_s is None else max(0.0, uptime_s - self.clock_s),
            released=released,
            batches=self.next_number - 1 if self.node.type.kind is Kind.COLLECT else 0,
        )

    def put(self, unit: str, keys: Keys, weight: int) -> None:
        """Let a member wait (once)."""
        if unit not in self.waiting:
            self.waiting[unit] = (keys, weight)
            self.waiting_weight += weight

    def drop(self, unit: str) -> None:
        """Take a waiting member back: its inputs have changed."""
        if unit in self.waiting:
            self.waiting_weight -= self.waiting.pop(unit)[1]

    def take(self, count: int | None = None) -> tuple[tuple[Member, ...], int]:
        """Remove the first ``count`` waiting members (all if unset); return them and their weight."""
        chosen = list(self.waiting)[:count]
        taken = [(unit, *self.waiting.pop(unit)) for unit in chosen]
        weight = sum(weight for _, _, weight in taken)
        self.waiting_weight -= weight
        return tuple((unit, keys) for unit, keys, _ in taken), weight
