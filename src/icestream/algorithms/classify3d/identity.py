"""How much the classes of two versions look alike: they have one frame, and nearly one mean."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify3d.model import Volume


def correlate_classes_3d(old: Volume, new: Volume) -> NDArray[np.float64]:
    """Return how much classes are alike, by what tells them from the mean of their version: ``(n_old, n_new)``, 0 to 1.

    Parameters
    ----------
    old, new
        ``(k, n, n, n)`` each, filtered and masked, of one size and in one frame.
    """
    one, other = (_unit(part - part.mean(axis=0)) for part in (old, new))
    likeness: NDArray[np.float64] = np.clip(one @ other.T, 0.0, 1.0).astype(np.float64)
    return likeness


def _unit(differences: Volume) -> NDArray[np.float32]:
    flat = differences.reshape(len(differences), -1)
    unit: NDArray[np.float32] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    return unit
