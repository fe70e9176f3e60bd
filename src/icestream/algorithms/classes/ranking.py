"""How good a 2D class is, from its average and what is known of its members: a score from 0 to 1.

Each class is measured; each measure gives points between 0 (as junk looks) and 1 (as particles look); the score is a logistic
function of their weighted sum. What is measured follows the screening of classes in SIMPLE (Elmlund group) and the class ranker
of RELION (Kimanius et al. 2021, Biochem. J. 478, 4169): population, resolution, where the bright foreground is and how large it
is, how much it varies inside and outside, and whether its size can be that of the particle which the other classes show. Beside
these: mass and contrast of the average, which all views of one particle share, and what its members have beside it.

No measure decides alone: a class that looks like a particle but is smaller or heavier than the others keeps a score above 0.5.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import frequency_radius_2d

STRICT, GENEROUS = 0.5, 0.2
"""Scores from which a class counts as good: for a clean set, and for one that loses hardly anything."""

_LOWPASS_RADII = 0.25
_DETAIL_RADII = (0.36, 0.18)
_BIAS = -12.5
_FERET_TURNS = 24
_SIZE_TOLERANCE = 0.2
_LEAST_FOREGROUND_PX = 4
_OF_FOREGROUND = ("off_centre", "at_rim", "scattered", "area", "contrast", "texture", "shortest", "longest")

_ALONE = {"population": 1.0, "resolution": 1.5, "centring": 2.0, "rim": 1.0, "compactness": 0.5, "contrast": 0.5, "texture": 1.0}
_BESIDE_OTHERS = {"detail": 2.0, "mass": 1.5, "energy": 1.5, "size": 1.5, "fit": 1.0, "residual": 2.5}
_BIAS_ALONE = -5.0


@dataclass(frozen=True)
class Measures:
    """What is measured of each class, ``(k,)`` each.

    ``population`` in fair shares, ``resolution_radii`` resolution in radii of the mask (infinite where there is none),
    ``off_centre`` distance of the foreground's centroid from the centre in radii, ``at_rim`` share of the rim of the mask that is
    foreground, ``scattered`` share of the foreground outside its largest part, ``area`` share of the mask, ``contrast`` mean of
    the foreground above the background in spreads of the background, ``texture`` variance inside over that of the ring outside,
    ``shortest`` and ``longest`` width of the foreground in radii, ``mass`` and ``energy`` sum and sum of squares of the average,
    ``detail`` power at a sixth to a third of the radius over that of what is coarser.
    """

    population: NDArray[np.float64]
    resolution_radii: NDArray[np.float64]
    off_centre: NDArray[np.float64]
    at_rim: NDArray[np.float64]
    scattered: NDArray[np.float64]
    area: NDArray[np.float64]
    contrast: NDArray[np.float64]
    texture: NDArray[np.float64]
    shortest: NDArray[np.float64]
    longest: NDArray[np.float64]
    mass: NDArray[np.float64]
    energy: NDArray[np.float64]
    detail: NDArray[np.float64]

    def points_alone(self) -> dict[str, NDArray[np.float64]]:
        """Return the points, 0 to 1, of measures that need no other class."""
        return {
            "population": _rising(np.log10(np.maximum(self.population, 1e-3)), -1.3, -0.3),
            "resolution": _rising(-np.log2(np.minimum(self.resolution_radii, 16.0)), -0.5, 1.5),
            "centring": _rising(-self.off_centre, -0.35, -0.15),
            "rim": _rising(-self.at_rim, -0.35, -0.05),
            "compactness": _rising(-self.scattered, -0.5, -0.2),
            "contrast": _rising(self.contrast, 2.0, 4.5),
            "texture": _rising(np.log10(np.maximum(self.texture, 1e-3)), 0.3, 1.1),
        }

    def points_beside(
        self, *, fit: NDArray[np.float64], residual: NDArray[np.float64], trust: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return the points, 0 to 1, of measures that stand beside those of the classes in ``trust``."""

        def typical(values: NDArray[np.float64], q: float = 0.5) -> float:
            return _quantile(values, trust, q)

        widths = typical(self.shortest, 0.25), typical(self.longest, 0.75)
        return {
            "detail": _rising(_log_ratio(self.detail, typical(self.detail)), -2.0, -0.8),
            "mass": _rising(-np.abs(_log_ratio(self.mass, typical(self.mass))), -1.0, -0.4),
            "energy": _rising(-np.abs(_log_ratio(self.energy, typical(self.energy))), -1.1, -0.5),
            "size": _compatible(self.shortest, self.longest, *widths),
            "fit": _rising(fit, 0.04, 0.2),
            "residual": _rising(1 - residual / max(typical(residual), 1e-9), -0.18, -0.07),
        }


