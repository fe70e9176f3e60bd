"""Picking particles without a template."""

import numpy as np

from icestream.algorithms.fourier import Image
from icestream.algorithms.matched_picker.pick import Blobs, pick_particles_2d
from icestream.algorithms.micrograph.bragg import find_bragg_spots_2d
from icestream.flow import Angstrom, Context, Field, ItemError, Params, step
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import read_image
from icestream.records import ROSEMAN_2003, VOSS_2009, ZIVANOV_2018, Acquisition, Method, Micrograph, ParticleSize, Picks, Text
from icestream.steps.picking.size import searched_diameters_ang

_TILE_PX, _MOST_TILES = 256, 5
_CRYSTALLINE_SHARE = 0.3


class PickMatchedParams(Params):
    """How large the particles are and how many of the peaks are taken."""

    diameter_ang: tuple[Angstrom, Angstrom] | None = Field(
        None,
        description="Smallest and largest diameter of the particle, which may be off by 40 %; unset: that of the input `size`",
        json_schema_extra={"unit": "Å"},
    )
    dark: bool = Field(True, description="Protein is darker than the ice, as in micrographs")
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Lowest score of a pick, the probability that it is a particle; unset: decided for each micrograph",
    )
    false_fraction: float = Field(0.05, gt=0, lt=1, description="Accepted fraction of false picks, where the threshold is unset")
    max_picks: int | None = Field(None, ge=1, description="Keep at most this many, those with the best scores; unset: all")
    min_distance_ang: Angstrom | None = Field(
        None, gt=0, description="Smallest distance of two picks; unset: 0.55 times the diameter that is found"
    )
    centre: bool = Field(True, description="Move the picks to the middle of their particles")
    skip_crystals: bool = Field(
        True,
        description="Pick nothing where a third of the micrograph shows spots of crystalline ice (needs pixels below 1.9 Å)",
    )


@step.map(
    "pick_matched",
    version=2,
    reads=("pixel_size_ang",),
    memory_gb=2.0,
    method=Method(
        (Text("Particles were picked with round templates learnt from each micrograph."),),
        (
            ZIVANOV_2018,
            VOSS_2009,
            ROSEMAN_2003,
        ),
    ),
)
def pick_matched(
    micrograph: Micrograph, params: PickMatchedParams, acquisition: Acquisition, ctx: Context, *, size: ParticleSize | None = None
) -> Picks:
    """Find particles, learning from the micrograph itself how large they are and what they look like.

    The search begins with the diameter given, or with that of `size`. The score is the probability that a pick is a particle,
    judged by decoys; picks are numbered from the highest response down, and ``pid`` stays with a particle for good. A micrograph
    on which particles cannot be told from noise, drift or crystals has no picks, and says so.

    Raises
    ------
    ItemError
        If the pixel size is unset, there is no diameter, the diameters are no range, or the particles are too small or too large
        for the image.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    smallest_ang, largest_ang = searched_diameters_ang(params.diameter_ang, size)
    image = read_image(ctx.path(micrograph.image))  # (h, w)
    smallest_px, largest_px = smallest_ang / pixel_ang, largest_ang / pixel_ang
    if smallest_px < 8 or largest_px > 0.5 * min(image.shape):
        raise ItemError(
            f"particles of {smallest_ang:g} to {largest_ang:g} Å are {smallest_px:.1f} to {largest_px:.1f} px in an image of "
            f"{image.shape[0]} x {image.shape[1]} px; they must be 8 px to half the image"
        )
    diameter_ang = float(np.sqrt(smallest_ang * largest_ang))
    if params.skip_crystals and is_crystalline(image, pixel_ang=pixel_ang):
        empty = to_block(np.zeros(0, dtype=dtype_of(Picks.block_columns)))
        return Picks(count=0, diameter_ang=diameter_ang, block=empty, no_picks="crystalline ice")
    found = pick_particles_2d(
        -image if params.dark else image,
        diameter_px=(smallest_px, largest_px),
        min_distance_px=None if params.min_distance_ang is None else params.min_distance_ang / pixel_ang,
        threshold=params.threshold,
        false_discovery_rate=params.false_fraction,
        centre=params.centre,
    )
    return _record(found, params, diameter_ang=diameter_ang, pixel_ang=pixel_ang)


def is_crystalline(image: Image, *, pixel_ang: float) -> bool:
    """Tell whether a third of at most 25 tiles that lie evenly over the micrograph ``(h, w)`` have spots of crystalline ice."""
    count_y, count_x = (min(side // _TILE_PX, _MOST_TILES) for side in image.shape)
    if min(count_y, count_x) == 0:
        tiles = image
    else:
        starts = [
            np.linspace(0, side - _TILE_PX, count).astype(int)
            for side, count in zip(image.shape, (count_y, count_x), strict=True)
        ]
        tiles = np.block([[image[y : y + _TILE_PX, x : x + _TILE_PX] for x in starts[1]] for y in starts[0]])
    spots = find_bragg_spots_2d(tiles, pixel_size_ang=pixel_ang)
    return spots is not None and spots.share >= _CRYSTALLINE_SHARE


def _record(found: Blobs, params: PickMatchedParams, *, diameter_ang: float, pixel_ang: float) -> Picks:
    count = len(found.score) if params.max_picks is None else min(len(found.score), params.max_picks)
    table = np.zeros(count, dtype=dtype_of(Picks.block_columns))
    table["pid"] = np.arange(count)
    table["y_px"], table["x_px"], table["score"] = found.yx_px[:count, 0], found.yx_px[:count, 1], found.score[:count]
    return Picks(
        count=count,
        diameter_ang=diameter_ang,
        block=to_block(table),
        threshold=round(found.threshold, 3) if count else None,
        expected_false=round(found.false_share, 4) if count else None,
        found_diameter_ang=round(found.diameter_px * pixel_ang, 1) if count else None,
        no_picks=found.nothing if not count else None,
    )
