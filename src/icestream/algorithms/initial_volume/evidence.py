"""How much of the particles a volume explains, beyond what a volume of the same shape and spectrum with other phases does.

Particles that the volume was not made from are compared with its views. With the right amplitudes, ``A``, the cross term
``Re(C X conj A)`` is in the mean ``C² |A|²`` for the right volume in the right pose, and less by the shell correlation for a
wrong one; their quotient is the slope. Choosing the best of many poses lifts the slope of any volume. So the slope of a twin
whose phases are random beyond a low resolution is taken off, as phase randomisation takes the mask off a shell correlation
(Chen et al. 2013, Ultramicroscopy 135, 24): ``(slope - twin) / (1 - twin)``. The right amplitudes follow from the particles:
their power grows with their CTF² by that of the signal.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.initial_volume.setting import VolumeSetting, level_at
from icestream.algorithms.initial_volume.views import fine_order, search_views, view_references
from icestream.algorithms.scoring import (
    PolarParticles,
    Poses,
    PoseWindows,
    Real,
    group_shifts,
    make_bank,
    search_poses_2d,
    search_windows_2d,
)
from icestream.algorithms.volumes import all_views, filter_shells_3d, soft_sphere_3d, spread_shells, sum_shells

Volume = NDArray[np.float32]
TWINS = 2
SHAPE_ANG, DETAIL_ANG = 60.0, 25.0
"""Coarser than the first is the shape, which the twins keep; the particles are compared between both."""
LEAST_EXPLAINED = 0.5
"""Share of the signal that a volume must explain beyond its twins to count as right."""
_SURE = 3.0
_BOOTSTRAPS = 200
_LEAST_SIGNAL = 0.02
_FIT_ROUNDS = 3
_TWIN_ROUNDS = 6


@dataclass(frozen=True)
class SignalPower:
    """Power of the signal before the CTF and of the noise, by ring ``(n_rings,)``, and the standard deviation of the first."""

    signal: NDArray[np.float64]
    noise: Real
    error: NDArray[np.float64]

    def relative_error(self, first: int, last: int) -> float:
        """Return the relative error of the power of the signal on rings ``first`` to ``last`` together."""
        rings = slice(first - 1, last)
        weight = np.arange(first, last + 1) / self.noise[rings]
        return float(np.sqrt(np.square(weight * self.error[rings]).sum()) / (weight * self.signal[rings]).sum())


@dataclass(frozen=True)
class HeldOutScore:
    """How particles fit a volume, each in its best pose.

    ``gain`` ``(n,)`` is the log likelihood ratio against noise alone on all rings; ``cross`` and ``energy`` ``(n,)`` are what the
    slope is made of, on the rings between shape and detail. ``entropy`` is that of the poses, mean, in nats.
    """

    gain: NDArray[np.float64]
    cross: NDArray[np.float64]
    energy: NDArray[np.float64]
    entropy: float


@dataclass(frozen=True)
class Evidence:
    """What held-out particles say of a volume.

    ``explained`` is the share of the signal between 60 and 25 Å that the volume explains beyond its twins, ``error`` its standard
    deviation by the bootstrap; ``gain`` and ``twin_gain`` the log likelihood ratio of a particle, mean, and ``gain_error`` the
    standard deviation of their difference.
    """

    explained: float
    error: float
    gain: float
    twin_gain: float
    gain_error: float
    pose_entropy: float

    @property
    def is_right(self) -> bool:
        """Whether the volume explains enough, and surely more than its twins."""
        beats = self.gain - self.twin_gain > _SURE * self.gain_error
        return beats and self.explained >= LEAST_EXPLAINED and self.explained > _SURE * self.error


def measure_signal(particles: PolarParticles) -> SignalPower:
    """Return the power of signal and noise: the slope and the intercept of the power of images against their CTF²."""
    ctf, power = particles.ctf_squared.astype(np.float64), particles.power.astype(np.float64)  # (n, n_rings)
    apart = ctf - ctf.mean(axis=0)
    spread = np.maximum(np.square(apart).sum(axis=0), 1e-9)
    slope = (apart * (power - power.mean(axis=0))).sum(axis=0) / spread
    noise = power.mean(axis=0) - slope * ctf.mean(axis=0)
    noise = np.maximum(noise, 0.1 * power.mean(axis=0))
    left = power - power.mean(axis=0) - slope * apart
    error = np.sqrt(np.square(left).mean(axis=0) / spread)  # (n_rings,)
    signal = np.maximum(slope, _LEAST_SIGNAL * noise)
    return SignalPower(signal, noise.astype(np.float32), error)


def match_signal(volume: Volume, power: SignalPower, *, setting: VolumeSetting) -> Volume:
    """Return a volume within its ball whose views have, ring by ring, the power of the signal."""
    ball = _ball(setting)
    few = all_views(1).rotations
    for _ in range(_FIT_ROUNDS):
        references = view_references(volume * ball, few, setting=setting)  # (k, n_orders, n_rings)
        twice = np.where(np.arange(references.shape[1]) > 0, 2.0, 1.0) / setting.grid.n_angles**2
        own = np.einsum("q,kqr->r", twice, np.square(np.abs(references))) / len(few)
        factor = np.sqrt(power.signal / np.maximum(own, 1e-20))
        volume = filter_shells_3d(volume * ball, np.concatenate([factor[:1], factor]))
    return volume


def randomise_phases(volume: Volume, *, setting: VolumeSetting, generator: np.random.Generator) -> Volume:
    """Return a twin: the same shape to 60 Å and the same power in each shell within the same ball, but other phases beyond."""
    size = setting.grid.box_px
    ball, keep = _ball(setting), shape_ring(setting)
    spectrum = fft.rfftn(volume)
    target = sum_shells(np.square(np.abs(spectrum)), size=size)
    low = spread_shells(np.ones(keep + 1), size=size) > 0
    twin = generator.normal(size=volume.shape).astype(np.float32)
    for _ in range(_TWIN_ROUNDS):
        random = fft.rfftn(twin * ball)
        own = sum_shells(np.square(np.abs(random)), size=size)
        random *= spread_shells(np.sqrt(target / np.maximum(own, 1e-20)), size=size)
        random[low] = spectrum[low]
        twin = fft.irfftn(random, s=volume.shape).astype(np.float32)
    return twin


def shape_ring(setting: VolumeSetting) -> int:
    """Return the last ring of the shape: 60 Å, or 2.5 waves across the particle if that is finer."""
    diameter_ang = 2 * setting.radius_px * setting.pixel_size_ang / 1.05
    return min(setting.ring_at(min(SHAPE_ANG, diameter_ang / 2.5)), setting.ring_at(DETAIL_ANG) - 2)


def score_held_out(particles: PolarParticles, volume: Volume, power: SignalPower, *, setting: VolumeSetting) -> HeldOutScore:
    """Find the best pose of each particle in a volume of the power of the signal, and how well it fits there."""
    level = level_at(setting, setting.ring_at(DETAIL_ANG))
    references = view_references(volume, search_views(setting, fine_order(setting)), setting=setting)
    prepare = partial(make_bank, grid=setting.grid, level=level, noise_power=power.noise, overlap=setting.overlap)
    poses = search_poses_2d(particles, prepare(references))
    best = poses.best()
    band = references.copy()
    band[:, :, : shape_ring(setting)] = 0
    bank = prepare(band)
    there = search_windows_2d(particles, bank, _at(poses, best, bank.n_shifts))
    prior = level.log_prior[poses.shift[best]]
    energy = (particles.ctf_squared[:, : level.grid.n_rings] * np.asarray(bank.energy).T[poses.class_id[best]]).sum(axis=1)
    cross = (there.gain - prior + energy) / 2
    return HeldOutScore(
        poses.gain.astype(np.float64), cross.astype(np.float64), energy.astype(np.float64), float(_pose_entropy(poses).mean())
    )


def weigh_evidence(
    particles: PolarParticles, volume: Volume, power: SignalPower, *, setting: VolumeSetting, seed: int
) -> Evidence:
    """Compare particles that a volume was not made from with the volume and with its phase-randomised twins.

    Parameters
    ----------
    particles
        Held out; a few hundred are enough.
    volume
        ``(n, n, n)`` of the working box.
    power
        Of these and more particles, by `measure_signal`.
    setting, seed
        Box and symmetry; of the phases and the bootstrap.
    """
    generator = np.random.default_rng(seed)
    matched = match_signal(volume, power, setting=setting)
    own = score_held_out(particles, matched, power, setting=setting)
    twins = []
    for _ in range(TWINS):
        twin = match_signal(randomise_phases(matched, setting=setting, generator=generator), power, setting=setting)
        twins.append(score_held_out(particles, twin, power, setting=setting))
    n = len(particles)
    explained = _explained(own, twins, np.arange(n))
    draws = [_explained(own, twins, generator.integers(0, n, n)) for _ in range(_BOOTSTRAPS)]
    twin_gain = np.mean([twin.gain for twin in twins], axis=0)  # (n,)
    difference = own.gain - twin_gain
    amplitude = 0.5 * power.relative_error(shape_ring(setting) + 1, setting.ring_at(DETAIL_ANG))
    return Evidence(
        explained=explained,
        error=float(np.hypot(np.std(draws), amplitude * (1 + abs(explained)))),
        gain=float(own.gain.mean()),
        twin_gain=float(twin_gain.mean()),
        gain_error=float(difference.std() / np.sqrt(n)),
        pose_entropy=own.entropy,
    )


def _explained(own: HeldOutScore, twins: list[HeldOutScore], rows: NDArray[np.int64]) -> float:
    """Return the share of the signal that is explained beyond the twins, of some of the particles."""
    slope = own.cross[rows].sum() / own.energy[rows].sum()
    twin = float(np.mean([one.cross[rows].sum() / one.energy[rows].sum() for one in twins]))
    return float((slope - twin) / max(1 - twin, 0.05))


def _at(poses: Poses, best: NDArray[np.int64], n_shifts: int) -> PoseWindows:
    """Return windows of one pose each: the best of each image."""
    starts, shifts = group_shifts([np.array([i], dtype=np.int32) for i in range(n_shifts)])
    n = len(best)
    one = np.ones(n, np.int32)
    nothing = np.zeros(n, np.float32)
    image = np.arange(n, dtype=np.int32)
    return PoseWindows(image, poses.class_id[best], poses.turn[best], one, poses.shift[best], nothing, starts, shifts)


def _ball(setting: VolumeSetting) -> Volume:
    return soft_sphere_3d(setting.grid.box_px, radius_px=setting.radius_px, edge_px=setting.edge_px)


def _pose_entropy(poses: Poses) -> NDArray[np.float64]:
    """Return the entropy of the poses of each image ``(n,)``, in nats: how undecided it is."""
    weight = np.maximum(poses.weight.astype(np.float64), 1e-12)
    entropy = np.bincount(poses.particle, weights=-weight * np.log(weight), minlength=len(poses.gain))
    return np.asarray(entropy, dtype=np.float64)
