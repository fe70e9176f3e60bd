"""The noise of a micrograph: making it flat, drawing more of it, and judging by what is found there what is more than noise."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, special

from icestream.algorithms.fourier import Image, crop_fourier_2d, frequency_radius_2d
from icestream.algorithms.micrograph.contamination import robust_zscore

Transfer = Callable[[int, int, float], NDArray[np.float32]]
"""How the microscope images bright density: of height, width and pixel size in Å the half spectrum, negative where it is dark."""

_TAIL = 20  # so many of the highest decoys are replaced by the tail of Gaussian noise
_CHANCE = 0.003


def reduce_2d(image: Image, *, factor: float) -> tuple[Image, NDArray[np.float64]]:
    """Fourier-crop ``(h, w)`` to even sides about ``factor`` times smaller; also return how many times: ``(2,)``."""
    if factor <= 1:
        return image, np.ones(2)
    height, width = (2 * fft.next_fast_len(max(8, round(side / factor / 2)), real=True) for side in image.shape)
    small = crop_fourier_2d(image, new_shape=(height, width))
    return small, np.array(image.shape) / np.array(small.shape)


def pad_2d(image: NDArray[np.float32], pad: int) -> NDArray[np.float32]:
    """Mirror ``(h, w)`` at its borders over at least ``pad`` pixels, to sides whose transforms are fast."""
    fill = [fft.next_fast_len(side + 2 * pad, real=True) - side - pad for side in image.shape]
    return np.pad(image, [(pad, after) for after in fill], mode="reflect" if min(image.shape) > max(fill) else "symmetric")


def ring_power_2d(spectrum: NDArray[np.complex64], *, width: int) -> NDArray[np.float32]:
    """Return the power of ``(h, w // 2 + 1)`` averaged over rings and smoothed, at each frequency: same shape."""
    height = spectrum.shape[0]
    radius = frequency_radius_2d(height, width) * min(height, width)  # in rings
    ring = np.minimum(radius.astype(np.int64), min(height, width))
    power = np.abs(spectrum) ** 2
    count = np.bincount(ring.ravel())
    mean = np.bincount(ring.ravel(), weights=power.ravel()) / np.maximum(count, 1)
    mean[0] = mean[1]
    smooth = np.exp(ndimage.gaussian_filter1d(np.log(np.maximum(mean, 1e-30 * mean.max() + 1e-30)), 2.0, mode="nearest"))
    at: NDArray[np.float32] = smooth[ring].astype(np.float32)
    return at


def flatten_2d(small: Image, *, diameter_px: float, masked: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Clip outliers, subtract what is larger than a particle, and put 0 where ``masked``: ``(h, w)``."""
    clipped = np.clip(robust_zscore(small), -6.0, 6.0).astype(np.float32)
    weight = (~masked).astype(np.float32)
    sigma = 0.75 * diameter_px
    level = ndimage.gaussian_filter(clipped * weight, sigma, mode="reflect")
    level /= np.maximum(ndimage.gaussian_filter(weight, sigma, mode="reflect"), 1e-3)
    flat: NDArray[np.float32] = (clipped - level) * weight
    return flat


def draw_noise_2d(flat: NDArray[np.float32], *, seed: int) -> NDArray[np.float32]:
    """Draw noise with the ring spectrum of a flat micrograph: ``(h, w)``."""
    power = ring_power_2d(fft.rfft2(flat), width=flat.shape[1])
    return filter_white_2d(np.sqrt(power / flat.size), flat.shape, np.random.default_rng(seed))


def filter_white_2d(transfer: NDArray[np.float32], shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw white noise ``(h, w)`` with a standard deviation of 1 and multiply its half spectrum by ``transfer``."""
    white = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    noise: NDArray[np.float32] = fft.irfft2(white * transfer, s=shape).astype(np.float32)
    return noise


def lowest_score(
    score: NDArray[np.float64], decoy: NDArray[np.float64], *, false_discovery_rate: float, gaussian: bool = True
) -> float:
    """Return the lowest score down to which at most ``false_discovery_rate`` of the scores are noise; infinite if none.

    Decoys tell how many scores of noise are expected above a level (Elias & Gygi 2007, Nat. Methods 4, 207); above the 20 highest
    their number falls as ``z exp(-z² / 2)``, as that of the maxima of Gaussian noise does (Adler 1981, The Geometry of Random
    Fields, ch. 6), so that no single decoy decides. There is none where chance makes as many scores once in 300 micrographs.

    Parameters
    ----------
    score, decoy
        ``(n,)`` and ``(m,)``, from as large an area.
    false_discovery_rate
        Accepted fraction of false scores.
    gaussian
        Scores are in standard deviations of noise; otherwise the number of decoys falls to half a decoy in the end.
    """
    ranked = np.sort(score)[::-1]
    expected = expected_above(ranked, decoy) if gaussian else np.maximum(_count_above(ranked, decoy), 0.5)
    above = np.arange(1, len(ranked) + 1)
    passing = np.flatnonzero(expected <= false_discovery_rate * above)
    if not len(passing):
        return np.inf
    last = int(passing[-1])
    by_chance = special.pdtrc(last, expected[last])  # of more than `last`
    return float(ranked[last]) if by_chance <= _CHANCE else np.inf


def expected_above(level: NDArray[np.float64], decoy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many scores of noise are expected to be at least as high as each level: ``(n,)``."""
    ordered = np.sort(decoy)
    if not len(ordered):
        return np.zeros(len(level))
    tail = min(_TAIL, len(ordered))
    anchor = max(float(ordered[-tail]), 1.0)
    beyond = np.maximum(level, anchor)
    falling = tail * beyond / anchor * np.exp(-0.5 * (beyond**2 - anchor**2))
    return np.where(level > anchor, falling, _count_above(level, ordered))


def _count_above(level: NDArray[np.float64], decoy: NDArray[np.float64]) -> NDArray[np.float64]:
    return (len(decoy) - np.searchsorted(np.sort(decoy), level, side="left")).astype(np.float64)


def probability_by_decoys(score: NDArray[np.float64], decoy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how probably each score is more than noise: one minus the local ratio of decoys to scores: ``(n,)``.

    The ratio never falls as the score rises: it is the isotonic regression of what is a score and what a decoy, of all in order
    (Barlow et al. 1972, Statistical Inference under Order Restrictions). Each block counts half a decoy more than it has, so that
    nothing is certain.

    Parameters
    ----------
    score, decoy
        ``(n,)`` and ``(m,)``, in any order, from as large an area.
    """
    if not len(score):
        return np.empty(0)
    pooled = np.concatenate([score, decoy])
    order = np.argsort(pooled, kind="stable")
    is_decoy = (order >= len(score)).astype(np.float64)
    blocks: list[tuple[float, int]] = []  # decoys, and all
    for value in is_decoy:
        block = (float(value), 1)
        while blocks and blocks[-1][0] * block[1] <= block[0] * blocks[-1][1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1])
        blocks.append(block)
    share = np.concatenate([np.full(count, (decoys + 0.5) / (count + 1)) for decoys, count in blocks])
    share = np.minimum.accumulate(share)
    probability = np.empty(len(pooled))
    probability[order] = np.clip(1 - share / np.maximum(1 - share, 1e-12), 0.0, 1.0)
    return probability[: len(score)]
