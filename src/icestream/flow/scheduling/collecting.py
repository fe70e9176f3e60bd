"""Steps where units wait until a rule says that there are enough: gates, batches, accumulators."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from icestream.flow.declaration import Keys, Member, Outcome, Progress, Status, Verdict
from icestream.flow.scheduling.instruction_types import StartClock
from icestream.flow.scheduling.joins import member_keys
from icestream.flow.scheduling.stage import Core, Inputs, Stage, Unit

Judge = Callable[[Progress], Verdict]


@dataclass
class Collecting(Stage):
    """A step where units wait."""

    judge: Judge = field(kw_only=True)
    waiting: dict[str, tuple[Keys, int]] = field(default_factory=dict)
    """Unit → its keys and weight."""
    waiting_weight: int = 0
    passed: int = 0
    passed_weight: int = 0

    @property
    def n_waiting(self) -> int:
        """How many units wait for its rule."""
        return len(self.waiting)

    def has(self, unit_id: str) -> bool:
        """Tell whether a unit waits here."""
        return unit_id in self.waiting

    def take(self, core: Core, unit: Unit, inputs: Inputs) -> None:
        """Let a unit wait, and ask whether there are enough."""
        self.put(unit.id, member_keys(inputs), self.weight_of(unit))
        self.ask(core)

    def put(self, unit_id: str, keys: Keys, weight: int) -> None:
        """Let a member wait (once)."""
        if unit_id not in self.waiting:
            self.waiting[unit_id] = (keys, weight)
            self.waiting_weight += weight

    def drop(self, unit_id: str) -> None:
        """Take a waiting member back: its inputs have changed."""
        if unit_id in self.waiting:
            self.waiting_weight -= self.waiting.pop(unit_id)[1]

    def take_members(self, count: int | None = None) -> tuple[tuple[Member, ...], int]:
        """Remove the first ``count`` waiting members (all if unset); return them and their weight."""
        chosen = list(self.waiting)[:count]
        taken = [(unit, *self.waiting.pop(unit)) for unit in chosen]
        weight = sum(weight for _, _, weight in taken)
        self.waiting_weight -= weight
        return tuple((unit, keys) for unit, keys, _ in taken), weight

    def ask(self, core: Core, *, stream_closed: bool = False, released: bool = False) -> bool:
        """Ask the rule whether to act now, and act; tell whether it said so and there was something to act on."""
        if not self.may_be_asked():
            return False
        self.before_asking(core)
        verdict = self.judge(self.progress(core, stream_closed=stream_closed, released=released))
        self.wait_reason = verdict.reason or ""
        self.note_verdict(core, verdict)
        return verdict.accepted and self.act(core, verdict)

    def may_be_asked(self) -> bool:
        """Tell whether the rule has anything to say now."""
        return not self.shut

    def before_asking(self, core: Core) -> None:
        """Prepare what the rule is to see."""

    def note_verdict(self, core: Core, verdict: Verdict) -> None:
        """Note when to ask again."""

    @abstractmethod
    def act(self, core: Core, verdict: Verdict) -> bool:
        """Do what the rule says; False if nothing was there to do it with."""

    def progress(self, core: Core, *, stream_closed: bool, released: bool) -> Progress:
        """Return what the rule is asked to decide on."""
        return Progress(
            waiting=len(self.waiting),
            waiting_weight=self.waiting_weight,
            passed=self.passed,
            passed_weight=self.passed_weight,
            stream_closed=stream_closed,
            released=released,
        )

    def settle_member(self, core: Core, unit_id: str, keys: Keys) -> None:
        """Let a member pass."""
        unit = core.units[unit_id]
        core.settle(unit, self, Outcome(Status.ITEM, keys, self.weight_of(unit)))

    def problems(self, core: Core) -> Iterator[str]:
        """Say what contradicts itself."""
        yield from super().problems(core)
        weight = sum(weight for _, weight in self.waiting.values())
        if weight != self.waiting_weight:
            yield f"counts a weight of {self.waiting_weight} as waiting; it is {weight}"
        for unit_id in self.waiting:
            unit = core.units.get(unit_id)
            if unit is None or self.name in unit.outcomes:
                yield f"lets {unit_id} wait, about which it has nothing to decide"
        twice = sorted(self.waiting.keys() & (self.held.keys() | self.awaiting_version.keys()))
        if twice:
            yield f"has units at two places at once: {twice}"


@dataclass
class Timed(Collecting):
    """A gate or batch: its rule may look at the time, and the last thing that passes may end it."""

    spent: bool = False
    """It has passed on all it ever will."""
    clock_s: float | None = None
    """The uptime at which something first waited."""
    ask_at_s: float | None = None
    """The uptime at which its rule is to be asked again."""

    @property
    def shut(self) -> str:
        """Why the step takes nothing new, if it does not."""
        return super().shut or (f"{self.name} has passed on all that it was to pass on" if self.spent else "")

    def before_asking(self, core: Core) -> None:
        """Start the clock with the first that waits."""
        if self.clock_s is None and self.waiting:
            self.clock_s = core.uptime_s
            core.emit(StartClock(self.name, self.clock_s))

    def note_verdict(self, core: Core, verdict: Verdict) -> None:
        """Note when to ask again."""
        self.ask_at_s = None
        if not verdict.accepted and verdict.until_s is not None:
            self.ask_at_s = verdict.until_s + (core.uptime_s if self.clock_s is None else self.clock_s)

    def ask_by_time(self, core: Core) -> None:
        """Ask the rule, if it wanted to be asked at this time."""
        if self.ask_at_s is not None and self.ask_at_s <= core.uptime_s:
            self.ask(core, stream_closed=all(one.closed for one in core.inputs_of(self)))

    def progress(self, core: Core, *, stream_closed: bool, released: bool) -> Progress:
        """Return what the rule is asked to decide on."""
        return Progress(
            waiting=len(self.waiting),
            waiting_weight=self.waiting_weight,
            passed=self.passed,
            passed_weight=self.passed_weight,
            stream_closed=stream_closed,
            elapsed_s=0.0 if self.clock_s is None else max(0.0, core.uptime_s - self.clock_s),
            released=released,
            batches=self.n_batches,
        )

    @property
    def n_batches(self) -> int:
        """How many batches were closed before."""
        return 0

    def problems(self, core: Core) -> Iterator[str]:
        """Say what contradicts itself."""
        yield from super().problems(core)
        if self.ask_at_s is not None and self.clock_s is None and self.waiting:
            yield "waits for a time, with no clock running"
