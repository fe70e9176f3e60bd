"""The local motion model: a smooth displacement over the image and over time.

The displacement of the specimen in frame ``i`` at pixel ``(y, x)`` of frame 0, in pixels and along either axis, is::

    d(i, y, x) = global_yx_px[i] + sum over p, q of c[p, q] * p * t**q

    p in (1, u, u*u, v, v*v, u*v)    u = (x - (width - 1) / 2) / width     v = (y - (height - 1) / 2) / height
    q in (1, 2, 3)                   t = i / (n_frames - 1)

so it is zero in frame 0. A sum may count the local part from elsewhere: from the time terms ``since``, a mean over frames, in
place of those of frame 0. ``c`` is stored as ``(2, 18)``: first the axis (y, then x); term ``p`` and power ``q`` are at index
``3 * index_of_p + (q - 1)``; every coefficient is in pixels. Terms that the data do not support are zero. The form is that of
Zheng et al. (2017), Nat. Methods 14, 331.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.motion.warp import block_centres

N_SPACE = 6
N_TIME = 3
N_TERMS = N_SPACE * N_TIME


def space_terms(y_px: NDArray[Any], x_px: NDArray[Any], *, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return ``1, u, u², v, v², uv`` at pixels ``(y_px, x_px)``, which broadcast: ``(..., 6)``."""
    v, u = np.broadcast_arrays(
        (np.asarray(y_px, dtype=np.float64) - (shape[0] - 1) / 2) / shape[0],
        (np.asarray(x_px, dtype=np.float64) - (shape[1] - 1) / 2) / shape[1],
    )
    return np.stack([np.ones_like(u), u, u * u, v, v * v, u * v], axis=-1)


def time_terms(frame: NDArray[Any] | float, *, n_frames: int) -> NDArray[np.float64]:
    """Return ``t, t², t³`` at (fractional) frame numbers: ``(..., 3)``."""
    t = np.asarray(frame, dtype=np.float64) / max(n_frames - 1, 1)
    return np.stack([t, t**2, t**3], axis=-1)


def mean_time_terms(weights: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean of ``t, t², t³`` over frames, weighted by ``(n_frames,)``: ``(3,)``."""
    terms: NDArray[np.float64] = np.average(time_terms(np.arange(len(weights)), n_frames=len(weights)), axis=0, weights=weights)
    return terms


def local_shift_px(
    coefficients: NDArray[Any],
    *,
    frame: NDArray[Any] | float,
    y_px: NDArray[Any],
    x_px: NDArray[Any],
    shape: tuple[int, int],
    n_frames: int,
    since: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """Return the local part of the displacement, ``(2, ...)`` (y, then x) for ``frame``, ``y_px`` and ``x_px`` that broadcast.

    Parameters
    ----------
    coefficients
        ``(2, 18)``, as in the head of this module.
    shape
        Height and width of the raw frames.
    since
        ``(3,)``: time terms at which the displacement is zero; those of frame 0 if unset.
    """
    space = space_terms(y_px, x_px, shape=shape)  # (..., 6)
    time = time_terms(frame, n_frames=n_frames) - (0.0 if since is None else np.asarray(since))  # (..., 3)
    table = np.asarray(coefficients, dtype=np.float64).reshape(2, N_SPACE, N_TIME)
    by_time = np.tensordot(time, table, axes=(-1, 2))  # (..., 2, 6)
    shift: NDArray[np.float64] = np.einsum("...ap,...p->a...", by_time, space)
    return shift


def shift_field_px(
    coefficients: NDArray[Any] | None,
    *,
    global_yx_px: NDArray[Any],
    frame: float,
    n_frames: int,
    shape: tuple[int, int],
    since: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """Return the whole displacement of one frame at every block of the warp: ``(2, blocks_y, blocks_x)``.

    Parameters
    ----------
    global_yx_px
        ``(2,)``: the global shift of this frame.
    since
        As for `local_shift_px`.
    """
    y_px, x_px = block_centres(shape[0]), block_centres(shape[1])  # (by,), (bx,)
    field = np.broadcast_to(np.asarray(global_yx_px, dtype=np.float64)[:, None, None], (2, len(y_px), len(x_px))).copy()
    if coefficients is not None:
        field[1] += local_shift_px(
            coefficients, frame=frame, y_px=y_px[:, None], x_px=x_px[None, :], shape=shape, n_frames=n_frames, since=since
        )[1]
        # the columns are interpolated after the rows, from pixels that lie a global shift away: see warp
        x_moved = x_px[None, :] - float(global_yx_px[1])
        field[0] = (
            float(global_yx_px[0])
            + local_shift_px(
                coefficients, frame=frame, y_px=y_px[:, None], x_px=x_moved, shape=shape, n_frames=n_frames, since=since
            )[0]
        )
    return field.astype(np.float32)
