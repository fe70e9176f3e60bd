"""Images ready to be scored: their CTF and the angular orders of their Fourier transform, once and for all references."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.fourier import crop_fourier_2d
from icestream.algorithms.scoring.polar import Polar, PolarGrid, Real, angular_orders, sample_polar_2d, soft_disc_2d


@dataclass(frozen=True)
class PolarParticles:
    """Particles ready for comparison.

    ``signal`` ``(n, n_orders, n_rings)`` holds the angular orders of the CTF times the particle, ``ctf_squared``
    ``(n, n_rings)`` and ``power`` ``(n, n_rings)`` the means over the ring of CTF² and of the particle's squared modulus,
    ``half_set`` ``(n,)`` 0 or 1.
    """

    signal: Polar
    ctf_squared: Real
    power: Real
    half_set: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.signal)

    def take(self, rows: NDArray[Any]) -> "PolarParticles":
        """Return some of the particles, by number or by a mask."""
        return PolarParticles(self.signal[rows], self.ctf_squared[rows], self.power[rows], self.half_set[rows])


def join_particles(parts: list[PolarParticles]) -> PolarParticles:
    """Return the particles of several sets as one."""
    return PolarParticles(
        np.concatenate([part.signal for part in parts]),
        np.concatenate([part.ctf_squared for part in parts]),
        np.concatenate([part.power for part in parts]),
        np.concatenate([part.half_set for part in parts]),
    )


def half_sets_of(micrograph: NDArray[np.bytes_], pid: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return the half set of each particle, 0 or 1, from what names it: its micrograph and its number there."""
    names, which = np.unique(micrograph, return_inverse=True)
    salt = np.array([zlib.crc32(name) for name in names.tolist()], dtype=np.uint64)
    mixed = salt[which] + pid.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele et al. 2014)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed >> np.uint64(31)) & np.uint64(1), dtype=np.int8)


def prepare_images_2d(
    images: NDArray[Any], ctf: Real, *, grid: PolarGrid, mask_radius_px: float, edge_px: float, half_set: NDArray[np.int8]
) -> PolarParticles:
    """Crop, mask and sample images and apply their CTF.

    With the CTF on the side of the image no reference is ever multiplied by one, and a defocus for each particle costs nothing.
    The images keep an astigmatic CTF; only CTF² in the norm of the references is the mean over each ring.

    Parameters
    ----------
    images
        ``(n, box, box)``, background mean 0 and spread 1.
    ctf
        ``(n, n_rings, half)`` on ``grid``, positive where bright stays bright.
    grid
        Where to sample; its box may be smaller than that of the images, which are then cropped in Fourier space.
    mask_radius_px, edge_px
        Of the soft disc that is laid over each image, in pixels of ``grid``.
    half_set
        ``(n,)``, 0 or 1.
    """
    size = grid.box_px
    small = crop_fourier_2d(np.asarray(images, dtype=np.float32), new_shape=(size, size))  # (n, size, size)
    offset = (images.shape[-1] // 2) * size / images.shape[-1] - size // 2
    mask = soft_disc_2d(size, radius_px=mask_radius_px, edge_px=edge_px)
    polar = sample_polar_2d(small * mask, grid=grid, offset_px=offset)  # (n, n_rings, half)
    power = np.square(np.abs(polar)).mean(axis=-1)  # (n, n_rings)
    orders = angular_orders(polar * ctf, n_orders=grid.half)  # (n, n_rings, half)
    return PolarParticles(np.ascontiguousarray(orders.transpose(0, 2, 1)), np.square(ctf).mean(axis=-1), power, half_set)


def reference_orders_2d(images: Real, *, grid: PolarGrid) -> Polar:
    """Return the angular orders of references ``(k, box, box)`` without noise or CTF: ``(k, n_orders, n_rings)``."""
    orders = angular_orders(sample_polar_2d(images, grid=grid), n_orders=grid.half)  # (k, n_rings, half)
    return np.ascontiguousarray(orders.transpose(0, 2, 1))
