"""Running RELION on what we exported from simulated movies, with the true poses of the particles."""

import os
import shutil
import subprocess
from pathlib import Path

import gemmi
import numpy as np
import pytest

from icestream.microscope import load_exposure_truth

POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


def relion(program: str, *arguments: str, cwd: Path) -> None:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"missing program: {program}")
    done = subprocess.run(
        [path, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def add_true_poses(scope: Path, project: Path) -> int:
    """Write ``truth.star``: our particles with the poses of the true particles under them; return how many."""
    document = gemmi.cif.read(str(project / "Extract/job003/particles.star"))
    loop = document.find_block("particles").find_loop("_rlnImageName").get_loop()
    tags = [tag.removeprefix("_") for tag in loop.tags]
    rows = []
    for index in range(loop.length()):
        row = {tag: loop[index, column] for column, tag in enumerate(tags)}
        truth = load_exposure_truth(scope, Path(row["rlnMicrographName"]).stem.rpartition("_")[0])
        centre = np.array([float(row["rlnCoordinateY"]), float(row["rlnCoordinateX"])])
        offset = truth.positions_yx_px - centre  # (n, 2): where the particle is in its box
        nearest = int(np.argmin(np.hypot(*offset.T)))
        if np.hypot(*offset[nearest]) < 20:
            particle, (y, x) = truth.particles[nearest], offset[nearest] * truth.pixel_size_ang
            pose = (particle.rot_deg, particle.tilt_deg, particle.psi_deg, -x, -y)
            rows.append([*row.values(), *(f"{value:.4f}" for value in pose)])
    new = document.find_block("particles").init_loop("_rln", [tag.removeprefix("rln") for tag in (*tags, *POSE)])
    for values in rows:
        new.add_row(values)
    document.write_file(str(project / "truth.star"))
    return len(rows)
