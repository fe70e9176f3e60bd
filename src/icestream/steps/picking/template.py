"""Picking with templates."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.template_picker.eigenimages import Eigenimages, compress_templates
from icestream.algorithms.template_picker.pick import pick_with_templates_2d
from icestream.flow import Angstrom, Context, Field, ItemError, Params, step
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import read_image, read_stack
from icestream.records import CTF_COLUMNS, ROSEMAN_2003, Acquisition, CtfFit, Method, Micrograph, Picks, PickTemplates, Text

_MICROSCOPE = ("voltage_kv", "cs_mm", "amplitude_contrast")


class PickTemplateParams(Params):
    """How many of the places that look like a template are taken."""

    dark: bool = Field(True, description="Protein is darker than the ice; used where there is no CTF, which says it otherwise")
    threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Keep every pick that is a particle with at least this probability, between 0 and 1: 0.9 keeps few and sure "
        "picks, 0.3 many and doubtful ones; unset: false_fraction decides",
    )
    false_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Accepted fraction of false picks on each micrograph, where the threshold is unset; unset: that which "
        "balances false picks against missed particles (best expected F1)",
    )
    max_picks: int | None = Field(None, ge=1, description="Keep at most this many, those with the best scores; unset: all")
    min_distance_ang: Angstrom | None = Field(None, gt=0, description="Smallest distance of two picks; unset: half the diameter")


@step.map(
    "pick_template",
    version=2,
    reads=("pixel_size_ang", *_MICROSCOPE),
    memory_gb=2.0,
    method=Method(
        (Text("Particles were picked with templates by a matched filter that is learned on each micrograph."),),
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
    found = pick_with_templates_2d(
        image,
        _prepare(ctx.path(templates.stack)),
        pixel_size_ang=pixel_ang,
        template_pixel_ang=templates.pixel_size_ang,
        diameter_ang=templates.diameter_ang,
        min_distance_ang=params.min_distance_ang or 0.5 * templates.diameter_ang,
        transfer=contrast_of(ctf, acquisition, dark=params.dark),
        seed=ctx.seed,
        false_discovery_rate=params.false_fraction,
        threshold=params.threshold,
    )
    picks = record_picks(
        found.yx_px,
        found.probability,
        diameter_ang=templates.diameter_ang,
        reference=templates.stack,
        max_picks=params.max_picks,
    )
    if not picks.count:
        return picks
    false_share = float(1 - found.probability[: picks.count].mean())
    return picks.model_copy(update={"threshold": float(found.score[picks.count - 1]), "expected_false": false_share})


@lru_cache(maxsize=2)
def _prepare(stack: Path) -> Eigenimages:
    """Read and compress templates; the last ones are remembered, since a published file never changes."""
    return compress_templates(read_stack(stack))


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
