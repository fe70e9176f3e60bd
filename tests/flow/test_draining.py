"""Event tables of drained steps, and of steps that wait until other streams have closed."""

from collections.abc import Iterable
from typing import Any

import pytest

from icestream.errors import WorkflowError
from icestream.flow.declaration.outcomes import FailureKind, Outcome, Status
from icestream.flow.scheduling.deciding import judge_for
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.scheduling.event_types import (
    Absorbed,
    Arrived,
    Decided,
    Drained,
    Failed,
    Published,
    Resumed,
    Retried,
    SourceClosed,
    Tick,
    Withdrawn,
)
from icestream.flow.scheduling.instruction_types import (
    CloseBatch,
    Consume,
    Dispatch,
    Drain,
    Forget,
    Instruction,
    MarkStream,
    Resume,
    Settle,
)
from icestream.flow.scheduling.scheduler import Scheduler
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow
from toys.session import TOYS

NUMBERS = {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 9}}
MULTIPLY = f"{TOYS}:multiply"
ANN = DrainReason(Cause.PERSON, "ann", "enough")


def scheduler_for(**steps: Any) -> Scheduler:
    return Scheduler(build_graph(Workflow.model_validate({"steps": {"n": NUMBERS, **steps}})), judge_for, checked=True)


def doubled(source: str = "n", **more: Any) -> dict[str, Any]:
    return {"use": MULTIPLY, "in": {"number": source}, **more}


def arrive(scheduler: Scheduler, unit: str) -> list[Instruction]:
    return scheduler.handle(Arrived("n", unit, f"key-{unit}"))


def finish(scheduler: Scheduler, step: str, unit: str) -> list[Instruction]:
    return scheduler.handle(Decided(step, unit, Outcome(Status.ITEM, {"out": f"{step}-{unit}"})))


def of(kind: type, instructions: Iterable[Instruction]) -> list[Any]:
    return [one for one in instructions if isinstance(one, kind)]


def settled(step: str, instructions: Iterable[Instruction]) -> dict[str, Status]:
    return {one.unit: one.outcome.status for one in of(Settle, instructions) if one.step == step}


def closings(instructions: Iterable[Instruction]) -> list[str]:
    return [one.step for one in of(MarkStream, instructions) if one.state == "closed"]


def dispatched(instructions: Iterable[Instruction]) -> list[tuple[str, str]]:
    return [(one.step, one.unit) for one in of(Dispatch, instructions)]


def test_a_drained_step_finishes_what_runs_and_takes_nothing_new() -> None:
    scheduler = scheduler_for(d=doubled(), e=doubled("d"), f=doubled("e"))
    for unit in "uv":
        arrive(scheduler, unit)
    finish(scheduler, "d", "v")  # v runs at e, u at d
    drained = scheduler.handle(Drained("e", ANN))
    assert of(Drain, drained) == [Drain("e", ANN)]
    assert settled("e", drained) == {"u": Status.ABSENT}
    assert closings(drained) == []  # v still runs
    assert closings(finish(scheduler, "e", "v")) == ["e"]
    assert closings(finish(scheduler, "f", "v")) == ["f"]
    later = arrive(scheduler, "w")
    assert settled("e", later) == {"w": Status.ABSENT}
    assert settled("f", later) == {"w": Status.SKIPPED}
    assert dispatched(later) == [("d", "w")]
    assert of(MarkStream, finish(scheduler, "d", "w")) == []
    assert scheduler.handle(Drained("e", ANN)) == []


def test_a_reason_names_who_drained() -> None:
    scheduler = scheduler_for(d=doubled())
    scheduler.handle(Drained("d", ANN))
    (outcome,) = [one.outcome for one in of(Settle, arrive(scheduler, "u")) if one.step == "d"]
    assert outcome.reason == "d was drained: closed by hand, by ann: enough"


