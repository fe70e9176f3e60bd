"""How the specimen moves during one exposure, and images that follow it.

Displacement ``D(t, p)`` says: content that was at ``p`` in frame 0 is at ``p + D(t, p)`` in frame ``t``. It is the sum of a
global trajectory and a local polynomial of the kind of MotionCor2 (Zheng et al. 2017, Nat. Methods 14, 331): for each axis three
powers of time times five terms of position,

    ``(tau, tau², tau³) x (u, v, u² - 1/12, u v, v² - 1/12)``

with ``tau = t / (n_frames - 1)``, ``u = (x - (w - 1) / 2) / w`` and ``v = (y - (h - 1) / 2) / h``. Every term has mean zero over
the field, so the global trajectory is the mean motion.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from icestream.algorithms.fourier import frequency_grid_2d

N_TIME_TERMS = 3
N_SPACE_TERMS = 5


def make_drift(n_frames: int, *, length_px: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw a global trajectory that is fast at first, slows down and curves: ``(n_frames, 2)``, yx, frame 0 at zero."""
    trajectory = np.zeros((n_frames, 2))
    if n_frames == 1 or length_px == 0:
        return trajectory
    time = np.arange(n_frames - 1) / max(n_frames - 1, 1)
    speed = np.exp(-time / generator.uniform(0.12, 0.3)) + generator.uniform(0.1, 0.25)
    direction = generator.uniform(0, 2 * np.pi) + np.cumsum(generator.normal(0, 0.8 / np.sqrt(n_frames), n_frames - 1))
    steps = speed[:, None] * np.stack([np.sin(direction), np.cos(direction)], axis=1)  # (n_frames - 1, 2)
    steps += generator.normal(0, 0.04, steps.shape)
    trajectory[1:] = np.cumsum(steps, axis=0) * (length_px / np.linalg.norm(steps, axis=1).sum())
    return trajectory


