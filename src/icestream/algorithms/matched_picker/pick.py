"""Picking without a template: what the particles of the micrograph have in common finds them.

A template of this very specimen at this very defocus is learned from the micrograph (see `search`), beginning with blobs as other
pickers use them (Zivanov et al. 2018, eLife 7:e42166; Voss et al. 2009, J. Struct. Biol. 166, 205). The diameter that is given is
only where the search begins: several sizes are tried, and in the end the particles themselves show how large they are (see
`extent`). How many peaks are particles is decided by decoys (see `decoys`). There are no picks where the same search explains the
micrograph with inverted contrast, or with random phases, nearly as well.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.fourier import Image
from icestream.algorithms.matched_picker.centring import centre_particles, clean_heights
from icestream.algorithms.matched_picker.decoys import Judgement, NoisePeaks, judge_peaks
from icestream.algorithms.matched_picker.radial_template import RadialTemplate, explain, learn_template, matched_filter
from icestream.algorithms.matched_picker.rings import Field
from icestream.algorithms.matched_picker.search import (
    LARGEST_SIZE,
    LEAST_DISTANCE,
    LEAST_SIZE,
    LOWEST_PEAK,
    Search,
    away_from,
    choose_exemplars,
    find_size,
    is_more_than_noise,
    is_one_sided,
    noise_peaks_above,
    outstanding_places,
    refine_search,
    search_inverted,
    search_scrambled,
    settle_size,
    sizes_between,
)
from icestream.algorithms.matched_picker.view import View, is_smeared, view_micrograph_2d
from icestream.algorithms.particles.decoys import compete
from icestream.algorithms.particles.noise import filter_white_2d
from icestream.algorithms.particles.peaks import find_peaks_2d, suppress_neighbours

_VERY_DIFFERENT = 0.2
_OUTSIDE = 0.6
_LOBES_REACH = 1.5
_ENOUGH_DECOYS, _MOST_DRAWN = 600, 12
_BALLS_REMOVED, _BALL_RADIUS, _CLEARLY_BETTER, _CLOSER = 3, 0.75, 1.3, 0.7


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
        Why there can be no picks, if there can be none: the exposure is smeared in one direction, or what was found in decoys
        explains them nearly as well, or no peak is more than noise.
    """

    yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    height: NDArray[np.float64]
    threshold: float
    false_share: float
    diameter_px: float
    nothing: Literal["drift", "noise"] | None = None


@dataclass(frozen=True)
class _Peaks:
    yx_px: NDArray[np.float64]
    height: NDArray[np.float64]
    noise: NoisePeaks
    covered: float


def _find_peaks(field: Field, search: Search, inverted: Search | None, *, distance_px: float) -> _Peaks:
    """Find all peaks, with heights from a template in which they have no share, and what peaks of noise are like."""
    template, transfer = search.template, matched_filter(field.rings, search.template)
    yx_px, seen = find_peaks_2d(field.filter(transfer), min_distance_px=distance_px, allowed=field.allowed, above=LOWEST_PEAK)
    yx_px, seen, height = _cleaned(field, search, yx_px, seen)
    count = choose_exemplars(height, noise_peaks_above(field, transfer, template.noise, height))
    yx_px, _, height = _cleaned(field, search, yx_px, _cross_fit(field, search, yx_px, seen, count))
    rest = explain(field, template, yx_px[:count]).inverted()
    apart = away_from(field, yx_px[:count], radius_px=search.diameter_px)
    decoys = _find_inverted(replace(rest, allowed=rest.allowed & apart), search, inverted, yx_px, height, distance_px=distance_px)
    noise = _draw_noise(field, template, decoys, distance_px=distance_px)
    away = away_from(field, yx_px[:count], radius_px=_OUTSIDE * search.diameter_px)
    below_image = rest.filter(transfer)
    _, below = find_peaks_2d(below_image, min_distance_px=distance_px, allowed=field.allowed & away, above=0.0)
    covered = np.pi * distance_px**2 / max(int(np.count_nonzero(field.allowed)), 1)
    return _Peaks(yx_px, height, noise.stretched_by(below), float(covered))


