"""RELION itself as the judge of our conventions: projections, CTF, assignments, and an exported project with true poses."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.flow import Exposure
from icestream.io.image import read_stack, write_mrc
from icestream.io.movie import movie_header
from icestream.microscope import Pace, SimulationSettings, simulate
from icestream.microscope.phantom import build_phantom
from icestream.microscope.projection import project_2d, transform_volume
from icestream.microscope.writer import write_mrc_array
from icestream.records import Acquisition, GainReference, Movie
from icestream.steps.ctf.estimate import CtfParams, estimate_ctf
from icestream.steps.export.relion import ExportRelion, ExportRelionParams, ExportState
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.steps.picking.blob import PickBlobParams, pick_blobs
from icestream.testing.context import StepBench
from services.relion import POSE, add_true_poses, relion

pytestmark = pytest.mark.services

OPTICS = "data_optics\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n_rlnImagePixelSize\n"
OPTICS += "_rlnImageSize\n_rlnImageDimensionality\n1 300 2.7 0.1 2.0 64 2\n\ndata_particles\nloop_\n"


def correlate(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def save_phantom(folder: Path, *, pixel_size_ang: float) -> NDArray[np.float32]:
    volume = build_phantom(90.0, pixel_size_ang=pixel_size_ang, seed=4).volume
    write_mrc_array(folder / "phantom.mrc", volume, pixel_size_ang=pixel_size_ang, volume=True)
    return volume


def test_angles_and_origins_of_the_truth_are_those_of_relion(tmp_path: Path) -> None:
    volume = transform_volume(save_phantom(tmp_path, pixel_size_ang=2.0))
    angles = ["--rot", "20", "--tilt", "50", "--psi", "35", "--xoff", "4", "--yoff", "-7"]
    relion("relion_project", "--i", "phantom.mrc", "--o", "view.mrc", "--angpix", "2", *angles, cwd=tmp_path)
    ours = project_2d(volume, rot_deg=20, tilt_deg=50, psi_deg=35, shift_yx_px=(7, -4))
    assert correlate(read_stack(tmp_path / "view.mrc")[0], ours) > 0.999


def test_astigmatic_ctf_with_a_phase_shift_is_that_of_relion(tmp_path: Path) -> None:
    point = np.zeros((64, 64, 64), np.float32)
    point[32, 32, 32] = 1.0
    write_mrc_array(tmp_path / "point.mrc", point, pixel_size_ang=2.0, volume=True)
    labels = ("rlnImageName", "rlnOpticsGroup", *POSE[:3], "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
    row = "000001@none.mrcs 1 0 0 0 9000 5000 25 20"
    (tmp_path / "in.star").write_text(OPTICS + "".join(f"_{label}\n" for label in labels) + row + "\n")
    relion("relion_project", "--i", "point.mrc", "--o", "seen", "--ctf", "--ang", "in.star", cwd=tmp_path)
    seen = fft.rfft2(fft.ifftshift(read_stack(tmp_path / "seen.mrcs")[0])).real
    ours = ctf_2d(
        64,
        64,
        pixel_size_ang=2.0,
        defocus_u_ang=9000,
        defocus_v_ang=5000,
        astigmatism_angle_deg=25,
        voltage_kv=300,
        cs_mm=2.7,
        amplitude_contrast=0.1,
        phase_shift_deg=20,
    )
    inside = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None]) < 0.35
    assert correlate(seen[inside], -ours[inside]) > 0.999  # in RELION's particles protein is bright


def test_an_assignment_in_the_words_of_relion_brings_particles_to_their_average(tmp_path: Path) -> None:
    """``psi_deg`` turns the average from x towards y; RELION gets its negative, and the negative shift."""
    volume = transform_volume(save_phantom(tmp_path, pixel_size_ang=2.0))
    average = project_2d(volume, rot_deg=20, tilt_deg=50, psi_deg=0)
    psi_deg, shift_yx_px = 40.0, (5.0, -3.0)
    particle = project_2d(volume, rot_deg=20, tilt_deg=50, psi_deg=-psi_deg, shift_yx_px=shift_yx_px)
    write_mrc(tmp_path / "one.mrcs", particle[None], pixel_size_ang=2.0)
    labels = ("rlnImageName", "rlnOpticsGroup", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    row = f"000001@one.mrcs 1 {-psi_deg} {-2 * shift_yx_px[1]} {-2 * shift_yx_px[0]}"
    (tmp_path / "in.star").write_text(
        OPTICS.replace("2.0 64 2", f"2.0 {len(particle)} 2") + "".join(f"_{label}\n" for label in labels) + row + "\n"
    )
    relion("relion_stack_create", "--i", "in.star", "--o", "out", "--apply_transformation", cwd=tmp_path)
    assert correlate(read_stack(tmp_path / "out.mrcs")[0], average) > 0.99


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the simulated microscope's folder and the RELION project that our steps made of it."""
    folder = tmp_path_factory.mktemp("scope")
    settings = SimulationSettings(n_movies=5, n_particles=55, seed=11, astigmatism_ang=(1500.0, 2000.0))
    truth = simulate(folder, settings=settings, pace=Pace())
    acquisition = Acquisition(
        pixel_size_ang=1.5, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07, dose_per_frame_e_per_ang2=2.5
    )
    bench, state = StepBench(folder), ExportState()
    gain = GainReference(file="session:gain.mrc", height_px=1024, width_px=1024)
    for index, name in enumerate(truth.exposures):
        bench.exposure = Exposure(f"{index:032x}"[::-1], name)
        header = movie_header(folder / "movies" / f"{name}.tiff")
        movie = Movie(
            file=f"session:movies/{name}.tiff",
            n_frames=header.n_frames,
            height_px=header.height_px,
            width_px=header.width_px,
            format="tiff",
            size_bytes=header.path.stat().st_size,
        )
        micrograph = correct_motion(movie, gain, MotionParams(), acquisition, bench)
        ctf = estimate_ctf(micrograph, CtfParams(), acquisition, bench)
        picks = pick_blobs(micrograph, PickBlobParams(diameter_ang=(135, 165)), acquisition, bench)
        params = ExtractParams(box_px=160, scaled_box_px=64)
        particles = extract_particles(micrograph, picks, ctf, params, acquisition, bench)
        exported = ([bench.exposure], [micrograph], [ctf], [particles], [acquisition], [picks])
        state = ExportRelion().add(state, *exported, ExportRelionParams(), bench).state
    return folder, bench.export_folder()


