"""Picks without those that are there twice, are in another set, or a person removes; and what was removed, as a stream."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from icestream.algorithms.particles.consensus import thin_out
from icestream.flow import Field, ItemError, Params, step
from icestream.io.picks import (
    make_picks,
    picks_table,
    positions_of,
    read_table,
    remove_picks,
    removed_table,
    table_of_picks,
    with_table,
)
from icestream.records import Acquisition, Micrograph, Picks
from icestream.steps.picking.consensus import RadiusParams

_MOST_PX = 2**15


class RemoveDuplicatesParams(RadiusParams):
    """How near two picks may be."""

    radius_diameters: float = Field(
        0.6, gt=0, le=1, description="Of picks nearer than this part of the diameter the best is kept"
    )


@step.map("remove_duplicates", version=1, reads=("pixel_size_ang",), memory_gb=0.1)
def remove_duplicates(micrograph: Micrograph, picks: Picks, params: RemoveDuplicatesParams, acquisition: Acquisition) -> Picks:
    """Keep the best of picks that are too near to each other; all that are kept keep their numbers.

    Raises
    ------
    ItemError
        The radius needs the pixel size, which is unset.
    """
    radius_px = params.in_pixels(micrograph, acquisition, diameter_ang=picks.diameter_ang)
    table = picks_table(picks)
    kept = thin_out(positions_of(picks), table["score"], min_distance_px=radius_px)
    return remove_picks(picks, {"duplicate": ~kept})


class PickDifferenceParams(RadiusParams):
    """How near picks are that are the same."""


@step.map("pick_difference", version=1, reads=("pixel_size_ang",), memory_gb=0.1)
def subtract_picks(
    micrograph: Micrograph, picks: Picks, without: list[Picks], params: PickDifferenceParams, acquisition: Acquisition
) -> Picks:
    """Keep the picks that are in none of the other sets: those within the radius of a pick there are removed.

    Raises
    ------
    ItemError
        The radius needs the pixel size, which is unset.
    """
    radius_px = params.in_pixels(micrograph, acquisition, diameter_ang=picks.diameter_ang)
    mine = positions_of(picks)
    others = np.concatenate([np.zeros((0, 2)), *(positions_of(one) for one in without)])
    near = np.zeros(len(mine), dtype=bool)
    if len(mine) and len(others):
        near = cKDTree(others).query(mine, distance_upper_bound=np.nextafter(radius_px, np.inf))[0] <= radius_px
    return remove_picks(picks, {"in another set": near})


class RejectedPicksParams(Params):
    """Which of them are wanted."""

    reasons: list[str] = Field(
        default_factory=list, description="Only those removed for one of these reasons, in the words of the step; empty: all"
    )


@step.map("rejected_picks", version=1, memory_gb=0.1)
def take_rejected_picks(picks: Picks, params: RejectedPicksParams) -> Picks:
    """Take the picks that a step removed: masks, borders, duplicates, outliers or a consensus.

    They keep the numbers that they had, so what is made of them says which picks it is of. A step that
    removes nothing gives none.

    Raises
    ------
    ItemError
        The step gives reasons, but not all that are asked for.
    """
    table = removed_table(picks)
    words = [one.reason for one in picks.removed]
    unknown = [reason for reason in params.reasons if reason not in words]
    if unknown and words:
        raise ItemError(f"no picks can be removed for the reason {unknown[0]!r}; the step gives: {', '.join(words)}")
    if params.reasons:
        wanted = [number for number, word in enumerate(words) if word in params.reasons]
        table = table[[code in wanted for code in table["reason"].tolist()]]
    return make_picks(table, diameter_ang=picks.diameter_ang).model_copy(update={"picks_key": picks.numbered_by})


class EditPicksParams(Params):
    """What is added and removed: on every micrograph nothing, on single ones what `icestream picks` says."""

    add: list[tuple[float, float]] = Field(
        default_factory=list, description="Positions y, x of picks to add, in pixels of the micrograph"
    )
    remove: list[tuple[float, float]] = Field(default_factory=list, description="Positions y, x of picks to remove, as above")
    within_px: float = Field(
        20.0,
        gt=0,
        description="A pick is the one to remove if it is no further from that position than this",
        json_schema_extra={"unit": "px"},
    )


@step.map("edit_picks", version=1, memory_gb=0.1)
def edit_picks(picks: Picks, params: EditPicksParams) -> Picks:
    """Pass picks on, with what a person adds and without what a person removes.

    Removed is the pick nearest to each position, so the decision still means the same particle when the micrograph is picked
    again; where none is near, there is nothing to remove. Added picks get the best score there is, and a number of their place
    (`number_of_place`), which no other edit changes; kept picks keep theirs.

    Raises
    ------
    ItemError
        A pick is added far outside of any micrograph.
    """
    table = picks_table(picks)
    unwanted = np.zeros(len(table), dtype=bool)
    positions = positions_of(picks)
    for y_px, x_px in params.remove:
        distance, index = cKDTree(positions).query((y_px, x_px)) if len(table) else (np.inf, 0)
        if distance <= params.within_px:
            unwanted[int(index)] = True
    taken = set(table["pid"].tolist())
    new = {pid: place for place in params.add if (pid := number_of_place(place)) not in taken}
    best = float(table["score"].max()) if len(table) else 0.0
    places, pids = np.array([*new.values()], dtype=np.float64).reshape(-1, 2), np.array([*new], dtype=np.int64)
    added = table_of_picks(places, np.full(len(new), best), pid=pids)
    removed = np.concatenate([unwanted, np.zeros(len(added), dtype=bool)])
    return remove_picks(with_table(picks, np.concatenate([table, added])), {"removed by hand": removed})


def number_of_place(place: tuple[float, float]) -> int:
    """Return the number of a pick that is added at ``(y, x)``: beyond those that pickers give, and one for each whole pixel.

    Raises
    ------
    ItemError
        A coordinate is negative, or 32,768 pixels or more.
    """
    y, x = (round(one) for one in place)
    if not (0 <= y < _MOST_PX and 0 <= x < _MOST_PX):
        raise ItemError(f"a pick cannot be added at {place[0]:g}, {place[1]:g}; positions are from 0 to {_MOST_PX - 1} px")
    return _MOST_PX**2 + _MOST_PX * y + x


def more_edits(
    known: EditPicksParams, block: bytes, *, add: Sequence[tuple[float, float]], remove: Sequence[int]
) -> EditPicksParams:
    """Add to what a person has decided about a micrograph.

    Parameters
    ----------
    block
        The table of the picks as they are after what was decided before.
    add, remove
        Positions y, x of new picks, and numbers of picks: one that was added by hand is forgotten, another is kept by its place.

    Raises
    ------
    ItemError
        There is no pick with such a number, or one is added far outside of any micrograph.
    """
    for one in add:
        number_of_place(one)
    added, removed, picks = list(known.add), list(known.remove), read_table(block)
    for pid in remove:
        row = picks[picks["pid"] == pid]
        if not len(row):
            raise ItemError(f"there is no pick {pid}; the numbers are in `icestream table --particles`")
        by_hand = [one for one in added if number_of_place(one) == pid]
        if not by_hand:
            removed.append((float(row["y_px"][0]), float(row["x_px"][0])))
        added = [one for one in added if one not in by_hand]
    return known.model_copy(update={"add": [*added, *add], "remove": removed})
