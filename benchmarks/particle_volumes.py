"""Simulated particles whose volume and poses are known, with and without symmetry, and the judging of poses and maps."""

import resource
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.frc import resolution_at_threshold_ang
from icestream.algorithms.volumes import (
    angles_from_rotations,
    cut_volume_3d,
    fourier_shell_correlation_3d,
    mean_rotation,
    nearest_equivalent,
    project_volume_2d,
    random_rotations,
    reconstruct_volume,
    rotation_distance_deg,
    single_poses,
    soft_sphere_3d,
    sum_particles,
    symmetry_group,
    transform_volume,
    turn_volume_3d,
)
from icestream.io.image import write_mrc
from icestream.microscope.phantom import load_phantom

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
VOLTAGE_KV, CS_MM, AMPLITUDE_CONTRAST = 300.0, 2.7, 0.1
OPTICS = {"voltage_kv": VOLTAGE_KV, "cs_mm": CS_MM, "amplitude_contrast": AMPLITUDE_CONTRAST, "phase_shift_deg": 0.0}
B_FACTOR_ANG2 = 80.0
ASSEMBLY_RADIUS_ANG = 52.0
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
opticsGroup1 1 {box} 2 {pixel:.6f} 300 2.7 0.1

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
POSES = """_rlnRandomSubset
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOriginXAngst
_rlnOriginYAngst
"""