def test_a_task_that_had_not_begun_is_withdrawn() -> None:
    scheduler = scheduler_for(d=doubled())
    for unit in "uv":
        arrive(scheduler, unit)
    scheduler.handle(Drained("d", ANN))
    assert settled("d", scheduler.handle(Withdrawn("d", "v"))) == {"v": Status.ABSENT}
    assert scheduler.handle(Withdrawn("d", "v")) == []
    assert settled("d", finish(scheduler, "d", "u")) == {"u": Status.ITEM}
    assert scheduler.units == {}


def test_a_failure_is_not_tried_again_at_a_drained_step() -> None:
    scheduler = scheduler_for(d=doubled())
    arrive(scheduler, "u")
    scheduler.handle(Failed("d", "u", FailureKind.ERROR, "bad", 0.0))
    scheduler.handle(Drained("d", ANN))
    assert settled("d", scheduler.handle(Tick(99.0))) == {"u": Status.ABSENT}


def test_what_a_drained_batch_or_accumulator_has_taken_is_brought_to_its_end() -> None:
    scheduler = scheduler_for(
        b={"use": f"{TOYS}:batches", "in": {"items": "n"}, "params": {"count": 5}},
        t={"use": f"{TOYS}:AddUp", "in": {"number": "n"}},
        g={"use": f"{TOYS}:enough", "in": {"items": "n"}, "params": {"count": 5}},
    )
    for unit in "uv":
        arrive(scheduler, unit)
    batch = of(CloseBatch, scheduler.handle(Drained("b", ANN)))
    assert [([unit for unit, _ in one.members], one.remainder) for one in batch] == [(["u", "v"], True)]
    assert settled("g", scheduler.handle(Drained("g", ANN))) == {"u": Status.ABSENT, "v": Status.ABSENT}
    scheduler.handle(Drained("t", ANN))
    last = of(Consume, scheduler.handle(Absorbed("t", 1, "s1", {})))
    assert [([unit for unit, _ in one.members], one.closing) for one in last] == [(["v"], True)]
    assert closings(scheduler.handle(Absorbed("t", 2, "s2", {}))) == ["t"]


def test_a_join_with_a_drained_stream_closes_though_the_other_goes_on() -> None:
    scheduler = scheduler_for(d=doubled(), s={"use": f"{TOYS}:add", "in": {"left": "n", "right": "d"}}, x=doubled())
    arrive(scheduler, "u")
    scheduler.handle(Drained("d", ANN))
    assert closings(finish(scheduler, "d", "u")) == ["d"]
    assert closings(finish(scheduler, "s", "u")) == ["s"]
    assert not scheduler.stages["n"].closed


def test_a_list_input_closes_when_too_few_streams_are_left() -> None:
    joined = {"use": f"{TOYS}:add_all", "in": {"numbers": ["d", "e"]}}
    for min_inputs, closed in ((2, ["d", "s"]), (1, ["d"])):
        scheduler = scheduler_for(d=doubled(), e=doubled(), s={**joined, "min_inputs": min_inputs})
        assert closings(scheduler.handle(Drained("d", ANN))) == closed


def test_a_resumed_step_decides_again_what_it_left_out() -> None:
    scheduler = scheduler_for(d=doubled(), e=doubled("d"))
    scheduler.handle(Drained("d", ANN))
    arrive(scheduler, "u")
    assert scheduler.units == {}
    resumed = scheduler.handle(Resumed("d"))
    assert of(Resume, resumed) == [Resume("d")]
    assert not scheduler.stages["d"].closed
    assert not scheduler.stages["e"].closed
    assert dispatched(arrive(scheduler, "v")) == [("d", "v")]
    finish(scheduler, "d", "v")
    scheduler.handle(Drained("e", ANN))
    finish(scheduler, "e", "v")
    arrive(scheduler, "w")
    scheduler.handle(Resumed("e"))
    assert {one.step for one in of(Forget, scheduler.handle(Retried("e", "w")))} == {"e"}
    assert dispatched(finish(scheduler, "d", "w")) == [("e", "w")]
    assert scheduler.handle(Resumed("e")) == []


