"""Local motion: patches of all frames fitted by one smooth model.

A patch of one frame holds few electrons, so patches are not aligned one by one: in each round every patch of every frame tells
how far it would move (a Newton step against the sum of its other frames) and how well it knows that (the curvature), and one
weighted least-squares fit turns all of these into the coefficients of the model, a shift per frame, and a free offset per patch.
Rounds go from coarse to fine, as in Zheng et al. (2017), Nat. Methods 14, 331.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.motion.correlate import (
    Band,
    ComplexArray,
    Steps,
    crop_band,
    likelihood_weights,
    measure_power,
    newton_steps,
    spread_weights,
    sum_shifted,
)
from icestream.algorithms.motion.fit import ModelFit, fit_model, smooth_track
from icestream.algorithms.motion.global_motion import narrow_band, take_band, taper_2d, taper_part, transform_band
from icestream.algorithms.motion.model import local_shift_px
from icestream.algorithms.namespaces import Array, place_of, rfft2

_ROUNDS = ((4.0, False), (1.0, False), (0.0, True), (0.0, True), (0.0, True))
"""Per round: factor of the B-factor, and whether frequencies are weighed by their measured signal."""


@dataclass(frozen=True)
class Patch:
    """The frames of one patch: spectra ``(n, h, w)``, the part of the shift that cutting took out ``(n, 2)``, and its middle."""

    spectra: ComplexArray
    cut_yx_px: NDArray[np.float64]
    centre_yx_px: tuple[float, float]


def cut_patches(
    frames: Array, *, bin: int, shifts_yx_px: NDArray[Any], grid: tuple[int, int], limit_per_px: float
) -> tuple[list[Patch], Band]:
    """Cut a grid of overlapping patches that follow the global motion, and transform them.

    Parameters
    ----------
    frames
        ``(n, h, w)``, binned by ``bin``.
    shifts_yx_px
        ``(n, 2)``, in raw pixels.
    limit_per_px
        Highest frequency to keep, in cycles per raw pixel.
    """
    shape = frames.shape[1:]
    side = tuple(
        fft.next_fast_len(min(int(1.15 * length / count), length), real=True) // 2 * 2
        for length, count in zip(shape, grid, strict=True)
    )
    starts_y, starts_x = (
        np.linspace(0, length - part, count).round().astype(int) for length, part, count in zip(shape, side, grid, strict=True)
    )
    band, rows, columns = crop_band(side[0], side[1], bin=bin, limit_per_px=limit_per_px)
    window = place_of(frames).put(taper_2d(side[0], side[1], share=1 / 8))
    whole = np.round(np.asarray(shifts_yx_px) / bin).astype(int)  # (n, 2)
    patches = []
    for start_y in starts_y:
        for start_x in starts_x:
            origins = np.clip(np.array([start_y, start_x]) + whole, 0, np.array(shape) - side)  # (n, 2)
            spectra = _transform_cuts(frames, origins, window=window, rows=rows, columns=columns)
            centre = ((start_y + side[0] / 2) * bin - 0.5, (start_x + side[1] / 2) * bin - 0.5)
            patches.append(Patch(spectra, (origins - np.array([start_y, start_x])) * float(bin), centre))
    return patches, band


def _transform_cuts(
    frames: Array, origins_yx: NDArray[Any], *, window: Array, rows: NDArray[np.intp], columns: int
) -> ComplexArray:
    """Return the low frequencies of the cut of each frame that begins at its origin and is as large as ``window``: ``(n, h, w)``.

    On a device all frames are transformed at once, on cores one by one.
    """
    height, width = window.shape
    if isinstance(window, np.ndarray):
        spectra = np.empty((len(origins_yx), len(rows), columns), dtype=np.complex64)
        for index, (y, x) in enumerate(origins_yx.tolist()):
            spectra[index] = transform_band(taper_part(frames[index], window, origin_yx=(y, x)), rows=rows, columns=columns)
        return spectra
    xp = place_of(window).xp
    stack = xp.stack([frames[index, y : y + height, x : x + width] for index, (y, x) in enumerate(origins_yx.tolist())])
    return take_band(rfft2((stack - xp.mean(stack, axis=(1, 2), keepdims=True)) * window), rows=rows, columns=columns)


def fit_local_motion(
    patches: list[Patch],
    *,
    band: Band,
    global_yx_px: NDArray[Any],
    times: NDArray[Any],
    n_frames: int,
    shape: tuple[int, int],
    b_factor_px2: float,
    rings: NDArray[np.float64],
) -> ModelFit:
    """Fit the local model to all patches.

    Parameters
    ----------
    global_yx_px
        ``(n, 2)``, where to start.
    times
        ``(n,)``: the (fractional) frame number of each image, out of ``n_frames``.
    shape
        Height and width of the raw frames.
    rings
        Weights of the rings as measured on whole frames, used until the patches tell their own.
    """
    centres = np.array([patch.centre_yx_px for patch in patches])  # (p, 2)
    fit = ModelFit.still(np.asarray(global_yx_px, dtype=np.float64))
    for b_scale, measured in _ROUNDS:
        shifts = total_shifts(fit, centres, times=times, n_frames=n_frames, shape=shape)  # (p, n, 2)
        totals: list[ComplexArray | None] = [None] * len(patches)
        if measured:
            rings, totals = _measure_rings(patches, shifts, band=band, rings=rings)
        steps = _patch_steps(
            patches, shifts, totals, band=band, rings=rings if measured else np.ones(1), b_factor_px2=b_scale * b_factor_px2
        )
        reach = 3.0 if b_scale > 1 else (1.5 if b_scale else 0.75)
        fit = fit_model(
            shifts + np.clip(np.stack([step.step_yx_px for step in steps]), -reach, reach),
            information=_pool_information(steps),
            centres_yx_px=centres,
            times=times,
            n_frames=n_frames,
            shape=shape,
        )
    if fit.track_variance_px2 is None:
        return fit
    smooth = smooth_track(fit.global_yx_px, fit.track_variance_px2)
    return replace(fit, global_yx_px=smooth - smooth[0])


def total_shifts(
    fit: ModelFit, centres_yx_px: NDArray[Any], *, times: NDArray[Any], n_frames: int, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the displacement of every patch in every frame by the present model: ``(p, n, 2)``."""
    local = local_shift_px(
        fit.coefficients,
        frame=np.asarray(times)[None, :],
        y_px=centres_yx_px[:, :1],
        x_px=centres_yx_px[:, 1:],
        shape=shape,
        n_frames=n_frames,
    )  # (2, p, n)
    moved: NDArray[np.float64] = fit.global_yx_px[None] + np.moveaxis(local, 0, -1)
    return moved


