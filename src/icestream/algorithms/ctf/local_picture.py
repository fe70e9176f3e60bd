"""A picture of local defocus: the surface beside what each window says."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.surface import DefocusSurface

_GAP_PX = 6
_LEAST_SCALE_ANG = 50.0
_UNDER, _MIDDLE, _OVER = np.array([[0.13, 0.30, 0.65], [0.96, 0.96, 0.94], [0.70, 0.13, 0.12]])
_UNKNOWN = np.array([0.55, 0.55, 0.55])


def draw_local_defocus(
    surface: DefocusSurface,
    *,
    window_yx_px: NDArray[np.float64],
    window_offset_ang: NDArray[np.float64],
    window_error_ang: NDArray[np.float64],
    side_px: int,
) -> NDArray[np.float64]:
    """Draw the surface in the left half and the windows in the right half of one picture.

    Red is more defocus than the CTF says, blue less, and full colour the largest difference of the surface (at least 50 Å).
    A window that is not sure of its defocus is the greyer the larger its error.

    Parameters
    ----------
    surface
        What is added to the defocus.
    window_yx_px
        ``(n, 2)``: middles of the windows.
    window_offset_ang, window_error_ang
        ``(n,)``: what each window alone would add, and its standard error.
    side_px
        Longer side of either half.

    Returns
    -------
    picture
        ``(h, w, 3)``, 0 to 1; row 0 is that of the micrograph.
    """
    step = max(surface.shape) / side_px
    y, x = (np.arange(max(int(side / step), 1)) * step for side in surface.shape)
    points = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)  # (h * w, 2)
    offset = surface.offset_ang(points)
    scale = max(float(np.abs(offset).max()), _LEAST_SCALE_ANG)
    nearest = np.argmin(((points[:, None] - window_yx_px) ** 2).sum(axis=-1), axis=1)  # (h * w,)
    sure = 1.0 / (1.0 + (window_error_ang / scale) ** 2)  # (n,)
    coloured = _colour(window_offset_ang / scale)  # (n, 3)
    windows = (coloured * sure[:, None] + _UNKNOWN * (1.0 - sure[:, None]))[nearest]
    shape = (y.size, x.size, 3)
    gap = np.ones((y.size, _GAP_PX, 3))
    return np.concatenate([_colour(offset / scale).reshape(shape), gap, windows.reshape(shape)], axis=1)


def _colour(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return colours of values from -1 to 1: ``(n, 3)``."""
    share = np.clip(value, -1.0, 1.0)[:, None]
    colour: NDArray[np.float64] = np.where(share < 0, _MIDDLE + share * (_MIDDLE - _UNDER), _MIDDLE + share * (_OVER - _MIDDLE))
    return colour
