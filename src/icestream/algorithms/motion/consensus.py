"""How far two motion corrections of one movie agree.

Two tracks of one specimen may differ by a constant, which only shifts the image; so that is taken out first. What is left blurs:
if both are equally wrong, a distance of ``d`` Å (rms, both axes together) between them costs the image the envelope of a B-factor
of ``2 pi² d²`` Å², the Debye-Waller relation ``B = 8 pi² u²`` with ``u = d / 2`` along each axis.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.motion.model import local_shift_px

_PLACES = 5


@dataclass(frozen=True)
class MotionTrack:
    """One motion, as it is compared.

    Attributes
    ----------
    global_yx_px
        ``(n, 2)``.
    local_coefficients
        ``(2, 18)`` of `motion_model`, or None.
    times
        ``(n,)``: when each frame was, in stored frames of the movie; increasing, evenly spaced.
    """

    global_yx_px: NDArray[np.float64]
    local_coefficients: NDArray[np.float64] | None
    times: NDArray[np.float64]


@dataclass(frozen=True)
class MotionComparison:
    """How far two motions agree over the frames that both have.

    Attributes
    ----------
    n_compared
        Frames of the first that lie within the second.
    rms_px, largest_px, largest_time
        Distance of the global tracks, the common offset taken out; and when it is largest.
    field_rms_px, field_largest_px
        The same for the whole motions, local part and all, over the field of view.
    correlation
        Of the positions, both axes together, from -1 to 1; 0 if only one moves, None if neither does.
    range_px
        How far apart the positions of the track that moves more lie at most.
    path_px
        Length of the first and of the second path over these frames.
    """

    n_compared: int
    rms_px: float
    largest_px: float
    largest_time: float
    field_rms_px: float
    field_largest_px: float
    correlation: float | None
    range_px: float
    path_px: tuple[float, float]


def frame_times(n_frames: int, *, first_frame: int, group: int) -> NDArray[np.float64]:
    """Return when each of ``n_frames`` frames was, in stored frames, if each is the sum of ``group`` of them: ``(n,)``."""
    times: NDArray[np.float64] = (first_frame + np.arange(n_frames, dtype=np.float64)) * group + 0.5 * (group - 1)
    return times


def compare_motions(
    first: MotionTrack, second: MotionTrack, *, area_yx: tuple[tuple[float, float], tuple[float, float]]
) -> MotionComparison | None:
    """Compare two motions over the frames that both have; None if these are fewer than two.

    Between its frames the second track is interpolated linearly, so movies that were added up to other groups compare too.

    Parameters
    ----------
    area_yx
        Where both are compared: first and last place along y and along x, as fractions of the frame from 0 to 1.
    """
    inside = _inside(first.times, second.times)
    times = first.times[inside]  # (m,)
    if len(times) < 2:
        return None
    tracks = first.global_yx_px[inside], _at_times(second.global_yx_px, second.times, times)  # (m, 2) each
    apart = _centred(tracks[0] - tracks[1])  # (m, 2)
    places = [grid.ravel() for grid in np.meshgrid(*(np.linspace(low, high, _PLACES) for low, high in area_yx), indexing="ij")]
    local = _local_at(first, times, places) - _local_at(second, times, places)  # (m, 2, places)
    everywhere = _centred(apart[:, :, None] + local)
    distance, distances = np.linalg.norm(apart, axis=1), np.linalg.norm(everywhere, axis=1)  # (m,), (m, places)
    return MotionComparison(
        n_compared=len(times),
        rms_px=_rms(distance),
        largest_px=float(distance.max()),
        largest_time=float(times[int(np.argmax(distance))]),
        field_rms_px=_rms(distances),
        field_largest_px=float(distances.max()),
        correlation=correlate_tracks(*tracks),
        range_px=max(measure_range(track) for track in tracks),
        path_px=(_path(tracks[0]), _path(tracks[1])),
    )


def correlate_tracks(first_yx_px: NDArray[Any], second_yx_px: NDArray[Any]) -> float | None:
    """Return the correlation of two tracks ``(n, 2)``, both axes together, so that an axis without motion does not decide.

    It is 0 if only one of them moves, and None if neither does.
    """
    first, second = _centred(first_yx_px), _centred(second_yx_px)
    spread = float(np.sum(first**2)), float(np.sum(second**2))
    if max(spread) == 0.0:
        return None
    return float(np.sum(first * second) / np.sqrt(spread[0] * spread[1])) if min(spread) > 0.0 else 0.0


def measure_range(track_yx_px: NDArray[Any]) -> float:
    """Return the largest distance between two positions of a track ``(n, 2)``."""
    apart = track_yx_px[:, None] - track_yx_px[None]  # (n, n, 2)
    return float(np.sqrt(np.max(np.sum(apart**2, axis=2))))


def _inside(times: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which times lie within the span of others, a single frame's own length included."""
    half = 0.5 * float(others[1] - others[0]) if len(others) > 1 else 0.5
    kept: NDArray[np.bool_] = (times >= others[0] - half) & (times <= others[-1] + half)
    return kept


def _at_times(track: NDArray[np.float64], times: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.stack([np.interp(wanted, times, track[:, axis]) for axis in range(2)], axis=1)  # (m, 2)
    return found


def _local_at(motion: MotionTrack, times: NDArray[np.float64], places: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the local part at some times and places of a frame of 1 × 1: ``(m, 2, places)``."""
    if motion.local_coefficients is None or len(motion.times) < 2:
        return np.zeros((len(times), 2, places[0].size))
    frame = (times - motion.times[0]) / (motion.times[1] - motion.times[0])  # (m,)
    y, x = (place[None] - 0.5 for place in places)  # of a frame of 1 × 1 px the middle is at 0
    local = local_shift_px(
        motion.local_coefficients, frame=frame[:, None], y_px=y, x_px=x, shape=(1, 1), n_frames=len(motion.times)
    )  # (2, m, places)
    return np.moveaxis(local, 0, 1)


def _centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = values - values.mean(axis=0, keepdims=True)
    return centred


def _rms(distance: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(distance**2)))


def _path(track: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(np.diff(track, axis=0), axis=1).sum())
