"""Adding up corrected frames, with and without dose weights, in one pass.

The dose-weighted sum is ``sum q_i F_i / sqrt(sum q_i²)`` (Grant & Grigorieff 2015, eLife 4:e06980). The weights ``q_i(g)`` of
all frames are so alike that a few products of a function of the frame and a function of the frequency make them up; so a few
weighted sums are kept in real space, and only these are transformed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.dose import dose_weights
from icestream.algorithms.fourier import resize_spectrum_2d
from icestream.algorithms.motion_frames import Detector, Frames, group_frames
from icestream.algorithms.motion_model import shift_field_px
from icestream.algorithms.warp import add_warped_frames

_FREQUENCIES = 2048
_TOLERANCE = 2e-4
_CHUNK = 4
_CHUNK_BYTES = 2**28
_LARGEST_WARPS = 128


@dataclass(frozen=True)
class DoseModel:
    """What dose weighting needs to know; nothing has a default."""

    voltage_kv: float
    pixel_size_ang: float
    dose_per_frame_e_per_ang2: float
    pre_exposure_e_per_ang2: float


@dataclass(frozen=True)
class MovieSums:
    """The sums of one movie, ``(h / bin, w / bin)`` each.

    Attributes
    ----------
    plain
        In counts per raw pixel.
    weighted
        Dose-weighted; None without a dose.
    even, odd
        The parts of ``weighted`` (of ``plain`` without a dose) that come from frames 0, 2, … and 1, 3, …: they add up to it.
    """

    plain: NDArray[np.float32]
    weighted: NDArray[np.float32] | None
    even: NDArray[np.float32] | None = None
    odd: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class FactorisedWeights:
    """Normalised weights ``of_frame @ of_frequency``: ``(n, r)`` and ``(r, 2048)``, from 0 to sqrt(½) cycles per pixel."""

    of_frame: NDArray[np.float32]
    of_frequency: NDArray[np.float32]


def factorise_dose_weights(model: DoseModel, *, first_frame: int, n_frames: int) -> FactorisedWeights:
    """Return the normalised dose weights ``q_i / sqrt(sum q_i²)`` as a short sum of products, exact to 2e-4.

    Parameters
    ----------
    first_frame
        How many frames of the exposure come before the first one that is used.
    """
    radius = np.linspace(0, np.sqrt(0.5), _FREQUENCIES)  # cycles per pixel
    exposure = model.pre_exposure_e_per_ang2 + model.dose_per_frame_e_per_ang2 * (first_frame + 1 + np.arange(n_frames))
    weights = dose_weights(radius / model.pixel_size_ang, exposure, voltage_kv=model.voltage_kv).astype(np.float64)  # (n, f)
    norm = np.sqrt(np.sum(weights**2, axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(norm > 1e-30, weights / norm, 0.0)
    left, values, right = np.linalg.svd(weights, full_matrices=False)
    for rank in range(1, len(values) + 1):
        error = np.abs(weights - (left[:, :rank] * values[:rank]) @ right[:rank]).max()
        if error <= _TOLERANCE / np.sqrt(n_frames):
            break
    of_frequency = values[:rank, None] * right[:rank]
    return FactorisedWeights(left[:, :rank].astype(np.float32), of_frequency.astype(np.float32))


@njit(cache=True, nogil=True)
def _add_filtered(out: Any, spectrum: Any, curve: Any, height: int, width: int) -> None:
    scale = (curve.shape[0] - 1) / np.sqrt(0.5)
    for y in range(out.shape[0]):
        ky = (y if 2 * y <= height else y - height) / height
        for x in range(out.shape[1]):
            kx = x / width
            place = np.sqrt(ky * ky + kx * kx) * scale
            low = min(int(place), curve.shape[0] - 2)
            part = np.float32(place - low)
            out[y, x] += spectrum[y, x] * (curve[low] * (np.float32(1) - part) + curve[low + 1] * part)


def sum_frames_2d(
    frames: Frames,
    detector: Detector,
    *,
    global_yx_px: NDArray[Any],
    local_coefficients: NDArray[Any] | None,
    dose: DoseModel | None,
    bin: float = 1.0,
    first_frame: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return the plain and the dose-weighted sum of `sum_movie`, without halves."""
    sums = sum_movie(
        frames,
        detector,
        global_yx_px=global_yx_px,
        local_coefficients=local_coefficients,
        dose=dose,
        bin=bin,
        first_frame=first_frame,
    )
    return sums.plain, sums.weighted


