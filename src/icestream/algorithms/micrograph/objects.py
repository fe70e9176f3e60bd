"""Where a micrograph shows film at the rim of a hole, or dark lumps: maps on an image that is reduced to a common size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.fourier import Image

REDUCED_PX = 512
"""The longest side of the reduced image is more than half of this and at most this; smaller images stay as they are."""

SMALLEST_PX = 64

_CLIPPED_SHARE = 5e-4
_UNUSUAL, _STILL_DARK = 6.0, 2.5  # robust standard deviations
_LEAST_LOSS = 0.05
_LEAST_EDGE = 0.75  # of the depth
_LARGEST_CLOUD = 0.15  # of the image
_SHARPEST_SHARE = 0.6
_LARGEST_ROUGHNESS = 0.03  # of the side
_LARGEST_BULGE = 0.04  # of the chord
_BLOCKS_PER_SIDE = 24


@dataclass(frozen=True)
class Film:
    """The edge of a film: ``mask`` ``(h, w)`` is true on the film, ``step`` the two levels' difference in grey values."""

    mask: NDArray[np.bool_]
    sharpness: float
    step: float


def clip_outliers_2d(image: Image, *, every_px: int = 1) -> NDArray[np.float32]:
    """Replace what is not finite by the median, and the highest and lowest 0.05 % of the values by the next to them.

    The quantiles are those of every ``every_px``-th pixel of every ``every_px``-th row.

    Raises
    ------
    ValueError
        An image of another dimension, smaller than 64 pixels, with fewer than half of its values finite, or of one value.
    """
    if image.ndim != 2 or min(image.shape) < SMALLEST_PX:
        raise ValueError(f"image of shape {image.shape}; two sides of at least {SMALLEST_PX} px are needed")
    finite = np.isfinite(image)
    share = float(np.mean(finite))
    some = slice(None, None, every_px)
    if share < 0.5:
        raise ValueError(f"only {share:.0%} of the pixels are finite numbers; at least half are needed")
    known = image[some, some][finite[some, some]].astype(np.float64)
    low, middle, high = np.quantile(known, [_CLIPPED_SHARE, 0.5, 1 - _CLIPPED_SHARE])
    if not high > low:
        raise ValueError(f"all pixels have the value {middle:g}: the image shows nothing")
    clipped: NDArray[np.float32] = np.where(finite, np.clip(image, low, high), middle).astype(np.float32)
    return clipped


