"""Which particle images are empty, or unlike the others: their variance, their signal in a band, and simple features."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.fourier import Image, frequency_radius_2d
from icestream.algorithms.micrograph.contamination import robust_zscore

_BAND_DIAMETERS = (1.0, 8.0)
_SECTORS = 8
_CHUNK = 512
_NOISE_IMAGES = 200


@dataclass(frozen=True)
class ParticleScreening:
    """Of each image ``(n,)``.

    Attributes
    ----------
    variance
        Within the circle of the particle over that around it; 1 is white noise.
    signal
        The same for the band of 1 to 8 cycles per diameter, where protein is strong and noise weak.
    zscore
        Of the most unusual feature: mean, spread, skewness and extremes within the circle, and spread around it; in robust
        standard deviations.
    """

    variance: NDArray[np.float64]
    signal: NDArray[np.float64]
    zscore: NDArray[np.float64]


def screen_particles_2d(images: Image, *, diameter_px: float) -> ParticleScreening:
    """Measure images of particles, normalised or not, of either contrast.

    What is around a particle is judged by the lower quartile of eight sectors, so that neighbours in most of them do not matter;
    ratios are divided by those of images of white noise, treated alike.

    Parameters
    ----------
    images
        ``(n, box, box)``.
    diameter_px
        Of the particle's circle; there must be a ring of two pixels around it.

    Raises
    ------
    ValueError
        The circle leaves no such ring.
    """
    box = images.shape[-1]
    if not 4 <= diameter_px <= box - 4:
        raise ValueError(f"a particle of {diameter_px:.3g} px in a box of {box} px; it must be 4 px to {box - 4} px wide")
    variance, signal, features = _measure(images, diameter_px)
    noise = np.random.default_rng(0).standard_normal((_NOISE_IMAGES, box, box), dtype=np.float32)
    noise_variance, noise_signal, _ = _measure(noise, diameter_px)
    zscore = np.max(np.abs(np.apply_along_axis(robust_zscore, 0, features)), axis=1) if len(features) else np.zeros(0)
    return ParticleScreening(variance / np.median(noise_variance), signal / np.median(noise_signal), zscore)


def _measure(images: Image, diameter_px: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return both ratios ``(n,)`` and the features ``(n, 6)``."""
    box = images.shape[-1]
    circle, sectors = _regions(box, 0.5 * diameter_px)
    band = _band_filter(box, diameter_px)
    variance, signal, features = [np.zeros(0)], [np.zeros(0)], [np.zeros((0, 6))]
    for start in range(0, len(images), _CHUNK):
        part = np.asarray(images[start : start + _CHUNK], np.float32)
        passed = fft.irfft2(fft.rfft2(part) * band, s=(box, box))
        inside, outside = _spreads(part, circle, sectors)
        band_inside, band_outside = _spreads(passed, circle, sectors)
        variance.append(inside / np.maximum(outside, 1e-30))
        signal.append(band_inside / np.maximum(band_outside, 1e-30))
        features.append(_features(part[:, circle], outside))
    return np.concatenate(variance), np.concatenate(signal), np.concatenate(features)


def _regions(box: int, radius_px: float) -> tuple[NDArray[np.bool_], list[NDArray[np.bool_]]]:
    """Return the circle and the sectors of what is around it within the box: ``(box, box)`` each."""
    y, x = (axis - box // 2 for axis in np.indices((box, box)))
    distance = np.hypot(y, x)
    around = (distance > radius_px + 1) & (distance <= box / 2)
    sector = np.floor((np.arctan2(y, x) / (2 * np.pi) + 0.5) * _SECTORS).astype(int) % _SECTORS
    return distance <= radius_px, [around & (sector == number) for number in range(_SECTORS)]


def _band_filter(box: int, diameter_px: float) -> NDArray[np.float32]:
    low, high = (cycles / diameter_px for cycles in _BAND_DIAMETERS)
    radius = frequency_radius_2d(box, box)
    passed: NDArray[np.float32] = ((radius >= low) & (radius <= min(high, 0.5))).astype(np.float32)
    return passed


def _spreads(
    images: Image, circle: NDArray[np.bool_], sectors: list[NDArray[np.bool_]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the variance within the circle and the lower quartile of those of the sectors around it: ``(n,)`` each."""
    inside = images[:, circle].var(axis=1, dtype=np.float64)
    around = [images[:, sector].var(axis=1, dtype=np.float64) for sector in sectors if sector.any()]
    outside: NDArray[np.float64] = np.quantile(around, 0.25, axis=0)
    return inside, outside


def _features(values: Image, outside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean, log spread, skewness, minimum and maximum of values ``(n, m)``, and log spread around: ``(n, 6)``."""
    mean = values.mean(axis=1, dtype=np.float64)
    centred = values - mean[:, None]
    spread = np.sqrt(np.maximum(np.mean(centred**2, axis=1), 1e-30))
    skewness = np.mean(centred**3, axis=1) / spread**3
    low, high = np.quantile(centred, [0.005, 0.995], axis=1)
    around = 0.5 * np.log(np.maximum(outside, 1e-30))
    return np.stack([mean, np.log(spread), skewness, low / spread, high / spread, around], axis=1)