def rank_classes(measures: Measures, *, fit: NDArray[Any], residual: NDArray[Any]) -> NDArray[np.float64]:
    """Return a score from 0 to 1 for each class, 0 where it has no particles.

    Parameters
    ----------
    fit
        ``(k,)``, 0 to 1: where the median score of the members stands among the scores of all particles.
    residual
        ``(k,)``, median of what the members have beside their class, in units of noise.
    """
    alone = measures.points_alone()
    first = _BIAS_ALONE + sum(_ALONE[name] * value for name, value in alone.items())
    trust = measures.population / (1 + np.exp(-np.asarray(first)))
    if not (trust > 0).any():
        return np.zeros(len(measures.population))
    beside = measures.points_beside(fit=np.asarray(fit, float), residual=np.asarray(residual, float), trust=trust)
    total = _BIAS + sum(_ALONE[name] * value for name, value in alone.items())
    total = total + sum(_BESIDE_OTHERS[name] * value for name, value in beside.items())
    score: NDArray[np.float64] = np.where(measures.population > 0, 1 / (1 + np.exp(-np.asarray(total))), 0.0)
    return score


def _log_ratio(values: NDArray[np.float64], typical: float) -> NDArray[np.float64]:
    """Return the logarithm of a ratio, in doublings; very small where a value is not positive."""
    ratio: NDArray[np.float64] = np.log2(np.maximum(values / typical if typical > 0 else values, 1e-3))
    return ratio


def measure_classes(
    images: NDArray[Any], counts: NDArray[Any], *, resolution_px: NDArray[Any], mask_radius_px: float
) -> Measures:
    """Measure class averages ``(k, box, box)``, bright and masked.

    Parameters
    ----------
    images
        Class averages.
    counts
        ``(k,)``, particles.
    resolution_px
        ``(k,)``, pixels per period where half sets stop to agree; not finite where they never did.
    mask_radius_px
        Radius of the mask.
    """
    fair = max(float(np.sum(counts)) / max(len(images), 1), 1e-9)
    smooth = _lowpass(np.asarray(images, np.float32), period_px=max(2.5, _LOWPASS_RADII * mask_radius_px))
    box = images.shape[-1]
    grid = np.arange(box) - box // 2
    distance = np.hypot(grid[:, None], grid[None, :]) / mask_radius_px  # (box, box)
    rows = np.array([_measure_one(image, fine, distance) for image, fine in zip(smooth, images, strict=True)])  # (k, 8)
    resolution = np.where(np.isfinite(resolution_px), np.asarray(resolution_px, float) / mask_radius_px, np.inf)
    fine = np.asarray(images, float)
    by_name = dict(zip(_OF_FOREGROUND, rows.reshape(len(images), -1).T, strict=True))
    return Measures(
        population=np.asarray(counts, float) / fair,
        resolution_radii=resolution,
        mass=fine.sum(axis=(1, 2)),
        energy=(fine**2).sum(axis=(1, 2)),
        detail=_measure_detail(fine, mask_radius_px),
        **by_name,
    )


def _measure_detail(images: NDArray[np.float64], radius_px: float) -> NDArray[np.float64]:
    """Return the power of detail over that of what is coarser: ``(k,)``."""
    box = images.shape[-1]
    frequency = frequency_radius_2d(box, box) * radius_px  # periods per radius
    power = np.abs(fft.rfft2(images)) ** 2
    coarse = (frequency > 0) & (frequency < 1 / _DETAIL_RADII[0])
    fine = (frequency >= 1 / _DETAIL_RADII[0]) & (frequency < 1 / _DETAIL_RADII[1])
    ratio: NDArray[np.float64] = (power * fine).sum(axis=(1, 2)) / np.maximum((power * coarse).sum(axis=(1, 2)), 1e-12)
    return ratio


