"""Event tables: what the pure scheduler wants after each event. No store, no worker, no clock."""

from collections.abc import Callable
from typing import Any

import pytest

from icestream.flow.declaration.context import Progress, Verdict
from icestream.flow.declaration.outcomes import FailureKind, Outcome, Status
from icestream.flow.scheduling.accumulator import Accumulating
from icestream.flow.scheduling.deciding import judge_for
from icestream.flow.scheduling.event_types import Absorbed, Arrived, Decided, Failed, Overridden, Retried, SourceClosed, Tick
from icestream.flow.scheduling.instruction_types import (
    CloseBatch,
    Consume,
    Dispatch,
    DropEntry,
    Forget,
    Instruction,
    MarkStream,
    Notify,
    OpenGate,
    Release,
    Settle,
)
from icestream.flow.scheduling.overriding import ManualVerdict
from icestream.flow.scheduling.scheduler import Scheduler
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Node, Workflow
from toys.session import TOYS

NUMBERS = {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 9}}


def scheduler_for(steps: dict[str, Any]) -> Scheduler:
    def judges(node: Node) -> tuple[Callable[[Progress], Verdict], int]:
        return judge_for(node)

    return Scheduler(build_graph(Workflow.model_validate({"steps": {"n": NUMBERS, **steps}})), judges, checked=True)


def arrive(scheduler: Scheduler, unit: str) -> list[Instruction]:
    return scheduler.handle(Arrived("n", unit, f"key-{unit}"))


def finish(scheduler: Scheduler, step: str, unit: str, status: Status = Status.ITEM) -> list[Instruction]:
    keys = {Status.ITEM: {"out": f"{step}-{unit}"}, Status.REJECTED: {"rejected": f"{step}-{unit}"}}.get(status, {})
    return scheduler.handle(Decided(step, unit, Outcome(status, keys, reason="why")))


def of(kind: type, instructions: list[Instruction]) -> list[Any]:
    return [one for one in instructions if isinstance(one, kind)]


MULTIPLY = {"use": f"{TOYS}:multiply", "in": {"number": "n"}}


def test_an_arrival_is_settled_dispatched_and_released() -> None:
    scheduler = scheduler_for({"d": MULTIPLY})
    first = arrive(scheduler, "u")
    assert of(Dispatch, first) == [Dispatch("d", "u", {"number": ("key-u",)})]
    assert [one.step for one in of(Settle, first)] == ["n"]
    last = finish(scheduler, "d", "u")
    assert of(Release, last) == [Release("u")]
    assert scheduler.units == {}


def test_a_join_waits_for_both_and_skips_with_the_root_cause() -> None:
    steps = {
        "d": MULTIPLY,
        "e": MULTIPLY,
        "f": {"use": f"{TOYS}:keep_multiples", "in": {"number": "e"}},
        "s": {"use": f"{TOYS}:add", "in": {"left": "d", "right": "f"}},
        "t": {"use": f"{TOYS}:multiply", "in": {"number": "s"}},
    }
    scheduler = scheduler_for(steps)
    arrive(scheduler, "u")
    assert of(Dispatch, finish(scheduler, "d", "u")) == []
    finish(scheduler, "e", "u")
    settled = of(Settle, finish(scheduler, "f", "u", Status.REJECTED))
    by_step = {one.step: one.outcome for one in settled}
    assert by_step["s"].status == by_step["t"].status == Status.SKIPPED
    assert by_step["s"].root == by_step["t"].root == "f"
    assert by_step["t"].reason == "why"


def test_a_list_input_runs_on_those_present() -> None:
    steps = {"d": MULTIPLY, "e": MULTIPLY, "s": {"use": f"{TOYS}:add_all", "in": {"numbers": ["d", "e"]}}}
    scheduler = scheduler_for(steps)
    arrive(scheduler, "u")
    scheduler.handle(Failed("d", "u", FailureKind.ITEM, "bad", 0.0))
    assert of(Dispatch, finish(scheduler, "e", "u")) == [Dispatch("s", "u", {"numbers": ("e-u",)})]


