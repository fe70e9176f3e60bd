"""The broad ring of vitreous ice at 3.7 Å in the power spectrum of a micrograph.

The nearest neighbours of oxygen in vitreous ice make a ring at 3.7 Å, some 0.05 /Å wide (Dubochet et al. 1988, Q. Rev. Biophys.
21, 129). More ice scatters more into it while the noise of the camera stays, so its power over that noise grows with the
thickness. How fast depends as much on dose, motion of the molecules, envelope and camera: it compares exposures of one session,
and is no thickness. Crystals have narrow rings there (`icestream.algorithms.ctf.ice_ring`), which are left out.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from icestream.algorithms.ctf.ice_ring import ICE_RINGS_ANG
from icestream.algorithms.fourier import radial_average_2d

RING_ANG = 3.7
_RING_SIGMA_PER_ANG = 0.018
_BAND_PER_ANG = (0.13, 0.45)
_DECAYS_ANG2 = (40.0, 80.0, 160.0, 320.0)
_LEAST_REACH_PER_ANG = 0.31
_HIGHEST_SHARE_OF_NYQUIST = 0.96
_FEWEST_RINGS = 30
_CRYSTAL_HALF_WIDTH_PER_ANG = 0.006
_CLIP = 3.0

COARSEST_PX_ANG = 0.5 * _HIGHEST_SHARE_OF_NYQUIST / _LEAST_REACH_PER_ANG
"""Pixels larger than this do not reach the ring with its surroundings."""


def measure_water_ring(spectrum: NDArray[Any], *, pixel_size_ang: float) -> tuple[float, float]:
    """Return the power of the ring at 3.7 Å over that of the noise, and the standard error of that.

    The ring averages are a sum of powers, none of them negative: flat noise, a background that decays as Gaussians of the
    frequency do, and a ring of the width of that of vitreous ice. The Thon rings are finer and average out.

    Parameters
    ----------
    spectrum
        ``(tile, tile // 2 + 1)`` power of the whole micrograph without dose weighting.
    pixel_size_ang
        Of the image that was transformed.

    Raises
    ------
    ValueError
        If the pixels are too coarse, the tile is too small to resolve the ring, or the spectrum is not positive or has no noise.
    """
    if pixel_size_ang > COARSEST_PX_ANG:
        raise ValueError(f"pixels of {pixel_size_ang:.3g} Å do not reach the ring of ice at {RING_ANG} Å with its surroundings")
    tile = spectrum.shape[0]
    per_px, power = radial_average_2d(np.asarray(spectrum), width=tile)
    highest = min(_BAND_PER_ANG[1], 0.5 * _HIGHEST_SHARE_OF_NYQUIST / pixel_size_ang)
    band = (per_px >= _BAND_PER_ANG[0] * pixel_size_ang) & (per_px <= highest * pixel_size_ang)
    for crystal_ang in ICE_RINGS_ANG:
        band &= np.abs(per_px / pixel_size_ang - 1.0 / crystal_ang) > _CRYSTAL_HALF_WIDTH_PER_ANG
    g, power = per_px[band] / pixel_size_ang, power[band]  # (n,) each
    if g.size < _FEWEST_RINGS:
        raise ValueError(f"a tile of {tile * pixel_size_ang:.0f} Å does not resolve the ring of ice")
    if not np.all(power > 0):
        raise ValueError("the power spectrum is not positive at the ring of ice: is the image constant?")
    design = _design(g) * (np.sqrt(g) / power)[:, None]  # (n, 6), every ring average as sure as the number of its pixels makes it
    found, rest = _fit(design, np.sqrt(g))
    kept = np.abs(rest - np.median(rest)) <= _CLIP * 1.4826 * np.median(np.abs(rest - np.median(rest)))  # lines of a detector
    if kept.sum() >= _FEWEST_RINGS:
        design, g = design[kept], g[kept]
        found, rest = _fit(design, np.sqrt(g))
    if not found[0] > 0:
        raise ValueError("the power spectrum has no flat noise at high frequency: was the image filtered or interpolated?")
    used = found > 0
    used[-1] = True
    spread = float(np.sum(rest**2)) / max(len(g) - int(used.sum()), 1)
    covariance = np.linalg.pinv(design[:, used].T @ design[:, used], hermitian=True) * spread
    return float(found[-1] / found[0]), float(np.sqrt(max(covariance[-1, -1], 0.0)) / found[0])


def _design(g: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return flat noise, decays, and the ring, in columns: ``(n, 6)``."""
    decays = [np.exp(-decay * (g * g - _BAND_PER_ANG[0] ** 2)) for decay in _DECAYS_ANG2]
    ring = np.exp(-0.5 * ((g - 1.0 / RING_ANG) / _RING_SIGMA_PER_ANG) ** 2)
    return np.stack([np.ones_like(g), *decays, ring], axis=1)


def _fit(design: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the powers, none negative, and what they leave: ``(6,)``, ``(n,)``."""
    found, _ = nnls(design, wanted)
    return found, wanted - design @ found
