"""Images as polar samples of their Fourier transform, where an in-plane rotation is a step along the angle.

Samples lie on rings of ``r = 1 … n_rings`` cycles per box and on ``n_angles`` directions of the full circle; by Hermitian
symmetry only the first half of the directions is kept: ``(..., n_rings, n_angles // 2)``. They are exact to about 1e-4 by
gridding with a Kaiser-Bessel kernel on a doubly padded transform (Jackson et al. 1991; Beatty, Nishimura & Pauly 2005, IEEE TMI
24, 799). The centre of an image is pixel ``box // 2``.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

Polar = NDArray[np.complex64]
Real = NDArray[np.float32]

_WIDTH = 6
_BETA = float(np.pi * np.sqrt((_WIDTH * 1.5 / 2) ** 2 - 0.8))
_IMAGES_AT_ONCE = 64


@dataclass(frozen=True)
class PolarGrid:
    """Where images are sampled: box in pixels, rings, and directions of the full circle (an even number)."""

    box_px: int
    n_rings: int
    n_angles: int

    def __post_init__(self) -> None:
        if self.n_angles % 2 or self.box_px % 2 or not 1 <= self.n_rings < self.box_px // 2:
            raise ValueError(f"a polar grid needs an even box, an even number of angles and 1 to box / 2 - 1 rings; got {self}")

    @property
    def half(self) -> int:
        """Directions that are stored."""
        return self.n_angles // 2

    def angles_rad(self) -> NDArray[np.float64]:
        """Return the stored directions, from x towards y."""
        return np.arange(self.half, dtype=np.float64) * np.float64(2 * np.pi / self.n_angles)

    def radii(self) -> NDArray[np.float64]:
        """Return the rings in cycles per box."""
        return np.arange(1, self.n_rings + 1, dtype=np.float64)


def sample_polar_2d(images: Real, *, grid: PolarGrid, offset_px: float = 0.0) -> Polar:
    """Sample the Fourier transform of images on rings.

    Parameters
    ----------
    images
        ``(n, box, box)``, zero or masked towards the border.
    grid
        Where to sample.
    offset_px
        Where the centre really is, beyond pixel ``box // 2``, along both axes.

    Returns
    -------
    polar
        ``(n, n_rings, n_angles // 2)``, scaled as an unnormalised transform.
    """
    first, weights, inverse_kernel = _gridding(grid)
    out = np.empty((len(images), grid.n_rings, grid.half), dtype=np.complex64)
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        padded = _pad(images[start : start + _IMAGES_AT_ONCE] * inverse_kernel, grid.box_px)  # (b, 2 box, 2 box)
        spectra = fft.fft2(padded.astype(np.complex64), overwrite_x=True)
        framed = np.pad(spectra, ((0, 0), (_WIDTH, _WIDTH), (_WIDTH, _WIDTH)), mode="wrap")
        _gather(framed, first, weights, out[start : start + _IMAGES_AT_ONCE].reshape(len(spectra), -1))
    return out if offset_px == 0 else out * np.conj(shift_ramps(np.array([[offset_px, offset_px]]), grid=grid))[0]


def image_from_polar_2d(polar: Polar, *, grid: PolarGrid) -> Real:
    """Turn polar samples back into images ``(n, box, box)`` of mean 0, with each sample weighted by its area."""
    first, weights, inverse_kernel = _gridding(grid)
    area = (2 * np.pi / grid.n_angles) * grid.radii()[:, None]  # (n_rings, 1)
    size = 2 * grid.box_px
    images = np.empty((len(polar), grid.box_px, grid.box_px), dtype=np.float32)
    for i, samples in enumerate(polar):
        spectrum = np.zeros((size, size), dtype=np.complex64)
        _spread((samples * area).astype(np.complex64).ravel(), first, weights, spectrum)
        whole = fft.ifft2(spectrum).real  # the other half of the circle doubles the real part
        images[i] = _unpad(whole, grid.box_px) * inverse_kernel * (2.0 * 4.0)
    return images


def shift_ramps(shifts_yx_px: NDArray[Any], *, grid: PolarGrid) -> Polar:
    """Return the phases that move an image by each of ``(n, 2)`` shifts: ``(n, n_rings, n_angles // 2)``."""
    angles = grid.angles_rad()
    along = shifts_yx_px[:, :1] * np.sin(angles) + shifts_yx_px[:, 1:] * np.cos(angles)  # (n, half)
    ramps: Polar = np.exp((-2j * np.pi / grid.box_px) * along[:, None, :] * grid.radii()[None, :, None]).astype(np.complex64)
    return ramps


def angular_orders(polar: Polar, *, n_orders: int) -> Polar:
    """Transform along the full circle: ``(..., half)`` to the first ``n_orders`` of its angular orders, ``(..., n_orders)``.

    The second half of the circle is the conjugate of the first. Turning an image by an angle ``psi`` multiplies order ``q`` by
    ``exp(-i q psi)``; order ``-q`` is ``(-1)**q`` times the conjugate of order ``q``.
    """
    half = polar.shape[-1]
    orders = np.empty((*polar.shape[:-1], n_orders), dtype=np.complex64)
    for odd, part in ((0, polar.real), (1, polar.imag)):
        table = _order_table(half, n_orders, odd)  # (half, 2 * m)
        product = np.ascontiguousarray(part).reshape(-1, half) @ table  # (..., 2 * m)
        orders[..., odd::2] = product.view(np.complex64).reshape(*polar.shape[:-1], table.shape[1] // 2)
    return orders


@lru_cache(maxsize=32)
def _order_table(half: int, n_orders: int, odd: int) -> Real:
    """Return what takes the real (imaginary) parts of half a circle to its even (odd) orders, as pairs of real and imaginary."""
    phase = np.exp((-1j * np.pi / half) * np.outer(np.arange(half), np.arange(odd, n_orders, 2)))  # (half, m)
    table: Real = (2 * (1j if odd else 1) * phase).astype(np.complex64).view(np.float32)
    return table


def polar_from_orders(orders: Polar, *, grid: PolarGrid) -> Polar:
    """Return the samples ``(..., half)`` behind angular orders ``(..., n_orders)``, of which there may be up to ``half``."""
    n_orders = orders.shape[-1]
    polar = np.empty((*orders.shape[:-1], grid.half), dtype=np.complex64)
    for odd, part in ((0, polar.real), (1, polar.imag)):
        some = np.ascontiguousarray(orders[..., odd::2])  # (..., m)
        table = _sample_table(grid.half, n_orders, odd)  # (2 * m, half)
        part[...] = (some.view(np.float32).reshape(-1, table.shape[0]) @ table).reshape(part.shape)
    return polar


@lru_cache(maxsize=32)
def _sample_table(half: int, n_orders: int, odd: int) -> Real:
    """Return what takes even (odd) orders, as pairs of real and imaginary, to the real (imaginary) parts of half a circle."""
    orders = np.arange(odd, n_orders, 2)
    phase = np.exp((1j * np.pi / half) * np.outer(orders, np.arange(half))) / half  # (m, half)
    phase[orders == 0] /= 2
    pair = [phase.imag, phase.real] if odd else [phase.real, -phase.imag]
    return np.stack(pair, axis=1).reshape(-1, half).astype(np.float32)


def soft_disc_2d(box_px: int, *, radius_px: float, edge_px: float) -> Real:
    """Return a disc about pixel ``box // 2``: 1 inside ``radius_px``, falling to 0 over ``edge_px`` as a raised cosine."""
    y = np.arange(box_px) - box_px // 2
    distance = np.hypot(y[:, None], y[None, :])  # (box, box)
    disc: Real = (0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius_px) / edge_px, 0.0, 1.0))).astype(np.float32)
    return disc


