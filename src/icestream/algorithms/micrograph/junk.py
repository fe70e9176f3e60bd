"""Where a micrograph shows carbon, crystalline ice, balls of ice and dirt, and aggregates of particles.

Everything but the crystals is found on the micrograph reduced to labels of 8 to 20 Å (`objects`, `rim`): a film up to its rim;
lumps that are far darker than the rest; and clumps that are darker than single particles can be. A lump that is rougher than ice
is an aggregate. Crystals are found by their Bragg spots at full resolution (`bragg`), and a dark lump over them is theirs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.micrograph.bragg import find_bragg_spots_2d, outline_crystals_2d
from icestream.algorithms.micrograph.objects import (
    SMALLEST_PX,
    Film,
    clip_outliers_2d,
    find_dark_objects_2d,
    find_film_2d,
    flatten_2d,
    reduce_image_2d,
    usual_level_2d,
)
from icestream.algorithms.micrograph.particles import find_alike_2d
from icestream.algorithms.micrograph.rim import find_rim_2d
from icestream.algorithms.micrograph.texture import measure_noise_power_2d
from icestream.records import JUNK_BITS, JunkClass

_LABEL_ANG = (8.0, 20.0)
_LABELS_PER_SIDE = 640
_SAMPLED_EVERY_PX = 3
_SMALLEST_LUMP_ANG = 120.0
_RIM_BLUR_ANG = 35.0
_RIM_WIDTH_ANG = 60.0
_CLUMP_ANG = 80.0  # standard deviation of the Gaussian with which clumps are darker than single particles
_CLUMP_PARTICLES = 2.5  # times the darkness of single ones
_CLUMP_UNUSUAL = 6.0  # robust standard deviations
_FEWEST_TOPS = 4
_CLUMP_AROUND = 1.3
_BESIDE_LUMPS_PX = 6
_CLUMP_OUTLINE = 0.55
_LUMP_OUTLINE = 0.4
_ROUGH_ANG = 9.0
_ROUGH = 0.7  # of the logarithm of the variance
_INNER_PX = 3
_LEAST_INNER_PX = 40


@dataclass(frozen=True)
class JunkMap:
    """What was found on the labels ``(h', w')``, each of ``box_px`` pixels a side.

    ``labels`` are sums of `JUNK_BITS`; ``crystals_sought`` is false where the pixels are too coarse for their spots.
    """

    image: NDArray[np.float64]
    labels: NDArray[np.uint8]
    box_px: int
    crystals_sought: bool

    def mask(self, kind: JunkClass) -> NDArray[np.bool_]:
        """Return where one kind of junk is."""
        found: NDArray[np.bool_] = (self.labels & JUNK_BITS[kind]) > 0
        return found


def choose_label_px(shape: tuple[int, int], *, pixel_size_ang: float) -> int:
    """Return the pixels of the micrograph along one label: 8 Å or more, as 640 labels a side need, at most 20 Å."""
    finest = int(np.ceil(_LABEL_ANG[0] / pixel_size_ang - 1e-6))
    wanted = max(finest, -(-max(shape) // _LABELS_PER_SIDE))
    allowed = min(int(_LABEL_ANG[1] / pixel_size_ang), min(shape) // SMALLEST_PX)
    return max(min(wanted, allowed), 1)


def map_junk_2d(image: NDArray[Any], *, pixel_size_ang: float, dose_e_per_ang2: float | None = None) -> JunkMap:
    """Find carbon, crystals, dirt and aggregates on a micrograph.

    Parameters
    ----------
    image
        ``(h, w)``, not weighted by dose where possible: the weights take Bragg spots away.
    pixel_size_ang
        Of the image.
    dose_e_per_ang2
        Of the whole exposure. With it the noise tells how many electrons a grey value is, and dirt must take a part of the beam.

    Raises
    ------
    ValueError
        The image is too small or too narrow, shows nothing, or has hardly any finite value.
    """
    clipped = clip_outliers_2d(image, every_px=_SAMPLED_EVERY_PX if min(image.shape) > 1024 else 1)
    label_px = choose_label_px((image.shape[0], image.shape[1]), pixel_size_ang=pixel_size_ang)
    reduced, box_px = reduce_image_2d(clipped, box_px=label_px)
    label_ang = pixel_size_ang * box_px
    film = find_film_2d(reduced) or find_rim_2d(reduced, blur_px=max(_RIM_BLUR_ANG / label_ang, 1.5))
    carbon = np.zeros(reduced.shape, bool) if film is None else film.mask
    flat = flatten_2d(reduced, film)
    rim = _rim_of(film, flat.shape, width_px=_RIM_WIDTH_ANG / label_ang)
    spots = find_bragg_spots_2d(clipped, pixel_size_ang=pixel_size_ang, only_ice=True)
    crystals = np.zeros(reduced.shape, bool)
    if spots is not None and spots.spots:
        cells = outline_crystals_2d(clipped, spots)
        crystals = _on_labels(
            cells, reduced.shape, cell_labels=spots.tile_px / (box_px * (cells.shape[0] // spots.crystalline.shape[0]))
        )
    lumps = _find_lumps(flat, carbon | rim, label_ang=label_ang, dose_e_per_ang2=dose_e_per_ang2)
    if lumps.any():  # they bent the slope that was subtracted
        flat = flatten_2d(reduced, film, without=ndimage.binary_dilation(lumps, iterations=_BESIDE_LUMPS_PX))
        lumps = _find_lumps(flat, carbon | rim, label_ang=label_ang, dose_e_per_ang2=dose_e_per_ang2)
    of_crystals = _mostly_inside(lumps, crystals)
    clumps, around = _find_clumps(flat, carbon | rim | lumps | crystals, label_ang=label_ang)
    dark = (lumps & ~of_crystals) | clumps
    rough = _rough_regions(flat, dark, carbon | rim | lumps | crystals | around, label_ang=label_ang)
    found: dict[JunkClass, NDArray[np.bool_]] = {
        "carbon": carbon,
        "crystalline_ice": crystals | of_crystals,
        "dirt": dark & ~rough,
        "aggregate": rough | ndimage.binary_propagation(rough & around, mask=around & ~(dark & ~rough)),
    }
    labels = sum(
        (mask.astype(np.uint8) * np.uint8(JUNK_BITS[kind]) for kind, mask in found.items()), np.zeros(flat.shape, np.uint8)
    )
    return JunkMap(reduced, labels, box_px, spots is not None)


def _rim_of(film: Film | None, shape: tuple[int, ...], *, width_px: float) -> NDArray[np.bool_]:
    """Return the labels close to the rim, on either side, where its fringe is."""
    if film is None:
        return np.zeros(shape, bool)
    near: NDArray[np.bool_] = ndimage.distance_transform_edt(~film.mask) + ndimage.distance_transform_edt(film.mask) <= width_px
    return near


def _on_labels(cells: NDArray[np.bool_], shape: tuple[int, ...], *, cell_labels: float) -> NDArray[np.bool_]:
    """Draw cells of ``cell_labels`` labels a side on the labels; the last ones go on to the border."""
    rows, columns = (
        np.minimum(((np.arange(side) + 0.5) / cell_labels).astype(int), n - 1) for side, n in zip(shape, cells.shape, strict=True)
    )
    drawn: NDArray[np.bool_] = cells[rows][:, columns]
    return drawn


def _find_lumps(
    flat: NDArray[Any], elsewhere: NDArray[np.bool_], *, label_ang: float, dose_e_per_ang2: float | None
) -> NDArray[np.bool_]:
    """Return what is far darker than the rest, with an edge, and is no particle; outside of what is ``elsewhere``.

    Without a dose it must also be darker than single particles are.
    """
    beam = None
    if dose_e_per_ang2 is not None:
        beam = float(np.sqrt(measure_noise_power_2d(flat, ~elsewhere) * dose_e_per_ang2 * label_ang**2))
    object_px = max(_SMALLEST_LUMP_ANG / label_ang, 6.0)
    lumps, _ = find_dark_objects_2d(flat, object_px=object_px, beam_level=beam)
    lumps = lumps & ~elsewhere
    if beam is None:
        depth = _measure_clumps(flat, elsewhere, blur_px=_CLUMP_ANG / label_ang)[0]
        least = _measure_clumps(flat, elsewhere | lumps, blur_px=_CLUMP_ANG / label_ang)[2]
        outline = depth > _LUMP_OUTLINE * ndimage.maximum_filter(depth, size=2 * round(1.5 * _CLUMP_ANG / label_ang) + 1)
        lumps = ndimage.binary_propagation(lumps & (depth > least), mask=lumps & outline)
    return lumps & ~find_alike_2d(lumps, flat, pixel_size_ang=label_ang)


def _mostly_inside(regions: NDArray[np.bool_], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the connected regions of which a quarter or more lies in the mask."""
    labels, count = ndimage.label(regions)
    share = ndimage.mean(mask, labels, np.arange(count + 1)) if count else np.zeros(1)
    inside: NDArray[np.bool_] = (np.nan_to_num(share) >= 0.25)[labels] & regions
    return inside


