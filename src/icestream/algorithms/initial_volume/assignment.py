"""Who chooses whom: images their views, or views their images.

Where every image takes its best view, views that happen to look sharper attract all images and the volume never leaves its first
shape. Where views take their share of the images in turn, all directions stay equally populated, which a random start survives
(Rangan & Greengard 2023, arXiv 2209.06420). The two rules alternate.
"""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.scoring import Bank, PolarParticles, Poses, PoseWindows, Real, group_shifts, search_windows_2d


def views_choose_images(gain: Real, *, generator: np.random.Generator) -> NDArray[np.int32]:
    """Return a view for each image ``(n,)``: each view, in random order, takes its share of the images that are still free.

    ``gain`` ``(n, k)`` is the log likelihood ratio of the best pose in each view. Views compare images by how far this view is
    better for them than the mean view, in units of the spread over views, so that images of high contrast are not all taken
    first.
    """
    n, k = gain.shape
    relative = gain - gain.mean(axis=1, keepdims=True)
    relative /= relative.std(axis=1, keepdims=True) + 1e-6
    share = np.diff(np.linspace(0, n, k + 1).astype(int))
    chosen = np.zeros(n, np.int32)
    free = np.arange(n)
    for view, count in zip(generator.permutation(k), share, strict=True):
        if count == 0:
            continue
        taken = np.argpartition(-relative[free, view], count - 1)[:count]
        chosen[free[taken]] = view
        free = np.delete(free, taken)
    return chosen


def images_choose_views(gain: Real, *, among: float, generator: np.random.Generator) -> NDArray[np.int32]:
    """Return a view for each image ``(n,)``: a random one among the best ``among`` (a fraction) of its views."""
    count = max(1, int(among * gain.shape[1]))
    best = np.argpartition(-gain, count - 1, axis=1)[:, :count]
    chosen: NDArray[np.int32] = best[np.arange(len(gain)), generator.integers(0, count, len(gain))].astype(np.int32)
    return chosen


def poses_in_views(particles: PolarParticles, bank: Bank, views: NDArray[np.int32]) -> Poses:
    """Return the significant turns and shifts of each image in the view ``(n,)`` that it was given."""
    n = len(particles)
    starts, shifts = group_shifts([np.arange(bank.n_shifts, dtype=np.int32)])
    nothing = np.zeros(n, np.int32)
    windows = PoseWindows(
        np.arange(n, dtype=np.int32),
        views.astype(np.int32),
        nothing,
        np.full(n, bank.level.grid.n_angles, np.int32),
        nothing,
        np.zeros(n, np.float32),
        starts,
        shifts,
    )
    return search_windows_2d(particles, bank, windows)


def view_entropy(poses: Poses, n_views: int) -> float:
    """Return how evenly the views are populated: the entropy of the shares over that of equal shares, 0 to 1."""
    share = np.bincount(poses.class_id, weights=poses.weight, minlength=n_views)
    share = share / max(share.sum(), 1e-9)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() / np.log(max(min(n_views, len(poses.gain)), 2)))
