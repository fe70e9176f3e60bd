"""Removing picks that do not look like the others of their micrograph."""

import numpy as np

from icestream.algorithms.particles.outliers import prepare_for_profiles_2d, radial_profiles_2d, score_profiles
from icestream.flow import Context, Field, ItemError, Params, step
from icestream.io.blocks import from_block
from icestream.io.image import read_image
from icestream.io.picks import remove_picks
from icestream.records import Acquisition, Micrograph, Picks

UNUSUAL = "unusual radial profile"


class ProfileOutliersParams(Params):
    """Which picks are trusted, and how unusual others may be."""

    trusted_fraction: float = Field(
        0.5, ge=0.1, le=1, description="Share of the picks, those with the best scores, that are trusted"
    )
    max_deviation: float = Field(
        4.0, gt=0, description="Largest distance from the trusted picks, in robust standard deviations of its logarithm"
    )
    min_picks: int = Field(40, ge=16, description="With fewer picks on a micrograph all are kept")
    radius_diameters: float = Field(0.75, ge=0.3, le=2, description="Radius of the profiles, in diameters")


@step.map("pick_outliers", version=1, reads=("pixel_size_ang",), memory_gb=1.0)
def remove_profile_outliers(
    micrograph: Micrograph, picks: Picks, params: ProfileOutliersParams, acquisition: Acquisition, ctx: Context
) -> Picks:
    """Remove picks whose radial profile is far from those of the better half, and keep them beside the others.

    Raises
    ------
    ItemError
        If the pixel size is unset, or the particle is smaller than 8 pixels.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    diameter_px = picks.diameter_ang / pixel_ang
    if diameter_px < 8:
        raise ItemError(f"a particle of {picks.diameter_ang:g} Å is {diameter_px:.1f} px wide; it must be at least 8 px")
    table = from_block(picks.block)
    if len(table) < params.min_picks:
        return remove_picks(picks, {UNUSUAL: np.zeros(len(table), bool)})
    image = read_image(ctx.path(micrograph.image))  # (h, w)
    flat, scale_yx = prepare_for_profiles_2d(image, diameter_px=diameter_px)
    yx_px = np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64) / scale_yx  # (n, 2)
    radius_px = params.radius_diameters * diameter_px / float(scale_yx.mean())
    profiles = radial_profiles_2d(flat, yx_px, radius_px=radius_px)  # (n, rings)
    trusted = np.zeros(len(table), bool)
    trusted[np.argsort(-table["score"], kind="stable")[: max(round(params.trusted_fraction * len(table)), 8)]] = True
    return remove_picks(picks, {UNUSUAL: score_profiles(profiles, trusted) > params.max_deviation})
