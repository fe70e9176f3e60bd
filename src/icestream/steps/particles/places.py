"""Where particles are: on another micrograph of their exposure, and after the shifts that a classification found."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import ItemError
from icestream.records import Micrograph, Particles, RawArea


def places_on(micrograph: Micrograph, particles: Particles, table: NDArray[Any]) -> NDArray[np.float64]:
    """Return the places of particles ``(n, 2)``, yx, in pixels of another micrograph of the same exposure.

    Raises
    ------
    ItemError
        They come from another micrograph, and were stored before they said in which pixels their places are.
    """
    places = np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64)  # (n, 2)
    if particles.cutting is not None:
        return convert_places(places, particles.cutting.area, micrograph.raw_area)
    if particles.micrograph != micrograph.image:
        raise ItemError(
            f"these particles are of {particles.micrograph} and were stored by an earlier version, which did not say in which "
            "pixels their places are: run the extract step again"
        )
    return places


def convert_places(yx_px: NDArray[np.float64], area: RawArea, other: RawArea) -> NDArray[np.float64]:
    """Convert places ``(n, 2)`` in pixels of one image of a camera to those of another."""
    first, second = np.array([[one.top_px, one.left_px] for one in (area, other)])
    raw = first + yx_px * np.array(area.bin_yx)
    converted: NDArray[np.float64] = (raw - second) / np.array(other.bin_yx)
    return converted