@dataclass(frozen=True)
class PosedParticles:
    """Images with the background at mean 0 and spread 1, bright protein, and the truth of each.

    ``rotations`` ``(n, 3, 3)``, ``shift_yx_px`` ``(n, 2)``, ``defocus_ang`` ``(n, 3)`` u, v and angle, ``half_set`` ``(n,)`` 0 or
    1, ``junk`` ``(n,)`` where there is no particle to be seen. ``volume`` is the truth in the box of the images.
    """

    images: NDArray[np.float32]
    rotations: NDArray[np.float64]
    shift_yx_px: NDArray[np.float64]
    defocus_ang: NDArray[np.float64]
    half_set: NDArray[np.int8]
    junk: NDArray[np.bool_]
    volume: NDArray[np.float32]
    pixel_size_ang: float
    diameter_ang: float
    symmetry: str

    def __len__(self):
        return len(self.images)

    @property
    def box_px(self):
        """Side of a box."""
        return self.images.shape[-1]

    @property
    def group(self):
        """The rotations of the symmetry."""
        return symmetry_group(self.symmetry)

    def contrast(self):
        """Return the contrast transfer of each, positive where bright stays bright: ``(n, box, box // 2 + 1)``."""
        out = np.empty((len(self), self.box_px, self.box_px // 2 + 1), np.float32)
        for i, row in enumerate(self.defocus_ang):
            same = i and (row == self.defocus_ang[i - 1]).all()
            out[i] = out[i - 1] if same else _contrast(row, self.box_px, self.pixel_size_ang)
        return out

    def take(self, rows):
        """Return some of the particles."""
        names = ("images", "rotations", "shift_yx_px", "defocus_ang", "half_set", "junk")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def find_volume(name, *, pixel_size_ang, box_px, symmetry="C1"):
    """Return a true volume ``(box, box, box)`` and its diameter in Å.

    ``name`` is the beginning of a file in ``phantom_models`` or ``phantom_maps``, or "builtin"; where that is not there, the
    built-in phantom of that size. With a symmetry, copies of it stand around the axes.
    """
    found = [path for folder in ("phantom_models", "phantom_maps") for path in sorted((DATA / folder).glob(f"{name}*"))]
    source = found[0] if found else "builtin"
    single = symmetry == "C1"
    phantom = load_phantom(source, pixel_size_ang=pixel_size_ang, diameter_ang=150.0 if single else 70.0, seed=3)
    cube = cut_volume_3d(phantom.volume, new_size=box_px)
    if single:
        return cube, min(phantom.diameter_ang, box_px * pixel_size_ang * 0.85)
    group = symmetry_group(symmetry)
    radius = ASSEMBLY_RADIUS_ANG / pixel_size_ang * (1.0 if len(group) > 7 else 0.8)
    direction = np.array([0.62, 0.31, 0.72])
    x, y, z = direction / np.linalg.norm(direction) * radius
    whole = sum(turn_volume_3d(turn_volume_3d(cube, np.eye(3), shift_zyx_px=(z, y, x)), g) for g in group)
    reach = 2 * ASSEMBLY_RADIUS_ANG + 0.8 * phantom.diameter_ang
    return np.asarray(whole, np.float32), min(reach, box_px * pixel_size_ang * 0.85)


def make_particles(
    name, *, n, snr, seed, box_px=64, pixel_size_ang=3.75, symmetry="C1", junk=0.0, shift_px=1.3, rotations=None, volume=None
):
    """Simulate ``n`` particles from the whole sphere; defocus 0.8 to 2 µm, 30 of each exposure.

    ``snr`` is the variance of the clean image over its whole box, over that of the noise of a pixel. The share ``junk`` shows
    nothing, several particles in a heap, or a blob.
    """
    rng = np.random.default_rng(seed)
    if volume is None:
        volume, diameter = find_volume(name, pixel_size_ang=pixel_size_ang, box_px=box_px, symmetry=symmetry)
    else:
        diameter = 0.62 * box_px * pixel_size_ang
    true = random_rotations(n, generator=rng) if rotations is None else rotations
    shift = np.clip(rng.normal(0, shift_px, (n, 2)), -2.5 * shift_px, 2.5 * shift_px)
    exposure = np.arange(n) // 30
    u = rng.uniform(8000, 20000, exposure[-1] + 1)[exposure]
    defocus = np.column_stack([u, u - 200.0, np.full(n, 30.0)])
    transform = transform_volume(volume)
    clean = project_volume_2d(transform, true, shift_yx_px=shift)
    bad = rng.random(n) < junk
    for spoilt in np.flatnonzero(bad):
        clean[spoilt] = _junk(transform, clean[spoilt], rng)
    size = 2 * box_px
    frequency2 = np.fft.fftfreq(size, pixel_size_ang)[:, None] ** 2 + np.fft.rfftfreq(size, pixel_size_ang)[None] ** 2
    envelope = np.exp(-B_FACTOR_ANG2 / 4 * frequency2)
    cut = slice((size - box_px) // 2, (size + box_px) // 2)
    images = np.empty((n, box_px, box_px), np.float32)
    for i in range(n):
        if i == 0 or exposure[i] != exposure[i - 1]:
            transfer = _contrast(defocus[i], size, pixel_size_ang) * envelope
        padded = np.pad(clean[i], (size - box_px) // 2)
        images[i] = np.fft.irfft2(np.fft.rfft2(padded) * transfer, s=(size, size))[cut, cut]
    images *= np.sqrt(snr) / np.sqrt(np.mean([image.var() for image in images[~bad][:200]]))
    images += np.asarray(rng.normal(size=images.shape), np.float32)
    half_set = rng.integers(0, 2, n).astype(np.int8)
    return PosedParticles(images, true, shift, defocus, half_set, bad, volume, pixel_size_ang, diameter, symmetry)


def _junk(transform, clean, rng):
    kind, size = int(rng.integers(3)), transform.size
    if kind == 0:
        return np.zeros_like(clean)
    if kind == 1:
        shifts = rng.uniform(-size / 4, size / 4, (3, 2))
        return project_volume_2d(transform, random_rotations(3, generator=rng), shift_yx_px=shifts).sum(axis=0)
    grid = np.arange(size) - size // 2
    y, x = rng.uniform(-size / 8, size / 8, 2)
    blob = np.exp(-((grid[:, None] - y) ** 2 + (grid - x) ** 2) / (2 * rng.uniform(size / 16, size / 6) ** 2))
    return np.asarray(blob * (clean.std() / blob.std() * 2), np.float32)


def _contrast(row, size, pixel_size_ang):
    return -ctf_2d(
        size, size, pixel_size_ang=pixel_size_ang, defocus_u_ang=row[0], defocus_v_ang=row[1], astigmatism_angle_deg=row[2],
        **OPTICS,
    )  # fmt: skip


def true_pose_volumes(given, *, junk=False):
    """Return the volume of all particles at their true poses, and those of the half sets."""
    rows = np.arange(len(given)) if junk else np.flatnonzero(~given.junk)
    some = given.take(rows)
    contrast = some.contrast()
    halves = []
    for half in (0, 1):
        mine = some.half_set == half
        poses = single_poses(some.rotations[mine], some.shift_yx_px[mine])
        halves.append(sum_particles(some.images[mine], contrast[mine], poses, group=given.group))
    return reconstruct_volume(halves[0] + halves[1]), tuple(reconstruct_volume(part) for part in halves)


def masked(given, volume):
    """Return a volume within the soft sphere of the particle."""
    radius = given.diameter_ang / 2 / given.pixel_size_ang
    return volume * soft_sphere_3d(given.box_px, radius_px=min(1.05 * radius, given.box_px / 2 - 5), edge_px=4.0)


def resolution_ang(given, a, b, threshold):
    """Return where two volumes stop to agree, within the sphere of the particle."""
    frequency, correlation = fourier_shell_correlation_3d(masked(given, a), masked(given, b))
    found = resolution_at_threshold_ang(frequency, correlation, threshold=threshold, pixel_size_ang=given.pixel_size_ang)
    return float("inf") if found is None else found


def pose_errors(given, rotations, shift_yx_px, *, in_frame=False):
    """Return the angles in degrees, and the distances of the shifts, between found and true poses of what is no junk.

    One rotation of the whole frame is taken out first, unless ``in_frame``.
    """
    good = ~given.junk
    true, found = given.rotations[good], rotations[good]
    if not in_frame:
        near = nearest_equivalent(found, true, group=given.group)
        relative = np.swapaxes(near, -1, -2) @ true  # near @ relative = true
        kept = np.ones(len(relative), bool)
        for _ in range(5):
            frame = mean_rotation(relative[kept])
            apart = rotation_distance_deg(relative, np.broadcast_to(frame, relative.shape))
            kept = apart <= max(2 * np.median(apart), 1.0)
        found = near @ frame
    apart = rotation_distance_deg(found, true, group=given.group)
    return apart, np.hypot(*(shift_yx_px[good] - given.shift_yx_px[good]).T)


def write_for_relion(folder, given, *, rotations=None, shift_yx_px=None, with_poses=True):
    """Write ``particles.mrcs`` and ``particles.star``, with poses (the true ones when unset) and half sets, into a folder."""
    write_mrc(folder / "particles.mrcs", given.images, pixel_size_ang=given.pixel_size_ang, remember=False)
    angles = angles_from_rotations(given.rotations if rotations is None else rotations)
    shift = given.shift_yx_px if shift_yx_px is None else shift_yx_px
    rows = []
    for i, ((u, v, angle), (rot, tilt, psi), (y, x)) in enumerate(zip(given.defocus_ang, angles, shift, strict=True)):
        origin = f"{-x * given.pixel_size_ang:.5f} {-y * given.pixel_size_ang:.5f}"
        row = f"{i + 1:06d}@particles.mrcs exposure{i // 30:04d}.mrc 1 {u:.1f} {v:.1f} {angle:.1f} 0"
        pose = f" {given.half_set[i] + 1} {rot:.5f} {tilt:.5f} {psi:.5f} {origin}"
        rows.append(row + pose if with_poses else row)
    head = HEAD.format(box=given.box_px, pixel=given.pixel_size_ang) + (POSES if with_poses else "")
    (folder / "particles.star").write_text(head + "\n".join(rows) + "\n")


def run_relion(program, *arguments, cwd):
    """Run a program of RELION and return the CPU seconds it took."""
    path = shutil.which(program)
    if path is None:
        raise SystemExit(f"{program} is not there: install Debian's package relion")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([path, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
