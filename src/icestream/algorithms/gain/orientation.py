"""Which way round a gain reference belongs, and whether it multiplies or divides, told from the frames themselves.

Counts of a pixel follow its response, which is 1 / gain for a reference that multiplies and the gain itself for one that divides.
So the fine structure of the sum of all frames (each pixel against its four neighbours, relative to the mean) is
regressed on that of the logarithm of the gain in all orientations: the slope is -1 where the gain multiplies, +1 where it
divides, and 0 where it does not belong. Counting noise makes slopes uncertain by what is left over / (gain · √pixels).
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.gain.correction import Operation
from icestream.errors import ItemError

Orientation = Literal["as stored", "rot90", "rot180", "rot270", "flip", "flip rot90", "flip rot180", "flip rot270"]
"""Upside down if ``flip``, then quarter turns, counter-clockwise where row 0 is drawn at the top."""
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)

_SAMPLES = 500_000
_SIGMA = 8.0
_LEAST_SLOPE = 0.35
_STALE_SLOPE = 0.8
_FLAT = 1e-5
_CLIP = 6.0
_LARGEST_FACTOR = 4


@dataclass(frozen=True)
class GainChoice:
    """How a gain fits a movie.

    Attributes
    ----------
    orientation, operation
        What to do with the gain.
    slope
        How much of this gain is in the movie: 1 all of it, 0 none; unset where the gain is flat.
    slope_error
        Its standard error.
    runner_up
        The slope of the next best of the 8 orientations and 2 operations; unset if only one was looked at.
    note
        What the data could not tell, or what is odd.
    """

    orientation: Orientation
    operation: Operation
    slope: float | None = None
    slope_error: float | None = None
    runner_up: float | None = None
    note: str | None = None


def orient_gain_2d(gain: NDArray[Any], *, orientation: Orientation) -> NDArray[Any]:
    """Return the gain turned: ``(h, w)`` or ``(w, h)``, a view."""
    flipped: NDArray[Any] = gain[::-1] if orientation.startswith("flip") else gain
    turns = {"rot90": 1, "rot180": 2, "rot270": 3}.get(orientation.removeprefix("flip").strip(), 0)
    return np.rot90(flipped, turns)


def fit_gain_size_2d(gain: NDArray[Any], *, shape: tuple[int, int], operation: Operation) -> NDArray[np.float32] | None:
    """Return the gain for frames with finer or coarser pixels, ``shape``; None if no whole factor up to 4 relates the sizes.

    Finer frames (super-resolution) take the gain of the physical pixel. For coarser ones the responses of the pixels that
    make up one are averaged; it is dead only if all of them are.
    """
    if gain.shape == shape:
        return np.asarray(gain, dtype=np.float32)
    for factor in range(2, _LARGEST_FACTOR + 1):
        if (gain.shape[0] * factor, gain.shape[1] * factor) == shape:
            return np.repeat(np.repeat(gain, factor, axis=0), factor, axis=1).astype(np.float32, copy=False)
        if gain.shape == (shape[0] * factor, shape[1] * factor):
            response = _inverse(gain) if operation == "multiply" else np.asarray(gain)
            mean = response.reshape(shape[0], factor, shape[1], factor).mean(axis=(1, 3), dtype=np.float64)  # shape
            return (_inverse(mean) if operation == "multiply" else mean).astype(np.float32)
    return None


def _inverse(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.divide(1.0, values, out=np.zeros(values.shape, dtype=np.float64), where=values > 0))


def choose_gain(
    total: NDArray[Any],
    gain: NDArray[Any],
    *,
    operation: Operation | None,
    usual: Operation,
    orientation: Orientation | Literal["auto"],
) -> GainChoice:
    """Find how a gain reference belongs on the frames of a movie.

    Parameters
    ----------
    total
        ``(h, w)``: plain sum of the raw frames.
    gain
        As stored; its size may be a whole factor (up to 4) of that of the frames, turned or not.
    operation
        Multiply or divide where somebody knows; None: found from the data.
    usual
        The operation of such files, taken where the data cannot tell.
    orientation
        ``"auto"``, or what somebody knows.

    Raises
    ------
    ItemError
        The gain has another size, is not seen in the movie although it should be, fits in two ways, or fits only by the
        operation that was not allowed.
    """
    names = [orientation] if orientation != "auto" else list(ORIENTATIONS)
    shape = (total.shape[0], total.shape[1])
    sized = {name: _oriented(gain, name, shape, operation or usual) for name in names}
    fitting = {name: image for name, image in sized.items() if image is not None}
    if not fitting:
        raise ItemError(
            f"gain is {gain.shape[0]}×{gain.shape[1]}, movie is {shape[0]}×{shape[1]} (height × width)"
            + ("" if orientation == "auto" else f", with orientation {orientation!r}")
        )
    counts = _fine_structure(total, logarithm=False)
    slopes = {name: _slope(counts, image) for name, image in fitting.items()}
    first = next(iter(fitting))
    _, error = slopes[first]
    if not np.isfinite(error):
        return GainChoice(first, operation or usual, note="the gain is flat: nothing tells how it belongs on the frames")
    if 1.5 * _SIGMA * error > 1.0:
        note = f"too few counts to check the gain (standard error {error:.2f} of its slope); taken as stored"
        return GainChoice(first, operation or usual, None, error, None, note)
    return _decide(slopes, fitting, operation=operation, given=orientation != "auto")


def _oriented(gain: NDArray[Any], name: Orientation, shape: tuple[int, int], operation: Operation) -> NDArray[np.float32] | None:
    return fit_gain_size_2d(orient_gain_2d(gain, orientation=name), shape=shape, operation=operation)


def _decide(
    slopes: dict[Orientation, tuple[float, float]],
    gains: dict[Orientation, NDArray[np.float32]],
    *,
    operation: Operation | None,
    given: bool,
) -> GainChoice:
    """Choose the orientation and operation whose slope is the steepest; refuse what is unclear."""
    kinds: tuple[tuple[Operation, int], ...] = (("multiply", -1), ("divide", 1))
    ranked = sorted(
        ((sign * slope, error, name, kind) for name, (slope, error) in slopes.items() for kind, sign in kinds),
        key=lambda one: -one[0],
    )
    slope, error, name, kind = ranked[0]
    if slope < max(_LEAST_SLOPE, _SIGMA * error):
        raise ItemError(
            f"the gain is not seen in the movie in any allowed orientation (best: {name}, {kind}, {slope:.2f} of it; 1 is all): "
            "the frames are corrected already, or the gain belongs to another camera or time; leave it out, or give another"
        )
    if operation is not None and kind != operation:
        raise ItemError(
            f"the gain is set to {operation}, but the movie follows it ({slope:.2f} of it, {name}) as one to {kind}; "
            "correct the operation of the gain"
        )
    rivals = [one for one in ranked[1:] if slope - one[0] < _SIGMA * np.sqrt(2.0) * error]
    others = [one for one in rivals if not _alike(gains[name], gains[one[2]])]
    if others:
        raise ItemError(
            f"the gain fits the movie in more than one way: {name} ({slope:.2f} of it), {others[0][2]} ({others[0][0]:.2f}); "
            "set the orientation"
        )
    if rivals:  # the gain is symmetric: any of them does, so take the first
        name = min((name, *(one[2] for one in rivals)), key=ORIENTATIONS.index)
    distinct = [one[0] for one in ranked[1:] if one[2] != name and one not in rivals]
    note = None
    if slope < _STALE_SLOPE:
        note = f"only {slope:.2f} of the gain is seen in the movie: it may be old or smoother than the camera, or counts coincide"
    return GainChoice(name, kind, slope, error, None if given or not distinct else distinct[0], note)


def _alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    step = _stride(one.shape)
    usable = (one[::step, ::step] > 0) & (other[::step, ::step] > 0)
    first, second = np.log(one[::step, ::step][usable]), np.log(other[::step, ::step][usable])
    return bool(np.std(first - second) < 0.1 * np.std(first) + 1e-6)


def _stride(shape: tuple[int, ...]) -> int:
    return max(1, int(np.sqrt(shape[0] * shape[1] / _SAMPLES)))


def measure_gain_slope(image: NDArray[Any], gain: NDArray[Any]) -> tuple[float, float]:
    """Return how much of the logarithm of ``gain`` is in the fine structure of ``image``, and its standard error.

    Minus one for an image that such a gain multiplies, zero for one that is corrected; the error is infinite for a flat gain.

    Parameters
    ----------
    image, gain
        ``(h, w)``; pixels at or below zero are left out.
    """
    return _slope(_fine_structure(image, logarithm=False), gain)


def _slope(counts: tuple[NDArray[np.float32], NDArray[np.bool_]], gain: NDArray[Any]) -> tuple[float, float]:
    fine_total, usable = counts
    fine_gain, also = _fine_structure(gain, logarithm=True)
    usable = usable & also
    if np.count_nonzero(usable) < 100:
        return float("nan"), float("inf")
    x, y = _clipped(fine_gain[usable]), _clipped(fine_total[usable])
    power = float(np.dot(x, x))
    if power <= (_FLAT**2) * len(x):
        return float("nan"), float("inf")
    slope = float(np.dot(x, y)) / power
    rest = float(np.std(y - slope * x))
    return slope, float(rest / np.sqrt(power))


def _clipped(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return values about their median, the few that are far away pulled in."""
    some = values[:: max(1, len(values) // 50_000)]
    middle = np.median(some)
    spread = _CLIP * 1.4826 * float(np.median(np.abs(some - middle)))
    return np.clip(values - middle, -spread, spread) if spread > 0 else values - middle


def _fine_structure(image: NDArray[Any], *, logarithm: bool) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return sampled pixels less the mean of their four neighbours, and which can be used.

    In units of the mean of all pixels, or of natural logarithms.
    """
    height, width = image.shape
    step = _stride(image.shape)
    rows, columns = slice(1, height - 1, step), slice(1, width - 1, step)

    def moved(dy: int, dx: int) -> NDArray[np.float32]:
        part = image[rows.start + dy : rows.stop + dy : step, columns.start + dx : columns.stop + dx : step]
        return np.asarray(part, dtype=np.float32)

    here, *around = (moved(dy, dx) for dy, dx in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)))
    usable = np.logical_and.reduce([np.isfinite(part) for part in (here, *around)])
    if logarithm:
        usable &= np.logical_and.reduce([part > 0 for part in (here, *around)])
    here, *around = (np.where(usable, part, np.float32(1)) for part in (here, *around))
    if logarithm:
        here, *around = (np.log(part) for part in (here, *around))
        level = 1.0
    else:
        level = max(float(np.mean(here[usable], dtype=np.float64)), 1e-12) if usable.any() else 1.0
    mean = (around[0] + around[1] + around[2] + around[3]) / 4
    return np.where(usable, (here - mean) / np.float32(level), np.float32(0)), usable
