"""Aligning a movie: global track and local model from streamed frames."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from icestream.algorithms.motion.correlate import RING_PER_PX, Band
from icestream.algorithms.motion.fit import ModelFit
from icestream.algorithms.motion.frames import Detector, Frames, bin_frames, choose_bin
from icestream.algorithms.motion.global_motion import refine_shifts, search_shifts, transform_frames
from icestream.algorithms.motion.local_motion import cut_patches, fit_local_motion

_LARGEST_GROUPS = 100
_FEWEST_GROUPS = 8
_ELECTRONS_PER_GROUP = 0.5
_PATCH_PX = 640
_LEAST_PATCH_PX = 160


@dataclass(frozen=True)
class MotionEstimate:
    """How the specimen moved: ``global_yx_px`` ``(n_frames, 2)``, local model ``(2, 18)`` (see `motion_model`) or None."""

    global_yx_px: NDArray[np.float64]
    local_coefficients: NDArray[np.float64] | None
    local_rms_px: float | None
    note: str | None


def choose_group(n_frames: int, *, electrons_per_px: float | None) -> int:
    """Return how many frames to add up before alignment: 1 unless they are very many or very thin.

    Parameters
    ----------
    electrons_per_px
        Dose of one frame, where it is known.
    """
    group = -(-n_frames // _LARGEST_GROUPS)
    if electrons_per_px is not None and electrons_per_px > 0:
        thin = int(np.ceil(_ELECTRONS_PER_GROUP / electrons_per_px - 1e-6))
        group = max(group, min(thin, n_frames // _FEWEST_GROUPS))
    return max(1, group)


def choose_grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the number of patches along y and x: one per 640 px, from 3 to 8, none narrower than 160 px."""
    rows, columns = (int(np.clip(round(length / _PATCH_PX), min(4, max(1, length // _LEAST_PATCH_PX)), 8)) for length in shape)
    return rows, columns


def align_movie(
    frames: Frames,
    detector: Detector,
    *,
    max_shift_px: float,
    b_factor_px2: float = 150.0,
    local: bool = True,
    grid: tuple[int, int] | None = None,
    group: int | None = None,
    electrons_per_px: float | None = None,
) -> MotionEstimate:
    """Find how the specimen moved during a movie, as a whole and locally.

    Parameters
    ----------
    frames
        The raw frames, of any library of arrays; read once.
    detector
        From `inspect_frames`, where the frames are.
    max_shift_px
        How far a frame may lie from the mean position.
    b_factor_px2
        Frequencies are weighed by ``exp(-B |k|²)`` (k in cycles per pixel) until their signal has been measured.
    local
        Fit the local model; it is dropped, with a note, where the data do not support it.
    grid, group
        Patches along y and x, and frames added up before alignment; chosen by size and dose when unset.
    electrons_per_px
        Dose of one frame, where it is known.
    """
    n_frames = len(frames)
    if n_frames == 1:
        return MotionEstimate(np.zeros((1, 2)), None, None, "a single frame has no motion")
    group = group or choose_group(n_frames, electrons_per_px=electrons_per_px)
    bin = choose_bin(detector.shape)
    images, times = bin_frames(frames, detector, bin=bin, group=group)
    n_images = images.shape[0]
    if n_images == 1:
        return MotionEstimate(np.zeros((n_frames, 2)), None, None, f"all {n_frames} frames are one group")
    spectra, band, shape = transform_frames(images, bin=bin)
    track = search_shifts(spectra, band=band, shape=shape, max_shift_px=max_shift_px, b_factor_px2=b_factor_px2)
    track, rings = refine_shifts(spectra, track, band=band, b_factor_px2=b_factor_px2)
    del spectra
    track -= track[0]
    if not local:
        return MotionEstimate(_per_frame(track, times, n_frames=n_frames), None, None, None)
    if n_images < 4:
        note = f"global only: {n_images} images are too few for a local model (4 are needed)"
        return MotionEstimate(_per_frame(track, times, n_frames=n_frames), None, None, note)
    grid = grid or choose_grid(detector.shape)
    if min(grid) < 2:
        note = f"global only: {grid[0]}×{grid[1]} patches are too few for a local model (2×2 are needed)"
        return MotionEstimate(_per_frame(track, times, n_frames=n_frames), None, None, note)
    patches, patch_band = cut_patches(
        images, bin=bin, shifts_yx_px=track, grid=grid, limit_per_px=_informative_limit(rings, band=band, bin=bin)
    )
    del images
    fit = fit_local_motion(
        patches,
        band=patch_band,
        global_yx_px=track,
        times=times,
        n_frames=n_frames,
        shape=detector.shape,
        b_factor_px2=b_factor_px2,
        rings=rings,
    )
    return _estimate(fit, times, n_frames=n_frames)


def _informative_limit(rings: NDArray[np.float64], *, band: Band, bin: int) -> float:
    """Return the frequency below which nearly all that is known about shifts lies, in cycles per raw pixel."""
    highest = 0.5 / bin
    if len(rings) < 8:
        return highest
    frequency = (np.arange(len(rings)) + 0.5) * RING_PER_PX
    share = np.cumsum(rings * frequency**3)
    inside = float(frequency[np.searchsorted(share, 0.98 * share[-1])])
    edge = float(max(band.ky.max(), band.kx.max()))
    return min(highest, 1.15 * inside) if inside < 0.85 * edge else highest


def _per_frame(track: NDArray[np.float64], times: NDArray[np.float64], *, n_frames: int) -> NDArray[np.float64]:
    """Return the track at every frame, frame 0 at zero: between the middles of groups by a cubic spline, outside straight on."""
    if len(times) == n_frames:
        whole: NDArray[np.float64] = track - track[0]
        return whole
    frames = np.arange(n_frames)
    if len(times) < 3:
        slope = (track[-1] - track[0]) / (times[-1] - times[0])
        straight: NDArray[np.float64] = frames[:, None] * slope
        return straight
    spline = CubicSpline(times, track, bc_type="natural")
    inner = np.clip(frames, times[0], times[-1])
    full = spline(inner) + (frames - inner)[:, None] * spline(inner, 1)  # (n_frames, 2)
    anchored: NDArray[np.float64] = full - full[0]
    return anchored


def _estimate(fit: ModelFit, times: NDArray[Any], *, n_frames: int) -> MotionEstimate:
    track = _per_frame(fit.global_yx_px, times, n_frames=n_frames)
    if fit.n_terms == 0:
        return MotionEstimate(track, None, None, f"global only: {fit.note or 'no local model could be determined'}")
    return MotionEstimate(track, fit.coefficients, fit.rms_px, fit.note)
