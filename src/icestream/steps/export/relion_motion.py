"""The motion of one movie as RELION 3.1 keeps it, so that RELION can go back to the frames (Bayesian polishing).

``rlnMicrographShiftX/Y`` is minus the displacement of the specimen, in pixels of the movie as it is read, with the first frame
that was used at zero; frames are counted from 1 and those that were not used have -9999. The local model is version 1, see
`algorithms.motion_relion`.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.gain.correction import prepare_gain_2d
from icestream.algorithms.gain.orientation import ORIENTATIONS, fit_gain_size_2d, orient_gain_2d
from icestream.algorithms.motion.relion import conversion_error_px, convert_local_model
from icestream.errors import ItemError
from icestream.files import publish
from icestream.io.defects import read_defects
from icestream.io.gain import read_gain
from icestream.io.image import write_mrc
from icestream.io.star import Table
from icestream.records import Acquisition, FileRef, FrameUse, Micrograph, Motion
from icestream.steps.export.relion_layout import OpticsGroup, number

_NOT_USED = "-9999.000000"
_FOLDER = "Movies"

Find = Callable[[FileRef], Path]


def motion_tables(
    micrograph: Micrograph, motion: Motion, group: OpticsGroup, *, acquisition: Acquisition, names: dict[str, str], find: Find
) -> tuple[dict[str, Table], float]:
    """Return the tables of one movie's own STAR file, and by how many pixels its local model misses ours at worst.

    Parameters
    ----------
    names
        Labels that name files in the project: of the movie, and of the gain.
    find
        Returns the path of a file named by a record.
    """
    use, finer = micrograph.frames, group.finer
    shifts = -np.asarray(motion.global_yx_px, dtype=np.float64) * finer + 0.0  # (n, 2); no negative zero
    first = use.first_frame if use else 0
    n_movie = use.movie_frames if use else len(shifts)
    height, width = (use.height_px, use.width_px) if use else _size_of_movie(micrograph)
    general = {
        "rlnImageSizeX": str(width),
        "rlnImageSizeY": str(height),
        "rlnImageSizeZ": str(n_movie),
        **names,
        "rlnMicrographBinning": number(micrograph.bin * finer),
        "rlnMicrographOriginalPixelSize": number(group.movie_pixel_size_ang),
        **_dose(acquisition, use),
        "rlnVoltage": number(group.voltage_kv),
        "rlnMicrographStartFrame": str(first + 1),
        **_eer(use),
        "rlnMotionModelVersion": "0" if motion.local_coefficients is None else "1",
    }
    tables = {
        "general": Table({label: [value] for label, value in general.items()}, is_list=True),
        "global_shift": _track(shifts, first=first, n_frames=n_movie),
    }
    error = 0.0
    if motion.local_coefficients is not None:
        ours = np.asarray(motion.local_coefficients, dtype=np.float64) * finer  # (2, 18)
        words = convert_local_model(ours, shape=(height, width), n_frames=len(shifts))
        error = conversion_error_px(ours, words, shape=(height, width), n_frames=len(shifts))
        tables["local_motion_model"] = Table(
            {
                "rlnMotionModelCoeffsIdx": [str(index) for index in range(len(words))],
                "rlnMotionModelCoeff": [f"{value:.9g}" for value in words],
            }
        )
    if use is not None and use.hot_pixels is not None:
        tables["hot_pixels"] = _hot_pixels(find(use.hot_pixels), (height, width))
    return tables, error


def _track(shifts_yx_px: NDArray[np.float64], *, first: int, n_frames: int) -> Table:
    used = {first + index: (number(y), number(x)) for index, (y, x) in enumerate(shifts_yx_px)}
    rows = [used.get(frame, (_NOT_USED, _NOT_USED)) for frame in range(n_frames)]
    return Table(
        {
            "rlnMicrographFrameNumber": [str(frame + 1) for frame in range(n_frames)],
            "rlnMicrographShiftX": [x for _, x in rows],
            "rlnMicrographShiftY": [y for y, _ in rows],
        }
    )


def _hot_pixels(path: Path, shape: tuple[int, int]) -> Table:
    hot_yx = np.argwhere(read_defects(path, shape=shape))  # (n, 2)
    return Table({"rlnCoordinateX": [number(x) for _, x in hot_yx], "rlnCoordinateY": [number(y) for y, _ in hot_yx]})


def _size_of_movie(micrograph: Micrograph) -> tuple[int, int]:
    """Return height and width of the movie of a record that does not tell: rounded to the micrograph's binning."""
    return round(micrograph.height_px * micrograph.bin), round(micrograph.width_px * micrograph.bin)


def _dose(acquisition: Acquisition, use: FrameUse | None) -> dict[str, str]:
    dose = acquisition.dose_of(1 if use is None else use.stored_frames)
    if dose is None:
        return {}
    return {
        "rlnMicrographDoseRate": number(dose),
        "rlnMicrographPreExposure": number(acquisition.pre_exposure_e_per_ang2 or 0.0),
    }


def _eer(use: FrameUse | None) -> dict[str, str]:
    if use is None or use.eer_group is None:
        return {}
    return {"rlnEERUpsampling": str(use.eer_upsampling or 1), "rlnEERGrouping": str(use.eer_group)}


def place_movie(project: Path, name: str, use: FrameUse, *, find: Find) -> dict[str, str]:
    """Link the movie into the project and write its gain as RELION takes it; return the labels that name them."""
    source = find(use.movie)
    suffix = "".join(source.suffixes[-1:])
    target = project / _FOLDER / f"{name}{'.mrcs' if suffix == '.mrc' else suffix}"  # RELION takes a .mrc for a volume
    target.parent.mkdir(parents=True, exist_ok=True)
    link = os.path.relpath(source.absolute(), target.parent.resolve())
    if not (target.is_symlink() and str(target.readlink()) == link):
        target.unlink(missing_ok=True)
        target.symlink_to(link)
    names = {"rlnMicrographMovieName": f"{_FOLDER}/{target.name}"}
    if use.gain is not None:
        names["rlnMicrographGainName"] = _place_gain(project, use, find=find)
    return names


def _place_gain(project: Path, use: FrameUse, *, find: Find) -> str:
    """Write the gain as RELION takes it for these movies: of their size and orientation, 0 at defects.

    It multiplies, but for EER movies, whose gain RELION inverts unless it is a .gain file.
    """
    divides = use.eer_group is not None
    key = f"{use.gain} {use.gain_operation} {use.gain_orientation} {use.height_px} {use.width_px}" + " divides" * divides
    name = f"{_FOLDER}/gain_{hashlib.sha256(key.encode()).hexdigest()[:12]}.mrc"
    if (project / name).is_file() or use.gain is None:
        return name
    operation = use.gain_operation or "multiply"
    orientation = next((known for known in ORIENTATIONS if known == use.gain_orientation), ORIENTATIONS[0])
    shape = (use.height_px, use.width_px)
    stored, _ = read_gain(find(use.gain), operation=operation)
    values = fit_gain_size_2d(orient_gain_2d(stored, orientation=orientation), shape=shape, operation=operation)
    if values is None:
        raise ItemError(f"{use.gain}: its size is no longer that of the movies, {shape[0]}×{shape[1]} (height × width)")
    factor, defects = prepare_gain_2d(values, operation=operation, shape=shape)
    kept = np.where(defects, np.float32(0), 1 / factor if divides else factor)  # factor is 1 at defects
    with publish(project / name) as temporary:
        write_mrc(temporary, kept, pixel_size_ang=1.0, remember=False)
    return name
