"""Noise that looks like a micrograph: the same spectrum, and nothing at any place.

What a picker that learns from the micrograph finds in such an image is what it finds in noise, its own learning included: a
template that was averaged over peaks of noise fits these very peaks better than any others, of either contrast.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.fourier import Image


def draw_surrogates_2d(image: Image, *, allowed: NDArray[np.bool_], count: int) -> Iterator[Image]:
    """Yield images with the spectrum of ``image`` and random phases (Theiler et al. 1992, Physica D 58, 77).

    The phases are the same ones in every call, so that one micrograph has one result.

    Parameters
    ----------
    image
        ``(h, w)``, the background removed.
    allowed
        ``(h, w)``; what lies elsewhere does not count for the spectrum.
    count
        How many images.

    Yields
    ------
    surrogate
        ``(h, w)``, with the variance that the allowed part has.
    """
    if not allowed.any():
        return
    seen = np.where(allowed, image - image[allowed].mean(), 0.0)  # (h, w)
    spread = float(image[allowed].std())
    amplitude = np.abs(fft.rfft2(seen))  # (h, w // 2 + 1)
    rng = np.random.default_rng(0)
    for _ in range(count):
        noise = fft.rfft2(rng.normal(size=image.shape))  # (h, w // 2 + 1)
        drawn: Image = fft.irfft2(amplitude * noise / np.maximum(np.abs(noise), 1e-30), s=image.shape)
        yield drawn * (spread / max(float(drawn.std()), 1e-30))
