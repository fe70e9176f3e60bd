"""The scheduler's machine as a whole: the table has an entry for everything, and a state that contradicts itself is found."""

import typing
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from icestream.flow.declaration.outcomes import FailureKind, Outcome, Status
from icestream.flow.declaration.step_type import Kind
from icestream.flow.scheduling import events
from icestream.flow.scheduling.accumulator import Accumulating
from icestream.flow.scheduling.batch import Batch
from icestream.flow.scheduling.computing import VersionRuns
from icestream.flow.scheduling.deciding import judge_for
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.scheduling.gate import Gate
from icestream.flow.scheduling.scheduler import InvalidState, Scheduler
from icestream.flow.scheduling.stage import Stage, Unit
from icestream.flow.scheduling.transitions import TRANSITIONS
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow
from toys.session import TOYS, toy_steps

ANN = DrainReason(Cause.PERSON, "ann")


def test_the_table_has_a_rule_for_every_event_and_every_kind() -> None:
    assert set(TRANSITIONS) == set(typing.get_args(events.StepEvent))
    for event, row in TRANSITIONS.items():
        assert set(row) == set(Kind), event
        assert all(callable(rule) and rule.__doc__ for rule in row.values()), event


EXAMPLES: dict[type, Callable[[str], events.Event]] = {
    events.Arrived: lambda step: events.Arrived(step, "w", "key-w"),
    events.Revised: lambda step: events.Revised(step, "u", "key-x"),
    events.Published: lambda step: events.Published(step, 9, "s9"),
    events.Decided: lambda step: events.Decided(step, "u", Outcome(Status.ITEM, {"out": "x"})),
    events.Failed: lambda step: events.Failed(step, "u", FailureKind.ITEM, "bad", 0.0),
    events.Absorbed: lambda step: events.Absorbed(step, 1, "s1", {}),
    events.SourceClosed: lambda step: events.SourceClosed(step, "end"),
    events.Troubled: lambda step: events.Troubled(step, {"numbers:3": "cannot be read"}),
    events.Retried: lambda step: events.Retried(step, "u"),
    events.Overridden: lambda step: events.Overridden(step, "u"),
    events.Released: events.Released,
    events.Drained: lambda step: events.Drained(step, ANN),
    events.Resumed: events.Resumed,
    events.Withdrawn: lambda step: events.Withdrawn(step, "u"),
    events.Tick: lambda _step: events.Tick(1.0, 1.0),
}


@pytest.mark.parametrize("event", typing.get_args(events.Event))
def test_any_event_at_any_step_leaves_a_state_without_contradictions(event: type) -> None:
    for node in session().graph.nodes.values():
        if node.domain == "exposure":
            session().handle(EXAMPLES[event](node.name))


def session() -> Scheduler:
    """Return a scheduler in whose toy session units wait, run, and are computed with."""
    scheduler = Scheduler(build_graph(Workflow.model_validate({"steps": STEPS})), judge_for, checked=True)
    for unit in "uv":
        scheduler.handle(events.Arrived("numbers", unit, f"key-{unit}"))
    for unit in "uv":
        scheduler.handle(events.Decided("triple", unit, Outcome(Status.ITEM, {"out": f"triple-{unit}"})))
    return scheduler


STEPS: dict[str, Any] = {
    **toy_steps(9),
    "sum": {"use": f"{TOYS}:AddUp", "in": {"number": "numbers"}},
    "held": {"use": f"{TOYS}:multiply", "in": {"number": "numbers"}, "after": ["triple"]},
    "less": {"use": f"{TOYS}:less_total", "in": {"number": "numbers", "total": "sum"}},
    "report": {"use": f"{TOYS}:report_total", "in": {"total": "sum"}},
    "few": {"use": f"{TOYS}:enough", "in": {"items": "numbers"}, "params": {"count": 9}},
    "lots": {"use": f"{TOYS}:batches", "in": {"items": "numbers"}, "params": {"count": 9}},
    "sets": {"use": "milestones", "in": {"items": "numbers"}, "params": {"at": [1], "counted": "exposures"}},
}


S = TypeVar("S", bound=Stage)


def a(scheduler: Scheduler, step: str, kind: type[S]) -> S:
    stage = scheduler.stages[step]
    assert isinstance(stage, kind)
    return stage


def move(name: str) -> Callable[[Scheduler], None]:
    def corrupt(scheduler: Scheduler) -> None:
        setattr(a(scheduler, "few", Gate), name, 7)

    return corrupt


def let_settled_unit_wait(scheduler: Scheduler) -> None:
    scheduler.units["u"].outcomes["few"] = Outcome(Status.ITEM)
    scheduler.stages["few"].undecided -= 1


def lose_member(scheduler: Scheduler) -> None:
    entry = a(scheduler, "sum", Accumulating).entry
    assert entry is not None
    a(scheduler, "sum", Accumulating).entry = replace(entry, members=(*entry.members, ("nobody", {})))


def take_member_twice(scheduler: Scheduler) -> None:
    a(scheduler, "sum", Accumulating).put("u", {}, 0)


def forget_position(scheduler: Scheduler) -> None:
    a(scheduler, "sum", Accumulating).next_number += 1


def run_versions_of_nothing(scheduler: Scheduler) -> None:
    a(scheduler, "report", VersionRuns).current = "report:v000000"


