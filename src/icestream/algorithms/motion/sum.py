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

from icestream.algorithms.fourier import resize_spectrum_2d
from icestream.algorithms.gain.correction import draw_good_pixels
from icestream.algorithms.motion.arrays import filter_arrays
from icestream.algorithms.motion.dose import critical_exposure_e_per_ang2, dose_weights
from icestream.algorithms.motion.frames import Detector, Frames, group_frames
from icestream.algorithms.motion.model import mean_time_terms, shift_field_px
from icestream.algorithms.motion.warp import add_corrected_warped, add_warped_frames, warp_image_2d
from icestream.algorithms.namespaces import Array, irfft2, place_of, rfft2, to_numpy

_FREQUENCIES = 2048
_TOLERANCE = 2e-4
_CHUNK = 32
_CHUNK_BYTES = 2**28
_LARGEST_WARPS = 128
_REFERENCE_SHARE = 0.75
"""Part of the Nyquist frequency at which frames are weighed for the reference of the local motion."""


@dataclass(frozen=True)
class DoseModel:
    """What dose weighting needs to know; nothing has a default."""

    voltage_kv: float
    pixel_size_ang: float
    dose_per_frame_e_per_ang2: float
    pre_exposure_e_per_ang2: float


@dataclass(frozen=True)
class MovieSums:
    """The sums of one movie, ``(h / bin, w / bin)`` each, where its frames were.

    Attributes
    ----------
    plain
        In counts per raw pixel.
    weighted
        Dose-weighted; None without a dose.
    even, odd
        The parts of ``weighted`` (of ``plain`` without a dose) that come from frames 0, 2, … and 1, 3, …: they add up to it.
    """

    plain: Array
    weighted: Array | None
    even: Array | None = None
    odd: Array | None = None

    def to_numpy(self) -> "MovieSums":
        """Return the same sums on the host."""
        images = (self.plain, self.weighted, self.even, self.odd)
        plain, *others = (None if image is None else to_numpy(image) for image in images)
        return MovieSums(plain, *others)


@dataclass(frozen=True)
class FactorisedWeights:
    """Normalised weights ``of_frame @ of_frequency``: ``(n, r)`` and ``(r, 2048)``, from 0 to sqrt(½) cycles per pixel.

    The first function of the frame is 1, so that the first sum is the plain one.
    """

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
    mean = weights.mean(axis=0)  # (f,)
    left, values, right = np.linalg.svd(weights - mean, full_matrices=False)
    for rank in range(len(values) + 1):
        error = np.abs(weights - mean - (left[:, :rank] * values[:rank]) @ right[:rank]).max()
        if error <= _TOLERANCE / np.sqrt(n_frames):
            break
    of_frame = np.concatenate([np.ones((n_frames, 1)), left[:, :rank]], axis=1)  # (n, 1 + rank)
    of_frequency = np.concatenate([mean[None], values[:rank, None] * right[:rank]])  # (1 + rank, f)
    return FactorisedWeights(of_frame.astype(np.float32), of_frequency.astype(np.float32))


