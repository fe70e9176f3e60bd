"""How alike one half map is to the other after a turn about an axis: the self-rotation function, in spherical harmonics.

Crowther (1972), in "The molecular replacement method"; Kovacs & Wriggers (2002), Acta Cryst. D58, 1282. The halves have separate
noise, so a turn that is a symmetry correlates as well as no turn at all, whatever the noise.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import sph_harm_y

from icestream.algorithms.map_quality.shells import Map

Complex = NDArray[np.complex128]
Axes = NDArray[np.float64]
"""Unit vectors ``(n, 3)``, x y z."""

MOST_L = 20
_N_RINGS = 21
_N_AZIMUTHS = 128


@dataclass(frozen=True)
class CrossHarmonics:
    """What two halves have in common, by degree: ``(2 l + 1, 2 l + 1)`` for ``l`` from 1, Hermitian, summed over all radii."""

    by_degree: tuple[Complex, ...]


def cross_harmonics(
    half_1: Map, half_2: Map, *, centre_zyx: NDArray[np.float64], radius_px: float, step_px: float
) -> CrossHarmonics:
    """Expand two half maps on spheres about a centre and multiply them.

    The mean over each sphere is left out, since every turn keeps it. Only the mean of a turn and its reverse is kept.

    Parameters
    ----------
    half_1, half_2
        ``(b, b, b)``, smooth on the scale of ``step_px``.
    radius_px
        Of the largest sphere; spheres are ``step_px`` apart.
    """
    radii = np.arange(step_px, radius_px + 1e-6, step_px)
    coefficients = [_expand(half, centre_zyx, radii) for half in (half_1, half_2)]  # per degree (r, 2 l + 1)
    weights = (radii**2)[:, None]
    products = []
    for one, other in zip(*coefficients, strict=True):
        product = (one * weights).T @ np.conj(other)  # (2 l + 1, 2 l + 1): f_m conj(g_m')
        products.append(0.5 * (product + np.conj(product.T)))
    return CrossHarmonics(tuple(products))


def _expand(half: Map, centre_zyx: NDArray[np.float64], radii: NDArray[np.float64]) -> list[Complex]:
    """Return the harmonics of degree 1 and above on spheres: per degree ``(r, 2 l + 1)``."""
    tilt, weights, table = _legendre()
    azimuth = 2 * np.pi * np.arange(_N_AZIMUTHS // 2) / (_N_AZIMUTHS // 2)
    sine = np.sin(tilt)[:, None]
    unit = np.stack(
        [np.broadcast_to(np.cos(tilt)[:, None], (len(tilt), len(azimuth))), sine * np.sin(azimuth), sine * np.cos(azimuth)]
    )
    places = centre_zyx[:, None, None, None] + radii[None, :, None, None] * unit[:, None]  # (3, r, t, a)
    values = ndimage.map_coordinates(np.asarray(half, dtype=np.float64), places, order=3, mode="constant")
    waves = np.fft.fft(values, axis=-1) * (2 * np.pi / len(azimuth))  # (r, t, a): order m at index m
    return [
        np.stack([(waves[:, :, m] * weights) @ table[degree][m + degree] for m in range(-degree, degree + 1)], axis=1)
        for degree in range(1, MOST_L + 1)
    ]


@lru_cache(maxsize=1)
def _legendre() -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[NDArray[np.float64], ...]]:
    """Return tilts and weights of a Gauss quadrature, and the harmonics at azimuth 0 per degree ``(2 l + 1, t)``."""
    nodes, weights = np.polynomial.legendre.leggauss(MOST_L + 8)
    tilt = np.arccos(nodes)
    table = tuple(
        np.stack([sph_harm_y(degree, m, tilt, 0.0).real for m in range(-degree, degree + 1)]) for degree in range(MOST_L + 1)
    )
    return tilt, weights, table


@lru_cache(maxsize=64)
def _tilt_waves(degree: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues ``e`` of the rotation about y, and the factors of ``cos(e t)`` and ``sin(e t)`` in small rotations."""
    orders = np.arange(-degree, degree)
    raise_by = 0.5 * np.sqrt(degree * (degree + 1) - orders * (orders + 1.0))
    about_y = np.diag(1j * raise_by, 1) - np.diag(1j * raise_by, -1)  # (J_plus - J_minus) / 2i in the basis of orders -l … l
    values, vectors = np.linalg.eigh(about_y)
    factors = vectors.T[:, :, None] * np.conj(vectors.T[:, None, :])  # (e, m, m')
    flat = factors.reshape(2 * degree + 1, -1)
    return values, np.ascontiguousarray(flat.real), np.ascontiguousarray(flat.imag)


