"""Extracting particle images from picks."""

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from icestream.algorithms.particles.extract import delocalisation_ang, good_box_px, place_boxes
from icestream.flow import Angstrom, Context, Field, ItemError, Params, WholePixels, step
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.image import read_image, write_mrc
from icestream.records import Acquisition, CtfFit, CtfLocal, Cutting, FileRef, Method, Micrograph, Particles, Picks, Text
from icestream.steps.ctf.local import defocus_offset_ang
from icestream.steps.particles.cutting import CTF_NAMES, MICROSCOPE_NAMES, cut_particles

_DEFOCUS_NAMES = CTF_NAMES[:2]
READS = ("pixel_size_ang", *MICROSCOPE_NAMES)
SHIFT_MARGIN_PX = 16
"""What is cut more on each side where images are centred exactly, so that a shift does not wrap around."""


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
    subpixel: bool = Field(
        False,
        description="Centre the images exactly, by a Fourier shift; unset: boxes are on whole pixels and nothing is interpolated",
    )
    scaled_box_px: WholePixels | None = Field(
        None, ge=16, multiple_of=2, description="Side of the box after Fourier cropping; unset: not cropped"
    )
    invert: bool = Field(True, description="Make dark protein bright")
    phase_flip: bool = Field(False, description="Correct the sign of the CTF; the micrograph needs a CTF")
    premultiply: bool = Field(
        False,
        description="Multiply by the CTF, which also brings back what the defocus moved out of the box; the particles need a CTF",
    )
    normalise: Literal["ramp", "mean", "none"] = Field(
        "ramp",
        description="Bring the background to mean 0 and standard deviation 1, after the plane that fits it best was subtracted "
        "(ramp) or not (mean), or leave the grey values as they are",
    )
    background_diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Pixels outside this circle are background; unset: 1.2 times the diameter, at most 0.9 of the box"
    )
    dust_level: float | None = Field(
        5.0, gt=1, description="Remove pixels this many standard deviations off the mean; unset: none"
    )
    stored_as: Literal["float32", "float16"] = Field(
        "float32", description="Number format of the stack; float16 halves the disk space"
    )
    virtual: bool = Field(
        False,
        description="Write no stack: the images are cut from the micrograph whenever a step reads them",
    )

    @model_validator(mode="after")
    def _correct_once(self) -> Self:
        if self.phase_flip and self.premultiply:
            raise ValueError("phase_flip and premultiply correct the CTF in two ways; choose one of them")
        return self


