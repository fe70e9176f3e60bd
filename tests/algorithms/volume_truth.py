"""Small simulated particles whose volume is known: blobs of mass, seen from everywhere, at 32 px."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.initial_volume import VolumeSetting, plan_volume, prepare_volume_particles
from icestream.algorithms.scoring.contrast import ctf_polar_2d
from icestream.algorithms.scoring.particles import PolarParticles
from icestream.algorithms.volumes import project_volume_2d, random_rotations, resize_volume_3d, transform_volume

BOX, PIXEL_ANG, DIAMETER_ANG = 32, 5.0, 92.0
OPTICS = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}


@dataclass(frozen=True)
class Truth:
    """Images ``(n, box, box)``, their defocus ``(n,)``, and the volume they show."""

    images: NDArray[np.float32]
    defocus_ang: NDArray[np.float64]
    volume: NDArray[np.float32]


def draw_volume(seed: int, *, box_px: int = BOX, reach_ang: float = 34.0) -> NDArray[np.float32]:
    """Return blobs of 6 Å at places that a seed draws."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(24, 3))
    places *= reach_ang * rng.uniform(0.2, 1, (24, 1)) ** (1 / 3) / np.linalg.norm(places, axis=1, keepdims=True)
    grid = (np.arange(box_px) - box_px // 2) * PIXEL_ANG * BOX / box_px
    z, y, x = (np.exp(-((grid - part[:, None]) ** 2) / 72) for part in places.T)  # (24, n)
    volume: NDArray[np.float32] = np.einsum("az,ay,ax,a->zyx", z, y, x, rng.uniform(0.5, 1.5, 24)).astype(np.float32)
    return volume


def draw_particles(seed: int, *, n: int, snr: float, volume: NDArray[np.float32] | None = None) -> Truth:
    """Return particles at random poses with a CTF; without signal where ``snr`` is 0."""
    rng = np.random.default_rng(seed)
    shown = draw_volume(seed) if volume is None else volume
    defocus = np.repeat(rng.uniform(8000, 20000, -(-n // 10)), 10)[:n]
    rotations, shifts = random_rotations(n, generator=rng), rng.normal(0, 0.5, (n, 2))
    clean = project_volume_2d(transform_volume(shown), rotations, shift_yx_px=shifts)
    for i in range(0, n, 10):
        lens = {"defocus_u_ang": defocus[i], "defocus_v_ang": defocus[i], "astigmatism_angle_deg": 0.0, "phase_shift_deg": 0.0}
        transfer = -ctf_2d(BOX, BOX, pixel_size_ang=PIXEL_ANG, **lens, **OPTICS)
        clean[i : i + 10] = np.fft.irfft2(np.fft.rfft2(clean[i : i + 10]) * transfer, s=(BOX, BOX))
    clean *= np.sqrt(snr) / clean.std()
    return Truth((clean + rng.normal(size=clean.shape)).astype(np.float32), defocus, shown)


def prepare(truth: Truth, *, symmetry: str = "C1") -> tuple[VolumeSetting, PolarParticles]:
    """Return the working box and the particles in it."""
    setting = plan_volume(box_px=BOX, pixel_size_ang=PIXEL_ANG, diameter_ang=DIAMETER_ANG, limit_ang=20.0, symmetry=symmetry)
    grid = setting.grid
    ctf = np.empty((len(truth.images), grid.n_rings, grid.half), np.float32)
    for i, defocus in enumerate(truth.defocus_ang):
        lens = {"defocus_u_ang": defocus, "defocus_v_ang": defocus, "astigmatism_angle_deg": 0.0, "phase_shift_deg": 0.0}
        same = i and defocus == truth.defocus_ang[i - 1]
        ctf[i] = ctf[i - 1] if same else -ctf_polar_2d(grid, box_ang=BOX * PIXEL_ANG, **lens, **OPTICS)
    half_set = (np.arange(len(ctf)) % 2).astype(np.int8)
    return setting, prepare_volume_particles(truth.images, ctf, setting=setting, half_set=half_set)


def small(volume: NDArray[np.float32], setting: VolumeSetting) -> NDArray[np.float32]:
    """Return a volume in the working box."""
    return resize_volume_3d(volume, new_size=setting.grid.box_px)
