"""Our local motion model in RELION's words.

RELION's motion model (version 1) moves the frame ``z`` after the first used one at ``x = column / width - 1/2`` and
``y = row / height - 1/2`` by ``sum c[p, q] p z**q`` with ``p in (1, x, x², y, y², xy)`` and ``q in (1, 2, 3)``; first the 18
coefficients along x, then the 18 along y, each with the sign of a correction (minus the displacement). Its polynomials are ours
about another origin, so the conversion is exact but for the digits that are written.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.motion.model import N_SPACE, N_TERMS, N_TIME, local_shift_px

_DIGITS = 9


def convert_local_model(coefficients: NDArray[Any], *, shape: tuple[int, int], n_frames: int) -> NDArray[np.float64]:
    """Return RELION's 36 coefficients of a local motion, rounded to 9 digits: ``(36,)``.

    Parameters
    ----------
    coefficients
        ``(2, 18)``, y then x, as `motion_model` has them.
    shape
        Height and width of the raw frames.
    n_frames
        How many frames were used.
    """
    moved = _move_origin(shape)
    table = np.asarray(coefficients, dtype=np.float64).reshape(2, N_SPACE, N_TIME)
    per_frame = table / float(max(n_frames - 1, 1)) ** np.arange(1, N_TIME + 1)  # (2, 6, 3)
    words = -np.einsum("aps,pr->ars", per_frame, moved)[::-1]  # (2, 6, 3): x first
    return np.array([float(f"{value:.{_DIGITS}g}") for value in words.ravel()]) + 0.0  # no negative zero


def local_model_from_relion(words: NDArray[Any], *, shape: tuple[int, int], n_frames: int) -> NDArray[np.float64]:
    """Return our coefficients ``(2, 18)`` of a local motion that RELION's 36 describe, the inverse of `convert_local_model`."""
    table = np.asarray(words, dtype=np.float64).reshape(2, N_SPACE, N_TIME)[::-1]  # y first
    per_frame = -np.einsum("ars,rp->aps", table, np.linalg.inv(_move_origin(shape)))
    coefficients: NDArray[np.float64] = per_frame * float(max(n_frames - 1, 1)) ** np.arange(1, N_TIME + 1)
    return coefficients.reshape(2, N_TERMS)


def _move_origin(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return each of our terms as a sum of RELION's: ``(6, 6)``."""
    b, a = 0.5 / shape[0], 0.5 / shape[1]  # our origin is the middle of the pixels, RELION's half a pixel further on
    return np.array(
        [
            [1, 0, 0, 0, 0, 0],
            [a, 1, 0, 0, 0, 0],
            [a * a, 2 * a, 1, 0, 0, 0],
            [b, 0, 0, 1, 0, 0],
            [b * b, 0, 0, 2 * b, 1, 0],
            [a * b, b, 0, a, 0, 1],
        ]
    )


def relion_shift_px(
    words: NDArray[Any], *, z: NDArray[Any] | float, y_px: NDArray[Any], x_px: NDArray[Any], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return what RELION makes of its 36 coefficients: the local shift along y and x, ``(2, ...)``.

    Parameters
    ----------
    z
        Frames after the first used one.
    """
    y, x, z = np.broadcast_arrays(np.asarray(y_px) / shape[0] - 0.5, np.asarray(x_px) / shape[1] - 0.5, np.asarray(z, float))
    space = np.stack([np.ones_like(x), x, x * x, y, y * y, x * y], axis=-1)  # (..., 6)
    time = np.stack([z, z**2, z**3], axis=-1)  # (..., 3)
    table = np.asarray(words, dtype=np.float64).reshape(2, N_SPACE, N_TIME)[::-1]
    shift: NDArray[np.float64] = np.einsum("aps,...p,...s->a...", table, space, time)
    return shift


def conversion_error_px(coefficients: NDArray[Any], words: NDArray[Any], *, shape: tuple[int, int], n_frames: int) -> float:
    """Return by how much RELION's coefficients ``words`` miss our model at worst, over the field and all frames."""
    if np.asarray(coefficients).size != 2 * N_TERMS:
        raise ValueError(f"coefficients have shape {np.shape(coefficients)}; it must be (2, {N_TERMS})")
    frame = np.arange(n_frames)[:, None, None]
    y_px, x_px = np.linspace(0, shape[0] - 1, 9)[:, None], np.linspace(0, shape[1] - 1, 9)
    ours = local_shift_px(coefficients, frame=frame, y_px=y_px, x_px=x_px, shape=shape, n_frames=n_frames)
    return float(np.abs(ours + relion_shift_px(words, z=frame, y_px=y_px, x_px=x_px, shape=shape)).max())