@step.map(
    "extract",
    version=2,
    reads=READS,
    memory_gb=2.0,
    method=Method(
        (Text("Particles were cut out and normalised ({normalise:words})."),),
        (),
    ),
)
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

    With `local`, each particle has the defocus of its place, and `premultiply` uses it; phases are flipped with the CTF of the
    whole micrograph. ``y_px``, ``x_px`` are the true centres of the images: unless `subpixel` is set, whole pixels and up to half
    a pixel off the picks. Particles whose box leaves the micrograph are left out and counted, or padded; all others keep their
    ``pid``.

    Raises
    ------
    ItemError
        If an acquisition value or the CTF is needed and unset, or the box is larger than the micrograph or does not fit the
        particle.
    """
    picked = from_block(picks.block)
    table = np.zeros(len(picked), dtype=dtype_of(Particles.block_columns))
    for name in ("pid", "score", "y_px", "x_px"):
        table[name] = picked[name]
    for name in CTF_NAMES:
        table[name] = np.nan
    source = Source(picks.numbered_by, picks.diameter_ang)
    return cut_from(micrograph, table, (ctf, local), params, acquisition, ctx, source=source)


@dataclass(frozen=True)
class Source:
    """What is known of the particles of a table before they are cut."""

    picks_key: str | None
    diameter_ang: float | None


def cut_from(
    micrograph: Micrograph,
    table: NDArray[Any],
    ctfs: tuple[CtfFit | None, CtfLocal | None],
    params: ExtractParams,
    acquisition: Acquisition,
    ctx: Context,
    *,
    source: Source,
) -> Particles:
    """Cut the particles of a table, whose places are in pixels of the micrograph, and make their record.

    Raises
    ------
    ItemError
        As for `extract_particles`.
    """
    cutting = plan_cutting(micrograph, ctfs[0], params, acquisition, diameter_ang=source.diameter_ang)
    how = Cut(cutting, subpixel=params.subpixel, virtual=params.virtual, source=source)
    return make_particles(micrograph, table, how, ctx, ctfs=ctfs)


@dataclass(frozen=True)
class Cut:
    """How particles become images: what is done to each, whether it is centred exactly, whether a stack is written."""

    cutting: Cutting
    subpixel: bool
    virtual: bool
    source: Source


def make_particles(
    micrograph: Micrograph,
    table: NDArray[Any],
    how: Cut,
    ctx: Context,
    *,
    ctfs: tuple[CtfFit | None, CtfLocal | None] = (None, None),
) -> Particles:
    """Make the record of the particles of a table, whose places are in pixels of the micrograph, and their stack.

    Particles whose box leaves the micrograph are left out, unless they are padded. Without a CTF they keep theirs.
    """
    cutting = how.cutting
    places = np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64)  # (n, 2)
    shape = (micrograph.height_px, micrograph.width_px)
    boxes = place_boxes(places, shape=shape, box_px=cutting.box_px, pad=cutting.pad)
    kept = table[boxes.kept]  # a copy
    if not how.subpixel:
        kept["y_px"], kept["x_px"] = boxes.centre_yx_px.T
    kept["slice"] = np.arange(len(kept))
    _set_ctf(kept, *ctfs)
    return Particles(
        stack=None if how.virtual else _write_stack(micrograph, kept, cutting, ctx),
        count=len(kept),
        n_left_out=len(table) - len(kept),
        n_padded=boxes.n_padded,
        box_px=cutting.scaled_box_px,
        bin=micrograph.bin * cutting.box_px / cutting.scaled_box_px,
        inverted=cutting.invert,
        phase_flipped=cutting.ctf_correction == "flip",
        ctf_premultiplied=cutting.ctf_correction == "premultiply",
        diameter_ang=how.source.diameter_ang,
        cutting=cutting,
        micrograph=micrograph.image,
        origin=ctx.exposure.id,
        picks_key=how.source.picks_key,
        block=to_block(kept),
    )


def _write_stack(micrograph: Micrograph, table: NDArray[Any], cutting: Cutting, ctx: Context) -> FileRef | None:
    if not len(table):
        return None
    images = cut_particles(read_image(ctx.path(micrograph.image)), table, cutting)
    pixel_size_ang = cutting.pixel_size_ang * cutting.box_px / cutting.scaled_box_px
    with ctx.publish("_particles.mrcs") as out:
        write_mrc(out.path, images, pixel_size_ang=pixel_size_ang, dtype=cutting.stored_as)
    return out.ref


def plan_cutting(
    micrograph: Micrograph, ctf: CtfFit | None, params: ExtractParams, acquisition: Acquisition, *, diameter_ang: float | None
) -> Cutting:
    """Return how particles of a diameter are cut, where a parameter is unset by the diameter.

    Raises
    ------
    ItemError
        As for `extract_particles`.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    if diameter_ang is None and (params.box_px is None or params.background_diameter_ang is None):
        raise ItemError("the diameter of the particles is not known: set box_px and background_diameter_ang")
    box_px = params.box_px or good_box_px(params.box_diameters * (diameter_ang or 0.0) / pixel_ang)
    scaled_px = params.scaled_box_px or box_px
    if scaled_px > box_px:
        raise ItemError(f"scaled_box_px {scaled_px} is larger than the box of {box_px} px; it must be at most {box_px}")
    if box_px > min(micrograph.height_px, micrograph.width_px):
        raise ItemError(
            f"a box of {box_px} px does not fit into the micrograph of {micrograph.height_px} x {micrograph.width_px} px; "
            "it must be smaller than the shorter side"
        )
    optics = {name: acquisition.need(name) for name in MICROSCOPE_NAMES} if params.phase_flip or params.premultiply else {}
    if params.phase_flip and ctf is None:
        raise ItemError("phase_flip needs a CTF: connect one, or turn phase_flip off")
    flip = {name: getattr(ctf, name) for name in CTF_NAMES} if params.phase_flip else {}
    return Cutting(
        area=micrograph.raw_area,
        box_px=box_px,
        margin_px=_margin_px(params, ctf, optics, box_px=box_px, pixel_ang=pixel_ang, scaled_px=scaled_px),
        scaled_box_px=scaled_px,
        pad=params.at_border == "pad",
        dust_level=params.dust_level,
        ctf_correction="flip" if params.phase_flip else "premultiply" if params.premultiply else "none",
        invert=params.invert,
        normalise=params.normalise,
        background_radius_px=_background_radius(params, diameter_ang or 0.0, box_ang=box_px * pixel_ang) * scaled_px,
        stored_as=params.stored_as,
        pixel_size_ang=pixel_ang,
        **optics,
        **flip,
    )


def _margin_px(
    params: ExtractParams, ctf: CtfFit | None, optics: dict[str, float], *, box_px: int, pixel_ang: float, scaled_px: int
) -> int:
    """Return what is cut around the box: what the defocus moves across its edge, at most a box, and room for a shift."""
    least = SHIFT_MARGIN_PX if params.subpixel else 0
    if not params.premultiply:
        return least
    if ctf is None:
        return box_px
    moved_ang = delocalisation_ang(
        2 * pixel_ang * box_px / scaled_px,
        defocus_ang=max(ctf.defocus_u_ang, ctf.defocus_v_ang),
        voltage_kv=optics["voltage_kv"],
        cs_mm=optics["cs_mm"],
    )
    return max(least, min(int(np.ceil(moved_ang / pixel_ang)), box_px))


def _background_radius(params: ExtractParams, diameter_ang: float, *, box_ang: float) -> float:
    """Return the radius of the particle's circle as a fraction of the box."""
    if params.background_diameter_ang is None:
        return 0.5 * min(1.2 * diameter_ang / box_ang, 0.9)
    if params.background_diameter_ang > box_ang:
        raise ItemError(f"background_diameter_ang {params.background_diameter_ang:g} is larger than the box of {box_ang:g} Å")
    return 0.5 * params.background_diameter_ang / box_ang


def _set_ctf(table: NDArray[Any], ctf: CtfFit | None, local: CtfLocal | None) -> None:
    """Give the particles of a new table the CTF of the micrograph, and of their place, where they are connected."""
    if local is not None and ctf is None:
        raise ItemError("local defocus is a difference to that of the CTF: connect the CTF too")
    if ctf is None:
        return
    for name in CTF_NAMES:
        table[name] = getattr(ctf, name)
    if local is not None:
        offset_ang = defocus_offset_ang(local, np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64))
        for name in _DEFOCUS_NAMES:
            table[name] = getattr(ctf, name) + offset_ang