def make_local_motion(*, rms_px: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw a dome-like local motion: coefficients ``(2, 3, 5)`` (axis yx, time, space), rms over the field at the last frame."""
    # 1 - (1 - tau)³: fast at first, at rest at the end.
    ease = np.array([3.0, -3.0, 1.0])
    space = generator.normal(0, 1, (2, N_SPACE_TERMS)) * np.array([1.0, 1.0, 1.2, 0.8, 1.2])
    coefficients = ease[None, :, None] * space[:, None, :]  # (2, 3, 5)
    coefficients += generator.normal(0, 0.15, coefficients.shape)
    grid = np.linspace(-0.5, 0.5, 33)
    v, u = np.meshgrid(grid, grid, indexing="ij")
    end = np.einsum("ats,syx->ayx", coefficients, space_terms(u, v))  # (2, 33, 33)
    scaled: NDArray[np.float64] = coefficients * (rms_px / np.sqrt((end**2).sum(0).mean()))
    return scaled


def space_terms(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the five terms of position, ``(5, ...)``, of ``u`` (along x) and ``v`` (along y) in -0.5 … 0.5."""
    return np.stack([u, v, u * u - 1 / 12, u * v, v * v - 1 / 12])


def local_at_frame(coefficients: NDArray[np.float64], frame: float, *, n_frames: int) -> NDArray[np.float64]:
    """Return the space coefficients of the local motion at one frame: ``(2, 5)``."""
    tau = frame / max(n_frames - 1, 1)
    powers = np.array([tau, tau**2, tau**3])
    at_frame: NDArray[np.float64] = np.einsum("t,ats->as", powers, coefficients)
    return at_frame


def displacement_at(
    frame: float,
    y_px: NDArray[np.float64],
    x_px: NDArray[np.float64],
    *,
    global_yx_px: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Return the displacement since frame 0 of specimen that was at ``(y, x)``: ``(..., 2)``, yx.

    Between frames the global trajectory is interpolated linearly.
    """
    n_frames = len(global_yx_px)
    u = (np.asarray(x_px, np.float64) - (shape[1] - 1) / 2) / shape[1]
    v = (np.asarray(y_px, np.float64) - (shape[0] - 1) / 2) / shape[0]
    local = np.einsum("as,s...->...a", local_at_frame(coefficients, frame, n_frames=n_frames), space_terms(u, v))
    frames = np.arange(n_frames)
    drift = np.array([np.interp(frame, frames, global_yx_px[:, axis]) for axis in range(2)])
    moved: NDArray[np.float64] = local + drift
    return moved


def spline_prefilter_2d(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the factors along y and x that turn an ``rfft2`` into that of its cubic B-spline coefficients.

    Unser, Aldroubi & Eden (1993), IEEE Trans. Signal Process. 41, 821: the inverse of ``(2 + cos(2 pi k)) / 3``. On a periodic
    image this is exact, so interpolation passes through the pixels.
    """
    ky, kx = frequency_grid_2d(height, width)
    along_y: NDArray[np.float32] = (3.0 / (2.0 + np.cos(2 * np.pi * ky))).astype(np.float32)  # (h, 1)
    along_x: NDArray[np.float32] = (3.0 / (2.0 + np.cos(2 * np.pi * kx))).astype(np.float32)  # (1, w // 2 + 1)
    return along_y, along_x


@njit(cache=True, fastmath=True)
def _local(space: NDArray[np.float64], u: float, v: float) -> tuple[float, float]:
    uu, uv, vv = u * u - 1.0 / 12.0, u * v, v * v - 1.0 / 12.0
    dy = space[0, 0] * u + space[0, 1] * v + space[0, 2] * uu + space[0, 3] * uv + space[0, 4] * vv
    dx = space[1, 0] * u + space[1, 1] * v + space[1, 2] * uu + space[1, 3] * uv + space[1, 4] * vv
    return dy, dx


@njit(cache=True, fastmath=True)
def _weights(f: float) -> tuple[float, float, float, float]:
    r = 1.0 - f
    return (
        r * r * r / 6.0,
        (4.0 - 6.0 * f * f + 3.0 * f * f * f) / 6.0,
        (4.0 - 6.0 * r * r + 3.0 * r * r * r) / 6.0,
        f * f * f / 6.0,
    )


@njit(cache=True, fastmath=True)
def _warp(
    splines: NDArray[np.float32],
    space: NDArray[np.float64],
    drift: tuple[float, float],
    origin: tuple[int, int],
    shape: tuple[int, int],
    out: NDArray[np.float32],
) -> None:
    height, width = shape
    rows, columns = splines.shape
    for row in range(rows):
        for column in range(columns):
            # Where was this pixel's specimen in frame 0?  p = q - g - L(p), solved by iteration.
            u = (column - origin[1] - drift[1] - 0.5 * (width - 1)) / width
            v = (row - origin[0] - drift[0] - 0.5 * (height - 1)) / height
            dy, dx = _local(space, u, v)
            for _ in range(3):
                dy, dx = _local(space, u - dx / width, v - dy / height)
            y, x = row - dy, column - dx
            iy, ix = int(np.floor(y)), int(np.floor(x))
            a0, a1, a2, a3 = _weights(x - ix)
            b = _weights(y - iy)
            inside = 1 <= ix < columns - 2
            value = np.float32(0.0)
            for j in range(4):
                line = splines[(iy + j - 1) % rows]
                if inside:
                    along = a0 * line[ix - 1] + a1 * line[ix] + a2 * line[ix + 1] + a3 * line[ix + 2]
                else:  # the canvas is periodic, as for the lens
                    along = a0 * line[(ix - 1) % columns] + a1 * line[ix % columns]
                    along += a2 * line[(ix + 1) % columns] + a3 * line[(ix + 2) % columns]
                value += np.float32(b[j] * along)
            out[row, column] = value


def warp_splines_2d(
    splines: NDArray[np.float32],
    space_coefficients: NDArray[np.float64],
    *,
    drift_yx_px: tuple[float, float],
    origin_yx: tuple[int, int],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Move an image by the local motion of one frame.

    Parameters
    ----------
    splines
        ``(H, W)`` cubic B-spline coefficients of the specimen, already moved by the global drift.
    space_coefficients
        ``(2, 5)`` of `local_at_frame`.
    drift_yx_px
        The global drift that is in ``splines`` already.
    origin_yx
        Where the detector's pixel (0, 0) lies on the larger specimen.
    shape
        Of the detector, whose field the motion is a function of.

    Returns
    -------
    moved
        ``(H, W)``; beyond the borders the image goes on at the opposite side.
    """
    out = np.empty_like(splines)
    _warp(splines, space_coefficients, (float(drift_yx_px[0]), float(drift_yx_px[1])), origin_yx, shape, out)
    return out
