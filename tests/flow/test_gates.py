"""Event tables of triggers, batches and milestones on the pure scheduler; the clock is a number."""

from collections.abc import Iterable
from typing import Any

import pytest

from icestream.errors import WorkflowError
from icestream.flow.declaration.context import Progress
from icestream.flow.declaration.outcomes import Outcome, Status
from icestream.flow.scheduling.deciding import judge_for
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.scheduling.event_types import Absorbed, Arrived, Decided, Released, SourceClosed, Tick
from icestream.flow.scheduling.gate import Gate
from icestream.flow.scheduling.instruction_types import (
    CloseBatch,
    Consume,
    Dispatch,
    Drain,
    Instruction,
    MarkStream,
    OpenGate,
    Settle,
    StartClock,
)
from icestream.flow.scheduling.scheduler import Scheduler
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow
from icestream.steps.streams.batches import BatchesParams, Counted, MilestonesParams, close_batches, close_milestones
from icestream.steps.streams.trigger import TriggerParams, hold_until_enough
from toys.session import TOYS

NUMBERS = {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 9}}
MULTIPLY = f"{TOYS}:multiply"
HOUR_S = 3600.0


def scheduler_for(**steps: Any) -> Scheduler:
    return Scheduler(build_graph(Workflow.model_validate({"steps": {"n": NUMBERS, **steps}})), judge_for, checked=True)


def trigger(**params: Any) -> dict[str, Any]:
    return {"use": "trigger", "in": {"items": "n"}, "params": params}


def arrive(scheduler: Scheduler, unit: str, weight: int = 1) -> list[Instruction]:
    return scheduler.handle(Arrived("n", unit, f"key-{unit}", weight))


def tick(scheduler: Scheduler, uptime_s: float) -> list[Instruction]:
    return scheduler.handle(Tick(0.0, uptime_s))


def close(scheduler: Scheduler) -> list[Instruction]:
    return scheduler.handle(SourceClosed("n", "end"))


def of(kind: type, instructions: Iterable[Instruction]) -> list[Any]:
    return [one for one in instructions if isinstance(one, kind)]


def settled(step: str, instructions: Iterable[Instruction]) -> dict[str, tuple[Status, str | None]]:
    return {one.unit: (one.outcome.status, one.outcome.reason) for one in of(Settle, instructions) if one.step == step}


def closings(instructions: Iterable[Instruction]) -> list[str]:
    return [one.step for one in of(MarkStream, instructions) if one.state == "closed"]


def test_a_growing_trigger_holds_until_its_number_and_passes_everything_after() -> None:
    scheduler = scheduler_for(g=trigger(count=2), d={"use": MULTIPLY, "in": {"number": "g"}})
    assert of(Dispatch, arrive(scheduler, "u")) == []
    assert [one.unit for one in of(Dispatch, arrive(scheduler, "v"))] == ["u", "v"]
    assert [one.unit for one in of(Dispatch, arrive(scheduler, "w"))] == ["w"]


def test_a_static_trigger_passes_its_number_once_and_closes_for_good() -> None:
    scheduler = scheduler_for(g=trigger(count=2, mode="static"), t={"use": f"{TOYS}:AddUp", "in": {"number": "g"}})
    arrive(scheduler, "u")
    opened = arrive(scheduler, "v")
    assert of(OpenGate, opened) == [OpenGate("g", "2 of 2 exposures", last=True)]
    assert "g" in closings(opened)
    later = arrive(scheduler, "w")
    reason = "g has passed on all that it was to pass on"
    assert settled("g", later) == {"w": (Status.ABSENT, reason)}
    assert settled("t", later) == {"w": (Status.SKIPPED, reason)}
    assert of(MarkStream, later) == []


def test_what_is_below_a_static_trigger_finishes_while_the_stream_above_goes_on() -> None:
    scheduler = scheduler_for(
        m={"use": MULTIPLY, "in": {"number": "n"}},
        g={"use": "trigger", "in": {"items": "n"}, "params": {"count": 1, "mode": "static"}},
        both={"use": f"{TOYS}:add", "in": {"left": "m", "right": "g"}},
        b={"use": "batches", "in": {"items": "g"}, "params": {"count": 5}},
    )
    first = arrive(scheduler, "u")
    assert [(one.members[0][0], one.remainder) for one in of(CloseBatch, first)] == [("u", True)]
    assert {"g", "b"} <= set(closings(first))
    assert not scheduler.stages["both"].closed  # u is still on its way there
    arrive(scheduler, "v")
    assert not scheduler.stages["n"].closed


