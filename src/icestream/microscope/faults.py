"""Which exposures go wrong, and what that does to an image and a file."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.microscope.settings import Fault, SimulationSettings

TRUNCATED_FRACTION = 0.6
UNFINISHED_FRACTION = 0.7
HUGE_DRIFT_FACTOR = 12.0
EMPTY_ELECTRONS_PER_PIXEL = 0.002
WEAK_BEAM_FRACTION = 0.7
OTHER_PIXEL_FACTOR = 1.25

_AT_RANDOM = (
    Fault.TRUNCATED,
    Fault.EMPTY,
    Fault.HUGE_DRIFT,
    Fault.WRONG_SIZE,
    Fault.PAUSE,
    Fault.WEAK_BEAM,
    Fault.UNFINISHED,
)
"""Those that ``fault_fraction`` draws; the others are asked for by index, so that a seed goes on giving the same session."""

_FAULT_KEY = 1


def assign_faults(settings: SimulationSettings) -> dict[int, Fault]:
    """Return the fault of each faulty exposure: those asked for by index, and one of seven kinds for a share of the others."""
    generator = settings.generator(_FAULT_KEY)
    others = [index for index in range(settings.n_movies) if index not in settings.faults]
    count = round(settings.fault_fraction * len(others))
    chosen = generator.permutation(others)[:count]
    drawn = {int(index): _AT_RANDOM[int(generator.integers(len(_AT_RANDOM)))] for index in chosen}
    return dict(sorted({**drawn, **settings.faults}.items()))


def electrons_per_pixel(settings: SimulationSettings, fault: Fault | None) -> float:
    """Return the dose of a pixel in one frame of an exposure."""
    if fault is Fault.EMPTY:
        return EMPTY_ELECTRONS_PER_PIXEL
    return settings.dose_per_pixel * (WEAK_BEAM_FRACTION if fault is Fault.WEAK_BEAM else 1.0)


def exposure_settings(settings: SimulationSettings, fault: Fault | None) -> SimulationSettings:
    """Return the settings that one exposure is made with: those of the session, but for a short movie or another camera."""
    if fault is Fault.SHORT:
        return settings.model_copy(update={"n_frames": max(1, settings.n_frames // 2)})
    if fault is not Fault.OTHER_CAMERA:
        return settings
    height, width = 2 * (settings.height_px * 3 // 8), 2 * (settings.width_px * 7 // 16)
    pixel = settings.pixel_size_ang * OTHER_PIXEL_FACTOR
    return settings.model_copy(update={"height_px": height, "width_px": width, "pixel_size_ang": pixel})


def spoil_frames(frames: Iterator[NDArray[np.int32]], fault: Fault | None, *, n_frames: int) -> Iterator[NDArray[Any]]:
    """Yield counted frames ``(h, w)`` as a fault of the camera leaves them."""
    for number, frame in enumerate(frames):
        if fault is Fault.ZERO_FRAMES and n_frames // 3 <= number < max(2 * n_frames // 3, n_frames // 3 + 1):
            yield np.zeros_like(frame)
        elif fault is Fault.SATURATED and number == n_frames // 2:
            yield np.full_like(frame, np.iinfo(np.int32).max)  # the writer cuts it off at what its pixels hold
        elif fault is Fault.NOT_FINITE and number == n_frames // 2:
            damaged = frame.astype(np.float32)
            damaged[: frame.shape[0] // 4] = np.nan
            yield damaged
        else:
            yield frame


def written_bytes(size_bytes: int, fault: Fault | None) -> int:
    """Return how many bytes of a movie ever reach the disk."""
    if fault is Fault.TRUNCATED:
        return int(size_bytes * TRUNCATED_FRACTION)
    if fault is Fault.UNFINISHED:
        return int(size_bytes * UNFINISHED_FRACTION)
    return size_bytes
