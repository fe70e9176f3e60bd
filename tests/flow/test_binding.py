"""Which versions of snapshots a unit binds together: one that is made from another waits until it has caught up."""

from typing import Any

from icestream.flow import step
from icestream.flow.declaration.outcomes import FailureKind, Outcome, Status
from icestream.flow.scheduling.deciding import judge_for
from icestream.flow.scheduling.event_types import Absorbed, Arrived, Decided, Failed, SourceClosed
from icestream.flow.scheduling.instruction_types import Bind, Consume, Dispatch, Instruction
from icestream.flow.scheduling.scheduler import Scheduler
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow
from toys.session import TOYS
from toys.steps import Number, Share, Total

HERE = __name__


@step.map("toy_between", version=1, memory_gb=0.1)
def between(number: Number, total: Total, report: Total) -> Number:
    """Compare a total with what was made from it."""
    return Number(value=number.value + total.value - report.value)


def scheduler_for(**steps: Any) -> Scheduler:
    fixed = {
        "n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 9}},
        "t": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}},
        "r": {"use": f"{TOYS}:report_total", "in": {"total": "t"}},
    }
    return Scheduler(build_graph(Workflow.model_validate({"steps": {**fixed, **steps}})), judge_for, checked=True)


@step.map("toy_match", version=1, memory_gb=0.1)
def match(number: Number, share: Share) -> Number:
    """Pass a number on that has its share."""
    return number


MATCH: dict[str, Any] = {"use": f"{HERE}:match", "in": {"number": "n", "share": "g"}}
BOTH: dict[str, Any] = {"use": f"{HERE}:between", "in": {"number": "n", "total": "t", "report": "r"}}
ONE: dict[str, Any] = {"use": f"{TOYS}:less_total", "in": {"number": "n", "total": "r"}}


def arrive(scheduler: Scheduler, unit: str) -> list[Instruction]:
    return scheduler.handle(Arrived("n", unit, f"key-{unit}"))


def reported(scheduler: Scheduler, run: int) -> list[Instruction]:
    return scheduler.handle(Decided("r", f"r:v{run:06d}", Outcome(Status.ITEM, {"out": f"r{run}"})))


def dispatched(instructions: list[Instruction], step_name: str) -> dict[str, dict[str, tuple[str, ...]]]:
    found = [one for one in instructions if isinstance(one, Dispatch) and one.step == step_name]
    return {one.unit: dict(one.inputs) for one in found}


def test_a_unit_waits_for_what_is_made_from_the_newest_version_of_what_it_binds_too() -> None:
    scheduler = scheduler_for(b=BOTH)
    arrive(scheduler, "u")
    assert dispatched(scheduler.handle(Absorbed("t", 1, "t1", {})), "b") == {}
    first = reported(scheduler, 1)
    assert dispatched(first, "b") == {"u": {"number": ("key-u",), "report": ("r1",), "total": ("t1",)}}
    assert [(one.port, one.key) for one in first if isinstance(one, Bind)] == [("report#0", "r1"), ("total#0", "t1")]

    arrive(scheduler, "v")  # entry 2 is being computed: nothing is newer yet, so v binds what there is
    scheduler.handle(Decided("b", "v", Outcome(Status.ITEM, {"out": "b-v"})))
    scheduler.handle(Absorbed("t", 2, "t2", {}))  # the report runs on it
    assert dispatched(arrive(scheduler, "w"), "b") == {}
    assert dispatched(reported(scheduler, 2), "b")["w"] == {"number": ("key-w",), "report": ("r2",), "total": ("t2",)}


def test_it_waits_no_longer_when_the_run_has_failed() -> None:
    scheduler = scheduler_for(b=BOTH)
    arrive(scheduler, "u")
    scheduler.handle(Absorbed("t", 1, "t1", {}))
    reported(scheduler, 1)
    arrive(scheduler, "v")
    scheduler.handle(Absorbed("t", 2, "t2", {}))
    arrive(scheduler, "w")
    after = scheduler.handle(Failed("r", "r:v000002", FailureKind.ITEM, "cannot", 0.0))
    assert dispatched(after, "b")["w"] == {"number": ("key-w",), "report": ("r1",), "total": ("t2",)}


def test_who_binds_only_what_is_made_from_a_version_does_not_wait() -> None:
    scheduler = scheduler_for(b=ONE)
    arrive(scheduler, "u")
    scheduler.handle(Absorbed("t", 1, "t1", {}))
    reported(scheduler, 1)
    arrive(scheduler, "v")
    scheduler.handle(Absorbed("t", 2, "t2", {}))
    assert dispatched(arrive(scheduler, "w"), "b") == {"w": {"number": ("key-w",), "total": ("r1",)}}


def test_at_the_end_of_a_stream_a_gate_lets_units_bind_the_last_versions() -> None:
    gate = {"use": "trigger", "in": {"items": "t.assignments"}, "params": {"count": 100}}
    scheduler = scheduler_for(g=gate, b={**BOTH, "in": {**BOTH["in"], "number": "m"}}, m=MATCH)
    arrive(scheduler, "u")
    scheduler.handle(Absorbed("t", 1, "t1", {"u": "share-u"}))
    reported(scheduler, 1)
    closing = [one for one in scheduler.handle(SourceClosed("n", "end")) if isinstance(one, Consume)]
    assert [one.closing for one in closing] == [True]
    opened = scheduler.handle(Absorbed("t", 2, "t2", {}))
    assert set(dispatched(opened, "m")) == {"u"}
    assert dispatched(scheduler.handle(Decided("m", "u", Outcome(Status.ITEM, {"out": "m-u"}))), "b") == {}
    assert dispatched(reported(scheduler, 2), "b") == {"u": {"number": ("m-u",), "report": ("r2",), "total": ("t2",)}}
