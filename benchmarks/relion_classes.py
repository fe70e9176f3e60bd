"""RELION's own 2D classification of simulated particles: what it finds and what it costs."""

import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from icestream.io.image import read_stack, write_mrc
from icestream.io.star import read_star
from particle_sets import FoundClasses

PROGRAM = "relion_refine"
HEAD = """data_optics
loop_
_rlnOpticsGroupName
_rlnOpticsGroup
_rlnImageSize
_rlnImageDimensionality
_rlnImagePixelSize
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
opticsGroup1 1 {box} 2 {pixel:.4f} 300 2.7 0.1

data_particles
loop_
_rlnImageName
_rlnMicrographName
_rlnOpticsGroup
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
_rlnPhaseShift
"""


def classify_with_relion(given, *, n_classes, iterations=25):
    """Classify a `ParticleSet` with the defaults of RELION's Class2D job and one thread."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise SystemExit(f"{PROGRAM} is not there: install Debian's package relion")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mrc(folder / "particles.mrcs", given.images, pixel_size_ang=given.pixel_size_ang)
        rows = [
            f"{i + 1:06d}@particles.mrcs exposure{i // 30:04d}.mrc 1 {u:.1f} {v:.1f} {angle:.1f} 0"
            for i, (u, v, angle) in enumerate(given.defocus_ang)
        ]
        head = HEAD.format(box=given.box_px, pixel=given.pixel_size_ang)
        (folder / "particles.star").write_text(head + "\n".join(rows) + "\n")
        (folder / "out").mkdir()
        command = [path, "--i", "particles.star", "--o", "out/run", "--K", str(n_classes), "--iter", str(iterations)]
        command += ["--tau2_fudge", "2", "--particle_diameter", f"{given.diameter_ang * 1.1:.0f}", "--ctf", "--flatten_solvent"]
        command += ["--zero_mask", "--psi_step", "12", "--oversampling", "1", "--offset_range", "5", "--offset_step", "2"]
        command += ["--norm", "--scale", "--dont_check_norm", "--dont_combine_weights_via_disc", "--random_seed", "1", "--j", "1"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = folder / f"out/run_it{iterations:03d}_data.star"
        if done.returncode or not result.is_file():
            raise RuntimeError(f"{PROGRAM} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        table = read_star(result)["particles"]
        images = read_stack(folder / f"out/run_it{iterations:03d}_classes.mrcs")
        number = np.array([int(text.partition("@")[0]) - 1 for text in table.texts("rlnImageName")])
    order = np.argsort(number)
    shift = -np.column_stack([table.floats(f"rlnOrigin{axis}Angst") for axis in "YX"])[order] / given.pixel_size_ang
    class_id = (table.ints("rlnClassNumber")[order] - 1).astype(np.int32)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return FoundClasses(images, class_id, -table.floats("rlnAnglePsi")[order], shift, cpu)
