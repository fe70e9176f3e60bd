"""Picking without a template: blobs first, then what the blobs have in common.

A first pass finds blobs with the Laplacian of a Gaussian (Lindeberg 1998, Int. J. Comput. Vis. 30, 79; as a particle picker:
Zivanov et al. 2018, eLife 7:e42166; Voss et al. 2009, J. Struct. Biol. 166, 205). What the best blobs have in common is a round
template of this very specimen at this very defocus (see `radial_template`); it finds better peaks, and is learned again from
those.

The diameter that is given is only where the search begins: blobs of several sizes are tried, and the one whose template makes the
micrograph shortest to describe is taken (Rissanen 1978, Automatica 14, 465). The final template then says how large the
particles are. How many peaks are particles is decided by decoys (see `decoys`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image
from icestream.algorithms.matched_picker.centring import MOST_EXEMPLARS, centre_particles, clean_heights
from icestream.algorithms.matched_picker.decoys import Judgement, NoisePeaks, judge_peaks, without_lobes
from icestream.algorithms.matched_picker.radial_template import (
    RadialTemplate,
    blob_filter,
    explain,
    learn_template,
    matched_filter,
)
from icestream.algorithms.matched_picker.rings import Field, PerRing
from icestream.algorithms.matched_picker.view import View, is_smeared, view_micrograph_2d
from icestream.algorithms.particles.peaks import find_peaks_2d, suppress_neighbours

_BLOB = 0.7
_AS_GOOD = 0.5
_MOST_OFF = 1.8
_VERY_DIFFERENT = 0.2
_FAR_BETTER, _LEAST_GAIN = 2.0, 50.0
_OUTSIDE = 0.6
_LOBES_REACH = 1.5
_LEAST_DISTANCE = 0.55
_SMALLEST, _LARGEST, _SIZE_STEP = 0.6, 1.75, 1.3
_SURELY = 4.0
_OF_THE_BEST = 0.4
_FEWEST_EXEMPLARS = 10
_PLAUSIBLE = 0.3  # of the diameter squares that there is room for
_SEARCH_ROUNDS = 2
_BLURS = (0.12, 0.1, 0.08, 0.0)  # diameters
_LOWEST_PEAK = 2.0
_ENOUGH_DECOYS, _MOST_DRAWN = 600, 12


@dataclass(frozen=True)
class Blobs:
    """What was picked.

    Attributes
    ----------
    yx_px
        ``(n, 2)`` in pixels of the micrograph.
    score
        ``(n,)``, the probability that it is a particle.
    height
        ``(n,)``, descending: the response in standard deviations of the noise.
    threshold
        The lowest height that was accepted.
    false_share
        Share of the picks that is expected to be false.
    diameter_px
        Of the particles, as found.
    nothing
        Why there can be no picks, if there can be none: the exposure is smeared in one direction, or what was found with inverted
        contrast explains it nearly as well.
    """

    yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    height: NDArray[np.float64]
    threshold: float
    false_share: float
    diameter_px: float
    nothing: Literal["drift", "noise"] | None = None


def choose_exemplars(height: NDArray[np.float64], *, fewest: int = _FEWEST_EXEMPLARS) -> int:
    """Return how many of the highest peaks a template is learned from: those far above the noise, and at least the fewest."""
    if not len(height):
        return 0
    level = max(_SURELY, _OF_THE_BEST * float(np.median(height[:_FEWEST_EXEMPLARS])))
    return int(np.clip(np.count_nonzero(height >= level), min(fewest, len(height), MOST_EXEMPLARS), MOST_EXEMPLARS))


@dataclass(frozen=True)
class Search:
    """A template, the places that it was learned from, and the diameter in pixels of which it was assumed to be."""

    template: RadialTemplate
    yx_px: NDArray[np.float64]
    diameter_px: float


def find_size(field: Field, sizes_px: tuple[float, ...]) -> Search | None:
    """Find out how large the particles are: the diameter of the search is that which was found; None where there is no peak.

    The lobes of a large particle look like smaller particles, and there are more of them; but a part of it is never as large as
    the whole. So the largest size is taken that explains at least half as much as the best one, and its particles, moved to
    their middle, then show how large they are.
    """
    tried = [found for size in sizes_px if (found := search_size(field, diameter_px=size)) is not None]
    if not tried:
        return None
    best = min(search.template.cost for search in tried)
    least = max(best, _AS_GOOD * best)
    search = max((search for search in tried if search.template.cost <= least), key=_size_of)
    yx_px = centre_particles(field, search.yx_px, diameter_px=search.diameter_px)
    template = learn_template(field, yx_px, diameter_px=1.1 * search.diameter_px)
    found_px = min(max(template.diameter_px, search.diameter_px / _MOST_OFF), _MOST_OFF * search.diameter_px)
    return Search(template, yx_px, found_px)


def search_size(field: Field, *, diameter_px: float) -> Search | None:
    """Learn a template beginning with blobs of one size; None where there is not a single peak."""
    transfer = blob_filter(field, diameter_px=_BLOB * diameter_px)
    fewest = max(_FEWEST_EXEMPLARS, int(_PLAUSIBLE * np.count_nonzero(field.allowed) / diameter_px**2))
    search = None
    for _ in range(_SEARCH_ROUNDS + 1):
        yx_px = _exemplars(field, transfer, diameter_px=diameter_px, fewest=fewest)
        if not len(yx_px):
            return None
        search = Search(learn_template(field, yx_px, diameter_px=1.1 * diameter_px), yx_px, diameter_px)
        transfer = matched_filter(field.rings, search.template, blur_px=_BLURS[0] * diameter_px)
    return search


def _size_of(search: Search) -> float:
    return search.diameter_px


def refine_search(field: Field, search: Search) -> Search:
    """Learn the template again and again, from peaks that are blurred less and less."""
    diameter_px = search.diameter_px
    for blur in _BLURS:
        transfer = matched_filter(field.rings, search.template, blur_px=blur * diameter_px)
        yx_px = _exemplars(field, transfer, diameter_px=diameter_px)
        if len(yx_px):
            search = Search(learn_template(field, yx_px, diameter_px=1.1 * diameter_px), yx_px, diameter_px)
    return search


def _exemplars(field: Field, transfer: PerRing, *, diameter_px: float, fewest: int = _FEWEST_EXEMPLARS) -> NDArray[np.float64]:
    yx_px, height = find_peaks_2d(
        field.filter(transfer), min_distance_px=_LEAST_DISTANCE * diameter_px, allowed=field.allowed, above=_LOWEST_PEAK
    )
    return yx_px[: choose_exemplars(height, fewest=fewest)]


def sizes_to_try(smallest_px: float, largest_px: float) -> Iterator[float]:
    """Yield diameters from well below the smallest to well above the largest, each 1.3 times the one before."""
    low, high = _SMALLEST * smallest_px, _LARGEST * largest_px
    n_steps = max(round(np.log(high / low) / np.log(_SIZE_STEP)), 1)
    yield from (float(size) for size in np.geomspace(low, high, n_steps + 1))


def search_inverted(field: Field, search: Search) -> Search | None:
    """Do the same with inverted contrast, which shows what noise, edges and crystals would give; the particles are taken out."""
    rest = explain(field, search.template, search.yx_px).inverted()
    found = search_size(rest, diameter_px=search.diameter_px)
    return None if found is None else refine_search(rest, found)


def is_more_than_noise(search: Search, inverted: Search | None) -> bool:
    """Tell whether the particles explain the micrograph far better than what was found with inverted contrast does."""
    decoy = 0.0 if inverted is None else min(inverted.template.cost, 0.0)
    return search.template.cost < _FAR_BETTER * decoy - _LEAST_GAIN


@dataclass(frozen=True)
class _Peaks:
    yx_px: NDArray[np.float64]
    height: NDArray[np.float64]
    noise: NoisePeaks
    covered: float


def _find_peaks(field: Field, search: Search, inverted: Search | None, *, distance_px: float) -> _Peaks:
    """Find all peaks, with heights from a template in which they have no share, and what peaks of noise are like."""
    rings, template = field.rings, search.template
    image = field.filter(matched_filter(rings, template))
    yx_px, height = find_peaks_2d(image, min_distance_px=distance_px, allowed=field.allowed, above=_LOWEST_PEAK)
    count = choose_exemplars(height)
    row, column = np.clip(np.round(yx_px).astype(np.int64), 0, np.array(field.shape) - 1).T
    for own in (0, 1):
        others = yx_px[:count][1 - own :: 2]
        if len(others):
            other = learn_template(field, others, diameter_px=1.1 * search.diameter_px)
            seen = field.filter(matched_filter(rings, other))
            height[own:count:2] = seen[row[own:count:2], column[own:count:2]]
    if len(height):
        transfer = matched_filter(rings, template)
        height = clean_heights(field, transfer, template, yx_px, height, diameter_px=search.diameter_px)
    order = np.argsort(-height, kind="stable")
    yx_px, height = yx_px[order], height[order]
    rest = explain(field, template, yx_px[:count]).inverted()
    apart = _away_from(field, yx_px[:count], radius_px=search.diameter_px)
    decoys = _find_inverted(replace(rest, allowed=rest.allowed & apart), search, inverted, yx_px, height, distance_px=distance_px)
    noise = _draw_noise(field, template, decoys, distance_px=distance_px)
    away = _away_from(field, yx_px[:count], radius_px=_OUTSIDE * search.diameter_px)
    below_image = rest.filter(matched_filter(rings, template))
    _, below = find_peaks_2d(below_image, min_distance_px=distance_px, allowed=field.allowed & away, above=0.0)
    covered = np.pi * distance_px**2 / max(int(np.count_nonzero(field.allowed)), 1)
    return _Peaks(yx_px, height, noise.stretched_by(below), float(covered))


def _find_inverted(
    rest: Field, search: Search, inverted: Search | None, yx_px: NDArray[np.float64], height: NDArray[np.float64],
    *, distance_px: float,
) -> NDArray[np.float64]:  # fmt: skip
    """Return the heights of what the template of inverted contrast finds away from higher peaks: ``(k,)``, descending."""
    if inverted is None:
        return np.zeros(0)
    seen = rest.filter(matched_filter(rest.rings, inverted.template))
    decoy_yx_px, decoy = find_peaks_2d(seen, min_distance_px=distance_px, allowed=rest.allowed, above=_LOWEST_PEAK)
    return without_lobes(decoy_yx_px, decoy, yx_px, height, reach_px=_LOBES_REACH * search.diameter_px)


def _away_from(field: Field, yx_px: NDArray[np.float64], *, radius_px: float) -> NDArray[np.bool_]:
    free = np.ones(field.shape, dtype=bool)
    row, column = np.clip(np.round(yx_px).astype(np.int64), 0, np.array(field.shape) - 1).T
    free[row, column] = False
    away: NDArray[np.bool_] = ndimage.distance_transform_edt(free) > radius_px
    return away


def _draw_noise(field: Field, template: RadialTemplate, inverted: NDArray[np.float64], *, distance_px: float) -> NoisePeaks:
    """Draw peaks of noise with the spectrum of what the template leaves over; always the same ones for the same micrograph."""
    rng = np.random.default_rng(len(field.rings.count))
    rings = field.rings
    transfer = matched_filter(rings, template) * np.sqrt(template.noise / np.prod(rings.shape))
    heights: list[NDArray[np.float64]] = []
    while len(heights) < _MOST_DRAWN and sum(map(len, heights)) < _ENOUGH_DECOYS:
        white = fft.rfft2(rng.standard_normal(rings.shape, dtype=np.float32))
        drawn = fft.irfft2(white * rings.spread(transfer), s=rings.shape)
        heights.append(find_peaks_2d(drawn, min_distance_px=distance_px, above=0.0)[1])
    share = np.count_nonzero(field.allowed) / np.prod(rings.shape)
    total = np.sort(np.concatenate(heights))[::-1]
    return NoisePeaks(total, float(share) * len(total) / len(heights), inverted)


def learn_from_micrograph(image: Image, *, diameter_px: tuple[float, float]) -> tuple[View, Search | None]:
    """Find out how large the particles of ``(h, w)`` are and what they look like; no search where there is not a single peak.

    Where they are of quite another size than was assumed, it begins again with that size.
    """
    middle_px = float(np.sqrt(diameter_px[0] * diameter_px[1]))
    view = view_micrograph_2d(image, diameter_px=middle_px)
    search = find_size(view.clear, tuple(sizes_to_try(diameter_px[0] / view.scale, diameter_px[1] / view.scale)))
    if search is not None and abs(np.log(search.diameter_px / view.diameter_px)) > _VERY_DIFFERENT:
        low, high = _SMALLEST * diameter_px[0], _LARGEST * diameter_px[1]
        found_px = float(np.clip(search.diameter_px * view.scale, low, high))
        view = view_micrograph_2d(image, diameter_px=found_px, dirt_px=max(found_px, middle_px))
        search = find_size(view.clear, (view.diameter_px,))
    return view, None if search is None else refine_search(view.clear, search)


def pick_particles_2d(
    image: Image,
    *,
    diameter_px: tuple[float, float],
    min_distance_px: float | None = None,
    threshold: float | None = None,
    false_discovery_rate: float = 0.05,
    centre: bool = True,
) -> Blobs:
    """Find bright particles of a roughly known size.

    Parameters
    ----------
    image
        ``(h, w)``, protein bright (negate it where it is dark).
    diameter_px
        Smallest and largest particle diameter; it may be wrong by 40 %.
    min_distance_px
        No two picks are closer; half the diameter that is found when unset.
    threshold
        Lowest probability of a pick; chosen from the data when unset.
    false_discovery_rate
        Accepted fraction of false picks where the threshold is chosen.
    centre
        Move the picks to the middle of their particles.
    """
    view, search = learn_from_micrograph(image, diameter_px=diameter_px)
    inverted = None if search is None else search_inverted(view.clear, search)
    smeared = is_smeared(view.clear, diameter_px=view.diameter_px)
    if search is None or smeared or not is_more_than_noise(search, inverted):
        found_px = view.diameter_px if search is None else search.diameter_px
        nothing = np.zeros(0)
        return Blobs(np.zeros((0, 2)), nothing, nothing, np.inf, 0.0, found_px * view.scale, "drift" if smeared else "noise")
    field, scale = view.field, view.scale_yx
    distance = _LEAST_DISTANCE * search.diameter_px if min_distance_px is None else min_distance_px / view.scale
    peaks = _find_peaks(field, search, inverted, distance_px=distance)
    judged = judge_peaks(peaks.height, peaks.noise, false_discovery_rate=false_discovery_rate, covered=peaks.covered)
    return _settle(field, peaks, judged, search, threshold=threshold, scale=scale, distance_px=distance, centre=centre)


def _settle(
    field: Field, peaks: _Peaks, judged: Judgement, search: Search, *, threshold: float | None, scale: NDArray[np.float64],
    distance_px: float, centre: bool,
) -> Blobs:  # fmt: skip
    accepted = peaks.height >= judged.height if threshold is None else judged.probability >= threshold
    yx_px, height, score = peaks.yx_px[accepted], peaks.height[accepted], judged.probability[accepted]
    if centre:
        yx_px = centre_particles(field, yx_px, diameter_px=search.diameter_px)
        apart = suppress_neighbours(yx_px, min_distance_px=distance_px)
        yx_px, height, score = yx_px[apart], height[apart], score[apart]
    return Blobs(
        yx_px * scale,  # Fourier cropping leaves pixel 0 where it is
        score,
        height,
        judged.height,
        judged.false_share,
        search.diameter_px * float(scale.mean()),
    )