def reduce_image_2d(image: Image, *, box_px: int | None = None) -> tuple[NDArray[np.float64], int]:
    """Average boxes of whole pixels, of a given side or such that no side of the image is longer than `REDUCED_PX`.

    Returns
    -------
    reduced, box_px
        ``(h', w')`` and the side of the boxes.

    Raises
    ------
    ValueError
        The image is so narrow that less than 64 pixels are left.
    """
    box = -(-max(image.shape) // REDUCED_PX) if box_px is None else box_px
    height, width = (side // box * box for side in image.shape)
    if min(height, width) // box < SMALLEST_PX:
        raise ValueError(f"image of shape {image.shape} is too narrow: in boxes of {box} px, less than {SMALLEST_PX} are left")
    boxes = image[:height, :width].reshape(height // box, box, width // box, box)  # (h', box, w', box)
    reduced: NDArray[np.float64] = boxes.mean((1, 3), dtype=np.float64)  # (h', w')
    return reduced, box


def find_film_2d(image: Image) -> Film | None:
    """Find a film that ends in the image: two grey levels that meet along one smooth line, bent away from the film if at all.

    The rim of a hole is such a line, and the hole is round; so a dark side that bulges into the bright one is no film but a lump.
    A slope of brightness has no line at which it happens, and many lumps have a long crooked one.

    Parameters
    ----------
    image
        ``(h, w)``, reduced.
    """
    side = min(image.shape)
    smooth = ndimage.gaussian_filter(image, side / 64, mode="nearest")
    level = _split_level(smooth)
    dark = smooth < level
    bright_mean, dark_mean = float(np.median(image[~dark])), float(np.median(image[dark]))
    mask = ~_largest_region(~_largest_region(dark))
    share = float(mask.mean())
    if not 0.03 <= share <= 0.97:
        return None
    boundary = np.argwhere(mask & ~ndimage.binary_erosion(mask, border_value=1))  # (n, 2)
    if not _is_rim(boundary, mask):
        return None
    width = max(side // 40, 2)
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    near = float(np.median(image[(outside > width) & (outside <= 3 * width)])) - float(
        np.median(image[(inside > width) & (inside <= 3 * width)])
    )
    whole = bright_mean - dark_mean
    sharpness = near / whole if whole > 0 else 0.0
    return Film(mask, sharpness, near) if sharpness >= _SHARPEST_SHARE else None


def _largest_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    largest: NDArray[np.bool_] = labels == 1 + int(np.argmax(np.bincount(labels.ravel(), minlength=2)[1:]))
    return largest


def _split_level(image: Image) -> float:
    """Return the grey value that makes two sets of least variance (Otsu 1979, IEEE Trans. Syst. Man Cybern. 9, 62)."""
    counts, edges = np.histogram(image, 256)
    middle = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * middle)
    apart = np.zeros(255)
    both = (below > 0) & (above > 0)
    apart[both] = (below * above)[both] * (sums[:-1][both] / below[both] - (sums[-1] - sums[:-1])[both] / above[both]) ** 2
    return float(edges[1 + int(np.argmax(apart))])


def _is_rim(boundary: NDArray[np.intp], mask: NDArray[np.bool_]) -> bool:
    """Tell whether the boundary of ``mask`` is one smooth line at least half a side long that does not bulge out of the mask."""
    side = min(mask.shape)
    if len(boundary) < side // 2:
        return False
    centred = boundary - boundary.mean(0)
    along, across = np.linalg.eigh(centred.T @ centred)[1].T[::-1]  # (2,) each, the long axis first
    t, offset = centred @ along, centred @ across
    bend = np.polynomial.Polynomial.fit(t, offset, 2).convert().coef
    rough = float(np.std(offset - np.polynomial.Polynomial(bend)(t)))
    chord = float(np.ptp(t))
    if chord < 0.5 * side or rough > _LARGEST_ROUGHNESS * side:
        return False
    middle = np.argwhere(mask).mean(0) - boundary.mean(0)
    bulge = 0.25 * chord * (bend[2] if len(bend) > 2 else 0.0) * np.sign(middle @ across)  # sagitta over chord, out of the mask
    return bool(bulge < _LARGEST_BULGE)


def flatten_2d(image: Image, film: Film | None, *, without: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Subtract a parabola of the position from the film and from the rest: ``(h, w)``, the median of each at 0.

    The parabola is fitted to means of blocks, whose noise is small, with weights that fall with their distance from it (Cauchy's,
    by Holland & Welsch 1977, Commun. Stat. A6, 813), so that lumps do not bend it. What is known to be a lump (``without``) is
    left out, where not nearly everything is.
    """
    flat = np.empty(image.shape, np.float64)
    sides = [np.ones(image.shape, bool)] if film is None else [film.mask, ~film.mask]
    terms = _parabola_terms(image.shape)  # (h, w, 6)
    for side in sides:
        fitted = side if without is None or (side & ~without).sum() < 0.2 * side.sum() else side & ~without
        rest = image - terms @ _fit_robustly(_block_means(terms, fitted), _block_means(image[..., None], fitted)[:, 0])
        flat[side] = (rest - np.median(rest[fitted]))[side]
    return flat


def _parabola_terms(shape: tuple[int, ...]) -> NDArray[np.float64]:
    y, x = (axis / max(shape) - 0.5 for axis in np.indices(shape))
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)  # (h, w, 6)


def _block_means(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the means over the chosen pixels of each block ``(n, k)`` of values ``(h, w, k)``; blocks with few are left out."""
    block = max(min(chosen.shape) // _BLOCKS_PER_SIDE, 2)
    rows, columns = (np.arange(0, side // block * block, block) for side in chosen.shape)
    inside = chosen[: rows.size * block, : columns.size * block]
    kept = np.where(inside[..., None], values[: inside.shape[0], : inside.shape[1]], 0.0)
    sums = np.add.reduceat(np.add.reduceat(kept, rows, axis=0), columns, axis=1)  # (rows, columns, k)
    counts = np.add.reduceat(np.add.reduceat(inside.astype(np.float64), rows, axis=0), columns, axis=1)
    enough = counts >= 0.5 * min(block * block, float(counts.max()))
    means: NDArray[np.float64] = sums[enough] / counts[enough][:, None]
    return means


def _fit_robustly(terms: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    weight, fitted = np.ones(values.size), np.zeros(terms.shape[1])
    for _ in range(20):
        fitted = np.asarray(np.linalg.lstsq(terms * weight[:, None], values * weight, rcond=None)[0], np.float64)
        rest = values - terms @ fitted
        spread = 1.4826 * float(np.median(np.abs(rest - np.median(rest))))
        weight = 1 / np.sqrt(1 + (rest / max(2.0 * spread, 1e-12)) ** 2)
    return fitted


def find_dark_objects_2d(
    flat: Image, *, object_px: float, beam_level: float | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark lumps that are far darker than the rest: ice balls, aggregates, dirt; and clouds, which have no edge: thicker ice.

    What covers more than 15 % of the image is no cloud, whatever its edge: a ball of ice that large ends as gently as one.

    Either has a core six robust deviations darker than the most frequent grey value, with room for a disc of half ``object_px``,
    and goes on as far as it is 2.5 deviations darker and half as dark as its darkest neighbour. Deviations are those of the
    smoothed image within its quieter tiles. Across the edge of a lump, within half ``object_px``, the grey value falls by three
    quarters of the lump's mean depth, or by six deviations.

    Parameters
    ----------
    flat
        ``(h, w)``, from `flatten_2d`.
    object_px
        Diameter of the smallest lump.
    beam_level
        Grey value of the whole beam above that of no electrons; a core must then also take 5 % of the electrons (160 Å of ice at
        300 kV), and its surroundings half as much. Unset, only what is unusual for this image counts.

    Returns
    -------
    lumps, clouds
        ``(h, w)`` each.
    """
    mean = ndimage.gaussian_filter(flat, object_px / 4, mode="reflect")
    spread, level = usual_level_2d(mean)
    loss = 0.0 if beam_level is None else _LEAST_LOSS * beam_level
    depth = level - mean
    core = depth > max(_UNUSUAL * spread, loss)
    core &= ndimage.distance_transform_edt(np.pad(core, 1, mode="edge"))[1:-1, 1:-1] >= object_px / 4
    half_as_dark = depth > 0.5 * ndimage.maximum_filter(depth, size=round(object_px / 2))  # where a blurred edge is
    around = (depth > max(_STILL_DARK * spread, 0.5 * loss)) & half_as_dark
    found: NDArray[np.bool_] = ndimage.binary_propagation(core & around, mask=around)
    clouds = _find_edgeless(found, flat, depth, width_px=object_px / 4, edge=_UNUSUAL * spread)
    return found & ~clouds, clouds


def _find_edgeless(found: NDArray[np.bool_], flat: Image, depth: Image, *, width_px: float, edge: float) -> NDArray[np.bool_]:
    """Return the regions on whose border the grey value falls by less than ``edge`` and three quarters of their mean depth."""
    labels, n_regions = ndimage.label(found)
    away, nearest = ndimage.distance_transform_edt(~found, return_indices=True)
    within = ndimage.distance_transform_edt(np.pad(found, 1, mode="edge"))[1:-1, 1:-1]
    regions = np.arange(n_regions + 1)
    levels, sizes = [], []
    for distance, owner in ((away, labels[tuple(nearest)]), (within, labels)):
        beside = np.where((distance > width_px / 2) & (distance <= 1.5 * width_px), owner, 0)  # 0 is no region
        sizes.append(ndimage.sum_labels(beside > 0, beside, regions))
        levels.append(ndimage.sum_labels(flat, beside, regions) / np.maximum(sizes[-1], 1))
    mean_depth = ndimage.sum_labels(depth, labels, regions) / np.maximum(np.bincount(labels.ravel()), 1)
    edgeless = levels[0] - levels[1] < np.minimum(_LEAST_EDGE * mean_depth, edge)  # (n_regions + 1,)
    edgeless &= (np.minimum(*sizes) > 0) & (regions > 0)
    edgeless &= np.bincount(labels.ravel()) <= _LARGEST_CLOUD * labels.size
    clouds: NDArray[np.bool_] = edgeless[labels]
    return clouds


def usual_level_2d(image: Image) -> tuple[float, float]:
    """Return the robust deviation within the quieter tiles, and the most frequent value of the whole, both untouched by lumps."""
    side = max(min(image.shape) // 8, 8)
    height, width = (n // side * side for n in image.shape)
    tiles = image[:height, :width].reshape(height // side, side, width // side, side).swapaxes(1, 2).reshape(-1, side * side)
    deviations = 1.4826 * np.median(np.abs(tiles - np.median(tiles, axis=1, keepdims=True)), axis=1)  # (n_tiles,)
    spread = max(float(np.quantile(deviations, 0.4)), 1e-12)
    low, high = np.quantile(image, [0.001, 0.999])
    n_bins = int(np.clip((high - low) / (0.25 * spread), 8, 4096))
    counts, edges = np.histogram(image, n_bins, (float(low), float(max(high, low + 1e-12))))
    peak = int(np.argmax(ndimage.gaussian_filter1d(counts.astype(np.float64), 4.0)))
    return spread, float(0.5 * (edges[peak] + edges[peak + 1]))
