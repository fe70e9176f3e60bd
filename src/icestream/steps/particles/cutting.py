"""Cutting particles out of a micrograph, one after the other: a stack holds what a virtual stack gives when it is read."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.fourier import Image
from icestream.algorithms.particles.extract import (
    Window,
    cut_box_2d,
    filter_window_2d,
    flip_phases_2d,
    normalise_background_2d,
    plan_window,
    remove_dust_2d,
    remove_ramp_2d,
)
from icestream.errors import ItemError
from icestream.records import CTF_COLUMNS, Cutting

CTF_NAMES = tuple(column.name for column in CTF_COLUMNS)
MICROSCOPE_NAMES = ("voltage_kv", "cs_mm", "amplitude_contrast")


def cut_particles(image: Image, table: NDArray[Any], cutting: Cutting) -> NDArray[np.float32]:
    """Return the images of the particles of a table, centred on their places: ``(n, scaled, scaled)``.

    Every particle is treated by itself, so an image does not depend on which others are asked for.

    Parameters
    ----------
    image
        The micrograph ``(h, w)``.
    table
        Rows with ``y_px``, ``x_px`` and, where the images are multiplied by the CTF, that of each particle.

    Raises
    ------
    ItemError
        The images are to be multiplied by the CTF, and a particle has none; or grey values do not fit the number format.
    """
    side = cutting.scaled_box_px
    window = plan_window(cutting.box_px, scaled_px=side, margin_px=cutting.margin_px)
    places = np.stack([table["y_px"], table["x_px"]], axis=1).astype(np.float64)  # (n, 2)
    centres = np.floor(places + 0.5).astype(np.int64)
    moved = centres - places
    factors = _Factors(cutting, window)
    image = _flip_phases(image, cutting)
    images = np.empty((len(table), side, side), dtype=np.float32)
    for out, row, (y, x), (move_y, move_x) in zip(images, table, centres.tolist(), moved.tolist(), strict=True):
        box = cut_box_2d(image, (y, x), side_px=window.side_px, fill="edge" if cutting.pad else "mirror")
        if cutting.dust_level is not None:
            box = remove_dust_2d(box, level=cutting.dust_level)
        factor = factors.of(row)
        if factor is not None or move_y or move_x or window.side_px != side:
            box = filter_window_2d(box, scaled_px=window.scaled_side_px, box_px=side, moved_yx_px=(move_y, move_x), factor=factor)
        out[:] = _normalise(-box if cutting.invert else box, cutting)
    return _as_stored(images, cutting)


def _as_stored(images: NDArray[np.float32], cutting: Cutting) -> NDArray[np.float32]:
    """Return images with the precision that their stack has."""
    if cutting.stored_as == "float32" or not images.size:
        return images
    highest = float(np.abs(images).max())
    if not highest <= float(np.finfo(np.float16).max):
        raise ItemError(f"grey values up to {highest:g} do not fit float16: normalise them, or set stored_as to float32")
    return images.astype(np.float16).astype(np.float32)


def _normalise(box: Image, cutting: Cutting) -> Image:
    if cutting.normalise == "none":
        return box
    level = remove_ramp_2d(box, radius_px=cutting.background_radius_px) if cutting.normalise == "ramp" else box
    return normalise_background_2d(level, radius_px=cutting.background_radius_px)


def _flip_phases(image: Image, cutting: Cutting) -> Image:
    """Flip the phases of the whole micrograph: the signs of a CTF change more often than a window has frequencies."""
    if cutting.ctf_correction != "flip":
        return image
    return flip_phases_2d(
        image - np.float32(image.mean()),
        margin_px=cutting.box_px,
        pixel_size_ang=cutting.pixel_size_ang,
        **{name: getattr(cutting, name) for name in (*CTF_NAMES, *MICROSCOPE_NAMES)},
    )


class _Factors:
    """By what the spectrum of each window is multiplied: its own CTF; neighbours in a table often share one."""

    def __init__(self, cutting: Cutting, window: Window) -> None:
        self._cutting = cutting
        self._side_px = window.scaled_side_px
        self._pixel_ang = cutting.pixel_size_ang * window.side_px / window.scaled_side_px
        self._last: tuple[tuple[float, ...], Image] | None = None

    def of(self, row: Any) -> Image | None:
        """Return ``(side, side // 2 + 1)``, positive at low frequency; None where the spectrum stays."""
        if self._cutting.ctf_correction != "premultiply":
            return None
        ctf = tuple(float(row[name]) for name in CTF_NAMES)
        if self._last is None or self._last[0] != ctf:
            if not np.isfinite(ctf).all():
                raise ItemError(f"particle {row['pid']} has no CTF to be multiplied by: connect one, or turn premultiply off")
            microscope = {name: getattr(self._cutting, name) for name in MICROSCOPE_NAMES}
            values = dict(zip(CTF_NAMES, ctf, strict=True))
            made = ctf_2d(self._side_px, self._side_px, pixel_size_ang=self._pixel_ang, **values, **microscope)
            self._last = (ctf, -made)
        return self._last[1]
