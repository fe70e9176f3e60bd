"""Masking what should not be picked: carbon, crystalline ice, dirt, aggregates."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.micrograph.junk import JunkMap, map_junk_2d
from icestream.flow import Context, ItemError, step
from icestream.io.image import read_image
from icestream.io.picture import encode_picture
from icestream.io.preview import write_rgb
from icestream.records import JUNK_BITS, Acquisition, JunkClass, JunkMask, Method, Micrograph, Text

_TINTS: dict[JunkClass, tuple[float, float, float]] = {
    "carbon": (0.2, 0.5, 1.0),
    "crystalline_ice": (1.0, 0.85, 0.1),
    "dirt": (1.0, 0.25, 0.2),
    "aggregate": (1.0, 0.2, 1.0),
}
_TINT_SHARE = 0.35
_DIGITS = 4


@step.map(
    "mask_junk",
    version=1,
    reads=("pixel_size_ang", "dose_per_frame_e_per_ang2"),
    method=Method((Text("Carbon, crystalline ice, dirt and aggregates were masked."),), ()),
)
def mask_junk(micrograph: Micrograph, acquisition: Acquisition, ctx: Context) -> JunkMask:
    """Find carbon, crystalline ice, dirt and aggregates on a micrograph.

    What becomes of picks and particles there is decided by the steps that use the mask. The sum without dose weighting is used
    where there is one, for its Bragg spots. With a dose, dirt must take a part of the beam.

    Raises
    ------
    ItemError
        If the pixel size is unset, or the image is too small or shows nothing.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    ref = micrograph.unweighted or micrograph.image
    image = read_image(ctx.path(ref))  # (h, w)
    try:
        found = map_junk_2d(image, pixel_size_ang=pixel_ang, dose_e_per_ang2=micrograph.dose_e_per_ang2(acquisition))
    except ValueError as error:
        raise ItemError(f"{ref}: cannot be searched for junk: {error}") from error
    with ctx.publish("_junk.png") as labels:
        encode_picture(labels.path, found.labels)
    with ctx.publish("_junk_shown.png") as picture:
        write_rgb(picture.path, draw_junk(found))
    share = {kind: round(float(found.mask(kind).mean()), _DIGITS) for kind in JUNK_BITS}
    coarse = f"pixels of {pixel_ang:.3g} Å do not show the spots of crystalline ice at 3.9 Å"
    return JunkMask(
        labels=labels.ref,
        box_px=found.box_px,
        bin=micrograph.bin * found.box_px,
        height_px=image.shape[0],
        width_px=image.shape[1],
        carbon_share=share["carbon"],
        crystalline_ice_share=share["crystalline_ice"] if found.crystals_sought else None,
        dirt_share=share["dirt"],
        aggregate_share=share["aggregate"],
        any_share=round(float((found.labels > 0).mean()), _DIGITS),
        note=None if found.crystals_sought else coarse,
        picture=picture.ref,
    )


def draw_junk(found: JunkMap) -> NDArray[np.float64]:
    """Draw carbon in blue, crystals in yellow, dirt in red, aggregates in magenta: ``(h', w', 3)``, 0 to 1."""
    low, high = np.percentile(found.image, [1, 99])
    grey = np.clip((found.image - low) / max(float(high - low), 1e-12), 0, 1)
    drawn: NDArray[np.float64] = np.repeat(grey[..., None], 3, axis=2)  # (h', w', 3)
    for kind, tint in _TINTS.items():
        mask = found.mask(kind)
        drawn[mask] = (1 - _TINT_SHARE) * drawn[mask] + _TINT_SHARE * np.array(tint)
    return drawn
