"""The resolution of a map: Fourier shell correlation of half maps, corrected for the mask, with error bars and a verdict.

Harauz & van Heel (1986), Optik 73, 146; Rosenthal & Henderson (2003), J. Mol. Biol. 333, 721 (0.143); Chen et al. (2013),
Ultramicroscopy 135, 24 (phases randomised beyond a shell tell what the mask alone correlates).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.frc import frequency_at_threshold
from icestream.algorithms.map_quality.mask import soften
from icestream.algorithms.map_quality.shells import (
    Curve,
    Map,
    correlate_shells,
    distance_from_centre,
    invert_3d,
    randomise_phases_3d,
    transform_3d,
)
from icestream.algorithms.volumes.fsc import sum_shells

Verdict = Literal["map", "pixel_limit", "noise", "not_independent"]
"""``pixel_limit``: the halves agree up to the Nyquist frequency. ``noise``: nothing agrees but what a mask or chance explains."""

_RANDOMISE_BELOW = 0.8
_N_DRAWS = 4
_LEAST_Z = 5.0
_LEAST_DETAIL = 3.0
_SAME = 0.98
_DEAD, _LEAST_DEAD = 0.02, 0.05


@dataclass(frozen=True)
class MapResolution:
    """Shell correlations of two half maps, by frequency, and what follows from them.

    Attributes
    ----------
    frequency_per_ang
        ``(n,)``, shell ``i`` at ``i / (box * pixel size)``.
    unmasked, masked, randomised
        ``(n,)`` each: of the halves as they are, under the mask, and under the mask with random phases from ``randomised_from``.
    fsc, error
        ``(n,)`` each: corrected for the mask, and its standard deviation over repeated data of the same particle.
    resolution_ang, resolution_half_ang
        Where ``fsc`` falls below 0.143 and 0.5; None where the verdict is no map.
    range_ang
        Where ``fsc`` less and plus one standard deviation fall below 0.143: coarse and fine end.
    evidence
        Agreement of the shape, beyond what a mask or a radial profile shared by the halves explains, in standard deviations.
    """

    frequency_per_ang: Curve
    unmasked: Curve
    masked: Curve
    randomised: Curve
    fsc: Curve
    error: Curve
    randomised_from: int
    resolution_ang: float | None
    resolution_half_ang: float | None
    range_ang: tuple[float, float] | None
    verdict: Verdict
    evidence: float


def measure_resolution(
    half_1: Map, half_2: Map, mask: NDArray[np.float32], *, pixel_size_ang: float, symmetry_order: int = 1, seed: int = 0
) -> MapResolution:
    """Measure how far two half maps agree.

    The phases are randomised from the first shell where the halves without mask correlate less than 0.8; from two shells further
    on, ``(masked - randomised) / (1 - randomised)`` counts.

    Parameters
    ----------
    half_1, half_2
        ``(b, b, b)``, from separate particles, without a mask.
    mask
        ``(b, b, b)``, 0 to 1.
    symmetry_order
        Operations of the symmetry that the halves were averaged over: their shells have so many fewer independent values.
    seed
        Of the random phases.
    """
    box_px = half_1.shape[0]
    whole_1, whole_2 = transform_3d(half_1), transform_3d(half_2)
    unmasked = correlate_shells(whole_1, whole_2, box_px=box_px)
    masked = correlate_shells(transform_3d(half_1 * mask), transform_3d(half_2 * mask), box_px=box_px)
    below = np.flatnonzero(unmasked[1:] < _RANDOMISE_BELOW) + 1
    start = int(below[0]) if below.size else box_px // 2
    rng = np.random.default_rng(seed)
    draws = np.zeros((_N_DRAWS, len(masked)))
    for row in draws if start < box_px // 2 else ():
        noise = [
            invert_3d(randomise_phases_3d(whole, from_shell=start, box_px=box_px, rng=rng), box_px=box_px)
            for whole in (whole_1, whole_2)
        ]
        row[:] = correlate_shells(transform_3d(noise[0] * mask), transform_3d(noise[1] * mask), box_px=box_px)
    randomised = draws.mean(axis=0)
    count = independent_values(mask) / symmetry_order
    fsc, error = _correct(masked, randomised, start, count)
    frequency = np.arange(len(fsc)) / (box_px * pixel_size_ang)
    evidence = shape_evidence(half_1, half_2, mask, symmetry_order=symmetry_order, up_to=_limit_shell(fsc))
    verdict = _judge(fsc, unmasked, evidence, mask)
    found = verdict in ("map", "pixel_limit")
    coarse, fine = (_resolution(frequency, fsc + sign * error, 0.143) for sign in (-1, 1))
    return MapResolution(
        frequency_per_ang=frequency,
        unmasked=unmasked,
        masked=masked,
        randomised=np.where(np.arange(len(fsc)) >= start, randomised, masked),
        fsc=fsc,
        error=error,
        randomised_from=start,
        resolution_ang=_resolution(frequency, fsc, 0.143) if found else None,
        resolution_half_ang=_resolution(frequency, fsc, 0.5) if found else None,
        range_ang=(coarse or np.inf, fine or np.inf) if found else None,
        verdict=verdict,
        evidence=evidence,
    )


def independent_values(mask: NDArray[np.float32]) -> Curve:
    """Return how many independent real values the shells of a masked map have: ``(b // 2,)``, at least 1 each.

    A mask makes neighbouring coefficients alike: those of noise correlate as the transform of the squared mask falls off, along
    the shell in two dimensions.
    """
    box_px = mask.shape[0]
    spread = transform_3d(np.asarray(mask, dtype=np.float64) ** 2)
    alike = np.abs(spread / spread[0, 0, 0].real) ** 2
    ones = sum_shells(np.ones(alike.shape), size=box_px)
    profile = sum_shells(alike, size=box_px) / ones  # (b // 2,)
    shells = np.arange(1, len(profile))
    in_plane = 1.0 + float(np.sum(2 * np.pi * shells * profile[1:]))
    return np.maximum(ones / in_plane, 1.0)


def fsc_error(correlation: Curve, independent: Curve) -> Curve:
    """Return the standard deviation of a shell correlation of one signal and two noises, for repeated noise.

    For signal power ``S`` and noise power ``N`` the correlation is ``r = S / (S + N)``; to first order in the noise its variance
    is ``(1 - r)² (1 + 2 r - r²) / n`` for ``n`` independent values.
    """
    r = np.clip(correlation, 0.0, 1.0)
    return np.asarray((1 - r) * np.sqrt((1 + 2 * r - r * r) / independent))


def shape_evidence(half_1: Map, half_2: Map, mask: NDArray[np.float32], *, symmetry_order: int, up_to: int) -> float:
    """Tell how surely the shapes in two halves agree, in standard deviations over the shells 2 to ``up_to``.

    What halves share although they have nothing in common is taken out first: the border of a mask that both were multiplied by,
    and a radial profile about the centre.
    """
    box_px = half_1.shape[0]
    inner = np.asarray(mask * inside_earlier_mask(half_1, half_2), dtype=np.float32)
    if float(np.sum(inner)) < 1.0:
        return 0.0
    rest = [_remove_profile(half, inner) * inner for half in (half_1, half_2)]
    correlation = correlate_shells(transform_3d(rest[0]), transform_3d(rest[1]), box_px=box_px)
    last = min(max(up_to, 3), len(correlation) - 1)
    ones = sum_shells(np.ones((box_px, box_px, box_px // 2 + 1)), size=box_px)[2 : last + 1]
    agreement = float(np.sum(correlation[2 : last + 1] * ones) / np.sum(ones))
    alike = box_px**3 * float(np.sum(inner**4.0)) / float(np.sum(inner**2.0)) ** 2  # coefficients of noise in one that is its own
    return agreement * float(np.sqrt(np.sum(ones) / alike / symmetry_order))


def inside_earlier_mask(half_1: Map, half_2: Map) -> NDArray[np.float32]:
    """Return a soft mask of what lies inside a mask that both halves were multiplied by before; ones where there was none.

    The difference of the halves is noise, so it tells where noise was taken out and over how many voxels it returns.
    """
    box_px = half_1.shape[0]
    difference = np.asarray(half_1, dtype=np.float64) - half_2
    noise = np.sqrt(np.maximum(ndimage.uniform_filter(difference**2, 3), 0.0))  # (b, b, b)
    sphere = distance_from_centre(box_px) <= box_px // 2 - 1
    dead = noise < _DEAD * float(np.percentile(noise[sphere], 95))
    if float(dead[sphere].mean()) < _LEAST_DEAD:
        return np.ones(half_1.shape, dtype=np.float32)
    away = ndimage.distance_transform_edt(~dead)  # (b, b, b)
    steps = np.rint(away).astype(np.int64).ravel()
    profile = np.bincount(steps, weights=noise.ravel()) / np.maximum(np.bincount(steps), 1)
    border = int(np.argmax(profile >= 0.95 * float(np.percentile(noise[away > 2], 75)))) if (away > 2).any() else 0
    return soften(away > border + 4, grow_px=0.0, edge_px=3.0)


def _remove_profile(half: Map, mask: NDArray[np.float32]) -> NDArray[np.float64]:
    """Take out the mean over each sphere about the centre, of what the mask shows of it."""
    radius = np.rint(distance_from_centre(half.shape[0])).astype(np.int64)
    weights = np.bincount(radius.ravel(), weights=mask.ravel())
    sums = np.bincount(radius.ravel(), weights=(half * mask).ravel())
    profile = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 1e-3)
    rest: NDArray[np.float64] = half - profile[radius]
    return rest


def _correct(masked: Curve, randomised: Curve, start: int, count: Curve) -> tuple[Curve, Curve]:
    """Return the corrected correlation and its error."""
    beyond = np.arange(len(masked)) >= start + 2
    less = np.where(beyond, np.clip(randomised, -0.99, 0.99), 0.0)
    corrected = (masked - less) / (1 - less)
    of_masked = fsc_error(masked, count)
    of_random = np.where(beyond, fsc_error(less, count) / np.sqrt(_N_DRAWS), 0.0)
    error = np.hypot(of_masked, of_random * (1 - np.clip(masked, -1, 1)) / (1 - less)) / (1 - less)
    return corrected, error


def _limit_shell(fsc: Curve) -> int:
    """Return the last shell before the correlation falls below 0.143."""
    below = np.flatnonzero(fsc[1:] < 0.143)
    return int(below[0]) if below.size else len(fsc) - 1


def _judge(fsc: Curve, unmasked: Curve, evidence: float, mask: NDArray[np.float32]) -> Verdict:
    """Say what the curves are worth: detail must be finer than a third of the particle, and its shape agree beyond chance."""
    if float(unmasked[1:].min()) > _SAME:
        return "not_independent"
    limit = _limit_shell(fsc)
    inside = float(np.sum(mask > 0.5))
    diameter = 2 * (3 * inside / (4 * np.pi)) ** (1 / 3)  # px, of the sphere with the volume of the mask
    if limit * diameter / mask.shape[0] < _LEAST_DETAIL or evidence < _LEAST_Z:
        return "noise"
    return "pixel_limit" if limit >= len(fsc) - 1 else "map"


def _resolution(frequency: Curve, correlation: Curve, threshold: float) -> float | None:
    at = frequency_at_threshold(frequency, correlation, threshold=threshold)
    return 1 / at if at > 0 else None


def compare_with_truth(map_: Map, truth: Map, mask: NDArray[np.float32], *, pixel_size_ang: float) -> tuple[Curve, float | None]:
    """Return the shell correlation of a map with a truth under a mask, and the resolution at 0.5."""
    box_px = map_.shape[0]
    curve = correlate_shells(transform_3d(map_ * mask), transform_3d(truth * mask), box_px=box_px)
    return curve, _resolution(np.arange(len(curve)) / (box_px * pixel_size_ang), curve, 0.5)