def _cleaned(
    field: Field, search: Search, yx_px: NDArray[np.float64], seen: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the places, the response there, and its height without that to others, the highest first."""
    if not len(seen):
        return yx_px, seen, seen
    transfer = matched_filter(field.rings, search.template)
    height = clean_heights(field, transfer, search.template, yx_px, seen, diameter_px=search.diameter_px)
    order = np.argsort(-height, kind="stable")
    return yx_px[order], seen[order], height[order]


def _cross_fit(
    field: Field, search: Search, yx_px: NDArray[np.float64], seen: NDArray[np.float64], count: int
) -> NDArray[np.float64]:  # fmt: skip
    """Return the response to each of the first ``count`` peaks of a template learned from the half of them in which it is not."""
    row, column = np.clip(np.round(yx_px).astype(np.int64), 0, np.array(field.shape) - 1).T
    height = seen.copy()
    for own in (0, 1):
        others = yx_px[:count][1 - own :: 2]
        if len(others):
            other = learn_template(field, others, diameter_px=1.1 * search.diameter_px)
            response = field.filter(matched_filter(field.rings, replace(other, noise=search.template.noise)))
            height[own:count:2] = response[row[own:count:2], column[own:count:2]]
    return height


def _find_inverted(
    rest: Field, search: Search, inverted: Search | None, yx_px: NDArray[np.float64], height: NDArray[np.float64],
    *, distance_px: float,
) -> NDArray[np.float64]:  # fmt: skip
    """Return the heights of what the template of inverted contrast finds away from higher peaks: ``(k,)``, descending."""
    if inverted is None:
        return np.zeros(0)
    seen = rest.filter(matched_filter(rest.rings, inverted.template))
    decoy_yx_px, decoy = find_peaks_2d(seen, min_distance_px=distance_px, allowed=rest.allowed, above=LOWEST_PEAK)
    return decoy[compete(decoy_yx_px, decoy, yx_px, height, reach_px=_LOBES_REACH * search.diameter_px)]


def _draw_noise(field: Field, template: RadialTemplate, inverted: NDArray[np.float64], *, distance_px: float) -> NoisePeaks:
    """Draw peaks of noise with the spectrum of what the template leaves over; always the same ones for the same micrograph."""
    rng = np.random.default_rng(len(field.rings.count))
    rings = field.rings
    transfer = matched_filter(rings, template) * np.sqrt(template.noise / np.prod(rings.shape))
    heights: list[NDArray[np.float64]] = []
    while len(heights) < _MOST_DRAWN and sum(map(len, heights)) < _ENOUGH_DECOYS:
        drawn = filter_white_2d(rings.spread(transfer), rings.shape, rng)
        heights.append(find_peaks_2d(drawn, min_distance_px=distance_px, above=0.0)[1])
    share = np.count_nonzero(field.allowed) / np.prod(rings.shape)
    total = np.sort(np.concatenate(heights))[::-1]
    return NoisePeaks(total, float(share) * len(total) / len(heights), inverted)


def learn_from_micrograph(image: Image, *, diameter_px: tuple[float, float]) -> tuple[View, Search | None]:
    """Find out how large the particles of ``(h, w)`` are and what they look like; no search where there is not a single peak.

    Where they are of quite another size than was assumed, it begins again with that size.
    """
    low, high = LEAST_SIZE * diameter_px[0], LARGEST_SIZE * diameter_px[1]
    middle_px = float(np.sqrt(diameter_px[0] * diameter_px[1]))
    view = view_micrograph_2d(image, diameter_px=middle_px)
    within_px = (low / view.scale, high / view.scale)
    search = find_size(view.clear, tuple(sizes_between(*within_px)), within_px=within_px)
    if search is not None and abs(np.log(search.diameter_px / view.diameter_px)) > _VERY_DIFFERENT:
        found_px, places = search.diameter_px * view.scale, search.yx_px * view.scale_yx
        view = view_micrograph_2d(image, diameter_px=found_px, dirt_px=found_px)
        search = Search.of(view.clear, places / view.scale_yx, diameter_px=view.diameter_px)
        search = settle_size(view.clear, search, within_px=(low / view.scale, high / view.scale))
    if search is None:
        return view, None
    view, search = _without_balls(view, search, within_px=(low / view.scale, high / view.scale), given_px=middle_px / view.scale)
    return view, refine_search(view.clear, search)


def _without_balls(view: View, search: Search, *, within_px: tuple[float, float], given_px: float) -> tuple[View, Search]:
    """Search again without what answers far more than the rest; return what explains clearly more of the micrograph.

    What is found then must be no farther from the diameter that was given: balls of ice, which are few, are not to be told from
    the larger of two kinds of particles otherwise.
    """
    best = view, search
    for _ in range(_BALLS_REMOVED):
        balls = outstanding_places(view.clear, search)
        if not len(balls):
            break
        away = away_from(view.clear, balls, radius_px=_BALL_RADIUS * search.diameter_px)
        view = view.within(away)
        again = find_size(view.clear, tuple(sizes_between(*within_px)), within_px=within_px)
        if again is None:
            break
        search = again
        best_off, off = (abs(np.log(one.diameter_px / given_px)) for one in (best[1], search))
        better = _CLOSER if off < best_off - _VERY_DIFFERENT else _CLEARLY_BETTER
        if off < best_off + _VERY_DIFFERENT and search.cost < better * best[1].cost:
            best = view, search
    return best


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
    smeared = is_smeared(view.clear, diameter_px=view.diameter_px)
    inverted, scrambled = (
        (None, None) if search is None else (make(view.clear, search) for make in (search_inverted, search_scrambled))
    )
    if search is None or smeared or not (is_more_than_noise(search, inverted, scrambled) and is_one_sided(view.clear, search)):
        found_px = view.diameter_px if search is None else search.diameter_px
        nothing = np.zeros(0)
        return Blobs(np.zeros((0, 2)), nothing, nothing, np.inf, 0.0, found_px * view.scale, "drift" if smeared else "noise")
    field, scale = view.field, view.scale_yx
    distance = LEAST_DISTANCE * search.diameter_px if min_distance_px is None else min_distance_px / view.scale
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
        None if len(score) else "noise",
    )