def test_what_a_shut_step_has_made_stays_when_its_inputs_change() -> None:
    joined = {"use": f"{TOYS}:add_all", "in": {"numbers": ["d", "e"]}}
    scheduler = scheduler_for(
        d=doubled(),
        e=doubled(),
        s=joined,
        g={"use": "trigger", "in": {"items": "s"}, "params": {"count": 1, "mode": "static"}},
        x=doubled("g"),
    )
    arrive(scheduler, "u")
    finish(scheduler, "d", "u")
    scheduler.handle(Failed("e", "u", FailureKind.ITEM, "bad", 0.0))
    assert settled("g", finish(scheduler, "s", "u")) == {"u": Status.ITEM}
    unit = scheduler.units["u"]
    finish(scheduler, "x", "u")
    scheduler.readmit(unit)
    scheduler.handle(Retried("e", "u"))
    finish(scheduler, "e", "u")
    again = finish(scheduler, "s", "u")
    assert of(Forget, again) == []
    assert unit.outcomes["g"].keys == {"out": "s-u"}
    assert scheduler.units == {}


def test_a_drained_source_closes() -> None:
    scheduler = scheduler_for(d=doubled())
    assert closings(scheduler.handle(Drained("n", ANN))) == ["n", "d"]


def test_a_drained_step_that_is_fed_by_snapshots_runs_on_none() -> None:
    scheduler = scheduler_for(
        t={"use": f"{TOYS}:AddUp", "in": {"number": "n"}}, r={"use": f"{TOYS}:report_total", "in": {"total": "t"}}
    )
    scheduler.handle(Drained("r", ANN))
    arrive(scheduler, "u")
    assert dispatched(scheduler.handle(Absorbed("t", 1, "s1", {}))) == []
    assert [one.inputs for one in of(Dispatch, scheduler.handle(Resumed("r")))] == [{"total": ("s1",)}]


def test_a_withdrawn_run_on_snapshots_leaves_the_step_free() -> None:
    scheduler = scheduler_for(
        t={"use": f"{TOYS}:AddUp", "in": {"number": "n"}}, r={"use": f"{TOYS}:report_total", "in": {"total": "t"}}
    )
    arrive(scheduler, "u")
    assert dispatched(scheduler.handle(Absorbed("t", 1, "s1", {}))) == [("r", "r:v000001")]
    scheduler.handle(Drained("r", ANN))
    withdrawn = scheduler.handle(Withdrawn("r", "r:v000001"))
    assert settled("r", withdrawn) == {"r:v000001": Status.ABSENT}
    assert closings(withdrawn) == ["r"]
    scheduler.handle(Resumed("r"))
    arrive(scheduler, "v")
    assert dispatched(scheduler.handle(Absorbed("t", 2, "s2", {}))) == [("r", "r:v000002")]


def test_a_drained_step_holds_nothing_back() -> None:
    scheduler = scheduler_for(d=doubled(), e=doubled("n", after=["d"]))
    arrive(scheduler, "u")
    assert list(scheduler.stages["e"].held) == ["u"]
    assert closings(scheduler.handle(Drained("e", ANN))) == ["e"]
    assert not scheduler.stages["e"].held


# After -------------------------------------------------------------------------------------------------------------------------


def test_a_step_starts_nothing_until_a_stream_has_closed() -> None:
    scheduler = scheduler_for(d=doubled(), e=doubled("n", after=["d"]))
    assert dispatched(arrive(scheduler, "u")) == [("d", "u")]
    assert scheduler.stages["e"].wait_reason == "is waiting until d has closed"
    finish(scheduler, "d", "u")
    assert closings(scheduler.handle(SourceClosed("n", "end"))) == ["n", "d"]
    assert scheduler.stages["e"].wait_reason == ""
    assert closings(finish(scheduler, "e", "u")) == ["e"]


def test_what_waited_starts_when_the_last_of_the_streams_closes() -> None:
    scheduler = scheduler_for(d=doubled(), f=doubled(), e=doubled("n", after=["d", "f"]))
    for unit in "uv":
        arrive(scheduler, unit)
    assert scheduler.stages["e"].wait_reason == "is waiting until d and f have closed"
    scheduler.handle(SourceClosed("n", "end"))
    given = [finish(scheduler, step, unit) for step, unit in (("d", "u"), ("d", "v"), ("f", "u"))]
    assert [dispatched(one) for one in given] == [[], [], []]
    assert dispatched(finish(scheduler, "f", "v")) == [("e", "u"), ("e", "v")]


