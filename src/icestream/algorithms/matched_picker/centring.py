"""Picks as if their neighbours were not there: how high they are, and where the middle of their particles is."""

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from icestream.algorithms.fourier import Image
from icestream.algorithms.matched_picker.radial_template import RadialTemplate, learn_template, matched_filter, radial_profile
from icestream.algorithms.matched_picker.rings import Field, PerRing, low_pass

_ROUNDS, _BLUR, _LAST_BLUR = 3, 0.2, 0.05  # diameters
_FURTHEST = 0.3
_HEARD = 1.8


def centre_particles(field: Field, yx_px: NDArray[np.float64], *, diameter_px: float) -> NDArray[np.float64]:
    """Move peaks to the middle of their particles: ``(n, 2)``.

    The peaks are on the heaviest part of a particle that is not round, and a template learned from them drifts further there from
    round to round: what is fine in it, such as the fringes of the defocus, matches that part. So the response is blurred,
    particles are moved to its tops, and a template of what is then centred gives the next response.
    """
    for round_ in range(_ROUNDS + 1 if len(yx_px) else 0):
        template = learn_template(field, yx_px, diameter_px=1.1 * diameter_px)
        if round_ < _ROUNDS:
            transfer = template.transfer * low_pass(field.rings, sigma_px=_BLUR * diameter_px)
        else:
            transfer = matched_filter(field.rings, template, blur_px=_LAST_BLUR * diameter_px)
        yx_px = climb_apart(field, transfer, template, yx_px, diameter_px=diameter_px)
    return yx_px


def clean_heights(
    field: Field, transfer: PerRing, template: RadialTemplate, yx_px: NDArray[np.float64], height: NDArray[np.float64],
    *, diameter_px: float,
) -> NDArray[np.float64]:  # fmt: skip
    """Take what the response to one particle adds at the places of others from their heights: ``(n,)``.

    The highest comes first, then the highest of what is left, and so on (CLEAN: Högbom 1974, Astron. Astrophys. Suppl. 15, 417).

    Parameters
    ----------
    field, transfer, template
        The micrograph, the filter whose response it is, and the particle.
    yx_px, height
        ``(n, 2)`` and ``(n,)``: the peaks.
    """
    radius, heard = radial_profile(field.rings, transfer * template.transfer, radius_px=_HEARD * diameter_px)
    pairs = cKDTree(yx_px).query_pairs(_HEARD * diameter_px, output_type="ndarray")
    own, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.argsort(own, kind="stable")
    own, other = own[order], other[order]
    share = np.interp(np.hypot(*(yx_px[own] - yx_px[other]).T), radius, heard / heard[0])
    first = np.searchsorted(own, np.arange(len(height) + 1))
    cleaned = height.astype(np.float64)
    _clean(cleaned, first, other, share)
    return cleaned


@njit(cache=True)
def _clean(
    height: NDArray[np.float64], first: NDArray[np.int64], other: NDArray[np.int64], share: NDArray[np.float64]
) -> None:  # fmt: skip
    """Clean heights ``(n,)`` in place; ``other[first[i] : first[i + 1]]`` hear ``share`` of ``i``."""
    waiting = height.copy()
    for _ in range(len(height)):
        best = int(np.argmax(waiting))
        waiting[best] = -np.inf
        if height[best] <= 0:
            continue
        for at in range(first[best], first[best + 1]):
            one = other[at]
            if waiting[one] > -np.inf:
                height[one] -= height[best] * share[at]
                waiting[one] = height[one]


def climb_apart(
    field: Field, transfer: PerRing, template: RadialTemplate, yx_px: NDArray[np.float64], *, diameter_px: float
) -> NDArray[np.float64]:
    """Move each point to the top of the response nearby from which that of all other particles is taken: ``(n, 2)``.

    A point with no top within 0.3 diameters stays where it is.
    """
    reach = int(np.ceil(_FURTHEST * diameter_px)) + 1
    step = np.arange(-reach, reach + 1)
    middle = np.clip(np.round(yx_px).astype(np.int64), 0, np.array(field.shape) - 1)  # (n, 2)
    row, column = middle[:, 0, None] + step, middle[:, 1, None] + step  # (n, s)
    image: Image = np.pad(field.filter(transfer), reach, mode="edge")
    patch = image[row[:, :, None] + reach, column[:, None, :] + reach].astype(np.float64)  # (n, s, s)
    pairs = cKDTree(yx_px).query_pairs(_HEARD * diameter_px, output_type="ndarray")
    own, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    distance = np.hypot(row[own][:, :, None] - yx_px[other, 0, None, None], column[own][:, None, :] - yx_px[other, 1, None, None])
    heard = radial_profile(field.rings, transfer * template.transfer, radius_px=_HEARD * diameter_px + 2 * reach)
    np.subtract.at(patch, own, np.interp(distance, heard[0], heard[1]))
    return _find_tops(patch, middle, yx_px, reach=reach, furthest_px=_FURTHEST * diameter_px)


def _find_tops(
    patch: NDArray[np.float64], middle: NDArray[np.int64], yx_px: NDArray[np.float64], *, reach: int, furthest_px: float
) -> NDArray[np.float64]:
    """Return the highest point of each patch ``(n, s, s)`` refined by a parabola, or ``yx_px`` where it is too far away."""
    inner = patch[:, 1:-1, 1:-1]
    side = inner.shape[1]
    best = inner.reshape(len(patch), -1).argmax(axis=1)
    row, column = best // side + 1, best % side + 1
    index = np.arange(len(patch))
    offset = np.zeros((len(patch), 2))
    top = patch[index, row, column]
    for axis, (low, high) in enumerate(
        (
            (patch[index, row - 1, column], patch[index, row + 1, column]),
            (patch[index, row, column - 1], patch[index, row, column + 1]),
        )
    ):
        curvature = low - 2 * top + high
        bent = curvature < 0
        offset[bent, axis] = np.clip(0.5 * (low - high)[bent] / curvature[bent], -1.0, 1.0)
    is_top = (np.abs(offset) <= 0.5).all(axis=1)
    found = middle + np.stack([row, column], axis=1) - reach + offset
    near = is_top & (np.hypot(*(found - yx_px).T) <= furthest_px)
    return np.where(near[:, None], found, yx_px)
