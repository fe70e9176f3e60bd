"""Moving poses off the grid: steps of Gauss and Newton in the direction of view, the turn and the shift.

What is climbed is the score of the kernel: the same samples, weights and noise, the same mean of CTF² over each ring, with the
view taken from the volume where the pose is. With ``A`` the view and ``dA`` its derivatives the slope is ``2 Re (C X - C² A) conj
dA`` and the curvature ``2 C² Re dA conj dA``; steps are damped after Levenberg and Marquardt, and only what gains is kept.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from icestream.algorithms.scoring import Polar, PolarGrid, Real
from icestream.algorithms.volumes import FourierVolume, Rotations

_MARGIN = 2
_LARGEST_TURN_RAD = 0.2


@dataclass(frozen=True)
class Slope:
    """A volume ready to be climbed: its transform up to a ring, framed so that no index wraps.

    ``coefficients`` ``(2 l + 1, 2 l + 1, l + 2)``: z and y from ``-l``, x from -1; ``scale`` are samples in a cycle per box.
    """

    coefficients: NDArray[np.complex64]
    scale: float
    ring: int


@dataclass(frozen=True)
class Climbed:
    """Where poses have come to: ``rotations`` ``(p, 3, 3)``, ``shift_yx_px`` ``(p, 2)`` and the score ``(p,)`` of the kernel."""

    rotations: Rotations
    shift_yx_px: NDArray[np.float64]
    score: NDArray[np.float64]


def frame_volume(volume: FourierVolume, *, ring: int) -> Slope:
    """Cut the transform of a volume to what views up to a ring, in cycles per box, need."""
    m = volume.coefficients.shape[0]
    scale = m / volume.size
    reach = min(int(np.ceil(scale * ring)) + _MARGIN, m // 2)
    along = np.arange(-reach, reach + 1)
    right = volume.coefficients[np.ix_(along % m, along % m, np.arange(reach + 1))]
    left = np.conj(volume.coefficients[np.ix_(-along % m, -along % m, np.array([1]))])
    return Slope(np.ascontiguousarray(np.concatenate([left, right], axis=2)), scale, ring)


def climb_poses(
    samples: Polar,
    ctf_squared: Real,
    slope: Slope,
    *,
    image: NDArray[np.int64],
    rotations: Rotations,
    shift_yx_px: NDArray[np.float64],
    grid: PolarGrid,
    ring: int,
    weight: Real,
    shift_sigma_px: float,
    steps: int,
) -> Climbed:
    """Climb from poses, of which an image may have several.

    Parameters
    ----------
    samples
        ``(n, n_rings, half)``, the CTF times each image on ``grid``.
    ctf_squared
        ``(n, n_rings)``.
    slope
        The volume, at least up to ``ring``.
    image, rotations, shift_yx_px
        ``(p,)``, ``(p, 3, 3)``, ``(p, 2)``: where to begin.
    ring
        The last ring that is looked at.
    weight
        ``(n_rings,)`` of a sample, as of `sample_weights`.
    shift_sigma_px
        Spread of the shifts that are expected.
    steps
        At most; 0 only scores.
    """
    pose = np.concatenate([rotations.reshape(-1, 9), shift_yx_px], axis=1).astype(np.float64)  # (p, 11)
    score = np.empty(len(pose))
    angles = grid.angles_rad()
    _climb(
        (samples, ctf_squared, weight.astype(np.float32)),
        (slope.coefficients, np.float32(slope.scale), grid.box_px, 1 / shift_sigma_px**2),
        (np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32), ring_strides(grid)),
        np.ascontiguousarray(image),
        (min(ring, slope.ring), steps),
        (pose, score),
    )
    return Climbed(pose[:, :9].reshape(-1, 3, 3), pose[:, 9:], score)


def explained_power(
    samples: Polar,
    ctf_squared: Real,
    slope: Slope,
    *,
    image: NDArray[np.int64],
    rotations: Rotations,
    shift_yx_px: NDArray[np.float64],
    grid: PolarGrid,
) -> NDArray[np.float64]:
    """Return the power of each ring that the views explain, the mean of ``2 Re C X conj A - C² |A|²``: ``(p, n_rings)``."""
    out = np.zeros((len(image), grid.n_rings))
    pose = np.concatenate([rotations.reshape(-1, 9), shift_yx_px], axis=1).astype(np.float64)
    angles = grid.angles_rad()
    _explain(
        (samples, ctf_squared),
        (slope.coefficients, np.float32(slope.scale), grid.box_px),
        (np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32), ring_strides(grid)),
        np.ascontiguousarray(image),
        min(slope.ring, grid.n_rings),
        (pose, out),
    )
    return out


def sample_weights(grid: PolarGrid, *, noise_power: Real, overlap: float) -> Real:
    """Return what each sample of a ring counts in the score: ``(n_rings,)``, as in `scoring.bank`."""
    weight: Real = (2 * np.pi * grid.radii() * overlap / grid.n_angles / noise_power[: grid.n_rings]).astype(np.float32)
    return weight


def ring_strides(grid: PolarGrid) -> NDArray[np.int64]:
    """Return for each ring, which of its samples are enough: every first, second or fourth."""
    radii = np.arange(1, grid.n_rings + 1)
    stride = np.where(4 * radii <= grid.n_rings, 4, np.where(2 * radii <= grid.n_rings, 2, 1))
    stride[grid.half % stride != 0] = 1
    return stride.astype(np.int64)


@njit(cache=True, fastmath=True)
def _spline(fraction: np.float32, value: Real, slope: Real) -> None:
    """Fill the four weights of the cubic B-spline and of its derivative, arrays of the caller."""
    f, r = fraction, np.float32(1.0) - fraction
    sixth = np.float32(1 / 6)
    value[0], value[3] = r * r * r * sixth, f * f * f * sixth
    value[1] = (4 - 6 * f * f + 3 * f * f * f) * sixth
    value[2] = (4 - 6 * r * r + 3 * r * r * r) * sixth
    slope[0], slope[3] = np.float32(-0.5) * r * r, np.float32(0.5) * f * f
    slope[1] = np.float32(1.5) * f * f - 2 * f
    slope[2] = 2 * r - np.float32(1.5) * r * r


@njit(cache=True, fastmath=True)
def _look(
    coefficients: NDArray[np.complex64],
    where: tuple[np.float32, np.float32, np.float32],
    weights: Real,
    slopes: Real,
) -> tuple[np.complex64, np.complex64, np.complex64, np.complex64]:
    """Return the transform, and its derivatives along x, y and z, at a place in samples."""
    x, y, z = where
    mirrored = x < 0
    if mirrored:
        x, y, z = -x, -y, -z
    left, top, front = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    _spline(np.float32(x - left), weights[0], slopes[0])
    _spline(np.float32(y - top), weights[1], slopes[1])
    _spline(np.float32(z - front), weights[2], slopes[2])
    reach = coefficients.shape[0] // 2
    value, along_x = np.complex64(0), np.complex64(0)
    along_y, along_z = np.complex64(0), np.complex64(0)
    for c in range(4):
        plane, plane_x, plane_y = np.complex64(0), np.complex64(0), np.complex64(0)
        for b in range(4):
            line, line_x = np.complex64(0), np.complex64(0)
            for a in range(4):
                own = coefficients[front + c - 1 + reach, top + b - 1 + reach, left + a]
                line += weights[0, a] * own
                line_x += slopes[0, a] * own
            plane += weights[1, b] * line
            plane_x += weights[1, b] * line_x
            plane_y += slopes[1, b] * line
        value += weights[2, c] * plane
        along_x += weights[2, c] * plane_x
        along_y += weights[2, c] * plane_y
        along_z += slopes[2, c] * plane
    if mirrored:
        return np.conj(value), -np.conj(along_x), -np.conj(along_y), -np.conj(along_z)
    return value, along_x, along_y, along_z


@njit(cache=True)
def _add_prior(pose: NDArray[np.float64], precision: float, slope: NDArray[np.float64], curvature: NDArray[np.float64]) -> float:
    """Add the prior of the shift to slope and curvature, arrays of the caller, complete these, and return its logarithm."""
    total = 0.0
    for a in range(2):
        total -= 0.5 * precision * pose[9 + a] ** 2
        slope[3 + a] -= precision * pose[9 + a]
        curvature[3 + a, 3 + a] += precision
    for a in range(5):
        for b in range(a):
            curvature[a, b] = curvature[b, a]
    return total


@njit(cache=True, fastmath=True)
def _score(
    data: tuple[Polar, Real, Real],
    volume: tuple[NDArray[np.complex64], np.float32, int, float],
    circle: tuple[Real, Real, NDArray[np.int64]],
    image: int,
    ring: int,
    state: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
) -> float:
    """Return the score of a pose ``(11,)``, and fill its slope ``(5,)`` and curvature ``(5, 5)``, arrays of the caller."""
    samples, ctf_squared, weight = data
    coefficients, scale, box, precision = volume
    cosine, sine, stride = circle
    pose, slope, curvature = state
    r = pose[:9].reshape(3, 3).astype(np.float32)
    slope[:], curvature[:] = 0, 0
    weights, slopes = np.empty((3, 4), np.float32), np.empty((3, 4), np.float32)
    derivative = np.empty(5, np.complex64)
    wave = np.float32(2 * np.pi / box)
    total = 0.0
    for i in range(ring):
        own = weight[i] * stride[i]
        squared = ctf_squared[image, i]
        of_ring = np.float32(0)
        for j in range(0, cosine.size, stride[i]):
            kx, ky = (i + 1) * cosine[j], (i + 1) * sine[j]
            x = scale * (r[0, 0] * kx + r[1, 0] * ky)
            y = scale * (r[0, 1] * kx + r[1, 1] * ky)
            z = scale * (r[0, 2] * kx + r[1, 2] * ky)
            value, dx, dy, dz = _look(coefficients, (x, y, z), weights, slopes)
            phase = -wave * np.float32(pose[10] * kx + pose[9] * ky)
            ramp = np.complex64(complex(np.cos(phase), np.sin(phase)))
            seen = value * ramp
            gx = scale * (r[0, 0] * dx + r[0, 1] * dy + r[0, 2] * dz)
            gy = scale * (r[1, 0] * dx + r[1, 1] * dy + r[1, 2] * dz)
            gz = scale * (r[2, 0] * dx + r[2, 1] * dy + r[2, 2] * dz)
            derivative[0], derivative[1] = -ky * gz * ramp, kx * gz * ramp
            derivative[2] = (ky * gx - kx * gy) * ramp
            turned = np.complex64(complex(seen.imag, -seen.real)) * wave
            derivative[3], derivative[4] = ky * turned, kx * turned
            y_own = samples[image, i, j]
            of_ring += 2 * (y_own.real * seen.real + y_own.imag * seen.imag) - squared * (seen.real**2 + seen.imag**2)
            left = y_own - squared * seen
            for a in range(5):
                slope[a] += own * 2 * (left.real * derivative[a].real + left.imag * derivative[a].imag)
                for b in range(a, 5):
                    both = derivative[a].real * derivative[b].real + derivative[a].imag * derivative[b].imag
                    curvature[a, b] += own * 2 * squared * both
        total += own * of_ring
    return total + _add_prior(pose, precision, slope, curvature)


@njit(cache=True)
def _moved(pose: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a pose after a small rotation ``step[:3]`` of the view, and a shift."""
    angle = np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
    out = pose.copy()
    if angle > 1e-12:
        x, y, z = step[0] / angle, step[1] / angle, step[2] / angle
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
        out[:9] = (turn @ pose[:9].reshape(3, 3)).ravel()
    out[9:] += step[3:]
    return out


