"""Finding out what the particles of a micrograph look like and how large they are: a template, and the places it is learned from.

A search begins with blobs of one size (Laplacian of a Gaussian: Lindeberg 1998, Int. J. Comput. Vis. 30, 79). What the best peaks
have in common is a template; it gives better peaks, and so on. Which peaks are good enough to learn from is decided by the
number that noise alone would have (Adler 1981, The Geometry of Random Fields, ch. 6), and noise is what the particles found so
far leave over: so the more of them are found, the lower the noise, until it is that of the micrograph without particles.

Searches of different sizes are compared by the length of the description that they give of the micrograph: the coefficients left
over, and the choice of the places (Rissanen 1978, Automatica 14, 465).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, special
from scipy.spatial import cKDTree

from icestream.algorithms.matched_picker.centring import centre_particles, clean_heights
from icestream.algorithms.matched_picker.extent import measure_diameter
from icestream.algorithms.matched_picker.radial_template import (
    RadialTemplate,
    blob_filter,
    explain,
    learn_template,
    matched_filter,
)
from icestream.algorithms.matched_picker.rings import Field, PerRing, Spectrum
from icestream.algorithms.particles.peaks import find_peaks_2d

LEAST_DISTANCE = 0.55  # diameters
LOWEST_PEAK = 2.0
_BLOB = 1.0
_AS_GOOD, _APART = 0.38, 0.8
LEAST_SIZE, LARGEST_SIZE = 0.6, 1.75
"""Of the diameter that is given, which may be wrong by so much."""
_SIZE_STEP = 1.3
_FALSE_EXEMPLARS, _FEWEST_EXEMPLARS, _MOST_EXEMPLARS = 0.2, 10, 2000
_PLAUSIBLE, _BOLD_ROUNDS = 0.5, 3
_SEARCH_ROUNDS = 6
_BLURS = (0.12, 0.1, 0.08, 0.0)  # diameters
_CELL, _GAPS = 0.5, 0.8  # diameters
_MOST_OFF, _SETTLING, _SETTLING_ROUNDS, _SAME = 1.8, 3, 2, 0.05
_FAR_BETTER, _LEAST_GAIN = 1.3, 75.0
_MOST_OPPOSITE = 0.4


@dataclass(frozen=True)
class Search:
    """A template, the places that it was learned from, and the diameter in pixels of which it was assumed to be.

    Attributes
    ----------
    cost
        Description length in nats of the micrograph with the particles, less that without; the lower, the better.
    """

    template: RadialTemplate
    yx_px: NDArray[np.float64]
    diameter_px: float
    cost: float

    @classmethod
    def of(cls, field: Field, yx_px: NDArray[np.float64], *, diameter_px: float) -> "Search":
        """Learn the template at the places ``(n, 2)``."""
        template = learn_template(field, yx_px, diameter_px=1.1 * diameter_px)
        return cls(template, yx_px, diameter_px, template.cost + _cost_of_places(field, len(yx_px), diameter_px=diameter_px))

    @property
    def spacing(self) -> float:
        """Median distance of the places to the nearest other one, in diameters; infinite for one alone."""
        if len(self.yx_px) < 2:
            return np.inf
        return float(np.median(cKDTree(self.yx_px).query(self.yx_px, 2)[0][:, 1])) / self.diameter_px


def _cost_of_places(field: Field, count: int, *, diameter_px: float) -> float:
    """Return the nats that it takes to say which ``count`` of all cells half a diameter wide hold a particle."""
    cells = max(np.count_nonzero(field.allowed) / (_CELL * diameter_px) ** 2, count + 1.0)
    return float(special.gammaln(cells + 1) - special.gammaln(count + 1) - special.gammaln(cells - count + 1))


def sizes_between(smallest_px: float, largest_px: float) -> Iterator[float]:
    """Yield diameters from the smallest to the largest, each about 1.3 times the one before."""
    n_steps = max(round(np.log(largest_px / smallest_px) / np.log(_SIZE_STEP)), 1)
    yield from (float(size) for size in np.geomspace(smallest_px, largest_px, n_steps + 1))


def noise_peaks_above(field: Field, transfer: PerRing, noise: PerRing, height: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many peaks of at least each height Gaussian noise of this power has after ``transfer``: ``(n,)``.

    From a height of about 2 on it is ``area λ z exp(-z² / 2) / (2π)^1.5``, with λ the mean square slope along one axis (Adler
    1981).
    """
    weight = field.rings.count * transfer**2 * noise
    slope = 0.5 * float(np.sum(weight * (2 * np.pi * field.rings.frequency) ** 2) / np.sum(weight))
    level = np.maximum(height, 1.0)
    density: NDArray[np.float64] = slope / (2 * np.pi) ** 1.5 * level * np.exp(-0.5 * level**2)
    return np.count_nonzero(field.allowed) * density


