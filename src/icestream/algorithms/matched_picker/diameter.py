"""How large the particles are, when nobody has said so: from several micrographs, each searched over a wide range."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.fourier import Image
from icestream.algorithms.matched_picker.search import (
    LARGEST_SIZE,
    LEAST_SIZE,
    decoy_cost,
    find_size,
    is_more_than_noise,
    is_one_sided,
    refine_search,
    search_inverted,
    search_scrambled,
    sizes_between,
)
from icestream.algorithms.matched_picker.view import is_smeared, view_micrograph_2d

_OCTAVE = 1.7
_ALIKE = 0.2
"""Diameters are of one kind within this difference of their logarithms."""


@dataclass(frozen=True)
class FoundDiameter:
    """Diameter of the particles of one micrograph in its pixels, and how much better they explain it than decoys do, in nats."""

    diameter_px: float
    gain: float


@dataclass(frozen=True)
class PooledDiameter:
    """The diameter that most micrographs agree on, its standard error, and how many of them agree."""

    diameter: float
    error: float
    n_alike: int


def find_diameter_2d(image: Image, *, smallest_px: float, largest_px: float) -> FoundDiameter | None:
    """Find the diameter of the particles on a micrograph; None where nothing on it is clearly more than noise.

    Each part of the range, a factor of 1.7 wide, is searched on a micrograph reduced to its own pixels. The part whose particles
    explain the micrograph best is taken; all are compared by the same Fourier coefficients, since what is finer than their pixels
    tells nothing of them.

    Parameters
    ----------
    image
        ``(h, w)``, protein bright.
    smallest_px, largest_px
        The range of diameters.
    """
    n_parts = max(int(np.ceil(float(np.log(largest_px / smallest_px)) / float(np.log(_OCTAVE)))), 1)
    middles: NDArray[np.float64] = smallest_px * (largest_px / smallest_px) ** ((np.arange(n_parts) + 0.5) / n_parts)
    found: list[FoundDiameter] = []
    for middle_px in middles:
        view = view_micrograph_2d(image, diameter_px=float(middle_px))
        within_px = (LEAST_SIZE * view.diameter_px, LARGEST_SIZE * view.diameter_px)
        search = find_size(view.clear, tuple(sizes_between(*within_px)), within_px=within_px)
        if search is None or is_smeared(view.clear, diameter_px=view.diameter_px):
            continue
        refined = refine_search(view.clear, search)
        decoys = search_inverted(view.clear, refined), search_scrambled(view.clear, refined)
        if is_more_than_noise(refined, *decoys) and is_one_sided(view.clear, refined):
            found.append(FoundDiameter(search.diameter_px * view.scale, decoy_cost(*decoys) - refined.cost))
    return max(found, key=_gain_of, default=None)


def _gain_of(found: FoundDiameter) -> float:
    return found.gain


def pool_diameters(diameter: NDArray[np.float64], gain: NDArray[np.float64]) -> PooledDiameter:
    """Return the diameter about which the largest share of the gain is, from one or more micrographs.

    Parameters
    ----------
    diameter, gain
        ``(n,)`` each, in any unit of length.
    """
    logarithm, weight = np.log(diameter), np.sqrt(gain)
    alike = np.abs(logarithm[:, None] - logarithm[None, :]) <= _ALIKE  # (n, n)
    chosen = alike[int(np.argmax(alike @ weight))]
    middle = float(np.median(logarithm[chosen]))
    spread = float(np.std(logarithm[chosen])) / float(np.sqrt(max(int(np.count_nonzero(chosen)) - 1, 1)))
    return PooledDiameter(float(np.exp(middle)), float(np.exp(middle) * spread), int(np.count_nonzero(chosen)))
