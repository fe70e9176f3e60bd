"""Round templates: learned as radial averages, found by fast local correlation (Roseman 2003, Ultramicroscopy 94, 225)."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image


def average_radially_2d(image: Image, yx_px: NDArray[np.float64], *, radius_px: float) -> NDArray[np.float64]:
    """Average ``image`` about the points ``yx_px`` and over the angle.

    Returns
    -------
    profile
        ``(ceil(radius_px) + 2,)``, the mean at radius 0, 1, 2, … pixels.
    """
    reach = int(np.ceil(radius_px)) + 1
    offsets = np.arange(-reach, reach + 1, dtype=np.float64)
    rows = yx_px[:, 0, None, None] + offsets[None, :, None]  # (n, 2 reach + 1, 1)
    columns = yx_px[:, 1, None, None] + offsets[None, None, :]
    rows, columns = np.broadcast_arrays(rows, columns)
    patches = ndimage.map_coordinates(image, [rows, columns], order=1, mode="reflect")  # (n, 2 reach + 1, 2 reach + 1)
    radius = np.hypot(offsets[:, None], offsets[None, :])
    mean = patches.mean(axis=0)
    weight = np.clip(1.0 - np.abs(radius[None] - np.arange(reach + 1)[:, None, None]), 0.0, None)  # (reach + 1, …)
    profile: NDArray[np.float64] = (weight * mean).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
    return profile


def correlate_locally_2d(image: Image, profile: NDArray[np.float64], *, radius_px: float) -> Image:
    """Correlate ``image`` with a round template, both normalised under the template's disc (Roseman 2003, equation 6).

    Parameters
    ----------
    image
        ``(h, w)``.
    profile
        The template at radius 0, 1, 2, … pixels.
    radius_px
        Radius of the disc.

    Returns
    -------
    correlation
        ``(h, w)``, between -1 and 1.
    """
    reach = int(np.ceil(radius_px))
    pad = reach + 1
    padded = np.pad(image, pad, mode="reflect" if min(image.shape) > pad else "symmetric").astype(np.float64)
    shape = (fft.next_fast_len(padded.shape[0], real=True), fft.next_fast_len(padded.shape[1], real=True))
    offset_y, offset_x = (np.fft.fftfreq(n, 1.0 / n) for n in shape)
    radius = np.hypot(offset_y[:, None], offset_x[None, :])  # (h, w), the origin at [0, 0]
    disc = np.clip(radius_px + 0.5 - radius, 0.0, 1.0)
    area = disc.sum()
    template = np.interp(radius, np.arange(len(profile)), profile)
    template -= (template * disc).sum() / area
    template *= disc / (np.sqrt((template**2 * disc).sum()) + 1e-30)
    disc_spectrum, template_spectrum = fft.rfft2(disc), fft.rfft2(template)
    spectrum, square = fft.rfft2(padded, s=shape), fft.rfft2(padded**2, s=shape)
    covariance = fft.irfft2(spectrum * template_spectrum, s=shape)  # the template is even: correlation is convolution
    total = fft.irfft2(spectrum * disc_spectrum, s=shape)
    variance = fft.irfft2(square * disc_spectrum, s=shape) - total**2 / area
    inner = (slice(pad, pad + image.shape[0]), slice(pad, pad + image.shape[1]))
    floor = max(0.1 * float(np.median(variance[inner])), 1e-12)
    correlation: Image = covariance[inner] / np.sqrt(np.maximum(variance[inner], floor))
    return correlation