def run_overtaken_version(scheduler: Scheduler) -> None:
    scheduler.handle(events.Absorbed("sum", 1, "s1", {}))
    a(scheduler, "report", VersionRuns).next_number += 1


def close_too_early(scheduler: Scheduler) -> None:
    scheduler.handle(events.SourceClosed("numbers", "end"))
    scheduler.stages["triple"].closed = scheduler.stages["even"].closed = True


def open_and_hold(scheduler: Scheduler) -> None:
    a(scheduler, "few", Gate).opened = True


def shut_and_hold(scheduler: Scheduler) -> None:
    scheduler.stages["few"].set_drained(ANN)


def spend_unopened(scheduler: Scheduler) -> None:
    a(scheduler, "few", Gate).spent = True
    a(scheduler, "few", Gate).take_members()


def forget_gathered(scheduler: Scheduler) -> None:
    a(scheduler, "sets", Batch).gathered.clear()


def batch_nothing(scheduler: Scheduler) -> None:
    a(scheduler, "lots", Batch).passed = 3


def stop_clock(scheduler: Scheduler) -> None:
    a(scheduler, "few", Gate).clock_s, a(scheduler, "few", Gate).ask_at_s = None, 5.0


def hold_stranger(scheduler: Scheduler) -> None:
    scheduler.stages["held"].held["nobody"] = None


def await_for_stranger(scheduler: Scheduler) -> None:
    scheduler.stages["less"].awaiting_version["nobody"] = None


def hold_what_runs(scheduler: Scheduler) -> None:
    scheduler.stages["even"].held["u"] = None


def hold_what_waits(scheduler: Scheduler) -> None:
    scheduler.stages["few"].held["u"] = None


def run_what_is_decided(scheduler: Scheduler) -> None:
    scheduler.units["u"].running.add("triple")


def run_where_nothing_is_decided(scheduler: Scheduler) -> None:
    scheduler.units["u"].running.add("sums")


def run_at_no_step(scheduler: Scheduler) -> None:
    scheduler.units["u"].running.add("nowhere")


def lose_identity(scheduler: Scheduler) -> None:
    scheduler.units["x"] = scheduler.units["u"]


def leave_settling(scheduler: Scheduler) -> None:
    scheduler.units["u"].settling = 1


def count_below_zero(scheduler: Scheduler) -> None:
    scheduler.stages["triple"].decided[Status.FAILED] = -1


def try_no_step_again(scheduler: Scheduler) -> None:
    scheduler.delayed.append((5.0, "nowhere", "u"))


def admit_uncounted(scheduler: Scheduler) -> None:
    scheduler.units["w"] = Unit("w", "exposure")


@pytest.mark.parametrize(
    ("corrupt", "said"),
    [
        (move("undecided"), "few counts 7 units as undecided; 2 are"),
        (admit_uncounted, "triple counts 0 units as undecided; 1 are"),
        (move("waiting_weight"), "few counts a weight of 7 as waiting; it is 2"),
        (let_settled_unit_wait, "few lets u wait, about which it has nothing to decide"),
        (lose_member, r"sum computes with units that are not there: \['nobody'\]"),
        (take_member_twice, r"sum computes with units that are at two places at once: \['u'\]"),
        (forget_position, "sum computes entry 1; the last of its log is 2"),
        (run_versions_of_nothing, "report is busy with report:v000000, which is not there"),
        (run_overtaken_version, "report is busy with report:v000001, which was overtaken"),
        (close_too_early, "even has closed with 2 units undecided"),
        (open_and_hold, "few is open, and 2 units wait"),
        (shut_and_hold, "few is shut, and 2 units wait"),
        (spend_unopened, "few has passed on all, and never opened"),
        (forget_gathered, "sets counts 2 exposures in its batches; 0 are in the last"),
        (batch_nothing, "lots counts 3 exposures in its batches, and has closed none"),
        (stop_clock, "few waits for a time, with no clock running"),
        (hold_stranger, r"held lets units wait until streams close that it has nothing to decide of: \['nobody'\]"),
        (await_for_stranger, r"less lets units wait for a version that it has nothing to decide of: \['nobody'\]"),
        (hold_what_runs, r"even has units at two places at once: \['u'\]"),
        (hold_what_waits, r"few has units at two places at once: \['u'\]"),
        (run_what_is_decided, "triple works on u, about which it has nothing to decide"),
        (run_where_nothing_is_decided, "u runs at sums, which does not decide it"),
        (run_at_no_step, "u runs at nowhere, which does not decide it"),
        (lose_identity, "u is kept as x"),
        (leave_settling, "u is being settled 1 times"),
        (count_below_zero, r"triple counts fewer than no outcomes: \['failed'\]"),
        (try_no_step_again, "nowhere is no step, and is to be tried again"),
    ],
)
def test_what_contradicts_itself_is_found(corrupt: Callable[[Scheduler], None], said: str) -> None:
    scheduler = session()
    scheduler.validate()
    corrupt(scheduler)
    with pytest.raises(InvalidState, match=said):
        scheduler.validate()


def test_a_checked_scheduler_validates_after_every_event_and_others_do_not() -> None:
    scheduler = session()
    leave_settling(scheduler)
    with pytest.raises(InvalidState):
        scheduler.handle(events.Tick(1.0))
    scheduler.checked = False
    scheduler.handle(events.Tick(2.0))
