"""Picks that a person adds and removes on single micrographs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from icestream.errors import ItemError
from icestream.flow import Field, Params, step
from icestream.io.blocks import from_block
from icestream.io.picks import make_picks, parents_table, table_of_picks
from icestream.records import Picks
from icestream.units import Pixel


class EditPicksParams(Params):
    """What is added and removed: on every micrograph nothing, on single ones what `icestream picks` says."""

    add: list[tuple[Pixel, Pixel]] = Field(default_factory=list, description="Positions y, x of picks to add")
    remove: list[tuple[Pixel, Pixel]] = Field(default_factory=list, description="Positions y, x of picks to remove")
    within_px: Pixel = Field(
        20.0, gt=0, description="A pick is the one to remove if it is no further from that position than this"
    )


@step.map("edit_picks", version=1, memory_gb=0.1)
def edit_picks(picks: Picks, params: EditPicksParams) -> Picks:
    """Pass picks on, with what a person adds and without what a person removes.

    Removed is the pick nearest to each position, so the decision still means the same particle when the micrograph is picked
    again. Added picks get numbers after all others and the best score there is; kept picks keep theirs.

    Raises
    ------
    ItemError
        There is no pick near a position to remove.
    """
    table = from_block(picks.block)
    unwanted = np.zeros(len(table), dtype=bool)
    positions = np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64)
    for y_px, x_px in params.remove:
        distance, index = cKDTree(positions).query((y_px, x_px)) if len(table) else (np.inf, 0)
        if distance > params.within_px:
            raise ItemError(f"there is no pick within {params.within_px:g} px of y {y_px:g}, x {x_px:g} to remove")
        unwanted[int(index)] = True
    taken = [table["pid"], parents_table(picks)["pid"]]
    first = 1 + max((int(pid.max()) for pid in taken if len(pid)), default=-1)
    best = float(table["score"].max()) if len(table) else 0.0
    added = table_of_picks(
        np.array(params.add, dtype=np.float64).reshape(-1, 2),
        np.full(len(params.add), best),
        pid=np.arange(first, first + len(params.add)),
    )
    removed = np.concatenate([unwanted, np.zeros(len(added), dtype=bool)])
    return make_picks(
        np.concatenate([table, added]),
        diameter_ang=picks.diameter_ang,
        removed={"removed by hand": removed},
        pickers=picks.pickers,
        parents=parents_table(picks) if picks.parents is not None else None,
        consensus=picks.consensus,
    )


def more_edits(
    known: EditPicksParams, picks: NDArray[Any], *, add: Sequence[tuple[float, float]], remove: Sequence[int]
) -> EditPicksParams:
    """Add to what a person has decided about a micrograph.

    Parameters
    ----------
    picks
        The picks as they are after what was decided before: rows ``pid, y_px, x_px``.
    add, remove
        Positions y, x of new picks, and numbers of picks: one that was added by hand is forgotten, another is kept by its place.

    Raises
    ------
    ItemError
        There is no pick with such a number.
    """
    added = list(known.add)
    removed = list(known.remove)
    for pid in remove:
        row = picks[picks["pid"] == pid]
        if not len(row):
            raise ItemError(f"there is no pick {pid}; the numbers are in `icestream table --particles`")
        place = (float(row["y_px"][0]), float(row["x_px"][0]))
        by_hand = next((one for one in added if np.allclose(one, place, rtol=1e-6, atol=1e-3)), None)
        if by_hand is None:
            removed.append(place)
        else:
            added.remove(by_hand)
    return known.model_copy(update={"add": [*added, *add], "remove": removed})
