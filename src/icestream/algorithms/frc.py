"""How far two images agree: the Fourier ring correlation.

van Heel, Keegstra, Schutter & van Bruggen (1982); Saxton & Baumeister (1982), J. Microsc. 127, 127; van Heel & Schatz (2005),
J. Struct. Biol. 151, 250.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.fourier import frequency_radius_2d

Image = NDArray[Any]
Curve = NDArray[np.float64]


def fourier_ring_correlation_2d(a: Image, b: Image, *, n_rings: int | None = None) -> tuple[Curve, Curve]:
    """Correlate two images ring by ring in Fourier space: 1 where they agree, about 0 where there is only noise.

    Parameters
    ----------
    a, b
        ``(..., h, w)``, the same shape; mask them softly before, sharp borders correlate too.
    n_rings
        Rings between 0 and 0.5 cycles per pixel; half the smaller side when unset, so that a ring is one Fourier pixel wide.

    Returns
    -------
    frequency, correlation
        ``(n_rings,)`` and ``(..., n_rings)``. Ring ``i`` is centred on ``i * 0.5 / n_rings`` cycles per pixel; a ring without
        power in either image has correlation 0.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"the images of a ring correlation must have one shape; got {a.shape} and {b.shape}")
    height, width = a.shape[-2:]
    n_rings = n_rings or min(height, width) // 2
    spectrum_a = fft.rfft2(np.asarray(a, dtype=np.float64))  # (..., h, w // 2 + 1)
    spectrum_b = fft.rfft2(np.asarray(b, dtype=np.float64))
    ring = np.rint(frequency_radius_2d(height, width) * (2 * n_rings)).astype(np.int64)  # (h, w // 2 + 1)
    hermitian = np.full(ring.shape, 2.0)
    hermitian[:, 0] = 1.0
    if width % 2 == 0:
        hermitian[:, -1] = 1.0
    cross = _sum_rings(np.real(spectrum_a * np.conj(spectrum_b)) * hermitian, ring, n_rings)
    power_a = _sum_rings(np.abs(spectrum_a) ** 2 * hermitian, ring, n_rings)
    power_b = _sum_rings(np.abs(spectrum_b) ** 2 * hermitian, ring, n_rings)
    return np.arange(n_rings) * 0.5 / n_rings, correlation_of_sums(cross, power_a, power_b)


def correlation_of_sums(cross: Curve, power_a: Curve, power_b: Curve) -> Curve:
    """Return ``cross / sqrt(power_a * power_b)``, 0 where there is no power."""
    scale = np.sqrt(power_a * power_b)
    return np.divide(cross, scale, out=np.zeros_like(scale), where=scale > 0)


def frequency_at_threshold(frequency: NDArray[Any], correlation: NDArray[Any], *, threshold: float) -> float:
    """Return the frequency where a correlation curve first falls below ``threshold``, interpolated linearly.

    The first ring (the mean grey value) is not looked at. A curve that never falls returns its last frequency; one that
    starts below returns 0.

    Parameters
    ----------
    frequency, correlation
        ``(n,)`` each, frequencies rising.
    threshold
        What counts as agreement.
    """
    below = np.flatnonzero(correlation[1:] < threshold) + 1
    if below.size == 0:
        return float(frequency[-1])
    i = int(below[0])
    if i == 1:
        return 0.0
    high, low = float(correlation[i - 1]), float(correlation[i])
    fraction = (high - threshold) / (high - low)
    return float(frequency[i - 1] + fraction * (frequency[i] - frequency[i - 1]))


def resolution_at_threshold_ang(
    frequency: NDArray[Any], correlation: NDArray[Any], *, threshold: float, pixel_size_ang: float
) -> float | None:
    """Return the resolution at which two images stop to agree, or None where they never do.

    Parameters
    ----------
    frequency, correlation
        ``(n,)`` each, frequencies in cycles per pixel.
    threshold
        0.5 against a truth or a noise-free reference, 0.143 between halves (Rosenthal & Henderson 2003), whose square-root
        relation it is to 0.5 against the truth.
    pixel_size_ang
        Of the images.
    """
    limit = frequency_at_threshold(frequency, correlation, threshold=threshold)
    return pixel_size_ang / limit if limit > 0 else None


def _sum_rings(values: Curve, ring: NDArray[np.int64], n_rings: int) -> Curve:
    """Sum ``(..., h, w')`` over rings: ``(..., n_rings)``."""
    flat = values.reshape(-1, ring.size)  # (n, h * w')
    sums = np.stack([np.bincount(ring.ravel(), weights=row, minlength=n_rings + 1)[:n_rings] for row in flat])
    by_ring: Curve = sums.reshape(*values.shape[:-2], n_rings).astype(np.float64)
    return by_ring
