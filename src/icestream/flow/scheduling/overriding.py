"""Overrides: decisions made by hand take precedence over those of a step, and persist through re-runs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from icestream.flow.declaration import Outcome, Status
from icestream.flow.scheduling.joins import passed_keys
from icestream.flow.workflow import Node


@dataclass(frozen=True)
class ManualVerdict:
    """Accept or reject a unit at a step, by hand."""

    accepted: bool
    author: str
    reason: str

    @property
    def sentence(self) -> str:
        """What people read as the reason of the outcome."""
        verb = "accepted" if self.accepted else "rejected"
        return f"{verb} by hand by {self.author}" + (f": {self.reason}" if self.reason else "")


Overrides = Mapping[tuple[str, str], ManualVerdict]
"""``(unit, step) → decision``."""


def may_override(node: Node, *, accepted: bool) -> str | None:
    """Return why people cannot decide by hand at ``node``, or None if they can."""
    if node.type.takes_many:
        return f"{node.name} ({node.type.kind}) takes whatever it is given; accept or reject at a step upstream of it"
    if accepted and node.type.computes:
        return f"{node.name} ({node.type.kind}) computes, so there is nothing to accept; accept at a filter, or retry what failed"
    return None


def decide_by_hand(node: Node, inputs: Mapping[str, tuple[str, ...]], weight: int, override: ManualVerdict) -> Outcome | None:
    """Return the outcome that a hand-made decision gives, or None where the step is to decide after all."""
    if node.type.decides_membership:
        status = Status.ITEM if override.accepted else Status.REJECTED
        passed = node.type.is_filter or override.accepted
        keys = passed_keys(node, inputs, accepted=override.accepted) if passed else {"rejected": inputs["items"][0]}
        return Outcome(status, keys, weight, override.sentence)
    if not override.accepted:
        return Outcome(Status.REJECTED, reason=override.sentence, weight=0)
    return None


def source_outcome(outcome: Outcome, override: ManualVerdict | None, *, error: str | None = None) -> Outcome:
    """Return what a source says of a unit when a hand-made decision is put on it, or taken off.

    What arrived broken, for the reason ``error``, can be set aside; it cannot be accepted.
    """
    key = outcome.keys.get("out") or outcome.keys.get("rejected")
    if key is None:
        if override is not None and not override.accepted:
            return replace(outcome, status=Status.REJECTED, reason=override.sentence)
        return outcome if outcome.status is Status.FAILED else replace(outcome, status=Status.FAILED, reason=error)
    if override is not None and not override.accepted:
        return replace(outcome, status=Status.REJECTED, keys={"rejected": key}, reason=override.sentence)
    return replace(outcome, status=Status.ITEM, keys={"out": key}, reason=None)
