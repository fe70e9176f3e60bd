"""From a micrograph to features of each place that do not depend on the turn of a particle."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image, frequency_radius_2d
from icestream.algorithms.micrograph.contamination import mask_contamination_2d
from icestream.algorithms.particles.noise import Transfer, flatten_2d, pad_2d, reduce_2d, ring_power_2d
from icestream.algorithms.trained_picker.filters import Filters

WORKING_DIAMETER_PX = 24.0
_LONGEST = 2.5  # diameters; longer waves are background


@dataclass(frozen=True)
class Prepared:
    """A micrograph, small, white, and with the contrast of the lens undone as far as its sign goes.

    Attributes
    ----------
    image
        ``(h, w)``; noise has a standard deviation of about 1.
    allowed
        ``(h, w)``, false on what is no specimen.
    scale
        ``(2,)``: pixels of the micrograph per pixel.
    """

    image: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    scale: NDArray[np.float64]


def prepare_micrograph_2d(image: Image, *, pixel_size_ang: float, diameter_ang: float, transfer: Transfer) -> Prepared:
    """Reduce a micrograph until a particle is 24 pixels wide, flatten and whiten it, and weight it by the contrast transfer.

    Parameters
    ----------
    image
        ``(h, w)``.
    pixel_size_ang, diameter_ang
        Of the image; of the particle.
    transfer
        How the microscope images bright density; the result is bright where there is density.
    """
    small, scale = reduce_2d(image, factor=diameter_ang / WORKING_DIAMETER_PX / pixel_size_ang)
    pixel_ang = pixel_size_ang * float(scale.mean())
    diameter_px = diameter_ang / pixel_ang
    masked = mask_contamination_2d(small, diameter_px=diameter_px)
    flat = flatten_2d(small, diameter_px=diameter_px, masked=masked)
    pad = int(np.ceil(diameter_px))
    padded = pad_2d(flat, pad)
    spectrum = fft.rfft2(padded)
    waves = frequency_radius_2d(*padded.shape) * (_LONGEST * diameter_px)
    lens = transfer(padded.shape[0], padded.shape[1], pixel_ang) * np.clip(waves - 0.5, 0.0, 1.0)
    spectrum *= (lens / np.sqrt(ring_power_2d(spectrum, width=padded.shape[1]))).astype(np.float32)
    white = fft.irfft2(spectrum, s=padded.shape)[pad : pad + flat.shape[0], pad : pad + flat.shape[1]]
    deviation = 1.4826 * float(np.median(np.abs(white[~masked] - np.median(white[~masked])))) if not masked.all() else 1.0
    return Prepared((white / max(deviation, 1e-30)).astype(np.float32), ~masked, scale)


def n_features(order: NDArray[np.int64]) -> int:
    """Return how many features filters of such orders give, with the constant."""
    return int(2 * np.count_nonzero(order == 0) + np.count_nonzero(order) + 2)


def compute_features_2d(image: NDArray[np.float32], filters: Filters, *, diameter_px: float) -> NDArray[np.float32]:
    """Return the features of each place: ``(k, h, w)``.

    Of order 0 the responses and their logarithmic squares, of other orders the logarithms of their power; in the end the
    logarithm of the local variance and the constant 1.

    Parameters
    ----------
    image
        ``(h, w)``, prepared.
    filters
        The filters.
    diameter_px
        Of the particle.
    """
    pad = filters.real.shape[-1] // 2
    padded = pad_2d(image, pad)
    spectrum = fft.rfft2(padded)
    inner = (slice(pad, pad + image.shape[0]), slice(pad, pad + image.shape[1]))

    def respond(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        field = np.zeros(padded.shape, dtype=np.float32)
        field[: kernel.shape[0], : kernel.shape[1]] = kernel
        turned = np.conj(fft.rfft2(np.roll(field, (-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)), axis=(0, 1))))
        response: NDArray[np.float32] = fft.irfft2(spectrum * turned, s=padded.shape)[inner]
        return response

    features = np.empty((n_features(filters.order), *image.shape), dtype=np.float32)
    index = 0
    for real, imaginary, order in zip(filters.real, filters.imaginary, filters.order, strict=True):
        response = respond(real)
        if order == 0:
            features[index] = response
            index += 1
            features[index] = np.log1p(response * response)
        else:
            features[index] = np.log1p(response * response + respond(imaginary) ** 2)
        index += 1
    features[index] = np.log(0.05 + ndimage.gaussian_filter(image * image, 0.5 * diameter_px, mode="reflect"))
    features[index + 1] = 1.0
    return features
