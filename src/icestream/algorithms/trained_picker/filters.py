"""Filters that tell particles from background, learned from examples in any turn.

The values of a patch on a ring of radius ``r``, as a Fourier series over the angle, are ``sum_q c_q(r) exp(i q angle)``; a turn
of the particle changes only the phases. For each order ``q`` the radial functions are sought along which particles vary most in
comparison with background: the generalised eigenvectors of the two covariances (Fukunaga & Koontz 1970, IEEE Trans. Comput.
C-19, 311; steerable principal components: Zhao, Shkolnisky & Singer 2016, IEEE Trans. Comput. Imaging 2, 1).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, linalg, ndimage

MAX_ORDER = 8
_MOST_PER_ORDER = 4
_LEAST_RATIO = 1.05  # of the variances of particles and background
_RIDGE = 0.02


@dataclass(frozen=True)
class Filters:
    """Pairs of images, the real and the imaginary part of a radial function times ``exp(i q angle)``; both ``(m, b, b)``.

    ``order`` ``(m,)`` is ``q``; the imaginary part of order 0 is zero.
    """

    real: NDArray[np.float32]
    imaginary: NDArray[np.float32]
    order: NDArray[np.int64]


def sample_polar(image: NDArray[np.float32], yx_px: NDArray[np.float64], *, radius_px: float) -> NDArray[np.complex128]:
    """Return the Fourier series over the angle of rings about places ``(n, 2)``: ``(n, MAX_ORDER + 1, rings)``.

    Rings are a pixel apart, from half a pixel on.
    """
    rings = np.arange(0.5, radius_px, 1.0)
    n_angles = 4 * (MAX_ORDER + 4)
    angle = 2 * np.pi * np.arange(n_angles) / n_angles
    rows = yx_px[:, 0, None, None] + rings[:, None] * np.sin(angle)  # (n, rings, angles)
    columns = yx_px[:, 1, None, None] + rings[:, None] * np.cos(angle)
    values = ndimage.map_coordinates(image, [rows, columns], order=1, mode="reflect")
    series = fft.rfft(values.astype(np.float64), axis=-1)[..., : MAX_ORDER + 1] / n_angles  # (n, rings, orders)
    return np.asarray(np.swapaxes(series, 1, 2))


def learn_filters(particles: NDArray[np.complex128], background: NDArray[np.complex128]) -> Filters:
    """Learn filters from the series of rings of particles and of background, ``(n, orders, rings)`` each."""
    n_rings = particles.shape[-1]
    ring = np.sqrt(np.arange(n_rings) + 0.5)  # the square root of what a ring weighs in the plane
    radial: list[NDArray[np.complex128]] = []
    order: list[int] = []
    for q in range(particles.shape[1]):
        one, other = particles[:, q] * ring, background[:, q] * ring  # (n, rings)
        noise = other.conj().T @ other / len(other)
        noise += _RIDGE * np.trace(noise).real / n_rings * np.eye(n_rings)
        values, vectors = linalg.eigh(one.conj().T @ one / len(one), noise)
        for column in np.argsort(-values)[:_MOST_PER_ORDER]:
            if values[column] >= _LEAST_RATIO:
                radial.append(vectors[:, column].conj() * ring)
                order.append(q)
    return _draw(radial, np.asarray(order, dtype=np.int64), n_rings)


def _draw(radial: list[NDArray[np.complex128]], order: NDArray[np.int64], n_rings: int) -> Filters:
    """Draw radial functions, already times the square root of their ring's weight, as images with norm 1."""
    offset = np.arange(-n_rings - 1, n_rings + 1).astype(np.float64)
    radius, angle = np.hypot(offset[:, None], offset[None, :]), np.arctan2(offset[:, None], offset[None, :])
    box_px = len(offset)
    images = np.zeros((2, len(radial), box_px, box_px), dtype=np.float32)
    at = np.arange(n_rings) + 0.5
    for index, (values, q) in enumerate(zip(radial, order, strict=True)):
        density = values / at  # per pixel of the ring
        drawn = np.interp(radius, at, density.real) + 1j * np.interp(radius, at, density.imag)
        drawn *= np.exp(-1j * q * angle) * np.clip(n_rings + 0.5 - radius, 0.0, 1.0)
        drawn[(radius == 0) & (q > 0)] = 0.0  # the middle has no angle
        drawn /= np.sqrt(np.sum(np.abs(drawn) ** 2)) + 1e-30
        images[0, index], images[1, index] = drawn.real, drawn.imag if q else 0.0
    return Filters(images[0], images[1], order)