def test_a_static_trigger_does_not_wait_for_what_is_on_its_way() -> None:
    scheduler = scheduler_for(
        d={"use": MULTIPLY, "in": {"number": "n"}},
        g={"use": "trigger", "in": {"items": "d"}, "params": {"count": 1, "mode": "static"}},
        e={"use": MULTIPLY, "in": {"number": "g"}},
    )
    for unit in "uv":
        arrive(scheduler, unit)
    opened = scheduler.handle(Decided("d", "u", Outcome(Status.ITEM, {"out": "d-u"})))
    assert settled("g", opened)["v"][0] is Status.ABSENT
    assert closings(opened) == ["g"]
    assert closings(scheduler.handle(Decided("e", "u", Outcome(Status.ITEM, {"out": "e-u"})))) == ["e"]


def test_particles_are_counted_and_cut_between_exposures() -> None:
    scheduler = scheduler_for(g=trigger(count=100, counted="particles", mode="static"))
    arrive(scheduler, "u", 60)
    opened = arrive(scheduler, "v", 70)
    assert of(OpenGate, opened)[0].reason == "130 of 100 particles"
    assert [unit for unit, (status, _) in settled("g", opened).items() if status is Status.ITEM] == ["u", "v"]


@pytest.mark.parametrize(
    ("params", "opens"), [({"count": 3}, True), ({"count": 3, "if_short": "hold"}, False), ({"count": 3, "mode": "static"}, True)]
)
def test_what_a_stream_that_closes_early_leaves(params: dict[str, Any], opens: bool) -> None:
    scheduler = scheduler_for(g=trigger(**params))
    arrive(scheduler, "u")
    end = close(scheduler)
    assert bool(of(OpenGate, end)) is opens
    assert settled("g", end)["u"][0] is (Status.ITEM if opens else Status.ABSENT)
    assert "g" in closings(end)


def test_a_time_opens_a_trigger_though_nothing_comes() -> None:
    scheduler = scheduler_for(g=trigger(count=9, after_h=2))
    tick(scheduler, 5 * HOUR_S)  # the clock starts with the first exposure, not with the session
    assert of(StartClock, arrive(scheduler, "u")) == [StartClock("g", 5 * HOUR_S)]
    assert scheduler.stages["g"].wait_reason == "1 of 9 exposures, or 2 h after the first arrived"
    assert of(StartClock, arrive(scheduler, "v")) == []
    assert of(OpenGate, tick(scheduler, 7 * HOUR_S - 1)) == []
    assert of(OpenGate, tick(scheduler, 7 * HOUR_S)) == [OpenGate("g", "2 h, with 2 exposures")]
    assert of(OpenGate, tick(scheduler, 9 * HOUR_S)) == []


def test_a_clock_that_jumps_back_is_not_followed() -> None:
    scheduler = scheduler_for(g=trigger(after_h=1))
    tick(scheduler, HOUR_S)
    arrive(scheduler, "u")
    tick(scheduler, 0.0)
    assert of(OpenGate, tick(scheduler, 2 * HOUR_S))


def test_a_gate_without_a_time_is_not_asked_by_the_clock() -> None:
    scheduler = scheduler_for(g=trigger(count=3))
    arrive(scheduler, "u")
    asked: list[object] = []
    gate = scheduler.stages["g"]
    assert isinstance(gate, Gate)
    judge = gate.judge

    def ask(progress: Any) -> Any:
        asked.append(progress)
        return judge(progress)

    gate.judge = ask
    for second in range(20):
        tick(scheduler, float(second))
    assert asked == []


def test_a_manual_trigger_outlasts_its_stream_until_a_person_releases_it() -> None:
    scheduler = scheduler_for(g=trigger(manual=True), d={"use": MULTIPLY, "in": {"number": "g"}})
    arrive(scheduler, "u")
    assert closings(close(scheduler)) == ["n"]
    assert scheduler.stages["g"].wait_reason == "1 exposure is waiting for a person to release it"
    released = scheduler.handle(Released("g"))
    assert of(OpenGate, released) == [OpenGate("g", "released by a person")]
    assert [one.unit for one in of(Dispatch, released)] == ["u"]
    assert "g" in closings(released)
    assert of(OpenGate, scheduler.handle(Released("g"))) == []


def test_a_manual_trigger_opens_by_itself_after_its_time() -> None:
    scheduler = scheduler_for(g=trigger(manual=True, release_after_h=0.5))
    arrive(scheduler, "u")
    close(scheduler)
    assert of(OpenGate, tick(scheduler, HOUR_S / 2)) == [OpenGate("g", "nobody released it for 30 min, with 1 exposure")]