@njit(cache=True, nogil=True)
def _filter_rows(spectrum: Any, curve: Any, height: int, width: int) -> None:
    scale = (curve.shape[0] - 1) / np.sqrt(0.5)
    weights = np.empty(spectrum.shape[1], dtype=np.float32)
    for y in range(height // 2 + 1):
        ky = y / height
        for x in range(spectrum.shape[1]):
            kx = x / width
            place = np.sqrt(ky * ky + kx * kx) * scale
            low = min(int(place), curve.shape[0] - 2)
            part = np.float32(place - low)
            weights[x] = curve[low] * (np.float32(1) - part) + curve[low + 1] * part
        for x in range(spectrum.shape[1]):
            spectrum[y, x] *= weights[x]
        if 0 < y < height - y:
            for x in range(spectrum.shape[1]):
                spectrum[height - y, x] *= weights[x]


def sum_frames_2d(
    frames: Frames,
    detector: Detector,
    *,
    global_yx_px: NDArray[Any],
    local_coefficients: NDArray[Any] | None,
    dose: DoseModel | None,
    bin: float = 1.0,
    first_frame: int = 0,
) -> tuple[Array, Array | None]:
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
    from_frame_0: bool = False,
) -> MovieSums:
    """Move every frame back to where the specimen was and add up, all sums in one pass.

    The field as a whole is moved to where it was in frame 0. The local motion is counted from its mean over the frames, as they
    count in each sum (see `reference_terms`): to undo a stretch stretches the Thon rings of the frame, which the specimen's
    stretch did not, and only so this cancels.

    Parameters
    ----------
    frames
        The raw frames, of any library of arrays, where ``detector`` is; read once.
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
    from_frame_0
        Count the local motion from frame 0 instead, which stretches the rings.

    Notes
    -----
    Of more than 128 frames, neighbours are added before they are moved; then whole groups are even or odd.
    Sides of the result are even where it is cropped.
    """
    n_frames, shape = len(frames), detector.shape
    weights = None if dose is None else factorise_dose_weights(dose, first_frame=first_frame, n_frames=n_frames)
    of_frame = np.ones((n_frames, 1), dtype=np.float32) if weights is None else weights.of_frame  # (n, r)
    columns = of_frame.shape[1]
    since = np.zeros(3) if from_frame_0 else reference_terms(dose, n_frames=n_frames, bin=bin)
    sums = detector.place.zeros((columns * (2 if halves else 1), *shape), "float32")
    number = 0
    for images, times in _in_chunks(frames, detector, group=-(-n_frames // _LARGEST_WARPS)):
        fields, parts = [], np.zeros((len(times), sums.shape[0]), dtype=np.float32)
        for index, (time, size) in enumerate(times):
            members = slice(int(time - (size - 1) / 2), int(time + (size - 1) / 2) + 1)
            track = np.asarray(global_yx_px)[members].mean(axis=0)  # (2,)
            fields.append(
                shift_field_px(local_coefficients, global_yx_px=track, frame=time, n_frames=n_frames, shape=shape, since=since)
            )
            start = columns * (number % 2) if halves else 0
            parts[index, start : start + columns] = of_frame[members].mean(axis=0)
            number += 1
        _add(sums, images, detector, first=number - len(times), fields_yx_px=np.stack(fields), weights=parts)
    onward = (
        None
        if dose is None or local_coefficients is None or from_frame_0
        else _from_reference_to_mean(local_coefficients, since=since, n_frames=n_frames, shape=shape)
    )
    return _finish(sums, weights, halves=halves, new_shape=binned_shape(shape, bin=bin), onward=onward)


def reference_terms(dose: DoseModel | None, *, n_frames: int, bin: float = 1.0) -> NDArray[np.float64]:
    """Return the time terms that the local motion in the sum for particles is counted from: ``(3,)``.

    They are the mean over frames: of all alike without a dose; else as the signal counts that damage leaves and dose weighting
    keeps at three quarters of Nyquist, ``exp(-N / Ne)`` after an exposure ``N``. The plain sum beside a weighted one is always
    counted from the mean of all alike.
    """
    if dose is None:
        return mean_time_terms(np.ones(n_frames))
    frequency = np.array(_REFERENCE_SHARE * 0.5 / (dose.pixel_size_ang * bin))
    critical = float(critical_exposure_e_per_ang2(frequency, voltage_kv=dose.voltage_kv))
    return mean_time_terms(np.exp(-dose.dose_per_frame_e_per_ang2 * np.arange(n_frames) / critical))


def _from_reference_to_mean(
    coefficients: NDArray[Any], *, since: NDArray[np.float64], n_frames: int, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the field that takes a sum from its reference to the mean of all frames: ``(2, blocks_y, blocks_x)``."""
    mean = mean_time_terms(np.ones(n_frames))
    still = np.zeros(2)
    return shift_field_px(coefficients, global_yx_px=still, frame=0, n_frames=n_frames, shape=shape, since=mean - since)


def _finish(
    sums: Array,
    weights: FactorisedWeights | None,
    *,
    halves: bool,
    new_shape: tuple[int, int],
    onward: NDArray[np.float32] | None,
) -> MovieSums:
    """Make images of the running sums ``(n_sums, h, w)``: of all frames, or of even and then of odd ones.

    Beside a weighted sum the plain one is moved ``onward`` by a field, to another reference of the local motion.
    """
    shape = (sums.shape[1], sums.shape[2])

    def image(spectrum: Array) -> Array:
        return _from_spectrum(spectrum, shape=shape, new_shape=new_shape)

    def plain(total: Array) -> Array:
        moved = total if onward is None else warp_image_2d(total, field_yx_px=onward)
        return place_of(total).xp.asarray(moved, copy=True) if new_shape == shape else image(rfft2(moved))

    if not halves:
        return MovieSums(plain(sums[0, :, :]), None if weights is None else image(_weigh(sums, weights)))
    middle = sums.shape[0] // 2
    first, second = sums[0, :, :], sums[middle, :, :]
    whole = plain(first + second)
    if weights is None:
        return MovieSums(whole, None, plain(first), plain(second))
    even, odd = image(_weigh(sums[:middle, :, :], weights)), image(_weigh(sums[middle:, :, :], weights))
    return MovieSums(whole, even + odd, even, odd)


def _in_chunks(frames: Frames, detector: Detector, *, group: int) -> Iterator[tuple[Array, list[tuple[float, int]]]]:
    """Yield raw images ``(n, h, w)``, their times and sizes: on cores several at once, so that sums are passed over less often.

    How many they are changes the sums by rounding only.
    """
    buffer: NDArray[Any] | None = None
    times: list[tuple[float, int]] = []
    for index, (time, size, frame) in enumerate(group_frames(frames, group=group)):
        if not detector.place.on_cores:
            yield frame[None, :, :], [(time, size)]
            continue
        detector.check(frame, index)
        if buffer is None or len(times) == len(buffer) or buffer.dtype != frame.dtype:
            if buffer is not None:
                yield buffer[: len(times)], times
            if buffer is None or buffer.dtype != frame.dtype:
                buffer = np.empty((max(1, min(_CHUNK, _CHUNK_BYTES // frame.nbytes)), *frame.shape), dtype=frame.dtype)
            times = []
        buffer[len(times)] = frame
        times.append((time, size))
    if buffer is not None:
        yield buffer[: len(times)], times


def _add(
    sums: Array, images: Array, detector: Detector, *, first: int, fields_yx_px: NDArray[np.float32], weights: NDArray[np.float32]
) -> None:
    """Correct raw images ``(n, h, w)``, of which ``first`` is the number of the first one, move them and add them to ``sums``."""
    if not detector.place.on_cores:
        corrected = detector.correct(images[0, :, :], number=first)[None, :, :]
        add_warped_frames(sums, corrected, fields_yx_px=fields_yx_px, weights=weights)
        return
    numbers = range(first, first + len(images))
    add_corrected_warped(
        sums,
        images,
        detector.factor,
        positions=detector.positions,
        sources=np.stack([draw_good_pixels(detector.defects, detector.positions, seed=number) for number in numbers]),
        fields_yx_px=fields_yx_px,
        weights=weights,
    )


def binned_shape(shape: tuple[int, int], *, bin: float) -> tuple[int, int]:
    """Return the size of an image binned by ``bin``: sides even, or as they are for ``bin`` 1.

    Raises
    ------
    ValueError
        ``bin`` is below 1, or leaves less than 2 pixels.
    """
    if bin < 1:
        raise ValueError(f"bin is {bin:g}; it must be 1 or more")
    if bin == 1:
        return shape
    height, width = (2 * round(length / bin / 2) for length in shape)
    if min(height, width) < 2:
        raise ValueError(f"bin {bin:g} leaves nothing of {shape[0]}×{shape[1]} pixels")
    return height, width


def _weigh(sums: Array, weights: FactorisedWeights) -> Array:
    if not isinstance(sums, np.ndarray):
        return filter_arrays(sums, rfft2, weights.of_frequency)
    height, width = sums.shape[1:]
    out: NDArray[np.complex64] | None = None
    for image, curve in zip(sums, weights.of_frequency, strict=True):
        spectrum = rfft2(image)  # (h, w // 2 + 1)
        _filter_rows(spectrum, curve, height, width)
        out = spectrum if out is None else np.add(out, spectrum, out=out)
    return out


def _from_spectrum(spectrum: Array, *, shape: tuple[int, int], new_shape: tuple[int, int]) -> Array:
    if new_shape != shape:
        spectrum = resize_spectrum_2d(spectrum, shape=shape, new_shape=new_shape)
    xp = place_of(spectrum).xp
    return xp.astype(irfft2(spectrum, shape=new_shape, overwrite=True), xp.float32, copy=False)
