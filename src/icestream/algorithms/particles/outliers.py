"""Picks that do not look like the others: radial profiles and their Mahalanobis distance (arXiv 2409.05523).

A profile has the mean grey value of narrow rings, and, for what is not round, the logarithm of the variance in wide ones: an edge
through the middle leaves no trace in the means.

Mean and covariance are those of trusted picks, the better half. Distances of trusted picks are to the mean of others than
themselves (two halves), so that they are as large as those of any good pick; how they spread says what is unusual.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.fourier import Image
from icestream.algorithms.particles.noise import reduce_2d

_WORKING_DIAMETER_PX = 32.0
PROFILE_RINGS = 28
_NARROW_PER_WIDE = 4


def prepare_for_profiles_2d(image: Image, *, diameter_px: float) -> tuple[Image, NDArray[np.float64]]:
    """Make ``(h, w)`` small, a particle 32 pixels wide, without its background; also return how many times smaller: ``(2,)``."""
    small, scale_yx = reduce_2d(image, factor=diameter_px / _WORKING_DIAMETER_PX)
    level = ndimage.gaussian_filter(small, 0.75 * diameter_px / float(scale_yx.mean()), mode="reflect")
    return small - level, scale_yx


def radial_profiles_2d(
    image: NDArray[Any], yx_px: NDArray[np.float64], *, radius_px: float, n_rings: int = PROFILE_RINGS
) -> NDArray[np.float64]:
    """Return means of rings about each point, then logarithms of variances of rings four times as wide: ``(n, 5 n_rings // 4)``.

    Parameters
    ----------
    image
        ``(h, w)``, the background removed; beyond the border its nearest pixel is taken.
    yx_px
        ``(n, 2)``.
    radius_px
        Outer radius of the last ring; rings without a pixel of their own take the nearest.
    """
    reach = np.arange(-np.ceil(radius_px), np.ceil(radius_px) + 1)
    offset_y, offset_x = (axis.ravel() for axis in np.meshgrid(reach, reach, indexing="ij"))
    distance = np.hypot(offset_y, offset_x)
    middle = (np.arange(n_rings) + 0.5) * radius_px / n_rings
    weight = np.maximum(1 - np.abs(distance[:, None] - middle) * n_rings / max(radius_px, n_rings), 0.0)  # (m, n_rings)
    weight[np.argmin(distance), weight.sum(0) == 0] = 1.0
    whole = np.round(yx_px).astype(int)  # (n, 2)
    rows = np.clip(whole[:, :1] + offset_y.astype(int), 0, image.shape[0] - 1)  # (n, m)
    columns = np.clip(whole[:, 1:] + offset_x.astype(int), 0, image.shape[1] - 1)
    values = image[rows, columns].astype(np.float64)
    means = values @ (weight / weight.sum(0))  # (n, n_rings)
    wide = weight.reshape(len(distance), -1, _NARROW_PER_WIDE).sum(2)  # (m, n_rings // 4)
    wide = wide / wide.sum(0)
    variances = np.square(values) @ wide - np.square(values @ wide)
    floor = 1e-6 * float(np.median(variances)) + 1e-30 if variances.size else 1.0
    return np.concatenate([means, np.log(np.maximum(variances, floor))], axis=1)


def score_profiles(profiles: NDArray[np.float64], trusted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how unusual profiles are: ``(n,)``, robust standard deviations of the logarithm of the distance of trusted ones.

    Parameters
    ----------
    profiles
        ``(n, k)``.
    trusted
        ``(n,)``, at least eight of them.
    """
    chosen = np.flatnonzero(trusted)
    if len(chosen) < 8:
        raise ValueError(f"{len(chosen)} trusted profiles; at least 8 are needed")
    distance = _distance(profiles, profiles[chosen])
    for part in (0, 1):
        distance[chosen[part::2]] = _distance(profiles[chosen[part::2]], profiles[chosen[1 - part :: 2]])
    logarithm = np.log(np.maximum(distance, 1e-30))
    middle = np.median(logarithm[chosen])
    spread = 1.4826 * np.median(np.abs(logarithm[chosen] - middle))
    scores: NDArray[np.float64] = (logarithm - middle) / max(float(spread), 1e-12)
    return scores


def _distance(profiles: NDArray[np.float64], examples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared Mahalanobis distance to examples, whose covariance is shrunk to a multiple of the identity.

    Rings are first brought to the same spread; the shrinkage is that of Ledoit & Wolf (2004), J. Multivar. Anal. 88, 365.
    """
    mean = np.median(examples, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(examples - mean), axis=0), 1e-12)
    known, asked = (examples - mean) / spread, (profiles - mean) / spread
    known = known * np.minimum(1.0, 3.0 * np.sqrt(known.shape[1]) / np.maximum(np.linalg.norm(known, axis=1), 1e-12))[:, None]
    n, size = known.shape
    covariance = known.T @ known / n
    identity = np.trace(covariance) / size * np.eye(size)
    away = float(np.sum((covariance - identity) ** 2))
    error = sum(float(np.sum((np.outer(row, row) - covariance) ** 2)) for row in known) / n**2
    shrinkage = min(error / away, 1.0) if away > 0 else 1.0
    inverse = np.linalg.inv(shrinkage * identity + (1 - shrinkage) * covariance + 1e-9 * np.eye(size))
    distance: NDArray[np.float64] = np.einsum("ni,ij,nj->n", asked, inverse, asked)
    return distance
