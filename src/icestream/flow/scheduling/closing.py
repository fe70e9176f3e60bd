"""Closing streams: a step closes when its inputs have closed and it has decided everything."""

from typing import TYPE_CHECKING

from icestream.flow.declaration.outcomes import Outcome, Status
from icestream.flow.declaration.step import Kind
from icestream.flow.scheduling import after, collecting, retry, versions
from icestream.flow.scheduling.stage import Stage

if TYPE_CHECKING:
    from icestream.flow.scheduling.scheduler import Scheduler


def reopen_below(scheduler: "Scheduler", step: str, reason: str) -> None:
    """Open the streams again of a step and of what is below it: something there is decided anew."""
    for name in scheduler.graph.descendants(step):
        stage = scheduler.stages[name]
        if stage.closed and stage.node.type.kind is not Kind.SOURCE:
            stage.closed = False
            scheduler.mark(stage, "open", reason)


def close_what_is_done(scheduler: "Scheduler") -> None:
    """Close every step that has nothing more to expect, inputs first; none closes while earlier exposures are still to come."""
    if scheduler.backlog:
        return
    for stage in scheduler.stages.values():
        if stage.closed:
            continue
        if stage.node.type.kind is Kind.SOURCE:
            if stage.halted:
                close_stage(scheduler, stage, stage.halted)
        elif stage.shut or _nothing_more_comes(scheduler, stage):
            _finish(scheduler, stage)


def _nothing_more_comes(scheduler: "Scheduler", stage: Stage) -> bool:
    """Tell whether all inputs have closed, or so many of one port that every later unit would be skipped."""
    closed = {step for step in scheduler.inputs_of(stage.node.name) if scheduler.stages[step].closed}
    if not closed:
        return False
    if closed == scheduler.inputs_of(stage.node.name):
        return True
    many = {port.name for port in stage.node.type.ports if port.many}
    for port, links in stage.node.item_links.items():
        needed = stage.node.min_inputs if port in many else 1
        if sum(link.step not in closed for link in links) < needed:
            return True
    return False


def close_stage(scheduler: "Scheduler", stage: Stage, reason: str) -> None:
    """Close one step; units that still wait for a version of it learn that none will come."""
    stage.closed = True
    if stage.marked != "closed":
        retry.alert_if_all_failed(scheduler, stage)
    scheduler.mark(stage, "closed", reason)
    versions.wake_waiting_for(scheduler, stage.node.name)
    after.start_held(scheduler, stage.node.name)


def _finish(scheduler: "Scheduler", stage: Stage) -> None:
    if stage.undecided > len(stage.waiting) or stage.entry is not None or stage.version_unit is not None:
        return
    if stage.node.type.kind is Kind.GATE and stage.waiting:
        if not _finish_gate(scheduler, stage):
            return
    elif stage.node.type.kind is Kind.COLLECT and stage.waiting:
        collecting.close_batch(scheduler, stage, remainder=True)
    elif stage.node.type.kind is Kind.ACCUMULATE and (stage.waiting or stage.owes_closing):
        collecting.consume(scheduler, stage, closing=len(stage.waiting) <= stage.portion)
        return
    close_stage(scheduler, stage, stage.shut or "its inputs closed and everything was decided")


def _finish_gate(scheduler: "Scheduler", stage: Stage) -> bool:
    """Ask a gate for the last time; False if it waits on, for a time or a person."""
    if collecting.judge(scheduler, stage, stream_closed=True):
        return True
    if stage.ask_at_s is not None:
        return False
    reason = f"the stream closed before the gate opened: {stage.wait_reason}"
    members, _ = stage.take()
    for unit_id, _ in members:
        scheduler.settle(scheduler.units[unit_id], stage.node, Outcome(Status.ABSENT, reason=reason, weight=0))
    return True
