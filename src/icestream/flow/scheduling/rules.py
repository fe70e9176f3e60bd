"""Events that mean the same for most kinds of step."""

from icestream.flow.declaration import Status
from icestream.flow.scheduling import event_types as events
from icestream.flow.scheduling.instruction_types import Drain, Resume
from icestream.flow.scheduling.retry import retry_delay_s
from icestream.flow.scheduling.stage import Core, Stage


def published(stage: Stage, core: Core, event: events.Published) -> None:
    """Take a version of a snapshot."""
    stage.publish(core, event.key, event.version)


def failed(stage: Stage, core: Core, event: events.Failed) -> None:
    """Take a bad end of an attempt: try again after a while, or give up."""
    if stage.disregards(core, event.unit):
        return
    counts = stage.failures.setdefault(event.unit, {})
    counts[event.kind] = counts.get(event.kind, 0) + 1
    delay_s = retry_delay_s(event.kind, counts[event.kind])
    if delay_s is not None:
        core.try_later(stage, event.unit, at_s=event.now_s + delay_s)
        return
    stage.failures.pop(event.unit, None)
    stage.give_up(core, event.unit, event.message)


def retried(stage: Stage, core: Core, event: events.Retried) -> None:
    """Forget that a unit failed (or was left out at a closing), and what was skipped below; decide it again."""
    unit = core.units.get(event.unit)
    outcome = unit.outcomes.get(stage.name) if unit else None
    if unit is None or outcome is None or outcome.status not in (Status.FAILED, Status.ABSENT, Status.SKIPPED):
        return
    stage.retake(unit)
    below = [one for one in core.below(stage) if one.node.domain == unit.domain and not one.node.publishes_only]
    for one in below:
        known = unit.outcomes.get(one.name)
        if known is not None and (one is stage or known.status is Status.SKIPPED):
            core.forget(unit, one)
            one.reopen(core, f"{stage.name} is decided again")
    for one in below:  # some were skipped for another reason and are reached only from here
        if one.name not in unit.outcomes:
            core.decide(unit, one)


def overridden(stage: Stage, core: Core, event: events.Overridden) -> None:
    """Decide a unit again, because a hand-made decision was made or taken back."""
    unit = core.units.get(event.unit)
    if unit is None:
        return
    reopen_below(stage, core, "an override was made or withdrawn")
    if stage.name in unit.running:
        unit.stale.add(stage.name)  # what its worker says will be put aside, and the unit decided again
    stage.drop(unit.id)
    if stage.name in unit.outcomes:
        core.forget(unit, stage)
    core.decide(unit, stage)
    core.release(unit)


def reopen_below(stage: Stage, core: Core, reason: str) -> None:
    """Open the streams again that are fed by a step where something is decided again."""
    for one in core.below(stage):
        if one.closed and not one.node.type.is_source:
            one.reopen(core, reason)


def drained(stage: Stage, core: Core, event: events.Drained) -> None:
    """Take nothing new."""
    if stage.drained:
        return
    stage.set_drained(event.why)
    core.emit(Drain(stage.name, event.why))
    stage.drop_all()
    core.leave_out(stage)


def resumed(stage: Stage, core: Core, _event: events.Resumed) -> None:
    """Go on; the stream, and those below, are open again. What was left out is decided when it is retried."""
    if not stage.drained:
        return
    stage.set_drained(None)
    core.emit(Resume(stage.name))
    for one in core.below(stage):
        one.closed = False
    stage.run_newest(core)
