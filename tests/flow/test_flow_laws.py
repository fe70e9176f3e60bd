"""Laws of the scheduler under any order of events: steps drained and resumed, releases, failures and time among them.

The test plays the runner and the store: an outcome is never stored twice without having been taken back, a task is never given to
a step that is drained, every unit is decided at every step in the end, and every stream closes.
"""

from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from icestream.flow.declaration.outcomes import FailureKind, Outcome, Status
from icestream.flow.scheduling.batch import batch_unit
from icestream.flow.scheduling.deciding import judge_for
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.scheduling.event_types import (
    Absorbed,
    Arrived,
    Decided,
    Drained,
    Event,
    Failed,
    Released,
    Resumed,
    Retried,
    SourceClosed,
    Tick,
    Withdrawn,
)
from icestream.flow.scheduling.instruction_types import (
    Bind,
    CloseBatch,
    Consume,
    Dispatch,
    Drain,
    DropEntry,
    Forget,
    Resume,
    Settle,
)
from icestream.flow.scheduling.scheduler import Scheduler
from icestream.flow.scheduling.stage import Unit
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow
from toys.session import TOYS

STEPS: dict[str, Any] = {
    "n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 9}},
    "d": {"use": f"{TOYS}:multiply", "in": {"number": "n"}},
    "k": {"use": "sample", "in": {"item": "d"}, "params": {"fraction": 0.5}},
    "e": {"use": f"{TOYS}:multiply", "in": {"number": "k.rejected"}, "after": ["x"]},
    "x": {"use": f"{TOYS}:multiply", "in": {"number": "n"}},
    "u": {"use": "union", "in": {"items": ["k", "e"]}},
    "g": {"use": "trigger", "in": {"items": "u"}, "params": {"count": 3, "closes": ["x"], "sample_fraction": 0.8}},
    "once": {"use": "trigger", "in": {"items": "d"}, "params": {"count": 2, "mode": "static", "after_h": 1}},
    "hand": {"use": "trigger", "in": {"items": "d"}, "params": {"manual": True, "release_after_h": 3}},
    "b": {"use": "batches", "in": {"items": "g"}, "params": {"count": 2, "max_batches": 3}},
    "m": {"use": "milestones", "in": {"items": "hand"}, "params": {"at": [2], "counted": "exposures"}},
    "sb": {"use": f"{TOYS}:add_all", "in": {"numbers": "b"}},
    "sm": {"use": f"{TOYS}:add_all", "in": {"numbers": "m"}},
    "t": {"use": f"{TOYS}:AddUp", "in": {"number": "once"}},
    "late": {"use": f"{TOYS}:less_total", "in": {"number": "x", "total": "t"}},
    "r": {"use": f"{TOYS}:report_total", "in": {"total": "t"}},
}
GRAPH = build_graph(Workflow.model_validate({"steps": STEPS}))


