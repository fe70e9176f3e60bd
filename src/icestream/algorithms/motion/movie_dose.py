"""What the counts of a movie tell of the beam: how much arrived, where nothing did, and whether it stayed the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import ItemError

_LARGEST_BAD_SHARE = 0.1
_SATURATED_SHARE = 0.5


@dataclass(frozen=True)
class CountStatistics:
    """The counts of one movie, as the camera stored them.

    Attributes
    ----------
    counts_per_px
        Mean over all pixels and frames.
    zero_fraction
        Share of the pixels that counted nothing in any frame.
    drift
        Change of the mean from the first frame to the last, by the line that fits best, relative to the mean.
    n_empty, n_saturated
        Frames that are all zero, and frames most of whose pixels have the largest value.
    """

    counts_per_px: float
    zero_fraction: float
    drift: float
    n_empty: int = 0
    n_saturated: int = 0


def measure_counts(frames: Iterable[NDArray[Any]]) -> CountStatistics:
    """Measure the counts of a movie, frame by frame.

    Parameters
    ----------
    frames
        ``(h, w)`` each, of any type. Up to a tenth of the pixels of a frame may be no finite number; they are left out.

    Raises
    ------
    ItemError
        There is no frame, frames differ in size, or a frame holds too many values that are not finite.
    """
    means: list[float] = []
    n_saturated = 0
    counted: NDArray[np.bool_] | None = None
    for number, frame in enumerate(frames):
        if counted is None:
            counted = np.zeros(frame.shape, dtype=np.bool_)
        if frame.shape != counted.shape:
            raise ItemError(f"frame {number} has shape {frame.shape}, the first frame has {counted.shape}; allowed is one size")
        means.append(_mean_count(frame, number))
        n_saturated += _is_saturated(frame)
        np.logical_or(counted, frame, out=counted)
    if counted is None:
        raise ItemError("movie has no frames: at least 1 is needed")
    return CountStatistics(
        counts_per_px=float(np.mean(means)),
        zero_fraction=1.0 - np.count_nonzero(counted) / counted.size,
        drift=_relative_change(np.array(means)),
        n_empty=means.count(0.0),
        n_saturated=n_saturated,
    )


def _mean_count(frame: NDArray[Any], number: int) -> float:
    """Return the mean of the pixels that are finite numbers, if those are nearly all."""
    mean = float(frame.mean(dtype=np.float64))
    if np.isfinite(mean):
        return mean
    finite = np.isfinite(frame)
    share = 1.0 - np.count_nonzero(finite) / frame.size
    if share > _LARGEST_BAD_SHARE:
        raise ItemError(
            f"frame {number} holds values that are not finite (NaN or infinite): {share:.0%} of its pixels, "
            f"allowed are {_LARGEST_BAD_SHARE:.0%}"
        )
    return float(frame[finite].mean(dtype=np.float64))


def _is_saturated(frame: NDArray[Any]) -> bool:
    """Tell whether most pixels have the largest value there is; a sparse frame of single electrons has at most 1."""
    probe = frame[:: max(frame.shape[0] // 256, 1), :: max(frame.shape[1] // 256, 1)]
    largest = float(probe.max()) if probe.size else 0.0
    return bool(largest > 1 and np.count_nonzero(probe == largest) > _SATURATED_SHARE * probe.size)


def _relative_change(means: NDArray[np.float64]) -> float:
    """Return how much the best line through ``(n,)`` values rises from first to last, relative to their mean."""
    average = float(means.mean())
    if means.size < 2 or average == 0.0:
        return 0.0
    time = np.arange(means.size) - 0.5 * (means.size - 1)  # (n,)
    slope = float(time @ means) / float(time @ time)
    return slope * (means.size - 1) / average