def _lowpass(images: NDArray[np.float32], *, period_px: float) -> NDArray[np.float32]:
    box = images.shape[-1]
    keep = np.exp(-0.5 * (frequency_radius_2d(box, box) * period_px / 1.2) ** 2)
    smooth: NDArray[np.float32] = fft.irfft2(fft.rfft2(images) * keep, s=(box, box)).astype(np.float32)
    return smooth


def _measure_one(image: NDArray[np.float32], fine: NDArray[Any], distance: NDArray[np.float64]) -> tuple[float, ...]:
    """Return off_centre, at_rim, scattered, area, contrast, texture, shortest, longest of one average."""
    inside, rim = distance < 1.0, (distance > 0.85) & (distance < 1.0)
    foreground = inside & (image > _otsu(image[inside]))
    labels, n_parts = ndimage.label(foreground)
    sizes = np.bincount(labels.ravel(), minlength=2)[1:]
    if n_parts == 0 or sizes.max() < _LEAST_FOREGROUND_PX:
        return 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, np.nan, np.nan
    main = labels == 1 + int(np.argmax(sizes))
    y, x = (axis.astype(float) - size // 2 for axis, size in zip(np.nonzero(main), image.shape, strict=True))
    scale = 1.0 / _pixels_per_radius(distance)
    off_centre = float(np.hypot(y.mean(), x.mean())) * scale
    background = inside & ~foreground
    spread = float(image[background].std()) if background.sum() > 1 else 1.0
    contrast = float(image[main].mean() - image[background].mean()) / max(spread, 1e-9) if background.any() else 0.0
    core, ring = distance < 0.6, (distance > 0.75) & (distance < 0.95)
    texture = float(np.var(fine[core]) / max(float(np.var(fine[ring])), 1e-12))
    shortest, longest = _widths(y * scale, x * scale)
    scattered = 1.0 - float(sizes.max() / sizes.sum())
    return (
        off_centre,
        float(foreground[rim].mean()),
        scattered,
        float(main.sum() / inside.sum()),
        contrast,
        texture,
        shortest,
        longest,
    )


def _pixels_per_radius(distance: NDArray[np.float64]) -> float:
    centre = distance.shape[0] // 2
    return 1.0 / float(distance[centre, centre + 1])


def _otsu(values: NDArray[Any]) -> float:
    """Return the grey value that parts values into two groups of least spread (Otsu 1979, IEEE Trans. SMC 9, 62)."""
    counts, edges = np.histogram(values, bins=128)
    middle = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    mass = np.cumsum(counts * middle)
    mean_below = mass / np.maximum(below, 1)
    mean_above = (mass[-1] - mass) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2
    return float(middle[int(np.argmax(between))])


def _widths(y: NDArray[np.float64], x: NDArray[np.float64]) -> tuple[float, float]:
    """Return the shortest and longest width (Feret diameter) of a set of points."""
    angles = np.arange(_FERET_TURNS) * np.pi / _FERET_TURNS
    along = np.outer(np.cos(angles), x) + np.outer(np.sin(angles), y)  # (turns, points)
    widths = along.max(axis=1) - along.min(axis=1)
    return float(widths.min()), float(widths.max())


def _compatible(shortest: NDArray[np.float64], longest: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return how far widths can be those of a projection of a particle with axes from ``low`` to ``high``."""
    over = np.maximum(longest / high - 1, 0) if high > 0 else np.zeros(len(longest))
    under = np.maximum(1 - shortest / low, 0) if low > 0 else np.zeros(len(shortest))
    worst = np.nan_to_num(np.maximum(over, under), nan=1.0)
    return _rising(-worst, -2.5 * _SIZE_TOLERANCE, -_SIZE_TOLERANCE)


def _quantile(values: NDArray[np.float64], weight: NDArray[np.float64], q: float) -> float:
    """Return a weighted quantile of the finite values; 0 if there are none."""
    known = np.isfinite(values) & (weight > 0)
    if not known.any():
        return 0.0
    order = np.argsort(values[known])
    total = np.cumsum(weight[known][order])
    return float(values[known][order][int(np.searchsorted(total, q * total[-1]))])


def _rising(value: NDArray[Any], zero: float, one: float) -> NDArray[np.float64]:
    """Return 0 below ``zero``, 1 above ``one``, and a straight line between."""
    points: NDArray[np.float64] = np.clip((np.asarray(value, float) - zero) / (one - zero), 0.0, 1.0)
    return points
