"""How much of the beam the ice lets through: the intensity of micrographs, and the brightest that a session shows.

Behind an aperture, and an energy filter if there is one, ice of thickness ``t`` lets ``I / I0 = exp(-t / mean free path)`` of the
electrons through (Beer–Lambert; Rice et al. 2018, J. Struct. Biol. 204, 38). The mean free path depends on voltage, aperture and
filter and is not known here, so what is measured is ``-ln(I / I0)``, the thickness in mean free paths.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPANIONS = 2
"""How many other exposures must be about as bright as the brightest: a single one may have had another beam."""

_EMPTY_DEPTH = 0.03


def mean_intensity_2d(image: NDArray[Any], *, labels: NDArray[np.uint8] | None = None, box_px: int = 1) -> tuple[float, float]:
    """Return the mean of what is clean of an image, and the clean share of it.

    Parameters
    ----------
    image
        ``(h, w)``, in counts.
    labels
        ``(h', w')``: not zero where something covers the ice; unset: all of the image is clean.
    box_px
        Pixels of the image along one side of a label.

    Raises
    ------
    ValueError
        Nothing is clean, or the mean is not above zero: these are no counts.
    """
    clean: NDArray[np.bool_] = np.ones(image.shape, bool)
    if labels is not None:
        rows, columns = (np.minimum(np.arange(side) // box_px, n - 1) for side, n in zip(image.shape, labels.shape, strict=True))
        clean = (labels == 0)[rows][:, columns]  # (h, w)
    if not clean.any():
        raise ValueError("no part of it is clean: carbon, crystals, dirt or aggregates cover all of it")
    mean = float(image.mean(dtype=np.float64, where=clean))
    if not mean > 0:
        raise ValueError(f"its mean is {mean:.4g}, and counts have one above 0: were its grey values normalised?")
    return mean, float(clean.mean())


def brightest_plausible(intensities: Sequence[float], *, tolerance: float) -> float | None:
    """Return the brightest intensity that others confirm: two more are at most ``tolerance`` (a fraction) darker.

    None where no three exposures are so alike.
    """
    ordered = sorted(intensities, reverse=True)
    for bright, companion in zip(ordered, ordered[COMPANIONS:], strict=False):
        if companion >= (1 - tolerance) * bright:
            return bright
    return None


def vacuum_of_empty(empty: Sequence[float], *, brightest: float | None) -> float | None:
    """Return the median of empty holes that are as bright as a vacuum must be; None where there are none.

    A hole that is darker than the brightest exposure with ice is none: its beam was weak or blocked.
    """
    bright = [one for one in empty if brightest is None or one >= (1 - _EMPTY_DEPTH) * brightest]
    return float(np.median(bright)) if bright else None


def mean_free_paths(intensity: float, *, vacuum: float) -> float:
    """Return ``-ln(I / I0)``, the thickness in mean free paths; below zero where the beam was brighter than the reference."""
    return float(-np.log(intensity / vacuum))
