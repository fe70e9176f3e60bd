"""Picks that are there twice, and picks that are in one set but not in another."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from icestream.algorithms.particles.consensus import thin_out
from icestream.flow import Field, step
from icestream.io.blocks import from_block
from icestream.io.picks import remove_picks
from icestream.records import Acquisition, Micrograph, Picks
from icestream.steps.picking.consensus import RadiusParams


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
    table = from_block(picks.block)
    kept = thin_out(_positions(picks), table["score"], min_distance_px=radius_px)
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
    mine = _positions(picks)
    others = np.concatenate([np.zeros((0, 2)), *(_positions(one) for one in without)])
    near = np.zeros(len(mine), dtype=bool)
    if len(mine) and len(others):
        near = cKDTree(others).query(mine, distance_upper_bound=np.nextafter(radius_px, np.inf))[0] <= radius_px
    return remove_picks(picks, {"in another set": near})


def _positions(picks: Picks) -> NDArray[np.float64]:
    table = from_block(picks.block)
    return np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64)