def shell_correlation(one: NDArray[np.float32], other: NDArray[np.float32], *, radius_px: float) -> NDArray[np.float64]:
    """Return the Fourier shell correlation of two cubes within a soft sphere: ``(n // 2,)``."""
    size = len(one)
    along = np.arange(size) - size // 2
    radius = np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + along**2)
    mask = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - radius_px) / 4, 0, 1))
    a, b = fft.fftn(one * mask), fft.fftn(other * mask)
    shell = np.rint(fft.ifftshift(radius)).astype(int).ravel()

    def total(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.bincount(shell, weights=values.ravel())[: size // 2].astype(np.float64)

    return total((a * b.conj()).real) / np.sqrt(total(np.abs(a) ** 2) * total(np.abs(b) ** 2))


def test_true_poses_in_our_project_give_relion_the_phantom(project: tuple[Path, Path]) -> None:
    """Row order, box centres, rescaling, CTF and its sign, and the hand, all at once."""
    scope, folder = project
    assert add_true_poses(scope, folder) > 180
    relion("relion_reconstruct", "--i", "truth.star", "--o", "map.mrc", "--ctf", cwd=folder)
    found = read_stack(folder / "map.mrc")  # (64, 64, 64), 3.75 Å
    phantom = read_stack(scope / "truth" / "phantom.mrc")
    wide = np.pad(phantom, (160 - len(phantom)) // 2)
    middle = slice(80 - 32, 80 + 32)
    true = fft.fftshift(fft.fftn(fft.ifftshift(wide)))[middle, middle, middle]  # (64, 64, 64): Fourier-cropped
    true = fft.fftshift(fft.ifftn(fft.ifftshift(true)).real)
    curve = shell_correlation(found, true, radius_px=0.5 * 165 / 3.75)
    resolution_ang = 64 * 3.75 / int(np.argmax(curve[1:] < 0.5) + 1)
    assert resolution_ang < 11.0, curve  # origins off by one pixel give 15 Å, astigmatism turned by 90° 11.4 Å
    assert curve[1] > 0.9  # bright protein
    mirrored = shell_correlation(found, true[:, :, ::-1], radius_px=0.5 * 165 / 3.75)
    assert abs(mirrored[3:16]).mean() < 0.3
