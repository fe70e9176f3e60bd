"""Extracting particle images."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.fourier import Image, crop_fourier_2d
from icestream.algorithms.particles.extract import (
    cut_boxes_2d,
    flip_phases_2d,
    good_box_px,
    normalise_background_2d,
    remove_dust_2d,
    remove_ramp_2d,
)
from icestream.errors import ItemError
from icestream.flow import Context, Field, Params, step
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.image import read_image, write_mrc
from icestream.records import CTF_COLUMNS, Acquisition, CtfFit, CtfLocal, Micrograph, Particles, Picks
from icestream.steps.ctf.local import defocus_offset_ang
from icestream.units import Angstrom, WholePixels

_CTF_NAMES = tuple(column.name for column in CTF_COLUMNS)
_DEFOCUS_NAMES = _CTF_NAMES[:2]


class ExtractParams(Params):
    """How particle images are cut, scaled and normalised."""

    box_px: WholePixels | None = Field(
        None,
        ge=16,
        multiple_of=2,
        description="Side of the box in pixels of the micrograph; unset: `box_diameters` times the diameter",
    )
    box_diameters: float = Field(1.5, ge=1.1, le=4, description="Side of the box in particle diameters, where `box_px` is unset")
    at_border: Literal["leave_out", "pad"] = Field(
        "leave_out",
        description="What becomes of particles whose box leaves the micrograph: they are left out, or the box is filled with the "
        "nearest pixels, as RELION does",
    )
    scaled_box_px: WholePixels | None = Field(
        None, ge=16, multiple_of=2, description="Side of the box after Fourier cropping; unset: not cropped"
    )
    invert: bool = Field(True, description="Make dark protein bright")
    phase_flip: bool = Field(False, description="Correct the sign of the CTF; the micrograph needs a CTF")
    background_diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Pixels outside this circle are background; unset: 1.2 times the diameter, at most 0.9 of the box"
    )
    dust_level: float | None = Field(
        5.0, gt=1, description="Remove pixels this many standard deviations off the mean; unset: none"
    )
    stored_as: Literal["float32", "float16"] = Field(
        "float32", description="Number format of the stack; float16 halves the disk space"
    )


@step.map("extract", version=2, reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"), memory_gb=2.0)
def extract_particles(
    micrograph: Micrograph,
    picks: Picks,
    ctf: CtfFit | None,
    params: ExtractParams,
    acquisition: Acquisition,
    ctx: Context,
    *,
    local: CtfLocal | None = None,
) -> Particles:
    """Cut particles out of the micrograph, bright and normalised.

    With `local`, each particle has the defocus of its place; phases are flipped with the CTF of the whole micrograph. Boxes sit
    on whole pixels: ``y_px``, ``x_px`` are the true centres of the boxes, up to half a pixel off the picks. Particles whose box
    leaves the micrograph are left out and counted, or padded; all others keep their ``pid``.

    Raises
    ------
    ItemError
        If an acquisition value or the CTF is needed and unset, or the box is larger than the micrograph or does not fit the
        particle.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    box_px = params.box_px or good_box_px(params.box_diameters * picks.diameter_ang / pixel_ang)
    scaled_px = params.scaled_box_px or box_px
    if scaled_px > box_px:
        raise ItemError(f"scaled_box_px {scaled_px} is larger than the box of {box_px} px; it must be at most {box_px}")
    if box_px > min(micrograph.height_px, micrograph.width_px):
        raise ItemError(
            f"a box of {box_px} px does not fit into the micrograph of {micrograph.height_px} x {micrograph.width_px} px; "
            "it must be smaller than the shorter side"
        )
    picked = from_block(picks.block)
    image = _prepare_image(micrograph, ctf, params, acquisition, ctx, margin_px=box_px)
    positions = np.stack([picked["y_px"], picked["x_px"]], axis=1)  # (n, 2)
    boxes = cut_boxes_2d(image, positions, box_px=box_px, pad=params.at_border == "pad")
    table = _table(picked[boxes.kept], boxes.centre_yx_px, ctf, local)
    stack = None
    if len(table):
        radius_px = _background_radius_px(params, picks.diameter_ang, box_ang=box_px * pixel_ang) * scaled_px
        images = _treat(boxes.images, params, scaled_px=scaled_px, radius_px=radius_px)
        with ctx.publish("_particles.mrcs") as out:
            write_mrc(out.path, images, pixel_size_ang=pixel_ang * box_px / scaled_px, dtype=params.stored_as)
        stack = out.ref
    return Particles(
        stack=stack,
        count=len(table),
        n_left_out=len(picked) - len(table),
        n_padded=boxes.n_padded,
        box_px=scaled_px,
        bin=micrograph.bin * box_px / scaled_px,
        inverted=params.invert,
        phase_flipped=params.phase_flip,
        micrograph=micrograph.image,
        block=to_block(table),
    )


