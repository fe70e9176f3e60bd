"""Picks added and removed by hand: from what a person points at to the parameters that a micrograph has of its own."""

from collections.abc import Sequence
from typing import Any

from icestream.errors import SessionError
from icestream.flow.declaration import StepType
from icestream.observe.queries import SessionView
from icestream.steps.picking.editing import EditPicksParams, edit_picks, more_edits


def edits_picks(step_type: StepType) -> bool:
    """Tell whether a step adds and removes picks by hand."""
    return step_type.call is edit_picks


def plan_pick_edits(
    view: SessionView, step: str, exposure: str, *, add: Sequence[tuple[float, float]], remove: Sequence[int]
) -> tuple[str, dict[str, Any] | None]:
    """Return the id of an exposure and the parameters of its own that stand for all edits; None where none is left.

    ``add`` are positions y, x in pixels of the micrograph, ``remove`` numbers of picks as they are now.

    Raises
    ------
    SessionError
        The step edits no picks, or has none of this exposure.
    ItemError
        There is no pick with such a number.
    """
    nodes = view.session.graph().nodes
    if step not in nodes or not edits_picks(nodes[step].type):
        editing = [name for name, one in nodes.items() if edits_picks(one.type)]
        raise SessionError(f"{step!r} is no step of type edit_picks; those are: {', '.join(editing) or 'none in this workflow'}")
    (unit,) = view.choose([exposure])
    record = view.records_of(step, [unit]).get(unit)
    own = next((one.params for one in view.decisions([unit]) if one.step == step and one.params is not None), None)
    if record is None or record.block is None:
        raise SessionError(f"{step} has no picks of {exposure} (yet)")
    edits = more_edits(EditPicksParams.model_validate(own or {}), record.block, add=add, remove=remove)
    return unit, edits.model_dump(mode="json", exclude_defaults=True) or None
