"""The compiled kernels of motion correction once more, in words of the array API standard: what runs on a GPU.

Each function does what the compiled one does that its caller names; large arrays live on a device, small ones on the host, and
frames are taken a few at a time, so that intermediate arrays stay at an eighth of a GiB.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.namespaces import Array, Place, place_of, to_numpy

_LARGEST_PIXELS = 2**24


def correct_array(
    frame: Array, factor: Array, *, ranks: Array | None, sources: NDArray[np.intp], is_defect: Array | None
) -> Array:
    """Return ``frame`` times ``factor``, its defects replaced by the pixels ``sources``: ``(h, w)``.

    Parameters
    ----------
    ranks
        ``(h * w,)``: how many defects come before each pixel; None if there is none.
    sources
        ``(n,)``: for each defect the flat index of the good pixel whose value it gets, -1 for zero.
    is_defect
        ``(h, w)``; None if there is none.
    """
    place = place_of(frame)
    xp = place.xp
    corrected = xp.astype(frame, xp.float32) * factor
    if ranks is None or is_defect is None:
        return corrected
    values = xp.take(xp.reshape(corrected, (-1,)), place.put(np.maximum(sources, 0)), axis=0)  # (n,)
    if np.any(sources < 0):
        values = values * place.put((sources >= 0).astype(np.float32))
    return xp.where(is_defect, xp.reshape(xp.take(values, ranks, axis=0), frame.shape), corrected)


def bin_array(frame: Array, *, bin: int) -> Array:
    """Return the sum of ``bin`` × ``bin`` pixels at a time, a remainder left out: ``(h // bin, w // bin)``."""
    xp = place_of(frame).xp
    height, width = frame.shape[0] // bin, frame.shape[1] // bin
    tiles = xp.reshape(frame[: height * bin, : width * bin], (height, bin, width, bin))
    return xp.sum(tiles, axis=(1, 3))


def add_shifted_arrays(spectra: Array, ramps_y: NDArray[Any], ramps_x: NDArray[Any]) -> Array:
    """Return the sum of ``(n, h, w)`` spectra times their ramps ``(n, h)`` and ``(n, w)``: ``(h, w)``."""
    place = place_of(spectra)
    total = place.zeros((spectra.shape[1], spectra.shape[2]), "complex64")
    for moved in _shifted(spectra, ramps_y, ramps_x, place=place):
        total += place.xp.sum(moved, axis=0)
    return total


def _shifted(spectra: Array, ramps_y: NDArray[Any], ramps_x: NDArray[Any], *, place: Place) -> Iterator[Array]:
    for part in _few(spectra):
        yield spectra[part, :, :] * place.put(ramps_y[part])[:, :, None] * place.put(ramps_x[part])[:, None, :]


def _few(spectra: Array) -> Iterator[slice]:
    """Yield slices of the first axis that keep intermediate arrays small."""
    step = max(1, _LARGEST_PIXELS // (spectra.shape[1] * spectra.shape[2]))
    for start in range(0, spectra.shape[0], step):
        yield slice(start, min(start + step, spectra.shape[0]))


def shift_each(spectra: Array, ramps_y: NDArray[Any], ramps_x: NDArray[Any]) -> Array:
    """Return ``(n, h, w)`` spectra times their ramps; all at once, for small ones."""
    place = place_of(spectra)
    return spectra * place.put(ramps_y)[:, :, None] * place.put(ramps_x)[:, None, :]


def slopes_of_arrays(  # noqa: PLR0917 - as the compiled one
    spectra: Array, total: Array, ramps_y: NDArray[Any], ramps_x: NDArray[Any], weight: NDArray[Any], ky: Any, kx: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gradient ``(n, 2)`` and curvature ``(n, 3)`` of the score of each frame, without factors of 2π."""
    place = place_of(spectra)
    xp = place.xp
    powers = place.put(np.stack([np.ones_like(kx), kx, kx * kx], axis=1))  # (w, 3)
    weights = place.put(weight)
    evens, odds = [], []
    for moved in _shifted(spectra, ramps_y, ramps_x, place=place):
        cross = xp.conj(total[None, :, :] - moved) * moved  # (few, h, w)
        evens.append(to_numpy(xp.matmul(xp.real(cross) * weights, powers)))  # (few, h, 3)
        odds.append(to_numpy(xp.matmul(xp.imag(cross) * weights, powers)))
    even, odd = (np.concatenate(parts).astype(np.float64) for parts in (evens, odds))  # (n, h, 3)
    gradient = -np.stack([odd[..., 0] @ ky, odd[..., 1].sum(axis=1)], axis=1)
    curvature = np.stack([even[..., 0] @ (ky * ky), even[..., 1] @ ky, even[..., 2].sum(axis=1)], axis=1)
    return gradient, curvature


def sum_power_arrays(spectra: Array) -> NDArray[np.float64]:
    """Return the summed power of ``(n, h, w)`` spectra, on the host: ``(h, w)``."""
    place = place_of(spectra)
    xp = place.xp
    single = place.zeros((spectra.shape[1], spectra.shape[2]), "float64")
    for part in _few(spectra):
        few = spectra[part, :, :]
        single += xp.sum(xp.astype(xp.real(few), xp.float64) ** 2 + xp.astype(xp.imag(few), xp.float64) ** 2, axis=0)
    return to_numpy(single)


def filter_arrays(images: Array, spectra_of: Any, curves: NDArray[Any]) -> Array:
    """Return the sum over images of their transform times a curve over the frequency: ``(h, w // 2 + 1)``.

    Parameters
    ----------
    images
        ``(n, h, w)``.
    spectra_of
        The transform.
    curves
        ``(n, f)``, from 0 to sqrt(½) cycles per pixel.
    """
    place = place_of(images)
    xp, (_, height, width) = place.xp, images.shape
    ky = place.put(np.fft.fftfreq(height) ** 2)[:, None]  # (h, 1)
    kx = place.put(np.fft.rfftfreq(width) ** 2)[None, :]  # (1, w // 2 + 1)
    where = xp.sqrt(ky + kx) * ((curves.shape[1] - 1) / np.sqrt(0.5).item())
    low = xp.clip(xp.astype(where, xp.int64), None, curves.shape[1] - 2)  # (h, w // 2 + 1)
    part = xp.astype(where - xp.astype(low, xp.float64), xp.float32)
    flat = xp.reshape(low, (-1,))
    out = place.zeros(tuple(low.shape), "complex64")
    for number in range(images.shape[0]):
        curve = place.put(curves[number])
        left, right = (xp.reshape(xp.take(curve, flat + step, axis=0), low.shape) for step in (0, 1))
        out += spectra_of(images[number, :, :]) * (left * (1.0 - part) + right * part)
    return out