def _patch_steps(
    patches: list[Patch],
    shifts: NDArray[Any],
    totals: list[ComplexArray | None],
    *,
    band: Band,
    rings: NDArray[np.float64],
    b_factor_px2: float,
) -> list[Steps]:
    """Return the Newton step of every patch from its shifts ``(n, 2)``, from the frequencies that have weight."""
    steps = []
    for patch, shift, total in zip(patches, shifts, totals, strict=True):
        spectra, narrow = narrow_band(patch.spectra, band=band, b_factor_px2=b_factor_px2)
        weight = spread_weights(rings, band=narrow, b_factor_px2=b_factor_px2)
        steps.append(newton_steps(spectra, shifts_yx_px=shift - patch.cut_yx_px, band=narrow, weight=weight, total=total))
    return steps


def _measure_rings(
    patches: list[Patch], shifts: NDArray[Any], *, band: Band, rings: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[ComplexArray | None]]:
    """Return the weight of each ring from all patches together (``rings`` if they show no signal), and the sum of each patch."""
    totals: list[ComplexArray | None] = []
    sums: tuple[Any, ...] = (0.0, 0.0, 0.0)
    for patch, shift in zip(patches, shifts, strict=True):
        total = sum_shifted(patch.spectra, shifts_yx_px=shift - patch.cut_yx_px, band=band)
        totals.append(total)
        power = measure_power(patch.spectra, total=total, band=band)
        sums = tuple(old + new for old, new in zip(sums, power, strict=True))
    measured = likelihood_weights((sums[0], sums[1], sums[2]), n_frames=patches[0].spectra.shape[0])
    return (measured if measured.any() else rings), totals


def _pool_information(steps: list[Steps]) -> NDArray[np.float64]:
    """Return the information of each patch and frame as (patch) × (frame), which noise disturbs less: ``(p, n, 2)``."""
    table = np.stack([step.information for step in steps])  # (p, n, 2)
    of_patch = table.mean(axis=1, keepdims=True)  # (p, 1, 2)
    of_frame = table.sum(axis=0, keepdims=True)  # (1, n, 2)
    mean = of_frame.mean(axis=1, keepdims=True)
    pooled: NDArray[np.float64] = of_patch * np.divide(of_frame, mean, out=np.ones_like(of_frame), where=mean > 0)
    return pooled
