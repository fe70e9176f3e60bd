"""Taking out of a learnt gain what is likely noise.

A gain learnt from few counts is the camera's pattern plus noise, and correcting with it as it is puts that noise into every
frame. The best guess of each pixel is nearer to its surroundings: what differs from means of rows, columns and blocks is scaled
by its reliability, the variance of the pattern over that of pattern and noise (James & Stein 1961; Efron & Morris 1977). Means
over many pixels have next to no noise and stay. Movies that were not learnt from then show just this gain: its slope is one.
"""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.gain.estimate import GainFigures, block_means_2d, spread_blocks_2d


def measure_reliability(figures: GainFigures, *, noise: float) -> float:
    """Return which share of the variance of pixels about rows, columns and blocks is the camera's: from 0 to 1.

    Parameters
    ----------
    figures
        How uneven the camera is without a gain, counting noise taken out.
    noise
        Standard error of a pixel of the estimate. If it or the figures are not finite, nothing is known: 1.
    """
    pattern = figures.total**2 - figures.rows**2 - figures.columns**2
    if not np.isfinite(pattern) or not np.isfinite(noise) or noise <= 0:
        return 1.0
    pattern = max(pattern, 0.0)
    return pattern / (pattern + noise**2)


def shrink_gain_2d(gain: NDArray[np.float32], *, reliability: float) -> NDArray[np.float32]:
    """Return a gain whose fine structure is scaled by its reliability; zeros (defects) stay zero.

    Parameters
    ----------
    gain
        ``(h, w)``, multiplies.
    reliability
        From 0 (all noise) to 1 (none).
    """
    living = gain > 0
    if reliability >= 1.0 or not living.any():
        return gain.copy()
    smooth = np.full(gain.shape, gain[living].mean(dtype=np.float64))
    smooth += _mean_along(np.where(living, gain - smooth, 0), living, axis=1)  # (h, w)
    smooth += _mean_along(np.where(living, gain - smooth, 0), living, axis=0)
    share = np.maximum(block_means_2d(living.astype(np.float32)), 1e-9)
    blocks = block_means_2d(np.where(living, gain - smooth, 0)) / share  # (blocks along y, blocks along x)
    smooth += spread_blocks_2d(blocks.astype(np.float32), shape=(gain.shape[0], gain.shape[1]))
    shrunk: NDArray[np.float32] = np.where(living, smooth + reliability * (gain - smooth), 0).astype(np.float32)
    return shrunk


def _mean_along(values: NDArray[np.float64], living: NDArray[np.bool_], *, axis: int) -> NDArray[np.float64]:
    """Return the mean over living pixels along an axis, which is kept with length 1."""
    count = np.maximum(living.sum(axis=axis, keepdims=True), 1)
    mean: NDArray[np.float64] = values.sum(axis=axis, keepdims=True, dtype=np.float64) / count
    return mean