def sum_movie(
    frames: Frames,
    detector: Detector,
    *,
    global_yx_px: NDArray[Any],
    local_coefficients: NDArray[Any] | None,
    dose: DoseModel | None,
    bin: float = 1.0,
    first_frame: int = 0,
    halves: bool = False,
) -> MovieSums:
    """Move every frame back to where the specimen was in frame 0 and add up, all sums in one pass.

    Parameters
    ----------
    frames
        The raw frames; read once.
    global_yx_px, local_coefficients
        The motion: ``(n, 2)`` and ``(2, 18)`` (see `motion_model`).
    dose
        For dose weighting; without it only the plain sum is made.
    bin
        Pixel size of the result relative to the raw pixel, by Fourier cropping.
    first_frame
        How many frames of the exposure were left out before the first one.
    halves
        Also add up even and odd frames apart, with noise that is independent. Dose weights are normalised by those of all
        frames, so that the halves add up to the whole.

    Notes
    -----
    Of more than 128 frames, neighbours are added before they are moved; then whole groups are even or odd.
    Sides of the result are even where it is cropped.
    """
    n_frames, shape = len(frames), detector.shape
    of_frame = np.ones((n_frames, 1), dtype=np.float32)
    weights = None
    if dose is not None:
        weights = factorise_dose_weights(dose, first_frame=first_frame, n_frames=n_frames)
        of_frame = np.concatenate([of_frame, weights.of_frame], axis=1)  # (n, 1 + r)
    columns = of_frame.shape[1]
    sums = np.zeros((columns * (2 if halves else 1), *shape), dtype=np.float32)
    number = 0
    for images, times in _in_chunks(frames, detector, group=-(-n_frames // _LARGEST_WARPS)):
        fields, parts = [], np.zeros((len(times), len(sums)), dtype=np.float32)
        for index, (time, size) in enumerate(times):
            members = slice(int(time - (size - 1) / 2), int(time + (size - 1) / 2) + 1)
            track = np.asarray(global_yx_px)[members].mean(axis=0)  # (2,)
            fields.append(shift_field_px(local_coefficients, global_yx_px=track, frame=time, n_frames=n_frames, shape=shape))
            start = columns * (number % 2) if halves else 0
            parts[index, start : start + columns] = of_frame[members].mean(axis=0)
            number += 1
        add_warped_frames(sums, images, fields_yx_px=np.stack(fields), weights=parts)
    return _finish(sums, weights, halves=halves, new_shape=binned_shape(shape, bin=bin))


def _finish(
    sums: NDArray[np.float32], weights: FactorisedWeights | None, *, halves: bool, new_shape: tuple[int, int]
) -> MovieSums:
    """Make images of the running sums ``(n_sums, h, w)``: of all frames, or of even and then of odd ones."""
    shape = (sums.shape[1], sums.shape[2])

    def image(spectrum: NDArray[Any]) -> NDArray[np.float32]:
        return _from_spectrum(spectrum, shape=shape, new_shape=new_shape)

    def plain(total: NDArray[np.float32]) -> NDArray[np.float32]:
        return total.copy() if new_shape == shape else image(fft.rfft2(total))

    if not halves:
        return MovieSums(plain(sums[0]), None if weights is None else image(_weigh(sums[1:], weights)))
    middle = len(sums) // 2
    whole = plain(sums[0] + sums[middle])
    if weights is None:
        return MovieSums(whole, None, plain(sums[0]), plain(sums[middle]))
    even, odd = image(_weigh(sums[1:middle], weights)), image(_weigh(sums[middle + 1 :], weights))
    return MovieSums(whole, even + odd, even, odd)


def _in_chunks(
    frames: Frames, detector: Detector, *, group: int
) -> Iterator[tuple[NDArray[np.float32], list[tuple[float, int]]]]:
    """Yield up to 4 corrected images at a time (so that the sums are passed over less often), with their times and sizes.

    Large images come one by one, for memory; the sums are the same, for the order of the images is.
    """
    chunk = max(1, min(_CHUNK, _CHUNK_BYTES // (4 * detector.shape[0] * detector.shape[1])))
    buffer = np.empty((chunk, *detector.shape), dtype=np.float32)
    times: list[tuple[float, int]] = []
    for index, (time, size, frame) in enumerate(group_frames(frames, group=group)):
        detector.correct(frame, number=index, out=buffer[len(times)])
        times.append((time, size))
        if len(times) == chunk:
            yield buffer, times
            times = []
    if times:
        yield buffer[: len(times)], times


def binned_shape(shape: tuple[int, int], *, bin: float) -> tuple[int, int]:
    """Return the size of an image binned by ``bin``: sides even, or as they are for ``bin`` 1.

    Raises
    ------
    ValueError
        ``bin`` is below 1, or leaves less than 2 pixels.
    """
    if bin < 1:
        raise ValueError(f"bin is {bin:g}; allowed is 1 or more")
    if bin == 1:
        return shape
    height, width = (2 * round(length / bin / 2) for length in shape)
    if min(height, width) < 2:
        raise ValueError(f"bin {bin:g} leaves nothing of {shape[0]}×{shape[1]} pixels")
    return height, width


def _weigh(sums: NDArray[np.float32], weights: FactorisedWeights) -> NDArray[np.complex64]:
    height, width = sums.shape[1:]
    out = np.zeros((height, width // 2 + 1), dtype=np.complex64)
    for image, curve in zip(sums, weights.of_frequency, strict=True):
        _add_filtered(out, fft.rfft2(image), curve, height, width)
    return out


def _from_spectrum(spectrum: NDArray[Any], *, shape: tuple[int, int], new_shape: tuple[int, int]) -> NDArray[np.float32]:
    if new_shape != shape:
        spectrum = resize_spectrum_2d(spectrum, shape=shape, new_shape=new_shape)
    image: NDArray[np.float32] = fft.irfft2(spectrum, s=new_shape, overwrite_x=True).astype(np.float32, copy=False)
    return image