def small_rotations(degree: int, tilt: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Wigner's small matrices ``d_mm'(tilt)``: ``(t, 2 l + 1, 2 l + 1)``."""
    values, even, odd = _tilt_waves(degree)
    phase = tilt[:, None] * values
    flat: NDArray[np.float64] = np.cos(phase) @ even + np.sin(phase) @ odd
    return flat.reshape(len(tilt), 2 * degree + 1, 2 * degree + 1)


@lru_cache(maxsize=1)
def _ring_tilts() -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], ...]]:
    tilt = np.linspace(0, np.pi / 2, _N_RINGS)
    return tilt, tuple(small_rotations(degree, tilt) for degree in range(1, MOST_L + 1))


def scan_axes(cross: CrossHarmonics) -> tuple[Axes, NDArray[np.float64]]:
    """Return axes over half a sphere and the spectrum of turns about each.

    Returns
    -------
    axes, spectra
        ``(n, 3)`` and ``(n, MOST_L + 1)``: a turn by ``w`` about an axis correlates as ``sum over m of spectra[m] cos(m w)``.
    """
    tilt, rotations = _ring_tilts()
    waves = np.zeros((_N_RINGS, MOST_L + 1, _N_AZIMUTHS // 2 + 1), dtype=np.complex128)  # (t, m, k)
    for degree, (product, small) in enumerate(zip(cross.by_degree, rotations, strict=True), start=1):
        ahead = small[:, :, degree:]  # (t, 2 l + 1, m >= 0)
        for k in range(2 * degree + 1):
            both = ahead[:, k:] * ahead[:, : 2 * degree + 1 - k] * np.diagonal(product, -k)[None, :, None]
            waves[:, : degree + 1, k] += both.sum(axis=1)
    spectra = np.fft.irfft(waves * _N_AZIMUTHS, n=_N_AZIMUTHS, axis=-1)  # (t, m, a)
    spectra[:, 1:] *= 2
    azimuth = 2 * np.pi * np.arange(_N_AZIMUTHS) / _N_AZIMUTHS
    sine = np.sin(tilt)[:, None]
    axes = np.stack(
        [sine * np.cos(azimuth), sine * np.sin(azimuth), np.broadcast_to(np.cos(tilt)[:, None], (_N_RINGS, _N_AZIMUTHS))], -1
    )
    return axes.reshape(-1, 3), np.moveaxis(spectra, 1, 2).reshape(-1, MOST_L + 1)


def turn_spectra(cross: CrossHarmonics, axes: Axes) -> NDArray[np.float64]:
    """Return the spectrum of turns about any axes: ``(n, MOST_L + 1)``, as `scan_axes` does on its grid."""
    tilt = np.arccos(np.clip(axes[:, 2], -1, 1))
    azimuth = np.arctan2(axes[:, 1], axes[:, 0])
    spectra = np.zeros((len(axes), MOST_L + 1))
    for degree, product in enumerate(cross.by_degree, start=1):
        orders = np.arange(-degree, degree + 1)
        turned = np.exp(-1j * azimuth[:, None] * orders)[:, :, None] * small_rotations(degree, tilt)[:, :, degree:]
        spectra[:, : degree + 1] += np.real(np.sum(np.conj(turned) * (product @ turned), axis=1))
    spectra[:, 1:] *= 2
    return spectra


def fold_scores(spectra: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Return the mean correlation after turns by whole parts of a circle, relative to no turn: 1 at an axis of that order."""
    whole = spectra.sum(axis=-1)
    kept = spectra[..., ::order].sum(axis=-1)
    scores: NDArray[np.float64] = (order * kept / np.where(whole > 0, whole, np.inf) - 1) / (order - 1)
    return scores
