"""Decisions that people make by hand: they take the place of what a step would say, and hold through re-runs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from icestream.flow.declaration.outcomes import Outcome, Status
from icestream.flow.declaration.step import Kind
from icestream.flow.scheduling.closing import reopen_below
from icestream.flow.scheduling.events import Overridden
from icestream.flow.scheduling.joins import passed_keys
from icestream.flow.scheduling.stage import Stage, Unit
from icestream.flow.workflow.graph import Node

if TYPE_CHECKING:
    from icestream.flow.scheduling.scheduler import Scheduler


@dataclass(frozen=True)
class Override:
    """Accept or reject a unit at a step, by hand."""

    accepted: bool
    author: str
    reason: str

    @property
    def sentence(self) -> str:
        """What people read as the reason of the outcome."""
        verb = "accepted" if self.accepted else "rejected"
        return f"{verb} by hand by {self.author}" + (f": {self.reason}" if self.reason else "")


Overrides = Mapping[tuple[str, str], Override]
"""``(unit, step) → decision``."""


def may_override(node: Node, *, accepted: bool) -> str | None:
    """Return why people cannot decide by hand at ``node``, or None if they can."""
    if node.type.kind in (Kind.COLLECT, Kind.ACCUMULATE):
        return f"{node.name} ({node.type.kind}) takes what it is given; decide at a step above it"
    if accepted and node.type.kind is Kind.MAP:
        return f"{node.name} ({node.type.kind}) has nothing to accept: it computes; accept at a filter, or retry what failed"
    return None


def decide_by_hand(node: Node, inputs: Mapping[str, tuple[str, ...]], weight: int, override: Override) -> Outcome | None:
    """Return the outcome that a hand-made decision gives, or None where the step is to decide after all."""
    if node.type.kind in (Kind.FILTER, Kind.GATE):
        status = Status.ITEM if override.accepted else Status.REJECTED
        passed = node.type.kind is Kind.FILTER or override.accepted
        keys = passed_keys(node, inputs, accepted=override.accepted) if passed else {"rejected": inputs["items"][0]}
        return Outcome(status, keys, weight, override.sentence)
    if not override.accepted:
        return Outcome(Status.REJECTED, reason=override.sentence, weight=0)
    return None


def decide_at_once(
    scheduler: "Scheduler", unit: Unit, stage: Stage, inputs: Mapping[str, tuple[str, ...]], weight: int
) -> Outcome | None:
    """Return what a person, or a gate's own rule for single exposures, says of a unit without any work; None if nothing."""
    override = scheduler.overrides.get((unit.id, stage.node.name))
    if override is not None:
        return decide_by_hand(stage.node, inputs, weight, override)
    verdict = None if stage.admit is None else stage.admit(unit.id)
    if verdict is None or verdict.accepted:
        return None
    return Outcome(Status.REJECTED, {"rejected": inputs["items"][0]}, weight, verdict.reason)


def source_outcome(outcome: Outcome, override: Override | None) -> Outcome:
    """Return what a source says of a unit when a hand-made decision is put on it, or taken off."""
    key = outcome.keys.get("out") or outcome.keys.get("rejected")
    if key is None:
        return outcome
    if override is not None and not override.accepted:
        return replace(outcome, status=Status.REJECTED, keys={"rejected": key}, reason=override.sentence)
    return replace(outcome, status=Status.ITEM, keys={"out": key}, reason=None)


def decide_anew(scheduler: "Scheduler", event: Overridden) -> None:
    """Decide a unit at a step again, because a hand-made decision was made or taken back."""
    unit = scheduler.units.get(event.unit)
    if unit is None:
        return
    node = scheduler.graph.nodes[event.step]
    known = unit.outcomes.get(node.name)
    reopen_below(scheduler, event.step, "something was decided by hand")
    if node.type.kind is Kind.SOURCE:
        if known is not None:
            _replace(scheduler, unit, node, source_outcome(known, scheduler.overrides.get((unit.id, node.name))))
        return
    if node.name in unit.running:
        unit.stale.add(node.name)  # what its worker says will be put aside, and the unit decided again
    scheduler.stages[node.name].drop(unit.id)
    if known is not None:
        scheduler.forget(unit, node)
    scheduler.decide(unit, node)
    scheduler.release(unit)


def _replace(scheduler: "Scheduler", unit: Unit, node: Node, outcome: Outcome) -> None:
    if outcome != unit.outcomes[node.name]:
        scheduler.forget(unit, node)
        scheduler.settle(unit, node, outcome)
