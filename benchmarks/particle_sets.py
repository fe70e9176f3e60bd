"""Simulated particle images with known poses, and the judging of 2D classes against them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from icestream.algorithms.classify2d.em import Setting, prepare_particles_2d
from icestream.algorithms.classify2d.model import estimate_references_2d, render_averages_2d, sum_poses_2d
from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.frc import fourier_ring_correlation_2d, resolution_at_threshold_ang
from icestream.algorithms.scoring.bank import make_level
from icestream.algorithms.scoring.contrast import ctf_polar_2d
from icestream.algorithms.scoring.particles import PolarParticles
from icestream.algorithms.scoring.polar import soft_disc_2d
from icestream.algorithms.scoring.search import Poses
from icestream.microscope.phantom import load_phantom
from icestream.microscope.projection import project_2d, random_angles_deg, rotation_matrix, transform_volume
from icestream.microscope.score_classes import prepare_projections, score_class_average

OPTICS = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "phase_shift_deg": 0.0}
FILL = 0.62
B_FACTOR_ANG2 = 80.0
MODELS = Path(__file__).resolve().parents[2] / "shared" / "data" / "phantom_models"


@dataclass(frozen=True)
class ParticleSet:
    """Images with the background at mean 0 and spread 1, bright protein, and the truth of each.

    ``angles_deg`` ``(n, 3)`` rot, tilt, psi of RELION; ``shift_yx_px`` ``(n, 2)``; ``defocus_ang`` ``(n, 3)`` u, v, angle.
    ``phantom`` is the volume at ``pixel_size_ang``, as deep as a box.
    """

    images: NDArray[np.float32]
    angles_deg: NDArray[np.float64]
    shift_yx_px: NDArray[np.float64]
    defocus_ang: NDArray[np.float64]
    phantom: NDArray[np.float32]
    pixel_size_ang: float
    diameter_ang: float

    @property
    def box_px(self):
        """Side of a box."""
        return self.images.shape[-1]

    @property
    def box_ang(self):
        """Side of a box."""
        return self.box_px * self.pixel_size_ang


@dataclass(frozen=True)
class FoundClasses:
    """Averages ``(k, size, size)``, and of each particle the class, the turn (x towards y) and the shift in its own pixels."""

    images: NDArray[np.float32]
    class_id: NDArray[np.int32]
    psi_deg: NDArray[np.float64]
    shift_yx_px: NDArray[np.float64]
    cpu_s: float


def find_phantom(name):
    """Return the path of an atomic model by its beginning, or "builtin" where there is none."""
    found = sorted(MODELS.glob(f"{name}*")) if MODELS.is_dir() else []
    return found[0] if found else "builtin"


def make_set(source, *, n, snr, seed, box_px=64, views=0, jitter_deg=8.0):
    """Simulate ``n`` particles from the whole sphere, or about ``views`` directions; defocus 0.8 to 2 µm, 30 of each exposure.

    ``snr`` is the variance of the clean image over its whole box, over that of the noise of a pixel.
    """
    rng = np.random.default_rng(seed)
    rough = load_phantom(source, pixel_size_ang=4.0, diameter_ang=150.0, seed=3)
    pixel = rough.diameter_ang / (FILL * box_px)
    phantom = load_phantom(source, pixel_size_ang=pixel, diameter_ang=150.0, seed=3)
    size = 2 * box_px
    margin = (size - phantom.volume.shape[0]) // 2
    volume = transform_volume(phantom.volume)
    angles = random_angles_deg(n, generator=rng)
    if views:
        angles[:, :2] = _preferred(random_angles_deg(views, generator=rng)[rng.integers(views, size=n)], jitter_deg, rng)
    shift = np.clip(rng.normal(0, 1.3, (n, 2)), -3, 3)
    exposure = np.arange(n) // 30
    u = rng.uniform(8000, 20000, exposure[-1] + 1)[exposure]
    defocus = np.column_stack([u, u - 200.0, np.full(n, 30.0)])
    frequency2 = np.fft.fftfreq(size, pixel)[:, None] ** 2 + np.fft.rfftfreq(size, pixel)[None] ** 2
    envelope = np.exp(-B_FACTOR_ANG2 / 4 * frequency2)
    images = np.empty((n, box_px, box_px), np.float32)
    cut = slice((size - box_px) // 2, (size + box_px) // 2)
    for i in range(n):
        if i == 0 or exposure[i] != exposure[i - 1]:
            contrast = -ctf_2d(size, size, pixel_size_ang=pixel, **_lens(defocus[i]), **OPTICS) * envelope
        rot, tilt, psi = angles[i]
        clean = project_2d(volume, rot_deg=rot, tilt_deg=tilt, psi_deg=psi, shift_yx_px=tuple(shift[i]))
        padded = np.pad(clean, ((margin, size - len(clean) - margin),) * 2)
        images[i] = np.fft.irfft2(np.fft.rfft2(padded) * contrast, s=(size, size))[cut, cut]
    spread = np.sqrt(np.mean([image.var() for image in images[:200]]))
    images *= np.sqrt(snr) / spread
    images += np.asarray(rng.normal(size=images.shape), np.float32)
    keep = (phantom.volume.shape[0] - box_px) // 2
    cube = phantom.volume
    if keep > 0:
        cube = cube[keep : keep + box_px, keep : keep + box_px, keep : keep + box_px]
    return ParticleSet(images, angles, shift, defocus, cube, pixel, rough.diameter_ang)


def _preferred(centres, jitter_deg, rng):
    out = np.empty((len(centres), 2))
    for i, (rot, tilt, psi) in enumerate(centres):
        axis = np.append(rng.normal(size=2), 0.0)
        matrix = Rotation.from_rotvec(axis / np.linalg.norm(axis) * jitter_deg * np.sqrt(rng.uniform()), degrees=True).as_matrix()
        direction = (matrix @ rotation_matrix(rot, tilt, psi))[2]
        out[i] = np.rad2deg(np.arctan2(direction[1], direction[0])), np.rad2deg(np.arccos(np.clip(direction[2], -1, 1)))
    return out


def _lens(row):
    return {"defocus_u_ang": row[0], "defocus_v_ang": row[1], "astigmatism_angle_deg": row[2]}


def prepare(given: ParticleSet, setting: Setting) -> PolarParticles:
    """Prepare all particles as the step does; half sets alternate."""
    ctf = np.empty((len(given.images), setting.grid.n_rings, setting.grid.half), np.float32)
    for i, row in enumerate(given.defocus_ang):
        same = i and (row == given.defocus_ang[i - 1]).all()
        ctf[i] = ctf[i - 1] if same else -ctf_polar_2d(setting.grid, box_ang=given.box_ang, **_lens(row), **OPTICS)
    half_set = (np.arange(len(given.images)) % 2).astype(np.int8)
    return prepare_particles_2d(given.images, ctf, setting=setting, half_set=half_set)


def _about_z(psi_deg):
    return rotation_matrix(0.0, 0.0, psi_deg)


def _mean_rotation(matrices, kept):
    u, _, vt = np.linalg.svd(matrices[kept].sum(axis=0))
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt


def judge_class(given, members, psi_deg, shift_yx_px):
    """Compare found poses ``psi_deg`` (x towards y) and ``shift_yx_px`` of the ``members`` of one class with the truth.

    Returns a dictionary: in-plane errors, distances of the shift, angles between each view and the mean view; the orientation
    ``(3, 3)`` of the class; its own shift.
    """
    seen = np.stack([rotation_matrix(*given.angles_deg[i]) for i in members])
    back = np.stack([_about_z(psi) for psi in psi_deg])  # RELION's psi turns the other way
    framed = back @ seen
    kept = np.ones(len(members), bool)
    for _ in range(5):
        centre = _mean_rotation(framed, kept)
        relative = framed @ centre.T
        apart = np.rad2deg(np.arccos(np.clip((np.trace(relative, axis1=1, axis2=2) - 1) / 2, -1, 1)))
        kept = apart <= max(np.median(apart) * 2, 5)
    spread = np.rad2deg(np.arccos(np.clip(relative[:, 2, 2], -1, 1)))
    twist = np.rad2deg(np.arctan2(relative[:, 1, 0] - relative[:, 0, 1], relative[:, 0, 0] + relative[:, 1, 1]))
    twist = (twist - np.rad2deg(np.angle(np.exp(1j * np.deg2rad(twist[kept])).mean())) + 180) % 360 - 180
    left = given.shift_yx_px[members] - shift_yx_px
    turn = np.deg2rad(psi_deg)
    own = np.stack(
        [left[:, 0] * np.cos(turn) - left[:, 1] * np.sin(turn), left[:, 0] * np.sin(turn) + left[:, 1] * np.cos(turn)], axis=1
    )
    shift = np.median(own, axis=0)
    return {
        "in_plane_deg": np.abs(twist),
        "shift_px": np.hypot(*(own - shift).T),
        "spread_deg": spread,
        "twist_deg": twist,
        "shift": shift,
        "orientation": centre,
    }


def true_average(given, particles, setting, members, *, judged, psi_deg):
    """Return what the same members give with their true poses, and the mean of their true projections, in the same frame."""
    # The member is the class turned by psi + its twist; what remains of the shift is that of the class.
    turns = 360
    level = make_level(setting.grid, n_rings=setting.grid.n_rings, n_turns=turns, shift_step_px=0.5, max_shift_px=7.0)
    psi = np.deg2rad(psi_deg - judged["twist_deg"])
    truth = given.shift_yx_px[members]
    framed = np.stack(
        [truth[:, 0] * np.cos(psi) - truth[:, 1] * np.sin(psi), truth[:, 0] * np.sin(psi) + truth[:, 1] * np.cos(psi)], 1
    )
    wanted = framed - judged["shift"]
    shift = np.square(level.shifts_yx_px[:, None] - wanted).sum(axis=-1).argmin(axis=0)
    n = len(members)
    poses = Poses(
        np.arange(n, dtype=np.int32),
        np.zeros(n, np.int32),
        (np.rint(psi * turns / (2 * np.pi)).astype(np.int64) % turns).astype(np.int32),
        shift.astype(np.int32),
        np.ones(n, np.float32),
        np.zeros(n, np.float32),
        np.zeros((n, 1), np.float32),
    )
    sums = sum_poses_2d(particles.take(members), poses, level=level, n_classes=1)
    shape = {"grid": setting.grid, "mask_radius_px": setting.mask_radius_px, "edge_px": setting.edge_px}
    average = render_averages_2d(estimate_references_2d(sums, tau_fudge=setting.tau_fudge, **shape), **shape).images[0]
    volume = transform_volume(_even_cube(given.phantom))
    mean = np.zeros((given.box_px, given.box_px))
    for i, turn in zip(members[:80], np.rad2deg(psi)[:80], strict=True):
        rot, tilt, own = given.angles_deg[i]
        image = project_2d(volume, rot_deg=rot, tilt_deg=tilt, psi_deg=own + turn, shift_yx_px=tuple(judged["shift"]))
        margin = (given.box_px - len(image)) // 2
        mean += np.pad(image, ((margin, given.box_px - len(image) - margin),) * 2)
    return average, mean


def _even_cube(volume):
    return volume if volume.shape[0] % 2 == 0 else np.pad(volume, ((0, 1),) * 3)


def frc_half_ang(a, b, box_ang):
    """Return where the ring correlation of two masked images of a box falls below 0.5."""
    frequency, correlation = fourier_ring_correlation_2d(a, b)
    pixel = box_ang / a.shape[-1]
    return resolution_at_threshold_ang(frequency, correlation, threshold=0.5, pixel_size_ang=pixel) or 999.0


def fit(image, size):
    """Crop or pad in Fourier space to ``size`` pixels of the same box."""
    old = image.shape[-1]
    if old == size:
        return image
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image)))
    out = np.zeros((size, size), complex)
    few = min(old, size)
    a, b = (old - few) // 2, (size - few) // 2
    out[b : b + few, b : b + few] = spectrum[a : a + few, a : a + few]
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(out))).real * (size / old) ** 2


def judge(given, particles, setting, found, *, projections=True):
    """Return the medians over particles and classes of all that the target table asks for; shifts in pixels of ``given``."""
    scale = setting.grid.box_px / given.box_px
    working = ParticleSet(
        given.images,
        given.angles_deg,
        given.shift_yx_px * scale,
        given.defocus_ang,
        given.phantom,
        given.pixel_size_ang,
        given.diameter_ang,
    )
    size = setting.grid.box_px
    mask = soft_disc_2d(size, radius_px=setting.mask_radius_px, edge_px=setting.edge_px)
    per_particle: dict[str, list[NDArray[np.float64]]] = {"in_plane_deg": [], "shift_px": [], "spread_deg": []}
    frc, frc_true, correlations, counts = [], [], [], []
    reference = None
    if projections:
        pixel = given.box_ang / size
        reference = prepare_projections(
            given.phantom,
            phantom_pixel_size_ang=given.pixel_size_ang,
            pixel_size_ang=pixel,
            diameter_ang=given.diameter_ang,
            box_px=size,
        )
    for k in range(len(found.images)):
        members = np.flatnonzero(found.class_id == k)
        counts.append(len(members))
        if len(members) < 5:
            continue
        judged = judge_class(working, members, found.psi_deg[members], found.shift_yx_px[members] * scale)
        for name, values in per_particle.items():
            values.append(judged[name])
        best, mean = true_average(working, particles, setting, members, judged=judged, psi_deg=found.psi_deg[members])
        truth = fit(mean, size) * mask
        image = fit(found.images[k], size)
        frc.append(frc_half_ang(image * mask, truth, given.box_ang))
        frc_true.append(frc_half_ang(best * mask, truth, given.box_ang))
        if reference is not None:
            correlations.append(score_class_average(image.astype(np.float32), reference).correlation)
    joined = {name: np.concatenate(values) for name, values in per_particle.items()}
    return {
        "in_plane_deg": round(float(np.median(joined["in_plane_deg"])), 2),
        "shift_px": round(float(np.median(joined["shift_px"])) / scale, 3),
        "spread_deg": round(float(np.median(joined["spread_deg"])), 1),
        "frc_ang": round(float(np.median(frc)), 2),
        "frc_true_poses_ang": round(float(np.median(frc_true)), 2),
        "frc_of_true": round(float(np.median(np.array(frc) / np.array(frc_true))), 3),
        "correlation": round(float(np.median(correlations)), 4) if correlations else None,
        "sizes": sorted(counts),
    }