def _prepare_image(
    micrograph: Micrograph, ctf: CtfFit | None, params: ExtractParams, acquisition: Acquisition, ctx: Context, *, margin_px: int
) -> Image:
    image = read_image(ctx.path(micrograph.image))  # (h, w)
    if not params.phase_flip:
        return image
    if ctf is None:
        raise ItemError("phase_flip needs a CTF: connect one, or turn phase_flip off")
    return flip_phases_2d(
        image - np.float32(image.mean()),
        margin_px=margin_px,
        pixel_size_ang=acquisition.need("pixel_size_ang") * micrograph.bin,
        voltage_kv=acquisition.need("voltage_kv"),
        cs_mm=acquisition.need("cs_mm"),
        amplitude_contrast=acquisition.need("amplitude_contrast"),
        **{name: getattr(ctf, name) for name in _CTF_NAMES},
    )


def _background_radius_px(params: ExtractParams, diameter_ang: float, *, box_ang: float) -> float:
    """Return the radius of the particle's circle as a fraction of the box."""
    if params.background_diameter_ang is None:
        return 0.5 * min(1.2 * diameter_ang / box_ang, 0.9)
    if params.background_diameter_ang > box_ang:
        raise ItemError(f"background_diameter_ang {params.background_diameter_ang:g} is larger than the box of {box_ang:g} Å")
    return 0.5 * params.background_diameter_ang / box_ang


def _treat(boxes: Image, params: ExtractParams, *, scaled_px: int, radius_px: float) -> Image:
    """Clean, scale, invert and normalise ``(n, box, box)``; returns ``(n, scaled, scaled)``."""
    if params.dust_level is not None:
        boxes = remove_dust_2d(boxes, level=params.dust_level)
    if scaled_px != boxes.shape[-1]:
        boxes = crop_fourier_2d(boxes, new_shape=(scaled_px, scaled_px))  # (n, scaled, scaled)
    if params.invert:
        boxes = -boxes
    return normalise_background_2d(remove_ramp_2d(boxes, radius_px=radius_px), radius_px=radius_px)


def _table(picked: NDArray[Any], centre: NDArray[np.int64], ctf: CtfFit | None, local: CtfLocal | None) -> NDArray[Any]:
    table = np.zeros(len(picked), dtype=dtype_of(Particles.block_columns))
    table["pid"], table["score"] = picked["pid"], picked["score"]
    table["y_px"], table["x_px"] = centre[:, 0], centre[:, 1]
    table["slice"] = np.arange(len(picked))
    for name in _CTF_NAMES:
        table[name] = np.nan if ctf is None else getattr(ctf, name)
    if local is not None:
        if ctf is None:
            raise ItemError("local defocus is a difference to that of the CTF: connect the CTF too")
        offset_ang = defocus_offset_ang(local, centre.astype(np.float64))
        for name in _DEFOCUS_NAMES:
            table[name] = getattr(ctf, name) + offset_ang
    return table
