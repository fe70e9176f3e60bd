"""Correcting and binning a frame in one go, a few rows at a time, so that the corrected frame never leaves the cache."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_ROWS = 16


@njit(cache=True, nogil=True, fastmath=True)
def _add_rows(total: Any, rows: Any, bin: int, scale: float) -> None:
    """Add ``rows`` ``(n * bin, w)`` to ``total`` ``(n, w // bin)``."""
    factor = np.float32(scale)
    for y in range(total.shape[0]):
        target = total[y]
        for row in range(y * bin, y * bin + bin):
            line = rows[row]
            if bin == 1:
                for x in range(total.shape[1]):
                    target[x] += factor * line[x]
            elif bin == 2:
                for x in range(total.shape[1]):
                    target[x] += factor * (line[2 * x] + line[2 * x + 1])
            else:
                for x in range(total.shape[1]):
                    value = np.float32(0)
                    for column in range(x * bin, x * bin + bin):
                        value += line[column]
                    target[x] += factor * value


@njit(cache=True, nogil=True)
def _add_corrected(  # noqa: PLR0917 - compiled
    total: Any, frame: Any, factor: Any, positions: Any, sources: Any, bin: int, scale: float
) -> None:
    width = frame.shape[1]
    rows = np.empty((_ROWS * bin, width), dtype=np.float32)
    defect = 0
    for first in range(0, total.shape[0], _ROWS):
        last = min(first + _ROWS, total.shape[0])
        start, stop = first * bin, last * bin
        for y in range(start, stop):
            raw, gain, line = frame[y], factor[y], rows[y - start]
            for x in range(width):
                line[x] = np.float32(raw[x]) * gain[x]
        while defect < positions.shape[0] and positions[defect, 0] < stop:
            y, x, source = positions[defect, 0], positions[defect, 1], sources[defect]
            from_y, from_x = source // width, source % width
            value = np.float32(frame[from_y, from_x]) * factor[from_y, from_x] if source >= 0 else np.float32(0)
            rows[y - start, x] = value
            defect += 1
        _add_rows(total[first:last], rows, bin, scale)


def add_corrected_binned(
    total: NDArray[np.float32],
    frame: NDArray[Any],
    factor: NDArray[np.float32],
    *,
    positions: NDArray[np.intp],
    sources: NDArray[np.int64],
    bin: int,
    scale: float,
) -> None:
    """Add to ``total`` a frame times ``factor``, its defects replaced, binned and multiplied with ``scale``.

    ``total`` is the caller's own accumulator.

    Parameters
    ----------
    total
        ``(h // bin, w // bin)``, added to.
    frame, factor
        ``(h, w)``.
    positions, sources
        Defects ``(n, 2)`` from top to bottom, and the flat index of the pixel whose value each gets, -1 for zero, ``(n,)``.
    """
    _add_corrected(total, np.ascontiguousarray(frame), factor, positions, sources, bin, scale)
