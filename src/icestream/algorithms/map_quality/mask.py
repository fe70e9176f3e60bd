"""Where the particle is in a map: a mask found without being told a threshold."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.map_quality.shells import Map, distance_from_centre, low_pass_3d

_N_LEVELS = 256


@dataclass(frozen=True)
class FoundMask:
    """A soft mask, and what it was made from.

    Attributes
    ----------
    mask
        ``(b, b, b)``, 1 on the particle, 0 in the solvent.
    threshold
        Grey value of the smoothed map from which on a voxel counts as particle.
    contrast
        Mean of the particle less that of the solvent, in standard deviations of the solvent, in the smoothed map.
    volume_fraction
        Part of the sphere in the box that the particle takes before the mask grows.
    diameter_ang
        Of the sphere about the centre of mass that holds 99 % of the voxels of the particle.
    """

    mask: NDArray[np.float32]
    threshold: float
    contrast: float
    volume_fraction: float
    diameter_ang: float


def find_mask_3d(
    half_1: Map,
    half_2: Map,
    *,
    pixel_size_ang: float,
    smooth_ang: float = 20.0,
    grow_ang: float | None = None,
    edge_ang: float | None = None,
) -> FoundMask:
    """Find the particle in the mean of two half maps.

    The mean is smoothed to ``smooth_ang`` (at least four pixels) and split by Otsu's threshold (1979, IEEE Trans. SMC 9, 62)
    within the sphere that the box holds; the largest connected part, and others of at least a twentieth of it, are kept, filled,
    grown by ``grow_ang`` and given a cosine edge of ``edge_ang``.

    Parameters
    ----------
    half_1, half_2
        ``(b, b, b)``, not masked.
    pixel_size_ang
        Of the maps.
    grow_ang, edge_ang
        Unset: three pixels or 6 Å, whatever is more, and five pixels or 10 Å.

    Raises
    ------
    ValueError
        The maps are no cubes of one shape, or have no variation.
    """
    _check_pair(half_1, half_2)
    mean = 0.5 * (np.asarray(half_1, dtype=np.float32) + np.asarray(half_2, dtype=np.float32))  # (b, b, b)
    smooth = low_pass_3d(mean, resolution_ang=max(smooth_ang, 4 * pixel_size_ang), pixel_size_ang=pixel_size_ang)
    box_px = mean.shape[0]
    distance = distance_from_centre(box_px)
    sphere = distance <= box_px // 2 - 1
    threshold = _otsu(smooth[sphere])
    inside = keep_large_parts((smooth > threshold) & sphere)
    solvent = smooth[sphere & ~inside]
    lifted = float(smooth[inside].mean() - solvent.mean()) / (float(solvent.std()) or 1.0) if solvent.size else 0.0
    grow = (grow_ang if grow_ang is not None else max(3 * pixel_size_ang, 6.0)) / pixel_size_ang
    edge = (edge_ang if edge_ang is not None else max(5 * pixel_size_ang, 10.0)) / pixel_size_ang
    return FoundMask(
        mask=soften(inside, grow_px=grow, edge_px=edge),
        threshold=threshold,
        contrast=lifted,
        volume_fraction=float(inside.sum() / sphere.sum()),
        diameter_ang=_diameter_px(inside) * pixel_size_ang,
    )


def soften(inside: NDArray[np.bool_], *, grow_px: float, edge_px: float) -> NDArray[np.float32]:
    """Grow a region by ``grow_px`` and let it fall to 0 as a cosine over ``edge_px`` more."""
    away = ndimage.distance_transform_edt(~inside)  # (b, b, b)
    fall = np.clip((away - grow_px) / max(edge_px, 1e-6), 0.0, 1.0)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * fall), dtype=np.float32)


def keep_large_parts(inside: NDArray[np.bool_], *, least: float = 0.05) -> NDArray[np.bool_]:
    """Keep the largest connected part and those of at least ``least`` of its size; holes are filled."""
    labels, count = ndimage.label(inside)
    if count == 0:
        return inside
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: NDArray[np.bool_] = ndimage.binary_fill_holes((sizes >= least * sizes.max())[labels] & (labels > 0))
    return kept


def _otsu(values: NDArray[np.float32]) -> float:
    """Return the threshold that separates two classes of values best."""
    counts, edges = np.histogram(values, bins=_N_LEVELS)
    middles = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts).astype(np.float64)
    above = below[-1] - below
    sum_below = np.cumsum(counts * middles)
    valid = (below > 0) & (above > 0)
    between = np.zeros(_N_LEVELS)
    mean_below = sum_below[valid] / below[valid]
    mean_above = (sum_below[-1] - sum_below[valid]) / above[valid]
    between[valid] = below[valid] * above[valid] * (mean_below - mean_above) ** 2
    return float(edges[int(np.argmax(between)) + 1])


def _diameter_px(inside: NDArray[np.bool_]) -> float:
    """Return the diameter of the sphere about the centre of mass that holds 99 % of the voxels."""
    places = np.argwhere(inside)
    if not len(places):
        return 0.0
    return 2 * float(np.percentile(np.linalg.norm(places - places.mean(axis=0), axis=1), 99)) + 1


def _check_pair(half_1: Map, half_2: Map) -> None:
    if half_1.shape != half_2.shape or half_1.ndim != 3 or len(set(half_1.shape)) != 1:
        raise ValueError(f"half maps must be cubes of one shape; got {half_1.shape} and {half_2.shape}")
    if not float(np.std(half_1)) or not float(np.std(half_2)):
        raise ValueError("a half map has the same value everywhere")