def test_a_skip_does_not_wait() -> None:
    scheduler = scheduler_for(d=doubled(), x=doubled(), e=doubled("d", after=["x"]))
    arrive(scheduler, "u")
    failed = scheduler.handle(Failed("d", "u", FailureKind.ITEM, "bad", 0.0))
    assert settled("e", failed) == {"u": Status.SKIPPED}


def test_waiting_is_for_gates_batches_and_steps_fed_by_snapshots_too() -> None:
    scheduler = scheduler_for(
        d=doubled(),
        b={"use": f"{TOYS}:batches", "in": {"items": "n"}, "params": {"count": 1}, "after": ["d"]},
        t={"use": f"{TOYS}:AddUp", "in": {"number": "n"}},
        r={"use": f"{TOYS}:report_total", "in": {"total": "t"}, "after": ["d"]},
    )
    arrive(scheduler, "u")
    assert dispatched(scheduler.handle(Absorbed("t", 1, "s1", {}))) == []
    assert not of(CloseBatch, scheduler.handle(SourceClosed("n", "end")))
    given = finish(scheduler, "d", "u")
    assert dispatched(given) == [("r", "r:v000001")]
    assert [one.number for one in of(CloseBatch, given)] == [1]


def test_what_the_store_says_of_a_stream_counts_after_a_restart() -> None:
    scheduler = scheduler_for(d=doubled(), e=doubled("n", after=["d"]))
    scheduler.stages["d"].marked = "closed"
    assert ("e", "u") in dispatched(arrive(scheduler, "u"))


def test_a_drained_stream_has_closed_for_those_that_wait_for_it() -> None:
    scheduler = scheduler_for(d=doubled(), e=doubled("n", after=["d"]))
    arrive(scheduler, "u")
    scheduler.handle(Drained("d", ANN))
    assert dispatched(scheduler.handle(Withdrawn("d", "u"))) == [("e", "u")]


def test_a_held_unit_whose_inputs_change_waits_with_the_new_ones() -> None:
    scheduler = scheduler_for(
        d=doubled(), e=doubled(), x=doubled(), s={"use": f"{TOYS}:add_all", "in": {"numbers": ["d", "e"]}, "after": ["x"]}
    )
    arrive(scheduler, "u")
    finish(scheduler, "d", "u")
    scheduler.handle(Failed("e", "u", FailureKind.ITEM, "bad", 0.0))
    scheduler.handle(Retried("e", "u"))
    finish(scheduler, "e", "u")
    scheduler.handle(SourceClosed("n", "end"))
    (task,) = of(Dispatch, finish(scheduler, "x", "u"))
    assert task.inputs == {"numbers": ("d-u", "e-u")}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"d": doubled(after=["x"])}, "step 'd': waits for 'x', which is not a step of this workflow: n, d"),
        (
            {"d": doubled(after=["e"]), "e": doubled("d")},
            "steps d, e: take input from each other, or wait for each other, in a circle",
        ),
        ({"d": doubled(after=["d"])}, "in a circle"),
        ({"m": {**NUMBERS, "after": ["n"]}}, "step 'm': a source cannot wait for another step"),
    ],
)
def test_waiting_that_never_ends_is_refused(steps: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkflowError, match=said):
        scheduler_for(**steps)


def test_a_version_of_a_source_that_is_drained_comes_no_more() -> None:
    scheduler = scheduler_for(
        t={"use": f"{TOYS}:AddUp", "in": {"number": "n"}},
        late={"use": f"{TOYS}:less_total", "in": {"number": "n", "total": "t"}},
    )
    scheduler.handle(Drained("t", ANN))
    assert settled("late", arrive(scheduler, "u")) == {"u": Status.SKIPPED}
    scheduler.handle(Resumed("t"))
    scheduler.handle(Published("t", 1, "s1"))
    assert ("late", "v") in dispatched(arrive(scheduler, "v"))
