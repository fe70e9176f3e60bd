"""Picking with templates."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.particles.pick_template import Eigenimages, compress_templates, pick_with_templates_2d
from icestream.errors import ItemError
from icestream.flow import Context, Field, Params, step
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import read_image, read_stack
from icestream.records import CTF_COLUMNS, ROSEMAN_2003, Acquisition, CtfFit, Method, Micrograph, Picks, PickTemplates, Text
from icestream.units import Angstrom

_MICROSCOPE = ("voltage_kv", "cs_mm", "amplitude_contrast")


class PickTemplateParams(Params):
    """How many of the places that look like a template are taken."""

    dark: bool = Field(True, description="Protein is darker than the ice; used where there is no CTF, which says it otherwise")
    threshold: float | None = Field(
        None, gt=0, description="Lowest score in standard deviations of noise; unset: decided for each micrograph"
    )
    false_fraction: float = Field(0.05, gt=0, lt=1, description="Accepted fraction of false picks, where the threshold is unset")
    max_picks: int | None = Field(None, ge=1, description="Keep at most this many, those with the best scores; unset: all")
    min_distance_ang: Angstrom | None = Field(None, gt=0, description="Smallest distance of two picks; unset: half the diameter")


@step.map(
    "pick_template",
    version=1,
    reads=("pixel_size_ang", *_MICROSCOPE),
    memory_gb=2.0,
    method=Method(
        (Text("Particles were picked with templates by fast local correlation."),),
        (ROSEMAN_2003,),
    ),
)
def pick_templates(
    micrograph: Micrograph,
    templates: PickTemplates,
    ctf: CtfFit | None,
    params: PickTemplateParams,
    acquisition: Acquisition,
    ctx: Context,
) -> Picks:
    """Find particles that look like templates, in any turn, as the exposure's CTF images them.

    Picks are numbered from the best score down; ``score`` is the probability that a pick is more than noise, so that picks of
    other exposures and of other templates compare. ``reference`` is the stack of templates that was used.

    Raises
    ------
    ItemError
        If an acquisition value that is needed is unset, or the particles are too small or too large for the image.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    image = read_image(ctx.path(micrograph.image))  # (h, w)
    check_diameter(templates.diameter_ang, image.shape, pixel_size_ang=pixel_ang)
    stack, eigenimages = _prepare(ctx.path(templates.stack))
    found = pick_with_templates_2d(
        image,
        stack,
        eigenimages,
        pixel_size_ang=pixel_ang,
        template_pixel_ang=templates.pixel_size_ang,
        diameter_ang=templates.diameter_ang,
        min_distance_ang=params.min_distance_ang or 0.5 * templates.diameter_ang,
        transfer=contrast_of(ctf, acquisition, dark=params.dark),
        seed=ctx.seed,
        false_discovery_rate=params.false_fraction,
        threshold=params.threshold,
    )
    return record_picks(
        found.yx_px,
        found.probability,
        diameter_ang=templates.diameter_ang,
        reference=templates.stack,
        max_picks=params.max_picks,
    )


@lru_cache(maxsize=2)
def _prepare(stack: Path) -> tuple[NDArray[np.float32], Eigenimages]:
    """Read and compress templates; the last ones are remembered, since a published file never changes."""
    templates = read_stack(stack)
    return templates, compress_templates(templates)


def check_diameter(diameter_ang: float, shape: tuple[int, ...], *, pixel_size_ang: float) -> None:
    """Check that particles have 8 pixels to half the image.

    Raises
    ------
    ItemError
        They have not.
    """
    diameter_px = diameter_ang / pixel_size_ang
    if diameter_px < 8 or diameter_px > 0.5 * min(shape):
        raise ItemError(
            f"particles of {diameter_ang:g} Å are {diameter_px:.1f} px in an image of {shape[0]} x {shape[1]} px; "
            "they must be 8 px to half the image"
        )


def contrast_of(ctf: CtfFit | None, acquisition: Acquisition, *, dark: bool) -> Callable[[int, int, float], NDArray[np.float32]]:
    """Return how the microscope images bright density: the CTF, or plain contrast where it is not known.

    Raises
    ------
    ItemError
        If there is a CTF and an acquisition value is unset.
    """
    if ctf is None:
        return lambda height, width, _: np.full((height, width // 2 + 1), -1.0 if dark else 1.0, dtype=np.float32)
    microscope = {name: acquisition.need(name) for name in _MICROSCOPE}
    optics = {column.name: float(getattr(ctf, column.name)) for column in CTF_COLUMNS}
    return lambda height, width, pixel_ang: ctf_2d(height, width, pixel_size_ang=pixel_ang, **optics, **microscope)


def record_picks(
    yx_px: NDArray[np.float64],
    score: NDArray[np.float64],
    *,
    diameter_ang: float,
    reference: str,
    max_picks: int | None,
) -> Picks:
    """Return the record of picks ``(n, 2)``, the best first."""
    count = len(score) if max_picks is None else min(len(score), max_picks)
    table = np.zeros(count, dtype=dtype_of(Picks.block_columns))
    table["pid"] = np.arange(count)
    table["y_px"], table["x_px"], table["score"] = yx_px[:count, 0], yx_px[:count, 1], score[:count]
    return Picks(count=count, diameter_ang=diameter_ang, reference=reference, block=to_block(table))
