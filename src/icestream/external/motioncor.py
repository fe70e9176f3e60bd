"""MotionCor2 and MotionCor3 (Zheng et al. 2017, Nat. Methods 14:331-332), which need a GPU."""

import re
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from icestream.external import Command, run_program, stage_file
from icestream.external.corrected import publish_corrected
from icestream.flow import Context, Field, FileFormatError, ItemError, Params, Program, step
from icestream.records import (
    ZHENG_2017,
    Acquisition,
    FrameUse,
    GainReference,
    Method,
    Micrograph,
    Motion,
    Movie,
    Text,
)

MOTIONCOR = Program("MotionCor2", ("--version",), r"(\d+\.\d+\.\d+)", oldest="1.4", below="4", never_run=True)
_SHIFT = re.compile(r"Frame\s*\(\s*(\d+)\)\s*shift:\s*(\S+)\s+(\S+)")
_TITLE = "Full-frame alignment shift"
_INPUTS = {"tiff": ("-InTiff", "movie.tiff"), "mrc": ("-InMrc", "movie.mrc")}


class MotionCorParams(Params):
    """How MotionCor aligns a movie; names in brackets are its own."""

    patches: tuple[int, int] = Field((5, 5), description="Patches along y and x (-Patch x y); 1, 1: none")
    b_factor_px2: float = Field(150.0, ge=0, description="Damping of high frequencies in the alignment (-Bft)")
    iterations: int = Field(10, ge=1, description="Most iterations (-Iter)")
    tolerance_px: float = Field(0.5, gt=0, description="Where iterations end (-Tol)")
    weight_by_dose: bool = Field(True, description="Weight by dose, which must be known then (-Kv, -PixSize, -FmDose, -InitDose)")
    gain_turn: Literal[0, 1, 2, 3] = Field(0, description="Quarter turns of the gain, counter-clockwise (-RotGain)")
    gain_flip: Literal[0, 1, 2] = Field(0, description="Flip of the gain: 1 upside down, 2 left to right (-FlipGain)")


@step.map(
    "motioncor",
    version=1,
    reads=("pixel_size_ang", "voltage_kv", "dose_per_frame_e_per_ang2", "pre_exposure_e_per_ang2"),
    memory_gb=8,
    gpu_gb=6,
    programs=(MOTIONCOR,),
    method=Method((Text("Movies were aligned and summed by MotionCor."),), (ZHENG_2017,)),
)
def correct_with_motioncor(
    movie: Movie, gain: GainReference | None, params: MotionCorParams, acquisition: Acquisition, ctx: Context
) -> Micrograph:
    """Undo the motion of the specimen during one movie with MotionCor2 or MotionCor3, run as installed, on the granted GPU.

    The order of rows of the micrograph, and how the gain must be turned, are MotionCor's. The local motion is not read.

    Raises
    ------
    ItemError
        The movie is no TIFF or MRC file, a value that is needed is unset, or MotionCor fails.
    """
    if movie.format not in _INPUTS:
        raise ItemError(f"{movie.file}: MotionCor is given TIFF and MRC movies; this is {movie.format}")
    stage_file(ctx.path(movie.file), ctx.work_folder, _INPUTS[movie.format][1])
    if gain is not None:
        stage_file(ctx.path(gain.file), ctx.work_folder, "gain.mrc")
    command = motioncor_command(movie, params, acquisition, with_gain=gain is not None)
    done = run_program(MOTIONCOR, command, ctx)
    track = read_shifts(done.log, n_frames=movie.n_frames)
    lengths = np.linalg.norm(np.diff(track, axis=0), axis=1)  # (n - 1,)
    motion = Motion(
        global_yx_px=[(float(y), float(x)) for y, x in track],
        total_px=float(lengths.sum()),
        early_px=float(lengths[: -(-len(track) // 4)].sum()),
    )
    use = FrameUse(
        movie=movie.file,
        movie_frames=movie.n_frames,
        height_px=movie.height_px,
        width_px=movie.width_px,
        gain=None if gain is None else gain.file,
    )
    plain, weighted = ctx.work_folder / "sum.mrc", ctx.work_folder / "sum_DW.mrc"
    image, unweighted = (weighted, plain) if params.weight_by_dose else (plain, None)
    pixel_ang = acquisition.need("pixel_size_ang")
    return publish_corrected(image, motion, use, movie, unweighted=unweighted, pixel_size_ang=pixel_ang, ctx=ctx)


def motioncor_command(movie: Movie, params: MotionCorParams, acquisition: Acquisition, *, with_gain: bool) -> Command:
    """Return the arguments of MotionCor; a dose that is wanted has to be known."""
    command = (
        Command()
        .option(*_INPUTS[movie.format])
        .option("-OutMrc", "sum.mrc")
        .option("-Patch", params.patches[1], params.patches[0])
        .option("-Bft", params.b_factor_px2)
        .option("-Iter", params.iterations)
        .option("-Tol", params.tolerance_px)
        .option("-PixSize", acquisition.need("pixel_size_ang"))
    )
    if with_gain:
        command = command.option("-Gain", "gain.mrc").option("-RotGain", params.gain_turn).option("-FlipGain", params.gain_flip)
    if params.weight_by_dose:
        command = (
            command.option("-Kv", acquisition.need("voltage_kv"))
            .option("-FmDose", acquisition.need("dose_per_frame_e_per_ang2"))
            .option("-InitDose", acquisition.pre_exposure_e_per_ang2 or 0.0)
        )
    return command.option("-Gpu", 0)


def read_shifts(path: Path, *, n_frames: int) -> NDArray[np.float64]:
    """Return the displacement of the specimen ``(n, 2)``, y and x in pixels, from what MotionCor printed.

    Raises
    ------
    FileFormatError
        It does not say a shift for each frame.
    """
    _, found, after = path.read_text(encoding="utf-8", errors="replace").partition(_TITLE)
    rows = [match.groups() for match in _SHIFT.finditer(after)]
    if not found or [int(frame) for frame, _, _ in rows] != list(range(1, n_frames + 1)):
        raise FileFormatError(path, f"says shifts of {len(rows)} frames after {_TITLE!r}; the movie has {n_frames}")
    try:
        shifts = np.array([[float(y), float(x)] for _, x, y in rows])
    except ValueError as error:
        raise FileFormatError(path, f"has shifts that are no numbers: {error}") from error
    if not np.isfinite(shifts).all():
        raise FileFormatError(path, "has shifts that are not finite")
    displacement: NDArray[np.float64] = shifts[0] - shifts
    return displacement
