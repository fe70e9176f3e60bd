"""Running RELION's own motion correction on a movie of ours and reading what it found."""

import os
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tifffile import TiffWriter

from icestream.algorithms.motion.relion import relion_shift_px
from icestream.io.image import read_image
from icestream.io.star import read_star

PROGRAM = "relion_run_motioncorr"
HEAD = """data_optics
loop_
_rlnOpticsGroupName
_rlnOpticsGroup
_rlnMicrographOriginalPixelSize
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
opticsGroup1 1 1.0 300 2.7 0.1

data_movies
loop_
_rlnMicrographMovieName
_rlnOpticsGroup
movie.tiff 1
"""


@dataclass(frozen=True)
class RelionMotion:
    """What RELION found: displacement of the specimen ``(n, 2)``, its local coefficients or None, and what it cost.

    ``unweighted`` is its sum without dose weighting, rows as ours, where that was asked for.
    """

    global_yx_px: np.ndarray
    words: np.ndarray | None
    cpu_s: float
    wall_s: float
    unweighted: np.ndarray | None = None

    def displacement(self, frames, y, x, *, shape):
        """Return ``(n, 2, places)`` at ``y`` and ``x``."""
        whole = np.repeat(self.global_yx_px[:, :, None], y.size, axis=2)
        if self.words is not None:
            local = relion_shift_px(self.words, z=np.asarray(frames)[:, None], y_px=y[None], x_px=x[None], shape=shape)
            whole = whole - np.moveaxis(local, 0, 1)
        return whole


def find_relion() -> str:
    path = shutil.which(PROGRAM)
    if path is None:
        raise SystemExit(f"{PROGRAM} is not there: install Debian's package relion")
    return path


def relion_version():
    path = find_relion()
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    words = [word for line in (said.stdout + said.stderr).splitlines() if "RELION version" in line for word in line.split()]
    return words[words.index("version:") + 1] if "version:" in words else "unknown"


def run_relion(frames, *, dose_e_per_px, patches, threads=1, unweighted=False):
    """Correct a movie with RELION, as its own implementation does with dose weighting, and return what it found."""
    path = find_relion()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with TiffWriter(folder / "movie.tiff") as writer:
            for frame in frames:
                writer.write(np.ascontiguousarray(frame[::-1]), compression="lzw")  # the first row of a TIFF is the top
        (folder / "movies.star").write_text(HEAD)
        command = [
            path,
            "--i",
            "movies.star",
            "--o",
            "out/",
            "--use_own",
            "--bfactor",
            "150",
            "--dose_weighting",
            "--j",
            str(threads),
        ]
        command += ["--dose_per_frame", str(dose_e_per_px), "--patch_x", str(patches), "--patch_y", str(patches)]
        command += ["--save_noDW"] if unweighted else []
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = os.times().elapsed
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
        wall = os.times().elapsed - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = folder / "out/movie.star"
        if done.returncode or not result.is_file():
            raise RuntimeError(f"{PROGRAM} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        tables = read_star(result)
        image = read_image(folder / "out/movie_noDW.mrc") if unweighted else None
    track = np.stack([-tables["global_shift"].floats(f"rlnMicrographShift{axis}") for axis in "YX"], axis=1)
    model = tables.get("local_motion_model")
    words = None if model is None or len(model) != 36 else model.floats("rlnMotionModelCoeff")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return RelionMotion(track - track[0], words, cpu, wall, image)