@njit(cache=True)
def _climb(
    data: tuple[Polar, Real, Real],
    volume: tuple[NDArray[np.complex64], np.float32, int, float],
    circle: tuple[Real, Real, NDArray[np.int64]],
    image: NDArray[np.int64],
    limits: tuple[int, int],
    found: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """Move the poses of ``found``, and write their scores, arrays of the caller."""
    ring, steps = limits
    poses, scores = found
    slope, curvature = np.empty(5), np.empty((5, 5))
    next_slope, next_curvature = np.empty(5), np.empty((5, 5))
    for p in range(image.size):
        pose = poses[p].copy()
        best = _score(data, volume, circle, image[p], ring, (pose, slope, curvature))
        damping = 0.01
        for _ in range(steps):
            damped = curvature.copy()
            for a in range(5):
                damped[a, a] += damping * curvature[a, a] + 1e-9
            step = np.linalg.solve(damped, slope).astype(np.float64)
            size = np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
            step *= min(1.0, _LARGEST_TURN_RAD / max(size, 1e-12), 2.0 / max(np.abs(step[3:]).max(), 1e-12))
            trial = _moved(pose, step)
            score = _score(data, volume, circle, image[p], ring, (trial, next_slope, next_curvature))
            if score > best:
                gained = score - best
                pose, best, damping = trial, score, damping / 4
                slope[:], curvature[:] = next_slope, next_curvature
                if gained < 0.02:
                    break
            else:
                damping = max(damping * 10, 0.1)
                if damping > 100:
                    break
        poses[p], scores[p] = pose, best


@njit(cache=True, fastmath=True)
def _explain(
    data: tuple[Polar, Real],
    volume: tuple[NDArray[np.complex64], np.float32, int],
    circle: tuple[Real, Real, NDArray[np.int64]],
    image: NDArray[np.int64],
    ring: int,
    found: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """Fill what each pose explains of each ring, an array of the caller."""
    samples, ctf_squared = data
    coefficients, scale, box = volume
    cosine, sine, stride = circle
    poses, out = found
    weights, slopes = np.empty((3, 4), np.float32), np.empty((3, 4), np.float32)
    wave = np.float32(2 * np.pi / box)
    for p in range(image.size):
        r = poses[p, :9].copy().reshape(3, 3).astype(np.float32)
        for i in range(ring):
            total = np.float32(0)
            for j in range(0, cosine.size, stride[i]):
                kx, ky = (i + 1) * cosine[j], (i + 1) * sine[j]
                x = scale * (r[0, 0] * kx + r[1, 0] * ky)
                y = scale * (r[0, 1] * kx + r[1, 1] * ky)
                z = scale * (r[0, 2] * kx + r[1, 2] * ky)
                value = _look(coefficients, (x, y, z), weights, slopes)[0]
                phase = -wave * np.float32(poses[p, 10] * kx + poses[p, 9] * ky)
                seen = value * np.complex64(complex(np.cos(phase), np.sin(phase)))
                own = samples[image[p], i, j]
                squared = seen.real**2 + seen.imag**2
                total += 2 * (own.real * seen.real + own.imag * seen.imag) - ctf_squared[image[p], i] * squared
            out[p, i] = total * stride[i] / cosine.size
