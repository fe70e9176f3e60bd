"""What the counts of a movie tell of the beam: how much arrived, where nothing did, and whether it stayed the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import ItemError


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
    """

    counts_per_px: float
    zero_fraction: float
    drift: float


def measure_counts(frames: Iterable[NDArray[Any]]) -> CountStatistics:
    """Measure the counts of a movie, frame by frame.

    Parameters
    ----------
    frames
        ``(h, w)`` each, of any type.

    Raises
    ------
    ItemError
        There is no frame, frames differ in size, or a frame holds values that are not finite.
    """
    means: list[float] = []
    counted: NDArray[np.bool_] | None = None
    for number, frame in enumerate(frames):
        if counted is None:
            counted = np.zeros(frame.shape, dtype=np.bool_)
        if frame.shape != counted.shape:
            raise ItemError(f"frame {number} has shape {frame.shape}, the first frame has {counted.shape}; allowed is one size")
        mean = float(frame.mean(dtype=np.float64))
        if not np.isfinite(mean):
            raise ItemError(f"frame {number} holds values that are not finite (NaN or infinite)")
        means.append(mean)
        np.logical_or(counted, frame, out=counted)
    if counted is None:
        raise ItemError("movie has no frames: at least 1 is needed")
    return CountStatistics(
        counts_per_px=float(np.mean(means)),
        zero_fraction=1.0 - np.count_nonzero(counted) / counted.size,
        drift=_relative_change(np.array(means)),
    )


def _relative_change(means: NDArray[np.float64]) -> float:
    """Return how much the best line through ``(n,)`` values rises from first to last, relative to their mean."""
    average = float(means.mean())
    if means.size < 2 or average == 0.0:
        return 0.0
    time = np.arange(means.size) - 0.5 * (means.size - 1)  # (n,)
    slope = float(time @ means) / float(time @ time)
    return slope * (means.size - 1) / average