def test_a_sampling_trigger_rejects_the_others_by_their_id_alone() -> None:
    outcomes = []
    for order in (range(400), reversed(range(400))):
        scheduler = scheduler_for(g=trigger(count=1, sample_fraction=0.25), r={"use": MULTIPLY, "in": {"number": "g.rejected"}})
        told: dict[str, tuple[Status, str | None]] = {}
        rejected: list[str] = []
        for number in order:
            instructions = arrive(scheduler, f"u{number}")
            told |= settled("g", instructions)
            rejected += [one.unit for one in of(Dispatch, instructions) if one.step == "r"]
        assert set(rejected) == {unit for unit, (status, _) in told.items() if status is Status.REJECTED}
        assert {reason for status, reason in told.values() if status is Status.REJECTED} == {"not in the sample of 0.25"}
        outcomes.append({unit: status for unit, (status, _) in told.items()})
    assert outcomes[0] == outcomes[1]
    assert 60 < sum(status is Status.ITEM for status in outcomes[0].values()) < 140


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "step 'g': a trigger waits for something: set count, after_h or manual"),
        ({"manual": True, "count": 3}, "a manual trigger opens for a person"),
        ({"count": 3, "release_after_h": 1}, "release_after_h belongs to a manual trigger"),
    ],
)
def test_triggers_that_make_no_sense_are_refused(params: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkflowError, match=said):
        scheduler_for(g=trigger(**params))


# Batches -----------------------------------------------------------------------------------------------------------------------


def batches_of(instructions: Iterable[Instruction]) -> list[tuple[int, list[str], bool]]:
    return [(one.number, [unit for unit, _ in one.members], one.remainder) for one in of(CloseBatch, instructions)]


def test_batches_count_particles_and_leave_a_remainder() -> None:
    scheduler = scheduler_for(b={"use": "batches", "in": {"items": "n"}, "params": {"count": 100, "counted": "particles"}})
    arrive(scheduler, "u", 60)
    assert batches_of(arrive(scheduler, "v", 60)) == [(1, ["u", "v"], False)]
    assert batches_of(arrive(scheduler, "w", 10)) == []
    assert batches_of(close(scheduler)) == [(2, ["w"], True)]


def test_every_batch_has_a_time_of_its_own() -> None:
    scheduler = scheduler_for(b={"use": "batches", "in": {"items": "n"}, "params": {"count": 9, "after_h": 1}})
    arrive(scheduler, "u")
    assert batches_of(tick(scheduler, HOUR_S)) == [(1, ["u"], False)]
    assert batches_of(tick(scheduler, 5 * HOUR_S)) == []  # nothing waits: no empty batch
    assert of(StartClock, arrive(scheduler, "v")) == [StartClock("b", 5 * HOUR_S)]
    assert batches_of(tick(scheduler, 6 * HOUR_S - 1)) == []
    assert batches_of(tick(scheduler, 6 * HOUR_S)) == [(2, ["v"], False)]


def test_a_person_closes_a_batch_now_but_never_an_empty_one() -> None:
    scheduler = scheduler_for(b={"use": "batches", "in": {"items": "n"}, "params": {"count": 9}})
    assert batches_of(scheduler.handle(Released("b"))) == []
    arrive(scheduler, "u")
    assert batches_of(scheduler.handle(Released("b"))) == [(1, ["u"], False)]


def test_after_the_last_batch_nothing_more_is_taken() -> None:
    scheduler = scheduler_for(
        b={"use": "batches", "in": {"items": "n"}, "params": {"count": 1, "max_batches": 2}},
        s={"use": f"{TOYS}:add_all", "in": {"numbers": "b"}},
    )
    assert batches_of(arrive(scheduler, "u")) == [(1, ["u"], False)]
    second = arrive(scheduler, "v")
    assert batches_of(second) == [(2, ["v"], False)]
    assert of(OpenGate, second) == [OpenGate("b", "batch 2 was the last", last=True)]
    assert "b" in closings(second)
    assert settled("b", arrive(scheduler, "w"))["w"][0] is Status.ABSENT


def milestones(**params: Any) -> dict[str, Any]:
    return {
        "b": {"use": "milestones", "in": {"items": "n"}, "params": params},
        "s": {"use": f"{TOYS}:add_all", "in": {"numbers": "b"}},
    }


@pytest.mark.parametrize(
    ("weight", "counted", "told"),
    [(5, "particles", "5 of 10 exposures"), (700, "particles", "700 of 1000 particles"), (5, "exposures", "5 of 10 exposures")],
)
def test_a_rule_says_what_it_counts(weight: int, counted: Counted, told: str) -> None:
    """Micrographs have no particles: each counts as one."""
    progress = Progress(waiting=5, waiting_weight=weight, passed=0, passed_weight=0, stream_closed=False)
    target = 10 if weight == 5 else 1000
    assert close_milestones(progress, MilestonesParams(at=[target], counted=counted)).reason == told
    assert close_batches(progress, BatchesParams(count=target, counted=counted)).reason == told
    assert hold_until_enough(progress, TriggerParams(count=target, counted=counted)).reason == told


