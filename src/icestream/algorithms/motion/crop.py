"""Using a part of the frames: what is cut out, and its motion in the pixels of whole frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.motion.frames import Detector, Frames
from icestream.algorithms.motion.model import N_SPACE, N_TERMS, N_TIME


@dataclass(frozen=True)
class Area:
    """A rectangle of pixels of a frame: first row and column, height and width."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class CroppedFrames:
    """The same part of every frame of a movie."""

    def __init__(self, frames: Frames, area: Area) -> None:
        self._frames, self._area = frames, area

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for frame in self._frames:
            yield np.ascontiguousarray(frame[self._area.slices])  # (height, width) of the area


def crop_detector(detector: Detector, area: Area) -> Detector:
    """Return factor and defects of a part of the frames; ``n_declared`` stays that of the whole."""
    factor = np.ascontiguousarray(detector.factor[area.slices])  # (height, width) of the area
    defects = np.ascontiguousarray(detector.defects[area.slices])
    return Detector(factor, defects, np.argwhere(defects), n_declared=detector.n_declared)


def move_local_model(coefficients: NDArray[Any], *, area: Area, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the local motion found in a part of the frames as one of whole frames: ``(2, 18)``, the same at every pixel.

    The polynomials are the same about another origin and in other units, so the conversion is exact.

    Parameters
    ----------
    coefficients
        ``(2, 18)`` of `motion_model`, for frames of the size of ``area``.
    shape
        Height and width of the whole frames.
    """
    if np.asarray(coefficients).size != 2 * N_TERMS:
        raise ValueError(f"coefficients have shape {np.shape(coefficients)}; it must be (2, {N_TERMS})")
    a, b = shape[1] / area.width, ((shape[1] - area.width) / 2 - area.left) / area.width  # u of the part = a u + b
    c, d = shape[0] / area.height, ((shape[0] - area.height) / 2 - area.top) / area.height  # v of the part = c v + d
    moved = np.array(
        [
            [1, 0, 0, 0, 0, 0],
            [b, a, 0, 0, 0, 0],
            [b * b, 2 * a * b, a * a, 0, 0, 0],
            [d, 0, 0, c, 0, 0],
            [d * d, 0, 0, 2 * c * d, c * c, 0],
            [b * d, a * d, 0, b * c, 0, a * c],
        ]
    )  # (6, 6): each term of the part as a sum of those of the whole
    table = np.asarray(coefficients, dtype=np.float64).reshape(2, N_SPACE, N_TIME)
    words: NDArray[np.float64] = np.einsum("aps,pr->ars", table, moved).reshape(2, N_TERMS)
    return words