@lru_cache(maxsize=16)
def _gridding(grid: PolarGrid) -> tuple[NDArray[np.int64], Real, Real]:
    """Return first kernel cells ``(points, 2)``, kernel weights ``(points, 2, width)``, and the image-side correction."""
    angles, radii = grid.angles_rad(), grid.radii()
    position = 2 * np.stack([np.outer(radii, np.sin(angles)), np.outer(radii, np.cos(angles))], axis=-1).reshape(-1, 2)
    first = np.ceil(position - _WIDTH / 2).astype(np.int64)  # (points, 2), in cells of the padded transform
    distance = first[..., None] + np.arange(_WIDTH) - position[..., None]  # (points, 2, width)
    weights = np.i0(_BETA * np.sqrt(np.maximum(1 - (2 * distance / _WIDTH) ** 2, 0))) / _WIDTH
    x = (np.arange(grid.box_px) - grid.box_px // 2) / (2 * grid.box_px)
    root = np.sqrt((_BETA**2 - (np.pi * _WIDTH * x) ** 2).astype(np.complex128))
    profile = np.real(np.sinh(root) / root)
    inverse = (1.0 / np.outer(profile, profile)).astype(np.float32)
    return first, weights.astype(np.float32), inverse


def _pad(images: Real, box_px: int) -> Real:
    """Put images into twice the box with their centre at the origin."""
    padded = np.zeros((len(images), 2 * box_px, 2 * box_px), dtype=np.float32)
    padded[:, :box_px, :box_px] = images
    return np.roll(padded, (-(box_px // 2), -(box_px // 2)), axis=(-2, -1))


def _unpad(image: NDArray[Any], box_px: int) -> NDArray[Any]:
    return np.roll(image, (box_px // 2, box_px // 2), axis=(0, 1))[:box_px, :box_px]


@njit(cache=True, fastmath=True)
def _gather(framed: Polar, first: NDArray[np.int64], weights: Real, out: Polar) -> None:
    """Interpolate in spectra that a frame of ``_WIDTH`` cells repeats on each side."""
    size = framed.shape[1] - 2 * _WIDTH
    for n in range(framed.shape[0]):
        for p in range(first.shape[0]):
            top, left = first[p, 0] % size + _WIDTH, first[p, 1] % size + _WIDTH
            total = np.complex64(0)
            for i in range(_WIDTH):
                line = np.complex64(0)
                for j in range(_WIDTH):
                    line += framed[n, top + i, left + j] * weights[p, 1, j]
                total += line * weights[p, 0, i]
            out[n, p] = total


@njit(cache=True, fastmath=True)
def _spread(samples: Polar, first: NDArray[np.int64], weights: Real, spectrum: Polar) -> None:
    size = spectrum.shape[0]
    for p in range(first.shape[0]):
        for i in range(weights.shape[2]):
            row = (first[p, 0] + i) % size
            value = samples[p] * weights[p, 0, i]
            for j in range(weights.shape[2]):
                spectrum[row, (first[p, 1] + j) % size] += value * weights[p, 1, j]