def choose_exemplars(height: NDArray[np.float64], expected: NDArray[np.float64], *, fewest: int = _FEWEST_EXEMPLARS) -> int:
    """Return how many of the highest peaks a template is learned from: at most a fifth is noise, but at least ten are taken.

    Parameters
    ----------
    height, expected
        ``(n,)``, descending: the peaks, and how many of noise are as high.
    """
    good = np.flatnonzero(expected <= _FALSE_EXEMPLARS * np.arange(1, len(height) + 1))
    count = int(good[-1]) + 1 if len(good) else 0
    return int(np.clip(count, min(max(fewest, _FEWEST_EXEMPLARS), len(height)), _MOST_EXEMPLARS))


def search_size(field: Field, *, diameter_px: float, start: RadialTemplate | None = None) -> Search | None:
    """Learn a template beginning with blobs of one size, or another template; None where there is not a single peak."""
    search, noise = None, field.power if start is None else start.noise
    if start is None:
        transfer = blob_filter(field, diameter_px=_BLOB * diameter_px)
    else:
        transfer = matched_filter(field.rings, start, blur_px=_BLURS[0] * diameter_px)
    plausible = int(_PLAUSIBLE * np.count_nonzero(field.allowed) / diameter_px**2)
    for round_ in range(_SEARCH_ROUNDS if start is None else _SETTLING_ROUNDS):
        fewest = plausible if start is None and round_ < _BOLD_ROUNDS else _FEWEST_EXEMPLARS
        yx_px = _exemplars(field, transfer, noise, search, diameter_px=diameter_px, fewest=fewest)
        if not len(yx_px):
            return search
        search = Search.of(field, yx_px, diameter_px=diameter_px)
        transfer = matched_filter(field.rings, search.template, blur_px=_BLURS[0] * diameter_px)
        noise = search.template.noise
    return search


def refine_search(field: Field, search: Search) -> Search:
    """Learn the template again and again, from peaks that are blurred less and less."""
    diameter_px = search.diameter_px
    for blur in _BLURS:
        transfer = matched_filter(field.rings, search.template, blur_px=blur * diameter_px)
        yx_px = _exemplars(field, transfer, search.template.noise, search, diameter_px=diameter_px)
        if len(yx_px):
            search = Search.of(field, yx_px, diameter_px=diameter_px)
    return search


def _exemplars(
    field: Field, transfer: PerRing, noise: PerRing, search: Search | None, *, diameter_px: float, fewest: int = _FEWEST_EXEMPLARS
) -> NDArray[np.float64]:
    yx_px, height = find_peaks_2d(
        field.filter(transfer), min_distance_px=LEAST_DISTANCE * diameter_px, allowed=field.allowed, above=LOWEST_PEAK
    )
    if search is not None and len(yx_px):
        height = clean_heights(field, transfer, search.template, yx_px, height, diameter_px=diameter_px)
        order = np.argsort(-height, kind="stable")
        yx_px, height = yx_px[order], height[order]
    return yx_px[: choose_exemplars(height, noise_peaks_above(field, transfer, noise, height), fewest=fewest)]


def find_size(field: Field, sizes_px: tuple[float, ...], *, within_px: tuple[float, float]) -> Search | None:
    """Find out how large the particles are: the diameter of the search is that which was found; None where there is no peak.

    The lobes of a large particle look like smaller particles, and there are more of them; but a part of it is never as large as
    the whole. So the largest size is taken that explains a good part of what the best one does. Too large is one, or cut into
    parts are its particles, whose places are mostly as close together as peaks can be.
    """
    tried = [found for size in sizes_px if (found := search_size(field, diameter_px=size)) is not None]
    if not tried:
        return None
    best = min(tried, key=_cost_of)
    good = [one for one in tried if one.cost <= max(best.cost, _AS_GOOD * best.cost) and one.spacing >= _APART]
    search = max(good, key=_size_of, default=best)
    return settle_size(field, search, within_px=within_px)


