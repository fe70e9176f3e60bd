"""Steps that start nothing until other streams have closed (``after`` in a workflow)."""

from typing import TYPE_CHECKING

from icestream.flow.scheduling import versions
from icestream.flow.scheduling.stage import Stage, Unit

if TYPE_CHECKING:
    from icestream.flow.scheduling.scheduler import Scheduler


def awaited_steps(scheduler: "Scheduler", stage: Stage) -> list[str]:
    """Return the steps whose streams must close before ``stage`` starts anything; what the store says of them counts."""
    return [step for step in stage.node.after if scheduler.stages[step].marked != "closed"]


def hold_back(scheduler: "Scheduler", unit: Unit, stage: Stage) -> bool:
    """Keep a unit waiting, if its step waits for other streams."""
    awaited = awaited_steps(scheduler, stage)
    if not awaited:
        return False
    stage.held[unit.id] = None
    stage.wait_reason = f"waits until {_listed(awaited)} closed"
    return True


def start_held(scheduler: "Scheduler", step: str) -> None:
    """Start what waited for the stream of ``step``, if it was the last one to wait for."""
    for name in scheduler.graph.followers(step):
        stage = scheduler.stages[name]
        if awaited_steps(scheduler, stage):
            continue
        held, stage.held = list(stage.held), {}
        if held:
            stage.wait_reason = ""
        for unit_id in held:
            if unit_id in scheduler.units:
                scheduler.decide(scheduler.units[unit_id], stage.node)
        versions.run_newest(scheduler, stage)


def _listed(steps: list[str]) -> str:
    return f"{steps[0]} has" if len(steps) == 1 else f"{', '.join(steps[:-1])} and {steps[-1]} have"
