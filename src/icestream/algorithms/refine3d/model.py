"""What a refinement knows: two half volumes that never share particles, their noise, and how far they agree."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.frc import frequency_at_threshold, resolution_at_threshold_ang
from icestream.algorithms.scoring import PolarGrid, Real
from icestream.algorithms.volumes import (
    Rotations,
    VolumeSums,
    filter_shells_3d,
    fourier_shell_correlation_3d,
    reconstruct_volume,
    soft_sphere_3d,
    symmetry_group,
)

GOLD_STANDARD = 0.143
START_SHARE = 0.1
"""Of the power of particles, that views of an initial volume are scaled to before their contrast is measured."""
_RINGS_AHEAD = 4
"""Rings that are looked at beyond those on which the half volumes agree."""


@dataclass(frozen=True)
class Setting:
    """What stays the same during a refinement; lengths in pixels of the working box.

    ``mask_radius_px`` is the radius of the ball that holds the particle, ``start_ring`` the resolution to which the initial
    volume is trusted, in cycles per box.
    """

    grid: PolarGrid
    pixel_size_ang: float
    mask_radius_px: float
    edge_px: float
    max_shift_px: float
    start_ring: int
    symmetry: str = "C1"

    @property
    def particle_radius_px(self) -> float:
        """The radius within which particles are looked at: the ball wherever it may have moved to."""
        return min(self.mask_radius_px + self.max_shift_px, self.grid.box_px / 2 - self.edge_px)

    @property
    def overlap(self) -> float:
        """The fraction of the box within that radius, with half the edge."""
        return float(np.pi * (self.particle_radius_px + self.edge_px / 2) ** 2 / self.grid.box_px**2)

    @cached_property
    def group(self) -> Rotations:
        """The rotations of the symmetry."""
        return symmetry_group(self.symmetry)

    @cached_property
    def ball(self) -> NDArray[np.float32]:
        """The soft mask on volumes."""
        return soft_sphere_3d(self.grid.box_px, radius_px=self.mask_radius_px, edge_px=self.edge_px)


@dataclass(frozen=True)
class Model:
    """The refinement so far.

    ``references`` ``(2, box, box, box)`` filtered and masked, one for each half set; ``noise_power`` ``(2, n_rings)``;
    ``correlation`` ``(box // 2,)`` between the masked half volumes; ``ring`` up to which images are compared next.
    """

    references: NDArray[np.float32]
    noise_power: Real
    correlation: NDArray[np.float64]
    ring: int


@dataclass(frozen=True)
class Maps:
    """What comes of the sums of both halves: ``whole`` filtered to its resolution, ``halves`` ``(2, …)`` as they are.

    ``correlation`` and ``unmasked`` ``(box // 2,)`` between the halves, within the ball and in the whole box.
    """

    whole: NDArray[np.float32]
    halves: NDArray[np.float32]
    correlation: NDArray[np.float64]
    unmasked: NDArray[np.float64]

    def resolution_ang(self, pixel_size_ang: float) -> float | None:
        """Return where the halves within the ball agree by 0.143."""
        frequency = np.arange(len(self.correlation)) / (2 * len(self.correlation))
        return resolution_at_threshold_ang(frequency, self.correlation, threshold=GOLD_STANDARD, pixel_size_ang=pixel_size_ang)


def start_model(volume: NDArray[Any], power: NDArray[Any], ctf_squared: NDArray[Any], *, setting: Setting) -> Model:
    """Return a model of an initial volume in the working box, of which only the shape is believed, and only up to the first ring.

    Parameters
    ----------
    volume
        ``(box, box, box)``; its grey values may have any scale.
    power, ctf_squared
        ``(n_rings,)`` each, means over particles as of `PolarParticles`: the noise is taken to be all of the power, and the
        volume scaled to a tenth of it.
    """
    shells = np.arange(setting.grid.box_px // 2)
    soft = 0.5 + 0.5 * np.cos(np.pi * np.clip((shells - setting.start_ring + 1) / 3, 0.0, 1.0))
    reference = filter_shells_3d(volume, soft) * setting.ball
    reference = reference * np.float32(_scale_of(reference, power, ctf_squared, setting))
    noise = np.broadcast_to(np.asarray(power, dtype=np.float32), (2, len(power)))
    return Model(np.stack([reference, reference]), noise, np.zeros(len(shells)), setting.start_ring + _RINGS_AHEAD // 2)


def _scale_of(reference: NDArray[Any], power: NDArray[Any], ctf_squared: NDArray[Any], setting: Setting) -> float:
    """Return the factor at which views of a volume have a tenth of the power of the particles."""
    spectrum = np.abs(np.fft.fftn(reference)) ** 2
    box = setting.grid.box_px
    along = np.fft.fftfreq(box) * box
    shell = np.rint(np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + along**2)).astype(np.int64).ravel()
    mean = np.bincount(shell, weights=spectrum.ravel()) / np.maximum(np.bincount(shell), 1)  # the mean power of slices
    rings = np.arange(1, min(setting.start_ring, len(power)) + 1)
    shown = (mean[rings] * ctf_squared[rings - 1] * rings).sum()
    return float(np.sqrt(START_SHARE * (power[rings - 1] * rings).sum() / max(shown, 1e-30)))


def make_maps(sums: tuple[VolumeSums, VolumeSums], *, setting: Setting) -> Maps:
    """Divide the sums of both halves, without a prior, and their total, with the prior of their agreement."""
    halves = np.stack([reconstruct_volume(part) for part in sums])
    correlation = fourier_shell_correlation_3d(halves[0] * setting.ball, halves[1] * setting.ball)[1]
    unmasked = fourier_shell_correlation_3d(halves[0], halves[1])[1]
    smooth = smooth_correlation(correlation)
    whole = reconstruct_volume(sums[0] + sums[1], signal_to_noise=2 * smooth / (1 - smooth))
    return Maps(whole, halves, correlation, unmasked)


def update_model(sums: tuple[VolumeSums, VolumeSums], maps: Maps, noise_power: Real, *, setting: Setting) -> Model:
    """Return the model of new sums: the prior of each half is what the halves agree on (Scheres & Chen 2012)."""
    smooth = smooth_correlation(maps.correlation)
    prior = smooth / (1 - smooth)
    references = np.stack([reconstruct_volume(part, signal_to_noise=prior) for part in sums])
    seen = int(np.flatnonzero(smooth)[-1]) if smooth.any() else setting.start_ring
    ring = int(np.clip(seen + _RINGS_AHEAD, setting.start_ring, setting.grid.n_rings))
    return Model(_without_background(references, setting), noise_power, maps.correlation, ring)


def smooth_correlation(correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth a curve over three shells and end it where it first falls below 0.143: ``(n,)`` within 0 and 0.999."""
    padded = np.pad(correlation, 1, mode="edge")
    smooth = np.clip((padded[:-2] + padded[1:-1] + padded[2:]) / 3, 0.0, 0.999)
    smooth[: min(3, len(smooth))] = np.clip(correlation[: min(3, len(smooth))], smooth[: min(3, len(smooth))], 0.999)
    ended: NDArray[np.float64] = smooth * (np.cumprod(smooth > GOLD_STANDARD) > 0)
    return ended


def agreed_frequency(correlation: NDArray[np.float64]) -> float:
    """Return where a curve falls below 0.143, in cycles per box."""
    shells = np.arange(len(correlation), dtype=np.float64)
    return frequency_at_threshold(shells, correlation, threshold=GOLD_STANDARD)


def _without_background(references: NDArray[np.float32], setting: Setting) -> NDArray[np.float32]:
    """Return volumes whose background has mean 0, masked."""
    outside = soft_sphere_3d(setting.grid.box_px, radius_px=setting.grid.box_px / 2 - 2, edge_px=2.0) * (1 - setting.ball)
    share = max(float(outside.sum()), 1.0)
    background = (references * outside).sum(axis=(1, 2, 3), keepdims=True) / share
    masked: NDArray[np.float32] = ((references - background) * setting.ball).astype(np.float32)
    return masked
