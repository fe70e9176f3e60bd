"""What accumulators and batches took long ago, compared with what the exposure has now: no item, or another result."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from icestream.flow.declaration.outcomes import Keys, Outcome
from icestream.flow.declaration.step import Kind
from icestream.flow.scheduling.instructions import MarkStale
from icestream.flow.scheduling.joins import Joined, first_weight, join_inputs, passed_keys
from icestream.flow.scheduling.stage import Stage, Unit
from icestream.flow.workflow.graph import Node

if TYPE_CHECKING:
    from icestream.flow.scheduling.scheduler import Scheduler

TAKEN = "taken."
"""An outcome of an accumulator names what it took under this and the name of the port."""


def note_taken(keys: Keys) -> dict[str, str]:
    """Return what the outcome of a member of an accumulator's log says of the results that were taken."""
    return {f"{TAKEN}{port}": key for port, key in keys.items()}


def leave_taken(scheduler: "Scheduler", unit: Unit, stage: Stage) -> None:
    """Leave a unit with a step that has taken it and takes nothing new, though its inputs have changed.

    A gate passes on what the unit has now. All others keep what they made of it, and it is noted: batches and accumulators until
    they are built anew, a halted step until it goes on.
    """
    if stage.node.type.kind is not Kind.GATE:
        note_frozen(scheduler, unit, stage)
        return
    joined, known = join_inputs(stage.node, unit.outcomes), unit.outcomes[stage.node.name]
    if joined is None or joined.outcome is not None:
        return
    keys = passed_keys(stage.node, joined.inputs, accepted=True)
    if keys != known.keys:
        scheduler.forget(unit, stage.node)
        scheduler.settle(unit, stage.node, replace(known, keys=keys, weight=first_weight(stage.node, unit.outcomes)))


def note_frozen(scheduler: "Scheduler", unit: Unit, stage: Stage) -> None:
    """Note whether what an accumulator or batch took long ago is still what the unit has there."""
    joined = join_inputs(stage.node, unit.outcomes)
    known = unit.outcomes.get(stage.node.name)
    if joined is None or known is None:
        return
    reason = _why_stale(stage.node, known, joined)
    if reason is None:
        if unit.id in stage.stale:
            stage.stale.discard(unit.id)
            scheduler.out.append(MarkStale(stage.node.name, unit.id, None))
    elif unit.id not in stage.stale:
        stage.stale.add(unit.id)
        scheduler.out.append(MarkStale(stage.node.name, unit.id, reason))


def _why_stale(node: Node, known: Outcome, joined: Joined) -> str | None:
    if joined.outcome is not None:
        return joined.outcome.reason or "is no item any more"
    if node.type.kind not in (Kind.COLLECT, Kind.ACCUMULATE):
        return "its input was decided again while it took nothing new"
    taken = _taken_by(node, known.keys)
    now = {port: keys[0] for port, keys in joined.inputs.items() if keys}
    changed = [port for port in taken if port in now and taken[port] != now[port]]
    return f"has another result now ({', '.join(changed)})" if changed else None


def _taken_by(node: Node, keys: Mapping[str, str]) -> dict[str, str]:
    """Return port → key of what was taken; nothing where an older version of icestream did not note it."""
    if node.type.kind is Kind.COLLECT:
        return {"items": keys["batch"]} if "batch" in keys else {}
    return {name.removeprefix(TAKEN): key for name, key in keys.items() if name.startswith(TAKEN)}
