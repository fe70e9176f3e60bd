"""Removing picks, or particles, that are on or close to junk or the border of the micrograph."""

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.micrograph.junk import distance_to_mask_px
from icestream.flow import Angstrom, Context, Field, Params, step
from icestream.io.blocks import from_block
from icestream.io.image import read_image
from icestream.io.particles import particles_table, remove_particles
from icestream.io.picks import remove_picks
from icestream.records import JUNK_BITS, Acquisition, JunkClass, JunkMask, Particles, Picks

REASONS: dict[JunkClass, str] = {
    "carbon": "on carbon",
    "crystalline_ice": "in crystalline ice",
    "dirt": "on dirt",
    "aggregate": "in an aggregate",
}
AT_BORDER = "at the border"


class MaskFilterParams(Params):
    """Which junk counts, and how far from it a particle must be."""

    ignore: tuple[JunkClass, ...] = Field((), description=f"Junk that removes nothing, of {', '.join(get_args(JunkClass))}")
    carbon_ang: Angstrom | None = Field(
        None, ge=0, description="Least distance of a centre from carbon; unset: half the diameter of the particle"
    )
    crystalline_ice_ang: Angstrom = Field(0.0, ge=0, description="Least distance from crystalline ice; 0: no centre in it")
    dirt_ang: Angstrom | None = Field(None, ge=0, description="Least distance from dirt; unset: half the diameter")
    aggregate_ang: Angstrom | None = Field(None, ge=0, description="Least distance from an aggregate; unset: half the diameter")
    border_ang: Angstrom = Field(0.0, ge=0, description="Least distance from the border of the micrograph; 0: any")


@step.map("mask_picks", version=1, reads=("pixel_size_ang",), memory_gb=0.3)
def mask_picks(picks: Picks, mask: JunkMask, params: MaskFilterParams, acquisition: Acquisition, ctx: Context) -> Picks:
    """Remove picks that are on junk or too close to it, or to the border, and keep them with their reason beside the others.

    A pick that several reasons remove has the first of carbon, crystalline ice, dirt, aggregate, border.

    Raises
    ------
    ItemError
        If the pixel size is unset.
    """
    table = from_block(picks.block)
    return remove_picks(picks, _removed(table, mask, params, acquisition, ctx, diameter_ang=picks.diameter_ang))


@step.map("mask_particles", version=1, reads=("pixel_size_ang",), memory_gb=0.3)
def mask_particles(
    particles: Particles, mask: JunkMask, params: MaskFilterParams, acquisition: Acquisition, ctx: Context
) -> Particles:
    """Remove particles that are on junk or too close to it, or to the border; the mask is that of their micrograph.

    Where the particles do not say their diameter, distances that are unset are 0.

    Raises
    ------
    ItemError
        If the pixel size is unset.
    """
    table = particles_table(particles)
    diameter_ang = particles.diameter_ang or 0.0
    return remove_particles(particles, _removed(table, mask, params, acquisition, ctx, diameter_ang=diameter_ang))


def _removed(
    table: NDArray[Any], mask: JunkMask, params: MaskFilterParams, acquisition: Acquisition, ctx: Context, *, diameter_ang: float
) -> dict[str, NDArray[np.bool_]]:
    """Return which rows ``(n,)`` each reason removes."""
    pixel_ang = acquisition.need("pixel_size_ang") * mask.bin / mask.box_px
    yx_px = np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64)  # (n, 2)
    labels = read_image(ctx.path(mask.labels)).astype(np.uint8)  # (h', w')
    removed = {}
    for kind, bit in JUNK_BITS.items():
        if kind in params.ignore:
            continue
        asked: float | None = getattr(params, f"{kind}_ang")
        least_px = (diameter_ang / 2 if asked is None else asked) / pixel_ang
        distance = distance_to_mask_px((labels & bit) > 0, yx_px, box_px=mask.box_px)
        removed[REASONS[kind]] = (distance <= 0) | (distance < least_px)
    if params.border_ang > 0:
        last = np.array([mask.height_px, mask.width_px]) - 1
        removed[AT_BORDER] = np.minimum(yx_px, last - yx_px).min(axis=1, initial=np.inf) < params.border_ang / pixel_ang
    return removed
