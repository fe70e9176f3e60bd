"""RELION's Bayesian polishing of particles that we exported: it must find movies, gain, frames and our motion model."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.motion.model import local_shift_px
from icestream.flow import Exposure
from icestream.io.image import read_image, read_stack, write_mrc
from icestream.io.movie import movie_header
from icestream.io.star import Table, read_star, write_star
from icestream.microscope import Pace, SimulationSettings, simulate
from icestream.microscope.writer import write_mrc_array
from icestream.records import Acquisition, GainReference, Micrograph, Movie
from icestream.steps.ctf.estimate import CtfParams, estimate_ctf
from icestream.steps.export.relion import ExportRelion, ExportRelionParams, ExportState
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.steps.picking.blob import PickBlobParams, pick_blobs
from icestream.testing.context import StepBench
from services.relion import add_true_poses, relion

pytestmark = pytest.mark.services

SETTINGS = SimulationSettings(n_movies=2, n_particles=45, seed=11, local_motion_px=4.0, n_frames=14, n_hot_pixels=8)
FIRST, LAST = 1, 12


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Micrograph]]:
    """Return a RELION project of two movies, first and last frame left out, whose gain was stored turned; and the micrographs."""
    scope = tmp_path_factory.mktemp("scope")
    truth = simulate(scope, settings=SETTINGS, pace=Pace())
    turned = np.rot90(read_image(scope / "gain.mrc")[::-1])
    write_mrc(scope / "turned.mrc", np.ascontiguousarray(turned), pixel_size_ang=1.5, remember=False)
    acquisition = Acquisition(
        pixel_size_ang=1.5, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07, dose_per_frame_e_per_ang2=2.5
    )
    bench, state, micrographs = StepBench(scope), ExportState(), []
    gain = GainReference(file="session:turned.mrc", height_px=1024, width_px=1024)
    for index, name in enumerate(truth.exposures):
        bench.exposure = Exposure(f"{index:032x}"[::-1], name)
        path = scope / "movies" / f"{name}.tiff"
        header = movie_header(path)
        size = {"n_frames": header.n_frames, "height_px": header.height_px, "width_px": header.width_px}
        movie = Movie(file=f"session:movies/{name}.tiff", **size, format="tiff", size_bytes=path.stat().st_size)
        micrograph = correct_motion(movie, gain, MotionParams(first_frame=FIRST, last_frame=LAST), acquisition, bench)
        ctf = estimate_ctf(micrograph, CtfParams(), acquisition, bench)
        picks = pick_blobs(micrograph, PickBlobParams(diameter_ang=(135, 165)), acquisition, bench)
        particles = extract_particles(micrograph, picks, ctf, ExtractParams(box_px=160, scaled_box_px=64), acquisition, bench)
        exported = ([bench.exposure], [micrograph], [ctf], [particles], [acquisition], [picks])
        state = ExportRelion().add(state, *exported, ExportRelionParams(), bench).state
        micrographs.append(micrograph)
    folder = bench.export_folder()
    assert add_true_poses(scope, folder) > 50
    make_references(folder)
    return folder, micrographs


def make_references(folder: Path) -> None:
    """Let RELION make half maps of the particles with their true poses, and the curve of their agreement."""
    tables = read_star(folder / "truth.star")
    particles = tables["particles"]
    halves = [str(1 + index % 2) for index in range(len(particles))]
    write_star(folder / "halves.star", {**tables, "particles": Table({**particles.columns, "rlnRandomSubset": halves})})
    along = np.arange(64) - 32
    radius = np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + along**2)
    mask = np.clip((26 - radius) / 4, 0, 1).astype(np.float32)
    write_mrc_array(folder / "mask.mrc", mask, pixel_size_ang=3.75, volume=True)
    for half in ("1", "2"):
        relion("relion_reconstruct", "--i", "halves.star", "--o", f"half{half}.mrc", "--ctf", "--subset", half, cwd=folder)
    names = ("--i", "half1.mrc", "--i2", "half2.mrc", "--mask", "mask.mrc", "--angpix", "3.75")
    (folder / "post").mkdir()
    relion("relion_postprocess", *names, "--o", "post/post", cwd=folder)


def polish(folder: Path, out: str, *more: str) -> None:
    references = ("--f", "post/post.star", "--m1", "half1.mrc", "--m2", "half2.mrc", "--mask", "mask.mrc")
    movies = ("--corr_mic", "MotionCorr/job001/corrected_micrographs.star")
    relion("relion_motion_refine", "--i", "halves.star", "--o", f"{out}/", *references, *movies, *more, cwd=folder)


def our_tracks_ang(micrograph: Micrograph, y_px: NDArray[np.float64], x_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the displacement of particles by our model: ``(2, particles, frames)``."""
    assert micrograph.motion is not None and micrograph.motion.local_coefficients is not None
    track = np.array(micrograph.motion.global_yx_px)  # (n, 2)
    local = local_shift_px(
        np.array(micrograph.motion.local_coefficients),
        frame=np.arange(len(track))[None],
        y_px=y_px[:, None],
        x_px=x_px[:, None],
        shape=(1024, 1024),
        n_frames=len(track),
    )
    return np.asarray(1.5 * (track.T[:, None] + local))


def test_relion_starts_polishing_from_our_motion(project: tuple[Path, list[Micrograph]]) -> None:
    """Without an iteration the tracks of particles are what RELION read: shifts, local model, and which frames were used."""
    folder, micrographs = project
    polish(folder, "Read", "--max_iters", "0")
    particles = read_star(folder / "halves.star")["particles"]
    for number, micrograph in enumerate(micrographs, start=1):
        (path,) = (folder / "Read/Movies").glob(f"mic_{number:04d}_*_tracks.star")
        tables = read_star(path)
        rows = np.array([f"mic_{number:04d}_" in name for name in particles.texts("rlnMicrographName")])
        ours = our_tracks_ang(micrograph, particles.floats("rlnCoordinateY")[rows], particles.floats("rlnCoordinateX")[rows])
        for index in range(int(rows.sum())):
            axes = [tables[str(index)].floats(f"rlnOrigin{axis}Angst")[FIRST : LAST + 1] for axis in "YX"]
            np.testing.assert_allclose(np.stack(axes), ours[:, index], atol=1e-4)


def test_relion_polishes_our_particles(project: tuple[Path, list[Micrograph]]) -> None:
    folder, _ = project
    polish(folder, "Polish", "--combine_frames")
    shiny = read_star(folder / "Polish/shiny.star")["particles"]
    before = read_star(folder / "halves.star")["particles"]
    assert len(shiny) == len(before) > 50
    old, new = (
        [
            read_stack(folder / name.partition("@")[2])[int(name.partition("@")[0]) - 1].ravel()
            for name in table.texts("rlnImageName")
        ]
        for table in (before, shiny)
    )
    same = np.array([np.corrcoef(one, other)[0, 1] for one, other in zip(old, new, strict=True)])
    others = np.array([np.corrcoef(one, other)[0, 1] for one, other in zip(old, new[1:] + new[:1], strict=True)])
    assert np.median(same) > 0.4, same  # the same particles, from frames that RELION read, corrected and moved itself
    assert np.median(same) > np.median(others) + 0.2, others
