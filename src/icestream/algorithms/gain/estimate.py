"""The gain of a camera, learnt from movies of the specimen.

The response of a pixel is its counts over those of the mean pixel, added up over many movies (as for a gain reference taken
without specimen; the specimen averages out because it differs from movie to movie). Two things are left out: blocks of a movie
that are much darker or brighter than the rest (grid bars, edges of holes), and single pixels far above what is known of them
(a stray X-ray). Movies go alternately to two halves whose difference is the noise of the estimate.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_PX = 128
_DARK, _BRIGHT = 0.7, 1.3
_OUTLIER_SIGMA = 8.0
_OUTLIER_SHARE = 0.25
_SETTLED_MOVIES = 4
_DEFECT_FACTOR = 3.0


@dataclass(frozen=True)
class GainSums:
    """What is known so far: counts ``(2, h, w)`` of either half, expected counts of a mean pixel ``(2, blocks_y, blocks_x)``."""

    counts: NDArray[np.float32]
    expected: NDArray[np.float64]
    n_movies: int = 0
    n_outliers: int = 0

    @classmethod
    def start(cls, shape: tuple[int, int]) -> "GainSums":
        """Return the sums before the first movie."""
        blocks = (-(-shape[0] // _BLOCK_PX), -(-shape[1] // _BLOCK_PX))
        return cls(np.zeros((2, *shape), dtype=np.float32), np.zeros((2, *blocks)))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.counts.shape[1], self.counts.shape[2]


@dataclass(frozen=True)
class GainFigures:
    """How uneven an image of the camera is, counting noise taken out; all are fractions of the mean.

    Attributes
    ----------
    total, rows, columns, blocks
        Standard deviation of the pixels, and of the means of rows, of columns and of blocks of 128 px.
    spread_ratio, peak_ratio
        The 97.5 % quantile over the 2.5 % quantile, and the largest over the 97.5 % quantile, of pixels that are no defects.
    """

    total: float
    rows: float
    columns: float
    blocks: float
    spread_ratio: float
    peak_ratio: float


def add_movie_counts(sums: GainSums, total: NDArray[Any]) -> GainSums:
    """Add one movie and return the new sums.

    Parameters
    ----------
    total
        ``(h, w)``: plain sum of the raw frames, all values finite.
    """
    half = sums.n_movies % 2
    means = block_means_2d(total)  # (by, bx)
    middle = float(np.median(means))
    good = (means >= _DARK * middle) & (means <= _BRIGHT * middle)
    if not good.any() or middle <= 0:
        raise ValueError(f"the median block of the movie has {middle:g} counts per pixel; more than 0 are needed")
    mean = float(means[good].mean())
    known = sums.expected.sum(axis=0)  # (by, bx)
    taken = np.array(total, dtype=np.float32)
    n_outliers = 0
    if sums.n_movies >= _SETTLED_MOVIES:
        seen = spread_blocks_2d(np.where(known > 0, known, np.inf).astype(np.float32), shape=sums.shape)
        likely = sums.counts.sum(axis=0) * (np.float32(mean) / seen)  # (h, w)
        outlier = np.abs(taken - likely) > _OUTLIER_SIGMA * np.sqrt(np.maximum(likely, 1)) + _OUTLIER_SHARE * likely
        outlier &= np.isfinite(seen)
        n_outliers = int(np.count_nonzero(outlier))
        if n_outliers < 0.01 * outlier.size:
            taken[outlier] = likely[outlier]
    taken *= spread_blocks_2d(good.astype(np.float32), shape=sums.shape)
    counts, expected = sums.counts.copy(), sums.expected.copy()
    counts[half] += taken
    expected[half] += mean * good
    return GainSums(counts, expected, sums.n_movies + 1, sums.n_outliers + n_outliers)


def estimate_response_2d(sums: GainSums, *, half: int | None = None) -> NDArray[np.float32]:
    """Return the counts of each pixel relative to the mean pixel: ``(h, w)``; not a number where no movie told.

    Parameters
    ----------
    half
        Only movies of one half; both if unset.
    """
    counts = sums.counts.sum(axis=0) if half is None else sums.counts[half]
    expected = sums.expected.sum(axis=0) if half is None else sums.expected[half]
    seen = spread_blocks_2d(np.where(expected > 0, expected, np.nan).astype(np.float32), shape=sums.shape)
    response: NDArray[np.float32] = counts / seen
    told = response[np.isfinite(response)]
    if told.size:
        response /= np.float32(told.mean(dtype=np.float64))
    return response


def invert_response_2d(response: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the gain that multiplies, of mean 1 over living pixels: ``(h, w)``, zero at defects and where nothing is known.

    A defect counts less than a third or more than three times of what the median pixel does.
    """
    living = np.isfinite(response)
    middle = float(np.median(response[living])) if living.any() else 1.0
    living &= (response > middle / _DEFECT_FACTOR) & (response < middle * _DEFECT_FACTOR)
    gain: NDArray[np.float32] = np.divide(1.0, response, out=np.zeros(response.shape, dtype=np.float32), where=living)
    if living.any():
        gain /= np.float32(gain[living].mean(dtype=np.float64))
    return gain


