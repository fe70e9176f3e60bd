"""Sharpening: the B factor of a map, and its amplitudes restored and weighted by what the halves agree on.

Rosenthal & Henderson (2003), J. Mol. Biol. 333, 721: amplitudes of proteins beyond 10 Å fall as ``exp(-B / 4 d²)``, and a map is
best weighted by ``sqrt(2 FSC / (1 + FSC))``, its correlation with the truth.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.map_quality.shells import Curve, Map, invert_3d, mean_shells, shell_radius, transform_3d, weight_shells

_GUINIER_FROM_ANG = 10.0
_LEAST_SHELLS = 4


@dataclass(frozen=True)
class SharpenedMap:
    """A map with restored amplitudes.

    Attributes
    ----------
    volume
        ``(b, b, b)``, sharpened, weighted, without a mask.
    b_factor_ang2
        Negative where amplitudes fall; the map was multiplied by ``exp(-B / (4 d²))``. None: not fitted.
    log_amplitude
        ``(n,)`` by shell: logarithm of the mean amplitude of the weighted mean of the halves, before sharpening.
    """

    volume: NDArray[np.float32]
    b_factor_ang2: float | None
    log_amplitude: Curve


def sharpen_3d(
    half_1: Map,
    half_2: Map,
    fsc: Curve,
    *,
    pixel_size_ang: float,
    resolution_ang: float,
    b_factor_ang2: float | None = None,
) -> SharpenedMap:
    """Sharpen the mean of two halves by its own B factor, weight it by the correlation, and cut it at its resolution.

    Parameters
    ----------
    half_1, half_2
        ``(b, b, b)``.
    fsc
        By shell, corrected for the mask.
    resolution_ang
        Where the map ends, and the fit of the B factor too; it begins at 10 Å.
    b_factor_ang2
        Unset: fitted, where there are at least four shells between 10 Å and the resolution; otherwise the map is only weighted.
    """
    box_px = half_1.shape[0]
    mean = transform_3d(0.5 * (np.asarray(half_1, dtype=np.float64) + np.asarray(half_2, dtype=np.float64)))
    weights = merit(fsc)
    weights = np.where(np.arange(len(fsc)) / (box_px * pixel_size_ang) <= 1 / resolution_ang, weights, 0.0)
    amplitude = mean_shells(np.abs(mean), box_px=box_px)
    log_amplitude = np.log(np.maximum(amplitude * np.maximum(weights, 1e-6), 1e-30))
    if b_factor_ang2 is None:
        b_factor_ang2 = fit_b_factor(log_amplitude, weights, box_ang=box_px * pixel_size_ang, resolution_ang=resolution_ang)
    cut = _soft_cut(box_px, box_px * pixel_size_ang / resolution_ang)
    sharp = weight_shells(mean, weights, box_px=box_px) * cut
    if b_factor_ang2 is not None:
        sharp = sharp * np.exp(-b_factor_ang2 / 4 * (shell_radius(box_px) / (box_px * pixel_size_ang)) ** 2)
    return SharpenedMap(invert_3d(sharp, box_px=box_px), b_factor_ang2, log_amplitude)


def merit(fsc: Curve) -> Curve:
    """Return the correlation of the mean of two halves with the truth, from that of the halves: ``sqrt(2 FSC / (1 + FSC))``."""
    positive = np.clip(fsc, 0.0, 1.0)
    expected: Curve = np.sqrt(2 * positive / (1 + positive))
    return expected


def fit_b_factor(log_amplitude: Curve, weights: Curve, *, box_ang: float, resolution_ang: float) -> float | None:
    """Return four times the slope of the logarithm of amplitudes over ``1 / d²``, Å², between 10 Å and the resolution.

    Shells count by their weight. None where there are fewer than four.
    """
    frequency = np.arange(len(log_amplitude)) / box_ang
    used = (frequency >= 1 / _GUINIER_FROM_ANG) & (frequency <= 1 / resolution_ang) & (weights > 0)
    if int(used.sum()) < _LEAST_SHELLS:
        return None
    slope = np.polyfit(frequency[used] ** 2, log_amplitude[used], 1, w=np.sqrt(weights[used]))[0]
    return float(4 * slope)


def _soft_cut(box_px: int, limit: float, *, edge_shells: float = 2.0) -> Curve:
    fall = np.clip((shell_radius(box_px) - limit) / edge_shells, 0.0, 1.0)
    cut: Curve = 0.5 + 0.5 * np.cos(np.pi * fall)
    return cut
