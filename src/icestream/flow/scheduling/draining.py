"""Halts: a step that takes nothing new, because a person or a gate said so, and its going on.

What has not begun at a halted step is absent there, what runs finishes, what a batch or an accumulator has taken is still brought
to its end; then the stream closes, and with it the streams below. A halted source is told to stop.
"""

from typing import TYPE_CHECKING

from icestream.flow.declaration.step import Kind
from icestream.flow.scheduling import versions
from icestream.flow.scheduling.events import Halted, Lifted, Withdrawn
from icestream.flow.scheduling.instructions import Halt
from icestream.flow.scheduling.stage import Stage

if TYPE_CHECKING:
    from icestream.flow.scheduling.scheduler import Scheduler

HALTED, LIFTED = "halted", "lifted"


def take(scheduler: "Scheduler", event: Halted | Lifted | Withdrawn) -> None:
    """Take an event about a halt."""
    match event:
        case Halted():
            halt_step(scheduler, event.step, event.reason)
        case Lifted():
            lift_halt(scheduler, event.step)
        case Withdrawn():
            withdraw(scheduler, event)


def halt_step(scheduler: "Scheduler", step: str, reason: str) -> None:
    """Let ``step`` take nothing new; ``reason`` says who halted it and why."""
    stage = scheduler.stages[step]
    if stage.halted:
        return
    set_halted(stage, reason)
    scheduler.out.append(Halt(step, HALTED, reason))
    if stage.node.type.kind is Kind.GATE:
        stage.take()
    leave_out(scheduler, stage)


def lift_halt(scheduler: "Scheduler", step: str) -> None:
    """Let ``step`` go on; its stream, and those below, are open again. What it left out is decided when it is retried."""
    stage = scheduler.stages[step]
    if not stage.halted:
        return
    stage.halted = stage.wait_reason = ""
    scheduler.out.append(Halt(step, LIFTED, "it goes on"))
    for name in scheduler.graph.descendants(step):
        scheduler.stages[name].closed = False
    versions.run_newest(scheduler, stage)


def set_halted(stage: Stage, reason: str) -> None:
    """Note that a step is halted."""
    stage.halted = f"{stage.node.name} was halted: {reason}"
    stage.wait_reason = f"halted: {reason}"


def leave_out(scheduler: "Scheduler", stage: Stage) -> None:
    """Decide, at a step that takes nothing new, every unit that has not begun there: it is absent."""
    for unit in list(scheduler.units.values()):
        if unit.id in scheduler.units and unit.domain == stage.node.domain and stage.node.name not in unit.outcomes:
            scheduler.decide(unit, stage.node)


def withdraw(scheduler: "Scheduler", event: Withdrawn) -> None:
    """Take back a unit whose task had not begun."""
    unit, stage = scheduler.units.get(event.unit), scheduler.stages[event.step]
    if unit is None or event.step not in unit.running:
        return
    unit.running.discard(event.step)
    scheduler.decide(unit, stage.node)
    versions.finish_version(scheduler, stage, event.unit)
