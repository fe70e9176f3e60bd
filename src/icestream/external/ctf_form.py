"""The common form of steps that run a program which fits the CTF of one micrograph: staging, running, and the record."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icestream.external import Command, run_program, stage_image
from icestream.flow import Context, FileFormatError, Program
from icestream.io.image import read_image
from icestream.io.preview import write_preview
from icestream.records import Acquisition, CtfFit, Micrograph

READS = ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast")
IMAGE = "micrograph.mrc"
_PICTURE_PX = 512


@dataclass(frozen=True)
class CtfScope:
    """What such a program is told of the microscope, and the pixel of the image in Å."""

    pixel_size_ang: float
    voltage_kv: float
    cs_mm: float
    amplitude_contrast: float


@dataclass(frozen=True)
class FoundCtf:
    """What a program found: positive defocus is underfocus, the angle is that of the larger one, from x towards y."""

    defocus_u_ang: float
    defocus_v_ang: float
    astigmatism_angle_deg: float
    phase_shift_deg: float
    score: float
    resolution_ang: float


@dataclass(frozen=True)
class CtfForm:
    """How a program is called for `IMAGE`, and where and how its answer is read.

    ``answers`` are lines for its standard input; ``picture`` is the image of spectrum and fit that it writes.
    """

    program: Program
    command: Command
    answer: str
    read: Callable[[Path], FoundCtf]
    answers: tuple[str, ...] | None = None
    picture: str | None = None


def fit_with_program(
    micrograph: Micrograph,
    acquisition: Acquisition,
    ctx: Context,
    make: Callable[[CtfScope], CtfForm],
) -> CtfFit:
    """Let a program fit the CTF of a micrograph: of its sum without dose weighting, where there is one.

    Raises
    ------
    ItemError
        An acquisition value is unset, or the program fails.
    FileFormatError
        Its answer lacks something, or is none.
    """
    scope = CtfScope(
        acquisition.need("pixel_size_ang") * micrograph.bin,
        acquisition.need("voltage_kv"),
        acquisition.need("cs_mm"),
        acquisition.need("amplitude_contrast"),
    )
    image = micrograph.unweighted or micrograph.image
    stage_image(ctx.path(image), ctx.work_folder, IMAGE, pixel_size_ang=scope.pixel_size_ang)
    form = make(scope)
    answers = None if form.answers is None else "\n".join(form.answers) + "\n"
    run_program(form.program, form.command, ctx, answers=answers)
    found = check_ctf(form.read(ctx.work_folder / form.answer), ctx.work_folder / form.answer)
    spectrum = None
    if form.picture is not None:
        with ctx.publish("_ctf.png") as out:
            write_preview(out.path, read_image(ctx.work_folder / form.picture), max_px=_PICTURE_PX)
        spectrum = out.ref
    return CtfFit(
        defocus_u_ang=round(found.defocus_u_ang, 2),
        defocus_v_ang=round(found.defocus_v_ang, 2),
        astigmatism_angle_deg=round(found.astigmatism_angle_deg % 180, 2),
        phase_shift_deg=round(found.phase_shift_deg, 2),
        score=round(found.score, 4),
        resolution_ang=round(found.resolution_ang, 3),
        spectrum=spectrum,
    )


def check_ctf(found: FoundCtf, path: Path) -> FoundCtf:
    """Return a CTF whose larger defocus comes first.

    Raises
    ------
    FileFormatError
        A value is not finite, or there is no resolution.
    """
    values = (found.defocus_u_ang, found.defocus_v_ang, found.astigmatism_angle_deg, found.phase_shift_deg, found.score)
    if not np.isfinite(values).all() or not 0 < found.resolution_ang < np.inf:
        raise FileFormatError(path, f"has values that are no CTF: {found}")
    if found.defocus_u_ang >= found.defocus_v_ang:
        return found
    turned = found.astigmatism_angle_deg + 90
    return FoundCtf(found.defocus_v_ang, found.defocus_u_ang, turned, found.phase_shift_deg, found.score, found.resolution_ang)


def read_numbers(path: Path, lines: list[str], *, least: int, what: str) -> list[float]:
    """Return the numbers of the only line.

    Raises
    ------
    FileFormatError
        There are more lines or none, fewer than ``least`` numbers, or words that are no numbers.
    """
    if len(lines) != 1:
        raise FileFormatError(path, f"has {len(lines)} lines of {what}; expected is 1")
    try:
        numbers = [float(word) for word in lines[0].split()]
    except ValueError as error:
        raise FileFormatError(path, f"not {what}: {error}") from error
    if len(numbers) < least:
        raise FileFormatError(path, f"has {len(numbers)} numbers in its line of {what}; expected are {least}")
    return numbers
