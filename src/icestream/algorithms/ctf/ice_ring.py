"""Crystalline ice in a micrograph: rings of its power spectrum at the spacings of ice.

Hexagonal ice has rings at 3.90, 3.67, 3.44 and 2.25 Å, cubic ice at 3.67 and 2.25 Å (Dowell & Rinfret 1960, Nature 188, 1144).
Vitreous ice has a broad ring at about 3.7 Å of its own; a crystal is told by a narrow one on top of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.samples import Optics
from icestream.algorithms.fourier import radial_average_2d

ICE_RINGS_ANG = (3.90, 3.67, 3.44, 2.25)
_HALF_WIDTH_PER_ANG = 0.004
_CLEARANCE_PER_ANG = 0.007
_BANDS_PER_ANG = ((0.215, 0.335), (0.40, 0.49))
_HIGHEST_SHARE_OF_NYQUIST = 0.95
_DEGREE = 3
_CLIP = 3.0


@dataclass(frozen=True)
class IceRing:
    """One ring: its spacing, its power over that of the background less 1, and that in standard deviations of the background.

    The standard deviation is that of means over as wide a piece of the background, with what Thon rings are left in it.
    """

    resolution_ang: float
    excess: float
    significance: float


def measure_ice_rings(
    spectrum: NDArray[Any], *, pixel_size_ang: float, optics: Optics, ctf: NDArray[np.float64]
) -> tuple[IceRing, ...]:
    """Measure the rings of ice that the pixel size reaches; none where it reaches none.

    The logarithm of the ring averages on either side of the rings is fitted by a cubic polynomial and the Thon rings of the
    known CTF; the mean of what is left at a ring is its excess.

    Parameters
    ----------
    spectrum
        ``(tile, tile // 2 + 1)`` power of the whole micrograph; a tile of 600 Å or more resolves the rings.
    pixel_size_ang
        Of the image that was transformed.
    optics
        Rates of the CTF phase.
    ctf
        ``(4,)``: mean defocus, its astigmatism components a, b in Å, phase shift in degrees.

    Raises
    ------
    ValueError
        If the tile is too small to tell the rings from their surroundings, or the spectrum is not positive.
    """
    tile = spectrum.shape[0]
    if tile * pixel_size_ang < 300.0:
        raise ValueError(f"a tile of {tile * pixel_size_ang:.0f} Å does not resolve rings of ice; at least 300 Å are needed")
    per_px, power = radial_average_2d(np.asarray(spectrum), width=tile)
    frequency = per_px / pixel_size_ang  # (n,)
    highest = _HIGHEST_SHARE_OF_NYQUIST * 0.5 / pixel_size_ang
    found: list[IceRing] = []
    for low, high in _BANDS_PER_ANG:
        places = [1.0 / ang for ang in ICE_RINGS_ANG if low < 1.0 / ang < high and 1.0 / ang + 2 * _CLEARANCE_PER_ANG < highest]
        band = (frequency >= low) & (frequency <= min(high, highest))
        if places:
            if not np.all(power[band] > 0):
                raise ValueError("the power spectrum is not positive at the rings of ice: is the image constant?")
            found += _measure_band(frequency[band], np.log(power[band]), places, optics=optics, ctf=ctf)
    return tuple(found)


def _measure_band(
    g: NDArray[np.float64], level: NDArray[np.float64], places: list[float], *, optics: Optics, ctf: NDArray[np.float64]
) -> list[IceRing]:
    """Fit the background of one band beside its rings and return the rings."""
    aside = np.all([np.abs(g - place) > _CLEARANCE_PER_ANG for place in places], axis=0)
    design = _design(g, optics=optics, ctf=ctf)
    coefficients = np.linalg.lstsq(design[aside], level[aside], rcond=None)[0]
    rest = level - design @ coefficients
    spread = 1.4826 * float(np.median(np.abs(rest[aside] - np.median(rest[aside]))))
    kept = aside & (np.abs(rest) <= _CLIP * spread)  # lines of a detector, and rings that are not of ice
    if kept.sum() > 2 * design.shape[1]:
        rest = level - design @ np.linalg.lstsq(design[kept], level[kept], rcond=None)[0]
    windows = [np.abs(g - centre) <= _HALF_WIDTH_PER_ANG for centre in g[aside]]
    means = [float(rest[window & aside].mean()) for window in windows]
    freedom = max(1.0 - design.shape[1] / aside.sum(), 0.2)
    noise = max(float(np.sqrt(np.mean(np.square(means)) / freedom)), 1e-12)
    rings = []
    for place in places:
        mean = float(rest[np.abs(g - place) <= _HALF_WIDTH_PER_ANG].mean())
        rings.append(IceRing(1.0 / place, float(np.expm1(mean)), mean / noise))
    return rings


def _design(g: NDArray[np.float64], *, optics: Optics, ctf: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smooth functions and the Thon rings that make up the background: ``(n, 6)``."""
    mean, a, b, shift_deg = ctf
    x = (g - g.mean()) / np.ptp(g)
    direction = np.pi * (np.arange(36) + 0.5) / 36
    defocus = mean + a * np.cos(2.0 * direction) + b * np.sin(2.0 * direction)  # (36,)
    g2 = (g * g)[:, None]
    chi = optics.defocus_rate * g2 * defocus - optics.sphere_rate * g2 * g2 + optics.contrast_rad + np.deg2rad(shift_deg)
    thon = -np.cos(2.0 * chi).mean(axis=1)  # (n,)
    return np.stack([*(x**k for k in range(_DEGREE + 1)), thon, thon * x], axis=1)
