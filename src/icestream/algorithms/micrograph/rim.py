"""The rim of a hole in the film, found by its roundness: also where other things lie on it, or only a corner is film."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.micrograph.objects import Film

_STEEP = 4.0  # robust deviations of the gradient
_MOST_POINTS = 2500
_PAIRS = 800
_RADIUS_SIDES = (0.2, 6.0)
_ALIGNED = 0.94
_LEAST_ARC = 0.35  # of the shorter side
_LEAST_FOUND = 0.7
_SECTORS = 24
_LEAST_SECTOR = 0.3


@dataclass(frozen=True)
class _Circle:
    centre: NDArray[np.float64]
    radius: float

    def distance(self, yx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far outside of it points ``(..., 2)`` are."""
        distance: NDArray[np.float64] = np.hypot(*np.moveaxis(yx - self.centre, -1, 0)) - self.radius
        return distance


def find_rim_2d(image: NDArray[Any], *, blur_px: float) -> Film | None:
    """Find a film that ends at a circle, bright inside: the hole of a grid, or the edge of the beam.

    Steep places whose gradients meet in one point are on one circle (random pairs propose it, the others vote: Fischler & Bolles
    1981, Commun. ACM 24, 381). It counts if steep places are on seven tenths of what the image shows of it, if that is a third of
    a side long, and if the grey value falls outwards in nine of ten sectors.

    Parameters
    ----------
    image
        ``(h, w)``, reduced.
    blur_px
        Standard deviation of the Gaussian before the gradient.
    """
    points, inwards = _steep_places(image, blur_px)
    if len(points) < 2 * _SECTORS:
        return None
    circle = _propose_circle(points, inwards, side=min(image.shape), tolerance_px=blur_px)
    if circle is None:
        return None
    circle = _fit_circle(points[_on_circle(circle, points, inwards, tolerance_px=2 * blur_px)]) or circle
    outside = circle.distance(np.moveaxis(np.indices(image.shape, np.float64), 0, -1))  # (h, w)
    mask = outside > 0
    on = points[_on_circle(circle, points, inwards, tolerance_px=2 * blur_px)]
    if not _is_seen(circle, on, image.shape, blur_px) or not 0.005 <= mask.mean() <= 0.97:
        return None
    step, sharpness = _measure_step(image, outside, circle, blur_px)
    return None if step is None else Film(mask, sharpness, step)