def test_a_list_input_with_too_few_is_skipped() -> None:
    steps = {"d": MULTIPLY, "e": MULTIPLY, "s": {"use": f"{TOYS}:add_all", "in": {"numbers": ["d", "e"]}, "min_inputs": 2}}
    scheduler = scheduler_for(steps)
    arrive(scheduler, "u")
    scheduler.handle(Failed("d", "u", FailureKind.ITEM, "bad", 0.0))
    (settled,) = [one for one in of(Settle, finish(scheduler, "e", "u")) if one.step == "s"]
    assert (settled.outcome.status, settled.outcome.root) == (Status.SKIPPED, "d")


@pytest.mark.parametrize(
    ("kind", "tries"),
    [
        (FailureKind.ITEM, 1),
        (FailureKind.ERROR, 2),
        (FailureKind.TRANSIENT, 4),
        (FailureKind.WORKER_DIED, 3),
        (FailureKind.OUT_OF_MEMORY, 2),
    ],
)
def test_how_often_a_failure_is_tried_again(kind: FailureKind, tries: int) -> None:
    scheduler = scheduler_for({"d": MULTIPLY})
    arrive(scheduler, "u")
    now_s, dispatched = 0.0, 1
    while True:
        settled = of(Settle, scheduler.handle(Failed("d", "u", kind, "bad", now_s)))
        if settled:
            break
        now_s += 100.0
        dispatched += len(of(Dispatch, scheduler.handle(Tick(now_s))))
    assert dispatched == tries
    assert settled[0].outcome.status is Status.FAILED


def test_a_retry_forgets_what_was_skipped_and_decides_again() -> None:
    steps = {"d": MULTIPLY, "t": {"use": f"{TOYS}:multiply", "in": {"number": "d"}}}
    scheduler = scheduler_for(steps)
    arrive(scheduler, "u")
    unit = scheduler.units["u"]
    scheduler.handle(Failed("d", "u", FailureKind.ITEM, "bad", 0.0))
    assert scheduler.units == {}
    scheduler.readmit(unit)
    instructions = scheduler.handle(Retried("d", "u"))
    assert {one.step for one in of(Forget, instructions)} == {"d", "t"}
    assert [one.step for one in of(Dispatch, instructions)] == ["d"]
    assert [one.step for one in of(Dispatch, finish(scheduler, "d", "u"))] == ["t"]


def test_streams_close_downwards_and_only_when_all_is_decided() -> None:
    steps = {"d": MULTIPLY, "t": {"use": f"{TOYS}:multiply", "in": {"number": "d"}}}
    scheduler = scheduler_for(steps)
    arrive(scheduler, "u")
    closed = of(MarkStream, scheduler.handle(SourceClosed("n", "enough")))
    assert [(one.step, one.state) for one in closed] == [("n", "closed")]
    assert of(MarkStream, finish(scheduler, "d", "u"))[0].state == "open"
    last = [one.step for one in of(MarkStream, finish(scheduler, "t", "u")) if one.state == "closed"]
    assert last == ["t"]
    assert all(stage.closed for stage in scheduler.stages.values())


GATE = {"g": {"use": f"{TOYS}:enough", "in": {"items": "n"}, "params": {"count": 2}}}


def test_a_gate_holds_opens_for_good_and_passes() -> None:
    scheduler = scheduler_for(GATE)
    assert of(OpenGate, arrive(scheduler, "u")) == []
    opened = arrive(scheduler, "v")
    assert len(of(OpenGate, opened)) == 1
    assert [(one.unit, one.outcome.keys) for one in of(Settle, opened) if one.step == "g"] == [
        ("u", {"out": "key-u"}),
        ("v", {"out": "key-v"}),
    ]
    assert [one.unit for one in of(Settle, arrive(scheduler, "w")) if one.step == "g"] == ["w"]


def test_what_a_closed_gate_still_holds_is_absent() -> None:
    scheduler = scheduler_for(GATE)
    arrive(scheduler, "u")
    (settled,) = of(Settle, scheduler.handle(SourceClosed("n", "end")))
    assert settled.outcome.status is Status.ABSENT
    assert settled.outcome.reason == "the stream closed before the gate opened: 1 of 2"