def settle_size(field: Field, search: Search, *, within_px: tuple[float, float]) -> Search:
    """Move the particles to their middle, measure them, and search again for some of that size, until it stays."""
    for _ in range(_SETTLING):
        yx_px = centre_particles(field, search.yx_px, diameter_px=search.diameter_px)
        centred = Search.of(field, yx_px, diameter_px=search.diameter_px)
        measured_px = measure_diameter(field, centred.template, yx_px, largest_px=_MOST_OFF * search.diameter_px)
        found_px = search.diameter_px if measured_px is None else min(max(measured_px, within_px[0]), within_px[1])
        again = search_size(field, diameter_px=found_px, start=centred.template)
        if again is None:
            return search
        same = abs(float(np.log(found_px / search.diameter_px))) < _SAME
        search = again
        if same:
            break
    return search


def _cost_of(search: Search) -> float:
    return search.cost


def _size_of(search: Search) -> float:
    return search.diameter_px


def search_inverted(field: Field, search: Search) -> Search | None:
    """Search for dark particles of that size away from those that were found, which shows what edges and crystals would give.

    The particles are taken out, and so are their surroundings: the gaps between particles are no noise.
    """
    rest = explain(field, search.template, search.yx_px).inverted()
    away = away_from(field, search.yx_px, radius_px=_GAPS * search.diameter_px)
    rest = replace(rest, allowed=rest.allowed & away)
    found = search_size(rest, diameter_px=search.diameter_px)
    return None if found is None else refine_search(rest, found)


def away_from(field: Field, yx_px: NDArray[np.float64], *, radius_px: float) -> NDArray[np.bool_]:
    """Return where no place is within the radius: ``(h, w)``."""
    free = np.ones(field.shape, dtype=bool)
    row, column = np.clip(np.round(yx_px).astype(np.int64), 0, np.array(field.shape) - 1).T
    free[row, column] = False
    away: NDArray[np.bool_] = ndimage.distance_transform_edt(free) > radius_px
    return away


def search_scrambled(field: Field, search: Search) -> Search | None:
    """Do the same with random phases, which shows what noise of this very spectrum would give."""
    rng = np.random.default_rng(len(field.rings.count))
    white: Spectrum = fft.rfft2(rng.standard_normal(field.shape, dtype=np.float32))
    turned = np.abs(field.spectrum) * white / np.maximum(np.abs(white), np.float32(1e-20))
    scrambled = replace(field, spectrum=turned.astype(np.complex64))
    found = search_size(scrambled, diameter_px=search.diameter_px)
    return None if found is None else refine_search(scrambled, found)


def is_more_than_noise(search: Search, inverted: Search | None, scrambled: Search | None) -> bool:
    """Tell whether the particles are bright and explain the micrograph far better than what was found where there is none."""
    radius = 0.5 * np.arange(len(search.template.profile))
    inside = radius <= 0.5 * search.diameter_px
    bright = float(np.sum((search.template.profile * radius)[inside])) > 0
    return bright and search.cost < _FAR_BETTER * decoy_cost(inverted, scrambled) - _LEAST_GAIN


def is_one_sided(field: Field, search: Search) -> bool:
    """Tell whether bright particles explain the micrograph far better than dark ones of that size do, anywhere in it.

    Texture and edges have both alike; of micrographs with particles, dark ones explain a sixth at most.
    """
    opposite = field.inverted()
    found = search_size(opposite, diameter_px=search.diameter_px)
    dark_cost = -_LEAST_GAIN if found is None else min(found.cost, refine_search(opposite, found).cost)
    return _MOST_OPPOSITE * search.cost < dark_cost


def decoy_cost(inverted: Search | None, scrambled: Search | None) -> float:
    """Return the lower cost of the decoys, at most 0.

    Where particles crowd there may be no room for inverted ones; where there is none for scrambled ones, chance may explain much.
    """
    return min(0.0 if inverted is None else inverted.cost, -_LEAST_GAIN if scrambled is None else scrambled.cost, 0.0)
