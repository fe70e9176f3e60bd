"""Motion correction by RELION's own implementation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.gain.correction import prepare_gain_2d
from icestream.algorithms.gain.orientation import Orientation, choose_gain, fit_gain_size_2d, orient_gain_2d
from icestream.algorithms.motion.frames import sum_raw_frames
from icestream.algorithms.motion.relion import local_model_from_relion
from icestream.external import Command, run_program, stage_file
from icestream.external.corrected import publish_corrected
from icestream.flow import Context, Field, FileFormatError, ItemError, Params, Program, step
from icestream.io.gain import read_gain
from icestream.io.image import write_mrc
from icestream.io.movie import open_movie
from icestream.io.star import Table, read_star, write_star
from icestream.records import (
    ZHENG_2017,
    ZIVANOV_2018,
    Acquisition,
    FrameUse,
    GainReference,
    Method,
    Micrograph,
    Motion,
    Movie,
    Text,
)

MOTIONCORR = Program("relion_run_motioncorr", ("--version",), r"RELION version:\s*(\S+)", oldest="3.1", below="4")
_OUT = "corrected"
_N_COEFFICIENTS = 36
_ENDINGS = {"tiff": "tiff", "mrc": "mrcs"}


class RelionMotionParams(Params):
    """How RELION aligns a movie; names in brackets are RELION's."""

    patches: tuple[int, int] = Field(
        (5, 5), description="Patches along y and x for local motion (--patch_y, --patch_x); 1, 1: none"
    )
    b_factor_px2: float = Field(150.0, ge=0, description="Damping of high frequencies in the alignment (--bfactor)")
    group: int = Field(1, ge=1, description="Frames averaged before local motion is measured (--group_frames)")
    dose_weighting: Literal["where known", "required", "off"] = Field(
        "where known",
        description="Weight by dose where voltage, pixel size and dose are known, refuse movies without them, or never",
    )
    gain_orientation: Literal["auto"] | Orientation = Field(
        "auto", description="How the gain is turned to fit the frames: found from the data, or named, as of `motion`"
    )


@step.map(
    "relion_motion",
    version=1,
    reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast", "dose_per_frame_e_per_ang2", "pre_exposure_e_per_ang2"),
    memory_gb=8,
    programs=(MOTIONCORR,),
    method=Method(
        (Text("Movies were aligned and summed by RELION's implementation of MotionCor2."),), (ZIVANOV_2018, ZHENG_2017)
    ),
)
def correct_with_relion(
    movie: Movie, gain: GainReference | None, params: RelionMotionParams, acquisition: Acquisition, ctx: Context
) -> Micrograph:
    """Undo the motion of the specimen during one movie with RELION's own implementation, which is run as it is installed.

    Movies are TIFF or MRC files. How the gain belongs on the frames is found as `motion` finds it.

    Raises
    ------
    ItemError
        The movie is an EER or a compressed file, the gain does not belong to it, a value is unset, or RELION fails.
    """
    weighted = _dose_is_known(acquisition, params)
    movie_name = _stage_movie(movie, ctx)
    use = FrameUse(movie=movie.file, movie_frames=movie.n_frames, height_px=movie.height_px, width_px=movie.width_px)
    if gain is not None:
        use = use.model_copy(update=_stage_gain(movie, gain, params, ctx))
    _write_list(movie_name, acquisition, ctx.work_folder)
    command = (
        Command()
        .option("--i", "movies.star")
        .option("--o", f"{_OUT}/")
        .flag("--use_own")
        .option("--j", ctx.cores)
        .option("--bfactor", params.b_factor_px2)
        .option("--group_frames", params.group)
        .option("--patch_x", params.patches[1])
        .option("--patch_y", params.patches[0])
        .option("--gainref", None if gain is None else "gain.mrc")
    )
    if weighted:
        command = (
            command.flag("--dose_weighting")
            .flag("--save_noDW")
            .option("--dose_per_frame", acquisition.need("dose_per_frame_e_per_ang2"))
            .option("--preexposure", acquisition.pre_exposure_e_per_ang2 or 0.0)
        )
    run_program(MOTIONCORR, command, ctx)
    found = read_motion(ctx.work_folder / _OUT / "movie.star", n_frames=movie.n_frames)
    motion = describe_found_motion(found, shape=(movie.height_px, movie.width_px))
    folder = ctx.work_folder / _OUT
    plain = folder / "movie_noDW.mrc" if weighted else None
    pixel_ang = acquisition.need("pixel_size_ang")
    return publish_corrected(folder / "movie.mrc", motion, use, movie, unweighted=plain, pixel_size_ang=pixel_ang, ctx=ctx)


def _dose_is_known(acquisition: Acquisition, params: RelionMotionParams) -> bool:
    names = ("voltage_kv", "pixel_size_ang", "dose_per_frame_e_per_ang2")
    if params.dose_weighting == "required":
        for name in names:
            acquisition.need(name)
    return params.dose_weighting != "off" and all(getattr(acquisition, name) is not None for name in names)