def _find_clumps(
    flat: NDArray[Any], elsewhere: NDArray[np.bool_], *, label_ang: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where it is darker over the width of a large particle than single particles are.

    Single particles, and places where there are more of them, give the dark maxima of the blurred image: three quarters of these
    are no darker than the usual one. A clump is 2.5 times as dark, and six robust deviations.

    Returns
    -------
    clumps, around
        ``(h, w)`` each: where it is half as dark as at the darkest place nearby, which is the outline of a ball; and where it is
        just darker than single particles are, which is that of an aggregate with gaps.
    """
    depth, usual, least = _measure_clumps(flat, elsewhere, blur_px=_CLUMP_ANG / label_ang)
    core = depth > least
    around = ndimage.binary_propagation(core, mask=depth > _CLUMP_AROUND * usual)
    half = depth > _CLUMP_OUTLINE * ndimage.maximum_filter(depth, size=2 * round(1.5 * _CLUMP_ANG / label_ang) + 1)
    return ndimage.binary_propagation(core & half, mask=around & half), around


def _measure_clumps(
    flat: NDArray[Any], elsewhere: NDArray[np.bool_], *, blur_px: float
) -> tuple[NDArray[np.float64], float, float]:
    """Return the depth of the blurred image ``(h, w)``, that of usual dark maxima, and the least one of a clump.

    The usual one is at least as deep as makes the clump six robust deviations, and just that where there are too few maxima.
    """
    clear = (~elsewhere).astype(np.float64)
    share = ndimage.gaussian_filter(clear, blur_px, mode="reflect")
    blurred = ndimage.gaussian_filter(flat * clear, blur_px, mode="reflect") / np.maximum(share, 0.05)
    judged = ~elsewhere & (share > 0.3)
    if judged.mean() < 0.05:
        return np.zeros(flat.shape), 0.0, np.inf
    middle = float(np.median(blurred[judged]))
    spread, _ = usual_level_2d(np.where(judged, blurred, middle))
    depth = np.where(judged, middle - blurred, 0.0)
    tops = judged & (ndimage.maximum_filter(depth, size=2 * round(blur_px) + 1) == depth) & (depth > 0)
    usual = _CLUMP_UNUSUAL / _CLUMP_PARTICLES * spread
    if np.count_nonzero(tops) >= _FEWEST_TOPS:
        usual = max(float(np.quantile(depth[tops], 0.75)), usual)
    return depth, usual, _CLUMP_PARTICLES * usual


def _rough_regions(
    flat: NDArray[Any], regions: NDArray[np.bool_], elsewhere: NDArray[np.bool_], *, label_ang: float
) -> NDArray[np.bool_]:
    """Return the regions that are rougher inside, at the scale of domains of protein, than what is clear: ice is smoother."""
    inner, clear = ndimage.binary_erosion(regions, iterations=_INNER_PX), ~elsewhere
    if not inner.any() or not clear.any():
        return np.zeros(regions.shape, bool)
    scale_px = max(_ROUGH_ANG / label_ang, 1.0)
    usual = float(np.median(_detail_within(flat, clear, scale_px)[clear] ** 2))
    squares = _detail_within(flat, inner, scale_px) ** 2
    labels, count = ndimage.label(regions)
    index, inside = np.arange(1, count + 1), np.where(inner, labels, 0)
    enough = ndimage.sum_labels(inside > 0, inside, index) >= _LEAST_INNER_PX
    is_rough = enough & (np.nan_to_num(ndimage.median(squares, inside, index)) > np.exp(_ROUGH) * usual)
    rough: NDArray[np.bool_] = np.concatenate([[False], is_rough])[labels]
    return rough


def _detail_within(flat: NDArray[Any], region: NDArray[np.bool_], scale_px: float) -> NDArray[np.float64]:
    """Return the difference of two blurs that see nothing outside of the region."""
    weight = region.astype(np.float64)
    fine, coarse = (
        ndimage.gaussian_filter(flat * weight, sigma) / np.maximum(ndimage.gaussian_filter(weight, sigma), 0.05)
        for sigma in (scale_px, 2 * scale_px)
    )
    detail: NDArray[np.float64] = fine - coarse
    return detail


def distance_to_mask_px(mask: NDArray[np.bool_], yx_px: NDArray[np.float64], *, box_px: int) -> NDArray[np.float64]:
    """Return how far points ``(n, 2)`` are from a mask: ``(n,)``, 0 inside, infinite where the mask is empty.

    Parameters
    ----------
    mask
        ``(h', w')`` on labels.
    yx_px
        In pixels of the micrograph; points beyond the last label count as beside it.
    box_px
        Pixels along one side of a label.
    """
    if not mask.any():
        return np.full(len(yx_px), np.inf)
    distance = ndimage.distance_transform_edt(~mask)  # (h', w'), between the middles of labels
    place = np.clip(np.floor((yx_px + 0.5) / box_px).astype(int), 0, np.array(mask.shape) - 1)
    away: NDArray[np.float64] = np.maximum(distance[place[:, 0], place[:, 1]] - 0.5, 0.0) * box_px
    return away
