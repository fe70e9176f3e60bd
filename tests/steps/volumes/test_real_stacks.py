"""Real particles at the poses that RELION stored with them: our volume beside that of ``relion_reconstruct``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.volumes import (
    fourier_shell_correlation_3d,
    reconstruct_volume,
    rotations_from_angles,
    single_poses,
    soft_sphere_3d,
    sum_particles,
    symmetry_group,
)
from icestream.io.image import read_stack, write_mrc
from icestream.io.star import Table, read_star, write_star
from services.relion import POSE, relion

pytestmark = pytest.mark.services

BOX, PIXEL_ANG, SYMMETRY = 100, 2.8, "D4"
OPTICS = ("rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")


@dataclass(frozen=True)
class RealParticles:
    """17 particles, Fourier-cropped to half the box, and the two tables that RELION 3.1 wrote of them."""

    images: NDArray[np.float32]
    optics: Table
    table: Table


@pytest.fixture(scope="module")
def particles(shared_data: Path) -> RealParticles:
    """Real particles with their poses; a test of them is skipped by name where they are missing."""
    folder = shared_data / "particle_stacks" / "aspire_d4"
    if not folder.is_dir():
        pytest.skip("real data are missing: particle_stacks/aspire_d4 in shared/data")
    tables = read_star(folder / "sample_particles_relion31.star")
    spectra = fft.rfft2(read_stack(folder / "sample.mrcs"))  # (17, 200, 101)
    half = BOX // 2
    cropped = np.concatenate([spectra[:, :half, : half + 1], spectra[:, -half:, : half + 1]], axis=1)  # (17, 100, 51)
    images = fft.irfft2(cropped, s=(BOX, BOX)).astype(np.float32)
    return RealParticles(images, tables["optics"], tables["particles"])


def our_volume(particles: RealParticles, *, psi_sign: float = 1.0) -> NDArray[np.float32]:
    """Return the volume of all particles at their stored poses, or with psi turned the other way."""
    table, optics = particles.table, particles.optics
    angles = np.column_stack([table.floats(name) for name in POSE[:3]]) * (1.0, 1.0, psi_sign)
    shift = -np.column_stack([table.floats(f"rlnOrigin{axis}Angst") for axis in "YX"]) / PIXEL_ANG
    voltage = dict(zip(optics.texts("rlnOpticsGroup"), optics.floats("rlnVoltage").tolist(), strict=True))
    defocus = np.column_stack([table.floats(f"rlnDefocus{name}") for name in ("U", "V", "Angle")]).tolist()
    contrast = [
        -ctf_2d(
            BOX, BOX, pixel_size_ang=PIXEL_ANG, defocus_u_ang=u, defocus_v_ang=v, astigmatism_angle_deg=angle,
            voltage_kv=voltage[group], cs_mm=2.7, amplitude_contrast=0.1,
        )
        for (u, v, angle), group in zip(defocus, table.texts("rlnOpticsGroup"), strict=True)
    ]  # fmt: skip
    poses = single_poses(rotations_from_angles(angles), shift)
    return reconstruct_volume(sum_particles(particles.images, np.stack(contrast), poses, group=symmetry_group(SYMMETRY)))


def test_real_particles_at_their_stored_poses_give_the_volume_of_relion(particles: RealParticles, tmp_path: Path) -> None:
    write_mrc(tmp_path / "sample.mrcs", particles.images, pixel_size_ang=PIXEL_ANG)
    sizes = {"rlnImagePixelSize": [str(PIXEL_ANG)] * 2, "rlnImageSize": [str(BOX)] * 2, "rlnImageDimensionality": ["2"] * 2}
    optics = Table({name: particles.optics.texts(name) for name in OPTICS} | sizes)
    write_star(tmp_path / "in.star", {"optics": optics, "particles": particles.table})
    relion("relion_reconstruct", "--i", "in.star", "--o", "theirs.mrc", "--ctf", "--sym", SYMMETRY, cwd=tmp_path)
    ball = soft_sphere_3d(BOX, radius_px=35.0, edge_px=5.0)
    theirs = read_stack(tmp_path / "theirs.mrc") * ball
    _, same = fourier_shell_correlation_3d(our_volume(particles) * ball, theirs)
    assert same[1:11].min() > 0.9, same
    assert same[11:40].mean() > 0.65, same  # so few slices leave gaps, where each program has its own least weight
    _, turned = fourier_shell_correlation_3d(our_volume(particles, psi_sign=-1.0) * ball, theirs)
    assert turned[11:40].max() < 0.3, turned
