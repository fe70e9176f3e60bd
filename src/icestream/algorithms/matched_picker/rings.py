"""An image by its Fourier rings: what is the same in every direction is one number a ring."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image, frequency_radius_2d

Spectrum = NDArray[np.complex64]
PerRing = NDArray[np.float64]

_SMOOTHING_RINGS = 2.0


@dataclass(frozen=True)
class Rings:
    """The rings of half spectra ``(h, w // 2 + 1)`` of images of ``shape``, as wide as a period of the shorter side.

    Attributes
    ----------
    index
        ``(h, w // 2 + 1)``, the ring of each coefficient.
    weight
        ``(h * (w // 2 + 1),)``: 2 where a coefficient stands for its opposite too.
    count
        ``(n,)``, coefficients of the whole plane in each ring.
    frequency
        ``(n,)``, the middle of each ring in cycles per pixel.
    """

    shape: tuple[int, int]
    index: NDArray[np.int32]
    weight: NDArray[np.float32]
    count: PerRing
    frequency: PerRing

    @classmethod
    def of(cls, shape: tuple[int, int]) -> "Rings":
        """Return the rings for images of ``shape``."""
        return _make_rings(shape)

    def mean(self, values: NDArray[np.float32]) -> PerRing:
        """Average ``(h, w // 2 + 1)`` over each ring: ``(n,)``."""
        total = np.bincount(self.index.ravel(), self.weight * values.ravel(), minlength=len(self.count))
        mean: PerRing = total / np.maximum(self.count, 1)
        return mean

    def spread(self, per_ring: PerRing) -> NDArray[np.float32]:
        """Return ``(h, w // 2 + 1)`` in which each coefficient has the value of its ring."""
        return per_ring.astype(np.float32)[self.index]


@lru_cache(maxsize=4)
def _make_rings(shape: tuple[int, int]) -> Rings:
    n_half = max(min(shape) // 2, 1)
    index = (frequency_radius_2d(*shape) * np.float32(2 * n_half)).astype(np.int32)
    weight = np.full(index.shape, 2.0, np.float32)
    weight[:, 0] = 1.0
    if shape[1] % 2 == 0:
        weight[:, -1] = 1.0
    count = np.bincount(index.ravel(), weight.ravel()).astype(np.float64)
    return Rings(shape, index, weight.ravel(), count, (np.arange(len(count)) + 0.5) / (2 * n_half))


@dataclass(frozen=True)
class Field:
    """A micrograph without background, in Fourier space; ``allowed`` ``(h, w)`` is where particles may be."""

    spectrum: Spectrum
    rings: Rings
    allowed: NDArray[np.bool_]

    @classmethod
    def of(cls, image: Image, allowed: NDArray[np.bool_]) -> "Field":
        """Transform the allowed part of ``(h, w)``; the rest is taken for 0."""
        shape = (image.shape[0], image.shape[1])
        return cls(fft.rfft2(np.where(allowed, image, 0).astype(np.float32)), Rings.of(shape), allowed)

    @cached_property
    def power(self) -> PerRing:
        """Mean power of each ring, smoothed."""
        return smooth_rings(self.rings.mean(np.abs(self.spectrum) ** 2)) + 1e-30

    def inverted(self) -> "Field":
        """Return the same with inverted contrast."""
        return replace(self, spectrum=-self.spectrum)

    def within(self, allowed: NDArray[np.bool_]) -> "Field":
        """Return the part ``(h, w)`` of it; the rest is taken for 0."""
        image: Image = fft.irfft2(self.spectrum, s=self.shape)
        return Field.of(image, self.allowed & allowed)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.rings.shape

    def filter(self, transfer: PerRing) -> Image:
        """Multiply each ring by a number and return the image ``(h, w)``."""
        filtered: Image = fft.irfft2(self.spectrum * self.rings.spread(transfer), s=self.shape)
        return filtered


def smooth_rings(values: PerRing, *, rings: float = _SMOOTHING_RINGS) -> PerRing:
    """Smooth along the rings with a Gaussian."""
    smooth: PerRing = ndimage.gaussian_filter1d(values, rings, mode="nearest")
    return smooth


def low_pass(rings: Rings, *, sigma_px: float) -> PerRing:
    """Return the transfer ``(n,)`` of a Gaussian blur."""
    transfer: PerRing = np.exp(-2 * (np.pi * rings.frequency * sigma_px) ** 2)
    return transfer