def _stage_movie(movie: Movie, ctx: Context) -> str:
    path = ctx.path(movie.file)
    if movie.format not in _ENDINGS or path.suffix.lower() not in (".tif", ".tiff", ".mrc", ".mrcs"):
        raise ItemError(
            f"{path.name}: RELION is given TIFF and MRC movies; this is {movie.format} as {path.suffix or 'no ending'}"
        )
    name = f"movie.{_ENDINGS[movie.format]}"
    stage_file(path, ctx.work_folder, name)
    return name


def _stage_gain(movie: Movie, gain: GainReference, params: RelionMotionParams, ctx: Context) -> dict[str, Any]:
    """Write the gain as RELION multiplies it, 0 at defects; return how it was turned."""
    path, shape = ctx.path(gain.file), (movie.height_px, movie.width_px)
    with open_movie(ctx.path(movie.file)) as reader:
        total = np.asarray(sum_raw_frames(reader.frames())[0])  # (h, w)
    stored, usual = read_gain(path, operation=gain.operation)
    choice = choose_gain(total, stored, operation=gain.operation, usual=usual, orientation=params.gain_orientation)
    values = fit_gain_size_2d(orient_gain_2d(stored, orientation=choice.orientation), shape=shape, operation=choice.operation)
    if values is None:
        raise ItemError(f"gain is {stored.shape[0]}×{stored.shape[1]}, movie is {shape[0]}×{shape[1]} (height × width)")
    factor, defects = prepare_gain_2d(values, operation=choice.operation, shape=shape)
    write_mrc(ctx.work_folder / "gain.mrc", np.where(defects, np.float32(0), factor), pixel_size_ang=1.0, remember=False)
    return {
        "gain": gain.file,
        "gain_operation": choice.operation,
        "gain_orientation": choice.orientation,
        "gain_slope": choice.slope,
        "gain_note": choice.note,
        "n_known_defects": int(defects.sum()),
    }


def _write_list(movie_name: str, acquisition: Acquisition, folder: Path) -> None:
    optics = {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": "1",
        "rlnMicrographOriginalPixelSize": f"{acquisition.need('pixel_size_ang'):.6f}",
        "rlnVoltage": f"{acquisition.need('voltage_kv'):g}",
        "rlnSphericalAberration": f"{acquisition.need('cs_mm'):g}",
        "rlnAmplitudeContrast": f"{acquisition.need('amplitude_contrast'):g}",
    }
    movies = Table({"rlnMicrographMovieName": [movie_name], "rlnOpticsGroup": ["1"]})
    write_star(folder / "movies.star", {"optics": Table({name: [value] for name, value in optics.items()}), "movies": movies})


@dataclass(frozen=True)
class FoundMotion:
    """Displacement of the specimen ``(n, 2)`` in pixels of the movie, y and x, and RELION's 36 local coefficients or None."""

    global_yx_px: NDArray[np.float64]
    words: NDArray[np.float64] | None


def read_motion(path: Path, *, n_frames: int) -> FoundMotion:
    """Return what the STAR file of a corrected movie says.

    Raises
    ------
    FileFormatError
        It is no such file, or is of another number of frames.
    """
    tables = read_star(path)
    if "global_shift" not in tables or "general" not in tables:
        raise FileFormatError(path, f"not a motion of RELION: it has the tables {', '.join(tables)}")
    try:
        track = -np.stack([tables["global_shift"].floats(f"rlnMicrographShift{axis}") for axis in "YX"], axis=1)  # (n, 2)
        version = int(tables["general"].ints("rlnMotionModelVersion")[0])
        local = tables.get("local_motion_model") if version else None
        words = None if local is None else local.floats("rlnMotionModelCoeff")
    except (KeyError, ValueError) as error:
        raise FileFormatError(path, f"not a motion of RELION: {error}") from error
    if len(track) != n_frames or not np.isfinite(track).all():
        raise FileFormatError(path, f"has {len(track)} shifts; the movie has {n_frames} frames")
    if words is not None and len(words) != _N_COEFFICIENTS:
        raise FileFormatError(path, f"has {len(words)} coefficients of local motion; expected are {_N_COEFFICIENTS}")
    return FoundMotion(track - track[0], words)


def describe_found_motion(found: FoundMotion, *, shape: tuple[int, int]) -> Motion:
    """Return the record of a motion that RELION found on frames of ``shape``."""
    track = found.global_yx_px
    lengths = np.linalg.norm(np.diff(track, axis=0), axis=1)  # (n - 1,)
    local = None if found.words is None else local_model_from_relion(found.words, shape=shape, n_frames=len(track))
    return Motion(
        global_yx_px=[(float(y), float(x)) for y, x in track],
        local_coefficients=None if local is None else local.tolist(),
        total_px=float(lengths.sum()),
        early_px=float(lengths[: -(-len(track) // 4)].sum()),
    )