def measure_noise(sums: GainSums) -> float:
    """Return the standard error of the response of a pixel, told by the difference of the halves (median over pixels)."""
    if sums.n_movies < 2:
        return float("nan")
    share = np.median(sums.expected.sum(axis=(1, 2))) / max(float(sums.expected.sum()) / 2, 1e-300)
    apart = estimate_response_2d(sums, half=0) - estimate_response_2d(sums, half=1)
    apart = apart[np.isfinite(apart)]
    return float(1.4826 * np.median(np.abs(apart - np.median(apart))) / 2 * np.sqrt(share)) if apart.size else float("nan")


def measure_unevenness(
    sums: GainSums, *, gain: NDArray[np.float32] | None = None, known_defects: NDArray[np.bool_] | None = None
) -> GainFigures:
    """Measure how uneven the camera is, as it counts or after a gain.

    Parameters
    ----------
    gain
        ``(h, w)``, multiplies; its zeros are left out.
    known_defects
        ``(h, w)``, left out too.
    """
    halves = [estimate_response_2d(sums, half=half) for half in range(2)] if sums.n_movies >= 2 else [estimate_response_2d(sums)]
    if gain is not None:
        halves = [half * gain for half in halves]
    usable = np.logical_and.reduce([np.isfinite(half) for half in halves])
    usable &= invert_response_2d(estimate_response_2d(sums)) > 0
    if gain is not None:
        usable &= gain > 0
    if known_defects is not None:
        usable &= ~known_defects
    if not usable.any():
        nothing = float("nan")
        return GainFigures(nothing, nothing, nothing, nothing, nothing, nothing)
    centred = [np.where(usable, half / np.float32(half[usable].mean(dtype=np.float64)) - 1, np.nan) for half in halves]
    mean = centred[0] if len(centred) == 1 else (centred[0] + centred[1]) / 2
    low, high, top = np.quantile(1 + mean[usable], [0.025, 0.975, 1.0])
    total, rows, columns, blocks = (
        _covariance([reduce(half, usable) for half in centred]) for reduce in (_pixels, _rows, _columns, _blocks)
    )
    return GainFigures(total, rows, columns, blocks, float(high / max(low, 1e-9)), float(top / high))


def _covariance(halves: list[NDArray[np.floating[Any]]]) -> float:
    """Return the standard deviation that two halves have in common (of one alone, its own)."""
    first, second = halves[0], halves[-1]
    common = float(np.mean((first - first.mean(dtype=np.float64)) * (second - second.mean(dtype=np.float64)), dtype=np.float64))
    return float(np.sqrt(max(common, 0.0)))


def _pixels(image: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[Any]:
    return image[usable]


def _rows(image: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[Any]:
    return np.asarray(np.nanmean(image[usable.any(axis=1)], axis=1, dtype=np.float64))


def _columns(image: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[Any]:
    return np.asarray(np.nanmean(image[:, usable.any(axis=0)], axis=0, dtype=np.float64))


def _blocks(image: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[Any]:
    count = block_means_2d(usable.astype(np.float32))
    mean = block_means_2d(np.where(usable, image, 0))
    return mean[count > 0.5] / count[count > 0.5] if np.any(count > 0.5) else np.zeros(1)


def block_means_2d(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean of each block of 128 px, those at the end smaller: ``(ceil(h / 128), ceil(w / 128))``."""
    rows, columns = (np.arange(0, length, _BLOCK_PX) for length in image.shape)
    sums = np.add.reduceat(np.add.reduceat(image, rows, axis=0, dtype=np.float64), columns, axis=1)
    sizes = np.outer(np.diff([*rows, image.shape[0]]), np.diff([*columns, image.shape[1]]))
    means: NDArray[np.float64] = sums / sizes
    return means


def spread_blocks_2d(blocks: NDArray[np.float32], *, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the value of the block of each pixel: ``(h, w)``."""
    wide: NDArray[np.float32] = np.repeat(np.repeat(blocks, _BLOCK_PX, axis=0), _BLOCK_PX, axis=1)[: shape[0], : shape[1]]
    return wide