def test_batches_close_at_their_size_and_the_rest_at_the_end() -> None:
    steps = {
        "b": {"use": f"{TOYS}:batches", "in": {"items": "n"}, "params": {"count": 2}},
        "s": {"use": f"{TOYS}:add_all", "in": {"numbers": "b"}},
    }
    scheduler = scheduler_for(steps)
    arrive(scheduler, "u")
    second = arrive(scheduler, "v")
    assert [(one.number, one.remainder) for one in of(CloseBatch, second)] == [(1, False)]
    assert of(Dispatch, second) == [Dispatch("s", "b:000001", {"numbers": ("key-u", "key-v")})]
    arrive(scheduler, "w")
    end = scheduler.handle(SourceClosed("n", "end"))
    assert [(one.number, one.remainder) for one in of(CloseBatch, end)] == [(2, True)]


ADD_UP = {"a": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}}}


def test_an_accumulator_takes_what_waits_one_entry_at_a_time() -> None:
    scheduler = scheduler_for(ADD_UP)
    assert [one.position for one in of(Consume, arrive(scheduler, "u"))] == [1]
    assert of(Consume, arrive(scheduler, "v")) == of(Consume, arrive(scheduler, "w")) == []
    after = scheduler.handle(Absorbed("a", 1, "s1", {"u": "share-u"}))
    assert [one.outcome.keys for one in of(Settle, after)] == [{"assignments": "share-u", "taken.number": "key-u"}]
    assert [(one.position, [unit for unit, _ in one.members]) for one in of(Consume, after)] == [(2, ["v", "w"])]
    assert of(Consume, scheduler.handle(SourceClosed("n", "end"))) == []
    last = of(Consume, scheduler.handle(Absorbed("a", 2, "s2", {})))
    assert [(one.position, one.members, one.closing) for one in last] == [(3, (), True)]
    scheduler.handle(Absorbed("a", 3, "s3", {}))
    assert scheduler.stages["a"].closed


def last_entry(scheduler: Scheduler) -> int:
    stage = scheduler.stages["a"]
    assert isinstance(stage, Accumulating)
    return stage.next_number - 1


def test_an_entry_that_fails_is_halved_until_the_culprit_stands_alone() -> None:
    scheduler = scheduler_for(ADD_UP)
    arrive(scheduler, "z")
    for unit in "uvw":
        arrive(scheduler, unit)
    scheduler.handle(Absorbed("a", 1, "s1", {}))
    tried: list[list[str]] = [["u", "v", "w"]]
    failed: list[str] = []
    while True:
        members = tried[-1]
        if "v" in members:
            wanted = scheduler.handle(Failed("a", str(last_entry(scheduler)), FailureKind.ITEM, "bad v", 0.0))
            assert of(DropEntry, wanted)
        else:
            position = last_entry(scheduler)
            wanted = scheduler.handle(Absorbed("a", position, f"s{position}", {}))
        failed += [one.unit for one in of(Settle, wanted) if one.outcome.status is Status.FAILED]
        entries = of(Consume, wanted)
        if not entries:
            break
        tried.append([unit for unit, _ in entries[0].members])
    assert failed == ["v"]
    assert tried == [["u", "v", "w"], ["u"], ["v", "w"], ["v"], ["w"]]


def test_a_step_that_fails_for_everything_alerts_once() -> None:
    scheduler = scheduler_for({"d": MULTIPLY})
    alerts = []
    for number in range(12):
        arrive(scheduler, f"u{number}")
        instructions = scheduler.handle(Failed("d", f"u{number}", FailureKind.ITEM, "bad", 0.0))
        alerts += [one for one in instructions if type(one).__name__ == "Notify"]
    assert len(alerts) == 1
    assert "d failed for 5 exposures in a row" in alerts[0].message
    arrive(scheduler, "good")
    finish(scheduler, "d", "good")
    for number in range(5):
        assert len(alerts) == 1
        arrive(scheduler, f"v{number}")
        alerts += of(Notify, scheduler.handle(Failed("d", f"v{number}", FailureKind.ITEM, "bad", 0.0)))
    assert len(alerts) == 2


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ("f", ["d failed for the only exposure it had"]),
        ("fff", ["d failed for all 3 exposures it had"]),
        ("ffi", []),
        ("rf", []),
        ("", []),
        ("fffff", ["d failed for 5 exposures in a row"]),
    ],
)
def test_a_step_that_failed_for_the_few_it_had_alerts_when_it_closes(ends: str, told: list[str]) -> None:
    scheduler = scheduler_for({"d": MULTIPLY})
    said = []
    for number, end in enumerate(ends):
        arrive(scheduler, f"u{number}")
        if end == "f":
            said += of(Notify, scheduler.handle(Failed("d", f"u{number}", FailureKind.ITEM, "bad", 0.0)))
        else:
            said += of(Notify, finish(scheduler, "d", f"u{number}", Status.ITEM if end == "i" else Status.REJECTED))
    said += of(Notify, scheduler.handle(SourceClosed("n", "over")))
    assert [one.message for one in said] == told
    assert all((one.level, one.step) == ("alert", "d") for one in said)