@dataclass
class Play:
    """A runner and a store of dictionaries."""

    scheduler: Scheduler = field(default_factory=lambda: Scheduler(GRAPH, judge_for, checked=True))
    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)
    batches: dict[str, tuple[str, int, tuple[str, ...], int]] = field(default_factory=dict)
    bound: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    queue: list[tuple[str, str]] = field(default_factory=list)
    entries: dict[str, int] = field(default_factory=dict)
    drained: set[str] = field(default_factory=set)
    consumed: list[str] = field(default_factory=list)
    now_s: float = 0.0
    arrived: int = 0

    def handle(self, event: Event) -> None:
        pending = list(self.scheduler.handle(event))
        while pending:
            one = pending.pop(0)
            match one:
                case Settle():
                    assert (one.step, one.unit) not in self.outcomes, f"{one} is stored twice"
                    self.outcomes[one.step, one.unit] = one.outcome
                    self.domains[one.unit] = GRAPH.nodes[one.step].domain
                case Forget():
                    assert self.outcomes.pop((one.step, one.unit)).status is one.status
                case Dispatch():
                    assert one.step not in self.drained
                    assert (one.step, one.unit) not in self.queue
                    self.queue.append((one.step, one.unit))
                case Consume():
                    self.entries[one.step] = one.position
                    self.consumed += [unit for unit, _ in one.members] if not one.stored else []
                case DropEntry():
                    del self.entries[one.step]
                case Bind():
                    self.bound.setdefault(one.unit, {})[one.step, one.port] = one.key
                case CloseBatch():
                    keys = tuple(keys["items"] for _, keys in one.members)
                    unit = f"{one.step}:{one.number:06d}"
                    self.batches[unit] = (one.step, one.number, keys, one.weight)
                case Drain():
                    self.drained.add(one.step)
                    for unit in [unit for step, unit in self.queue if step == one.step]:
                        if crc32(unit.encode()) % 2:  # some have begun, some have not
                            self.queue.remove((one.step, unit))
                            pending += self.scheduler.handle(Withdrawn(one.step, unit))
                case Resume():
                    self.drained.discard(one.step)

    def load(self, unit_id: str, domain: str) -> Unit:
        unit = Unit(unit_id, domain, bound=dict(self.bound.get(unit_id, {})))
        if unit_id in self.batches:
            step, number, keys, weight = self.batches[unit_id]
            if GRAPH.nodes[step].type.cumulative:
                keys = tuple(key for name, row in self.batches.items() if name <= unit_id and row[0] == step for key in row[2])
            unit = batch_unit(step, number, keys, weight)
        unit.outcomes |= {step: outcome for (step, name), outcome in self.outcomes.items() if name == unit_id}
        return unit

    def decide_again(self, step: str, statuses: set[Status]) -> None:
        for name, unit in [key for key, outcome in self.outcomes.items() if key[0] == step and outcome.status in statuses]:
            if unit not in self.scheduler.units:
                self.scheduler.readmit(self.load(unit, self.domains[unit]))
            self.handle(Retried(name, unit))

    def finish(self, index: int, *, fails: bool) -> None:
        if not self.queue:
            return
        step, unit = self.queue.pop(index % len(self.queue))
        if fails:
            self.handle(Failed(step, unit, FailureKind.ITEM, "bad", self.now_s))
            return
        accepted = step != "k" or crc32(unit.encode()) % 3 > 0
        keys = {"out": f"{step}-{unit}"} if accepted else {"rejected": f"{step}-{unit}"}
        self.handle(Decided(step, unit, Outcome(Status.ITEM if accepted else Status.REJECTED, keys)))

    def absorb(self) -> None:
        for step, position in list(self.entries.items()):
            del self.entries[step]
            self.handle(Absorbed(step, position, f"s{position}", {}))

    def act(self, action: str, number: int) -> None:
        steps = [name for name in GRAPH.nodes if name != "n"]
        step = steps[number % len(steps)]
        match action:
            case "arrive":
                self.arrived += 1
                self.handle(Arrived("n", f"u{self.arrived:03d}", f"n-u{self.arrived:03d}"))
            case "finish" | "fail":
                self.finish(number, fails=action == "fail")
            case "absorb":
                self.absorb()
            case "drain":
                self.handle(Drained(step, DrainReason(Cause.PERSON, "ann")))
            case "resume":
                self.handle(Resumed(step))
                self.decide_again(step, {Status.ABSENT})
            case "retry":
                self.decide_again(step, {Status.FAILED})
            case "release":
                self.handle(Released(("g", "once", "hand", "b", "m")[number % 5]))
            case _:
                self.now_s += 600.0 * number
                self.handle(Tick(self.now_s, self.now_s))

    def run_dry(self) -> None:
        while self.queue or self.entries:
            self.finish(0, fails=False)
            self.absorb()


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["arrive"] * 5 + ["finish"] * 8 + ["fail", "absorb", "absorb", "drain", "resume", "retry", "release", "tick", "tick"]
        ),
        st.integers(0, 30),
    ),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(ACTIONS)
def test_whatever_happens_everything_is_decided_and_closed_in_the_end(actions: list[tuple[str, int]]) -> None:
    play = Play()
    for action, number in actions:
        play.act(action, number)
    play.run_dry()
    play.handle(SourceClosed("n", "end"))
    play.run_dry()
    play.handle(Tick(play.now_s + 9e9, play.now_s + 9e9))  # nobody came to release what waited for a person
    play.run_dry()
    assert {name for name, stage in play.scheduler.stages.items() if not stage.closed} == set()
    assert play.scheduler.units == {}
    assert {name: stage.undecided for name, stage in play.scheduler.stages.items() if stage.undecided} == {}
    assert not any(stage.held or stage.n_waiting or stage.awaiting_version for stage in play.scheduler.stages.values())
    units = {f"u{number + 1:03d}" for number in range(play.arrived)}
    for node in GRAPH.nodes.values():
        if node.domain == "exposure":
            assert units == {unit for step, unit in play.outcomes if step == node.name}
    collected = [step for step in ("b", "m") for row in play.batches.values() if row[0] == step for _ in row[2]]
    taken = [step for (step, _), outcome in play.outcomes.items() if step in ("b", "m") and outcome.status is Status.ITEM]
    assert sorted(collected) == sorted(taken)