def test_a_rule_that_has_nothing_yet_says_what_it_will_count() -> None:
    nothing = Progress(waiting=0, waiting_weight=0, passed=0, passed_weight=0, stream_closed=False)
    assert close_milestones(nothing, MilestonesParams(at=[10])).reason == "0 of 10 particles"


def test_a_milestone_holds_everything_so_far_but_stores_only_what_is_new() -> None:
    scheduler = scheduler_for(**milestones(at=[10, 20]))
    given: list[Instruction] = []
    for unit, weight in (("u", 6), ("v", 6), ("w", 6), ("x", 6), ("y", 6), ("z", 12)):
        given += arrive(scheduler, unit, weight)
    given += close(scheduler)
    assert batches_of(given) == [(1, ["u", "v"], False), (2, ["w", "x"], False), (3, ["y", "z"], False)]  # 12, 24, 42 particles
    inputs = {one.unit: one.inputs["numbers"] for one in of(Dispatch, given)}
    assert inputs == {
        "b:000001": ("key-u", "key-v"),
        "b:000002": ("key-u", "key-v", "key-w", "key-x"),
        "b:000003": ("key-u", "key-v", "key-w", "key-x", "key-y", "key-z"),
    }
    assert scheduler.units["b:000002"].outcomes["b"].weight == 24


@pytest.mark.parametrize(
    ("then", "sets", "last"), [("double", [2, 2, 4, 1], "item"), ("end", [2, 7], "item"), ("stop", [2], "absent")]
)
def test_what_comes_after_the_last_milestone(then: str, sets: list[int], last: str) -> None:
    scheduler = scheduler_for(**milestones(at=[2], then=then, counted="exposures"))
    given = [one for number in range(9) for one in arrive(scheduler, f"u{number}")] + close(scheduler)
    assert [len(members) for _, members, _ in batches_of(given)] == sets
    assert settled("b", given)["u8"][0] == last


def test_milestones_are_written_in_order() -> None:
    with pytest.raises(WorkflowError, match="rising order"):
        scheduler_for(**milestones(at=[3, 2]))


# Signals -----------------------------------------------------------------------------------------------------------------------


def test_a_trigger_drains_the_steps_that_it_closes() -> None:
    scheduler = scheduler_for(
        p={"use": MULTIPLY, "in": {"number": "n"}},
        g={"use": "trigger", "in": {"items": "n"}, "params": {"count": 2, "closes": ["p"]}},
        t={"use": f"{TOYS}:AddUp", "in": {"number": "p"}},
    )
    arrive(scheduler, "u")
    opened = arrive(scheduler, "v")
    assert of(Drain, opened) == [Drain("p", DrainReason(Cause.GATE, "g", "2 of 2 exposures"))]
    assert settled("p", arrive(scheduler, "w"))["w"] == (Status.ABSENT, "p was drained: g opened: 2 of 2 exposures")


def test_a_trigger_may_close_what_is_above_it() -> None:
    scheduler = scheduler_for(
        g={"use": "trigger", "in": {"items": "n"}, "params": {"count": 2, "closes": ["n"]}},
        d={"use": MULTIPLY, "in": {"number": "g"}},
    )
    arrive(scheduler, "u")
    opened = arrive(scheduler, "v")
    assert [one.unit for one in of(Dispatch, opened)] == ["u", "v"]
    assert {"n", "g"} <= set(closings(opened))


@pytest.mark.parametrize(
    ("closes", "said"),
    [("x", "closes 'x', which is not a step"), ("g", "closes itself"), ("d", "closes 'd', which takes what 'g' passes on")],
)
def test_signals_to_the_wrong_step_are_refused(closes: str, said: str) -> None:
    with pytest.raises(WorkflowError, match=said):
        scheduler_for(
            g={"use": "trigger", "in": {"items": "n"}, "params": {"count": 2, "closes": [closes]}},
            d={"use": MULTIPLY, "in": {"number": "g"}},
        )


def test_an_accumulator_below_a_static_trigger_finishes() -> None:
    scheduler = scheduler_for(g=trigger(count=1, mode="static"), t={"use": f"{TOYS}:AddUp", "in": {"number": "g"}})
    first = of(Consume, arrive(scheduler, "u"))
    assert [(one.position, one.closing) for one in first] == [(1, False)]
    arrive(scheduler, "v")
    last = scheduler.handle(Absorbed("t", 1, "s1", {}))
    assert [(one.position, one.members, one.closing) for one in of(Consume, last)] == [(2, (), True)]
    assert "t" in closings(scheduler.handle(Absorbed("t", 2, "s2", {})))
    assert not scheduler.stages["n"].closed
