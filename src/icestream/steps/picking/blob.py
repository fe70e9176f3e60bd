"""Picking particles without a template."""

import numpy as np

from icestream.algorithms.particles.pick_blob import pick_particles_2d
from icestream.flow import Angstrom, Context, Field, ItemError, Params, before, step
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import read_image
from icestream.records import ROSEMAN_2003, VOSS_2009, ZIVANOV_2018, Acquisition, Method, Micrograph, ParticleSize, Picks, Text
from icestream.steps.picking.size import searched_diameters_ang

_RANGE_OF_SIZE = (0.85, 1.12)


class PickBlobParams(Params):
    """What the particles look like and how many of the peaks are taken."""

    diameter_ang: tuple[Angstrom, Angstrom] | None = Field(
        None,
        description="Smallest and largest diameter of the particle; unset: 0.85 to 1.12 times that of the input `size`",
        json_schema_extra={"unit": "Å"},
    )
    dark: bool = Field(True, description="Protein is darker than the ice, as in micrographs")
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Lowest correlation of a pick with the learnt template; unset: decided for each micrograph",
    )
    false_fraction: float = Field(0.05, gt=0, lt=1, description="Accepted fraction of false picks, where the threshold is unset")
    max_picks: int | None = Field(None, ge=1, description="Keep at most this many, those with the best scores; unset: all")
    min_distance_ang: Angstrom | None = Field(
        None, gt=0, description="Smallest distance of two picks; unset: 0.7 times the middle diameter"
    )
    centre: bool = Field(True, description="Move the picks to the middle of their particles", json_schema_extra=before(2, False))


@step.map(
    "pick_blob",
    version=2,
    reads=("pixel_size_ang",),
    memory_gb=2.0,
    method=Method(
        (Text("Particles were picked as blobs and, with an average learnt from each micrograph, by fast local correlation."),),
        (
            ZIVANOV_2018,
            VOSS_2009,
            ROSEMAN_2003,
        ),
    ),
)
def pick_blobs(
    micrograph: Micrograph, params: PickBlobParams, acquisition: Acquisition, ctx: Context, *, size: ParticleSize | None = None
) -> Picks:
    """Find particles of a given size, learning from the micrograph itself what they look like.

    Picks are numbered from the best score down; ``pid`` stays with a particle for good.

    Raises
    ------
    ItemError
        If the pixel size is unset, there is no diameter, the diameters are no range, or the particles are too small or too large
        for the image.
    """
    pixel_size_ang = acquisition.need("pixel_size_ang")
    smallest_ang, largest_ang = searched_diameters_ang(params.diameter_ang, size, range_of_size=_RANGE_OF_SIZE)
    pixel_ang = pixel_size_ang * micrograph.bin
    diameter_ang = float(np.sqrt(smallest_ang * largest_ang))
    image = read_image(ctx.path(micrograph.image))  # (h, w)
    smallest_px, largest_px = smallest_ang / pixel_ang, largest_ang / pixel_ang
    if smallest_px < 8 or largest_px > 0.5 * min(image.shape):
        raise ItemError(
            f"particles of {smallest_ang:g} to {largest_ang:g} Å are {smallest_px:.1f} to {largest_px:.1f} px in an image of "
            f"{image.shape[0]} x {image.shape[1]} px; they must be 8 px to half the image"
        )
    found = pick_particles_2d(
        -image if params.dark else image,
        diameter_px=(smallest_px, largest_px),
        min_distance_px=(params.min_distance_ang or 0.7 * diameter_ang) / pixel_ang,
        threshold=params.threshold,
        false_discovery_rate=params.false_fraction,
        centre=params.centre,
    )
    count = len(found.score) if params.max_picks is None else min(len(found.score), params.max_picks)
    table = np.zeros(count, dtype=dtype_of(Picks.block_columns))
    table["pid"] = np.arange(count)
    table["y_px"], table["x_px"], table["score"] = found.yx_px[:count, 0], found.yx_px[:count, 1], found.score[:count]
    return Picks(count=count, diameter_ang=diameter_ang, block=to_block(table))
