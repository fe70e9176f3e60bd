"""Which dark objects of a micrograph are particles: many, alike in size and darkness, round, and not too large.

A phase plate, or a large defocus, shows particles as dark as dirt. But dirt comes in all sizes, and particles in one.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from icestream.algorithms.fourier import Image

LARGEST_PARTICLE_ANG = 400.0

_LARGEST_PER_SIDE = 0.05  # of a field of 4000 Å, 200 Å
_LARGEST_CANDIDATE = 0.125  # of the shorter side
_FEWEST = 10
_FEWEST_CANDIDATES = 4
_LEAST_ALIKE = 2 / 3
_ALIKE = 0.3  # of the logarithm of the diameter
_LARGEST_SPREAD = 0.15
_CONFIDENCE = 0.95
_LEAST_ROUND = 0.3  # of the square on the longer side; a disc has 0.79
_LARGEST_CLUMP = 1.8  # diameters: three that touch
_LARGEST_DARKER = 1.6


def find_alike_2d(lumps: NDArray[np.bool_], flat: Image, *, pixel_size_ang: float | None = None) -> NDArray[np.bool_]:
    """Mark the lumps that are particles, if any are.

    At least four that do not touch the border make the measure, and of these two thirds must be within 35 % of their median
    diameter (of a disc of the same area), at most 400 Å wide, and round. The spread of their logarithms must be below 0.15 with
    a confidence of 95 %: the fewer there are, the more alike they must be. Then all those are particles that are not much
    larger or darker than the median; what is larger or darker is still dirt.

    Parameters
    ----------
    lumps
        ``(h, w)``, true on dark objects.
    flat
        ``(h, w)``, the image without its slope, 0 where nothing is.
    pixel_size_ang
        Of these images; unset, particles may be as wide as a tenth of the shorter side.
    """
    nothing = np.zeros(lumps.shape, bool)
    labels, count = ndimage.label(lumps, np.ones((3, 3), int))
    if count < _FEWEST:
        return nothing
    largest_px = _LARGEST_PER_SIDE * min(lumps.shape) if pixel_size_ang is None else LARGEST_PARTICLE_ANG / pixel_size_ang
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]  # (count,)
    depth = -ndimage.mean(flat, labels, np.arange(1, count + 1))  # (count,)
    diameter = np.sqrt(4 * areas / np.pi)
    whole = ~np.isin(np.arange(1, count + 1), np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    if np.count_nonzero(whole) < _FEWEST:
        return nothing
    usual = float(np.median(diameter[whole]))
    alike = whole & (np.abs(np.log(diameter / usual)) < _ALIKE)
    enough = np.count_nonzero(alike) >= max(_FEWEST, _LEAST_ALIKE * np.count_nonzero(whole))
    if not enough or usual > largest_px or not _are_one_kind(diameter[alike], _roundness(labels, areas)[alike]):
        return nothing
    is_particle = (diameter <= _LARGEST_CLUMP * usual) & (depth <= _LARGEST_DARKER * np.median(depth[alike]))
    found: NDArray[np.bool_] = np.concatenate([[False], is_particle])[labels]
    return found


def find_candidates_2d(lumps: NDArray[np.bool_], *, pixel_size_ang: float | None = None) -> NDArray[np.bool_]:
    """Mark the lumps that may be particles, though they are too few, or differ too much, to be sure: ``(h, w)``.

    They are no larger than particles (400 Å, or an eighth of the shorter side where the pixel size is unknown), at least four do
    not touch the border, and of these two thirds are within 35 % of their median diameter.
    """
    labels, count = ndimage.label(lumps, np.ones((3, 3), int))
    largest_px = _LARGEST_CANDIDATE * min(lumps.shape) if pixel_size_ang is None else LARGEST_PARTICLE_ANG / pixel_size_ang
    diameter = np.sqrt(4 * np.bincount(labels.ravel(), minlength=count + 1)[1:] / np.pi)  # (count,)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    whole = ~np.isin(np.arange(1, count + 1), border) & (diameter <= largest_px)
    if np.count_nonzero(whole) < _FEWEST_CANDIDATES:
        return np.zeros(lumps.shape, bool)
    usual = float(np.median(diameter[whole]))
    alike = np.count_nonzero(whole & (np.abs(np.log(diameter / usual)) < _ALIKE))
    chosen = (diameter <= min(_LARGEST_CLUMP * usual, largest_px)) & (alike >= _LEAST_ALIKE * np.count_nonzero(whole))
    found: NDArray[np.bool_] = np.concatenate([[False], chosen])[labels]
    return found


def _roundness(labels: NDArray[np.int32], areas: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share that each object takes of the square on the longer side of its box: ``(count,)``."""
    sides = [max(part.stop - part.start for part in box) for box in ndimage.find_objects(labels)]
    share: NDArray[np.float64] = areas / np.square(sides)
    return share


def _are_one_kind(diameter: NDArray[np.float64], roundness: NDArray[np.float64]) -> bool:
    """Tell whether objects are round and their spread is small, by the upper limit of a standard deviation (chi squared)."""
    free = diameter.size - 1
    limit = np.std(np.log(diameter), ddof=1) * np.sqrt(free / stats.chi2.ppf(1 - _CONFIDENCE, free))
    return bool(np.median(roundness) >= _LEAST_ROUND and limit <= _LARGEST_SPREAD)
