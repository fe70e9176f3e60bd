"""Frequencies, Fourier cropping and padding, phase shifts and radial averages."""

from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from icestream.algorithms.namespaces import irfft2, place_of, rfft2

Image = NDArray[Any]
Spectrum = NDArray[Any]


@lru_cache(maxsize=32)
def frequency_grid_2d(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the frequencies of an ``rfft2`` of ``(height, width)``.

    Returns
    -------
    ky, kx
        ``(h, 1)`` and ``(1, w // 2 + 1)``, cycles per pixel, read-only.
    """
    ky = np.fft.fftfreq(height).astype(np.float32)[:, None]  # (h, 1)
    kx = np.fft.rfftfreq(width).astype(np.float32)[None, :]  # (1, w // 2 + 1)
    ky.flags.writeable = False
    kx.flags.writeable = False
    return ky, kx


@lru_cache(maxsize=16)
def frequency_radius_2d(height: int, width: int) -> NDArray[np.float32]:
    """Return ``|k|`` of an ``rfft2``: ``(h, w // 2 + 1)``, cycles per pixel, read-only."""
    ky, kx = frequency_grid_2d(height, width)
    radius = np.sqrt(ky * ky + kx * kx)  # (h, w // 2 + 1)
    radius.flags.writeable = False
    return radius


def shift_spectrum_2d(spectrum: Spectrum, shift_yx_px: tuple[float, float], *, width: int) -> Spectrum:
    """Move the content of the image behind ``spectrum`` by ``shift_yx_px`` (a phase ramp).

    Parameters
    ----------
    spectrum
        ``(..., h, w // 2 + 1)``.
    width
        The width of the image, which the half spectrum does not tell.
    """
    place = place_of(spectrum)
    ky, kx = frequency_grid_2d(spectrum.shape[-2], width)
    ramp_y = np.exp(-2j * np.pi * shift_yx_px[0] * ky.astype(np.float64)).astype(np.complex64)  # (h, 1)
    ramp_x = np.exp(-2j * np.pi * shift_yx_px[1] * kx.astype(np.float64)).astype(np.complex64)  # (1, w // 2 + 1)
    shifted: Spectrum = spectrum * place.put(ramp_y) * place.put(ramp_x)
    return shifted


def resize_spectrum_2d(spectrum: Spectrum, *, shape: tuple[int, int], new_shape: tuple[int, int]) -> Spectrum:
    """Crop or pad an ``rfft2`` from images of ``shape`` to images of ``new_shape``; grey values are kept.

    Each axis may grow or shrink. The Nyquist line of an even axis is split (padding) or folded (cropping) so that real images
    stay real and the centre of the image stays where it is in pixels of either size.

    Parameters
    ----------
    spectrum
        ``(..., h, w // 2 + 1)``; returned as ``(..., new_h, new_w // 2 + 1)``.
    """
    xp = array_namespace(spectrum)
    (height, width), (new_height, new_width) = shape, new_shape
    rows = (min(height, new_height) + 1) // 2  # non-negative rows that are kept whole
    tail = min(height, new_height) // 2  # negative rows, the Nyquist row among them
    columns = min(width // 2 + 1, new_width // 2 + 1)
    size = (*spectrum.shape[:-2], new_height, new_width // 2 + 1)
    out = xp.zeros(size, dtype=spectrum.dtype, device=place_of(spectrum).device)
    out[..., :rows, :columns] = spectrum[..., :rows, :columns]
    out[..., new_height - tail :, :columns] = spectrum[..., height - tail :, :columns]
    if min(height, new_height) % 2 == 0 and height != new_height:
        _balance_nyquist_row(out, spectrum, rows=rows, columns=columns, growing=new_height > height)
    if new_width > width and width % 2 == 0:
        out[..., :, columns - 1] *= 0.5
    elif new_width < width and new_width % 2 == 0:
        edge = out[..., :, columns - 1]  # (..., new_h); its opposite frequencies are the conjugate with ky negated
        out[..., :, columns - 1] = edge + xp.conj(xp.roll(xp.flip(edge, axis=-1), 1, axis=-1))
    resized: Spectrum = out * ((new_height * new_width) / (height * width))
    return resized


def _balance_nyquist_row(out: Spectrum, spectrum: Spectrum, *, rows: int, columns: int, growing: bool) -> None:
    """Split (growing) or fold (shrinking) the Nyquist row of ``out``, our own new array."""
    if growing:
        out[..., -rows, :columns] *= 0.5
        out[..., rows, :columns] = out[..., -rows, :columns]
    else:
        out[..., rows, :columns] += spectrum[..., rows, :columns]


def crop_fourier_2d(image: Image, *, new_shape: tuple[int, int]) -> Image:
    """Resample real ``(..., h, w)`` images to ``new_shape`` by Fourier cropping or padding; grey values are kept."""
    shape = (image.shape[-2], image.shape[-1])
    spectrum = resize_spectrum_2d(rfft2(image), shape=shape, new_shape=new_shape)
    resampled: Image = irfft2(spectrum, shape=new_shape)  # (..., new_h, new_w)
    whole: Image = array_namespace(image).astype(resampled, image.dtype, copy=False)
    return whole


def radial_average_2d(
    spectrum: Spectrum, *, width: int, n_bins: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average a real-valued half spectrum over rings of constant frequency.

    Parameters
    ----------
    spectrum
        ``(h, w // 2 + 1)``, real.
    n_bins
        Rings from 0 to 0.5 cycles per pixel; ``h // 2`` when unset.

    Returns
    -------
    frequency, average
        ``(n_bins,)`` each; ring ``i`` covers ``[i, i + 1) * 0.5 / n_bins``, ``frequency`` is its middle. Empty rings are NaN.
    """
    n_bins = n_bins or spectrum.shape[0] // 2
    radius = frequency_radius_2d(spectrum.shape[0], width)
    ring = np.minimum((radius * (2 * n_bins)).astype(np.int64), n_bins).ravel()  # (h * (w // 2 + 1),)
    weight = np.full(spectrum.shape, 2.0)
    weight[:, 0] = 1.0
    if width % 2 == 0:
        weight[:, -1] = 1.0
    total = np.bincount(ring, weights=(spectrum * weight).ravel(), minlength=n_bins + 1)[:n_bins]
    count = np.bincount(ring, weights=weight.ravel(), minlength=n_bins + 1)[:n_bins]
    average = np.divide(total, count, out=np.full(n_bins, np.nan), where=count > 0)
    return (np.arange(n_bins) + 0.5) * 0.5 / n_bins, average