def test_a_source_whose_only_file_is_broken_alerts_when_it_closes() -> None:
    scheduler = scheduler_for({"d": MULTIPLY})
    scheduler.handle(Arrived("n", "u", None, error="is broken"))
    said = of(Notify, scheduler.handle(SourceClosed("n", "over")))
    assert [one.message for one in said] == ["n failed for the only exposure it had"]  # and not d, which only skipped it


def test_the_memory_does_not_grow_with_the_session() -> None:
    scheduler = scheduler_for({"d": MULTIPLY, "t": {"use": f"{TOYS}:multiply", "in": {"number": "d"}}})
    for number in range(500):
        arrive(scheduler, f"u{number}")
        finish(scheduler, "d", f"u{number}")
        finish(scheduler, "t", f"u{number}")
    assert scheduler.units == {}
    assert not any(stage.undecided or stage.failures or stage.n_waiting for stage in scheduler.stages.values())


def test_a_step_with_two_inputs_of_which_one_decides_the_other_runs_once() -> None:
    """What a filter accepts is not among its rejected: the list input of both is complete at once."""
    scheduler = scheduler_for(
        {
            "even": {"use": f"{TOYS}:keep_multiples", "in": {"number": "n"}},
            "odd": {"use": f"{TOYS}:multiply", "in": {"number": "even.rejected"}, "params": {"factor": 5}},
            "any": {"use": f"{TOYS}:add_all", "in": {"numbers": ["even", "odd"]}},
        }
    )
    arrive(scheduler, "u")
    decided = finish(scheduler, "even", "u")
    assert [task.step for task in of(Dispatch, decided)] == ["any"]
    assert of(Dispatch, finish(scheduler, "any", "u")) == []
    assert "u" not in scheduler.units


@pytest.fixture
def changed_meanwhile() -> Scheduler:
    """A unit whose input was decided again while a step ran on it."""
    scheduler = scheduler_for(
        {
            "a": {"use": f"{TOYS}:multiply", "in": {"number": "n"}},
            "b": {"use": f"{TOYS}:add_all", "in": {"numbers": ["n", "a"]}},
        }
    )
    arrive(scheduler, "u")
    scheduler.handle(Failed("a", "u", FailureKind.ITEM, "broken", 0.0))
    scheduler.handle(Retried("a", "u"))
    finish(scheduler, "a", "u")
    return scheduler


def test_a_failure_on_inputs_that_changed_meanwhile_counts_for_nothing(changed_meanwhile: Scheduler) -> None:
    again = changed_meanwhile.handle(Failed("b", "u", FailureKind.ITEM, "bad input", 0.0))
    (task,) = of(Dispatch, again)
    assert (task.step, len(task.inputs["numbers"])) == ("b", 2)
    assert of(Settle, again) == []
    assert of(Settle, finish(changed_meanwhile, "b", "u"))[0].outcome.status is Status.ITEM


def test_a_failure_of_what_a_person_has_decided_meanwhile_counts_for_nothing() -> None:
    scheduler = scheduler_for({"even": {"use": f"{TOYS}:keep_multiples", "in": {"number": "n"}}})
    arrive(scheduler, "u")
    scheduler.overrides = {("u", "even"): ManualVerdict(False, "eva", "ice")}
    assert of(Settle, scheduler.handle(Overridden("even", "u"))) == []  # its worker has not answered yet
    (settled,) = of(Settle, scheduler.handle(Failed("even", "u", FailureKind.ITEM, "broken", 0.0)))
    assert (settled.outcome.status, settled.outcome.reason) == (Status.REJECTED, "rejected by hand by eva: ice")