def _steep_places(image: NDArray[Any], blur_px: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the crests of the gradient ``(n, 2)`` and the directions in which it gets brighter there."""
    gy, gx = (ndimage.gaussian_filter(image, blur_px, order=order, mode="nearest") for order in ((1, 0), (0, 1)))
    size = np.hypot(gy, gx)
    steep = size > _STEEP * 1.4826 * float(np.median(size))
    rows, columns = np.nonzero(steep)
    unit = np.stack([gy[steep], gx[steep]], axis=1) / size[steep][:, None]  # (n, 2)
    beside = [
        ndimage.map_coordinates(size, (np.stack([rows, columns]) + sign * unit.T), order=1, mode="nearest") for sign in (-1, 1)
    ]
    crest = size[steep] >= np.maximum(*beside)
    points, unit, height = np.stack([rows, columns], axis=1)[crest].astype(np.float64), unit[crest], size[steep][crest]
    if len(points) > _MOST_POINTS:
        chosen = np.sort(np.argsort(-height, kind="stable")[:_MOST_POINTS])
        points, unit = points[chosen], unit[chosen]
    return points, unit


def _on_circle(
    circle: _Circle, points: NDArray[np.float64], inwards: NDArray[np.float64], *, tolerance_px: float
) -> NDArray[np.bool_]:
    to_centre = circle.centre - points
    aligned = (to_centre * inwards).sum(1) > _ALIGNED * np.hypot(*to_centre.T)
    on: NDArray[np.bool_] = aligned & (np.abs(circle.distance(points)) < tolerance_px)
    return on


def _propose_circle(
    points: NDArray[np.float64], inwards: NDArray[np.float64], *, side: int, tolerance_px: float
) -> _Circle | None:
    """Return the circle on which most points are, of those that pairs of points propose with their directions."""
    rng = np.random.default_rng(0)
    best: tuple[int, _Circle] | None = None
    for first, second in rng.integers(0, len(points), (_PAIRS, 2)).tolist():
        chord = points[second] - points[first]
        length = float(np.hypot(*chord))
        mean = inwards[first] + inwards[second]
        size = float(np.hypot(*mean))
        if length < 0.1 * side or size < 0.5 or abs(float(chord @ mean)) > 0.15 * length * size:
            continue  # the chord is not square to the mean direction: no circle has both
        sine = float(chord @ (inwards[first] - inwards[second])) / (2 * length)  # of half the arc's angle
        radius = min(0.5 * length / sine, _RADIUS_SIDES[1] * side) if sine > 0 else _RADIUS_SIDES[1] * side
        if sine < -0.05 or radius < _RADIUS_SIDES[0] * side:
            continue
        height = np.sqrt(max(radius**2 - 0.25 * length**2, 0.0))
        circle = _Circle(0.5 * (points[first] + points[second]) + height * mean / size, radius)
        votes = int(_on_circle(circle, points, inwards, tolerance_px=tolerance_px).sum())
        if best is None or votes > best[0]:
            best = votes, circle
    return None if best is None else best[1]


def _fit_circle(points: NDArray[np.float64]) -> _Circle | None:
    """Return the circle of least algebraic distance (Kåsa 1976, IEEE Trans. Instrum. Meas. 25, 8)."""
    if len(points) < 8:
        return None
    middle = points.mean(0)
    local = points - middle
    terms = np.column_stack([2 * local, np.ones(len(local))])
    solved = np.linalg.lstsq(terms, (local**2).sum(1), rcond=None)[0]
    return _Circle(solved[:2] + middle, float(np.sqrt(max(solved[2] + solved[0] ** 2 + solved[1] ** 2, 0.0))))


def _is_seen(circle: _Circle, on: NDArray[np.float64], shape: tuple[int, ...], blur_px: float) -> bool:
    """Tell whether steep places are on most of the part of the circle that is in the image, and that part is long."""
    angle = np.linspace(0, 2 * np.pi, max(int(2 * np.pi * circle.radius / blur_px), 64), endpoint=False)
    arc = circle.centre + circle.radius * np.stack([np.sin(angle), np.cos(angle)], axis=1)  # (n, 2)
    inside = ((arc >= blur_px) & (arc <= np.array(shape) - 1 - blur_px)).all(1)
    length_px = inside.sum() * 2 * np.pi * circle.radius / len(angle)
    if length_px < _LEAST_ARC * min(shape) or not len(on):
        return False
    has = np.zeros(len(angle), bool)
    turn = np.arctan2(*(on - circle.centre).T)
    has[np.round(turn / (2 * np.pi) * len(angle)).astype(int) % len(angle)] = True
    wide = ndimage.binary_dilation(np.pad(has, 2, mode="wrap"), iterations=2)[2:-2]
    return bool(wide[inside].mean() >= _LEAST_FOUND)


def _measure_step(
    image: NDArray[Any], outside: NDArray[np.float64], circle: _Circle, blur_px: float
) -> tuple[float | None, float]:
    """Return by how much the film is darker beside the rim, over how much it is elsewhere; None where it is not all along."""
    y, x = np.indices(image.shape)
    turn = np.arctan2(y - circle.centre[0], x - circle.centre[1])
    near = np.abs(outside) < 6 * blur_px
    from_middle = np.angle(np.exp(1j * (turn - np.angle(np.exp(1j * turn[near]).mean()))))
    low, high = from_middle[near].min(), from_middle[near].max()
    sector = np.clip(((from_middle - low) / max(high - low, 1e-9) * _SECTORS).astype(int), 0, _SECTORS - 1)
    steps = []
    for number in range(_SECTORS):
        film, hole = (image[(sector == number) & (sign * outside > 2 * blur_px) & near] for sign in (1, -1))
        if min(film.size, hole.size) >= 8:
            steps.append(float(np.median(hole) - np.median(film)))
    if len(steps) < _SECTORS // 3:
        return None, 0.0
    step = float(np.median(steps))
    if step <= 0 or np.quantile(steps, 0.1) < _LEAST_SECTOR * step:
        return None, 0.0
    whole = float(np.median(image[outside <= 0]) - np.median(image[outside > 0]))
    return step, step / whole if whole > 0 else 0.0
