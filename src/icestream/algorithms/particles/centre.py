"""The centre of a class average, and where it is in the image of a particle."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.fourier import Image

_SMOOTHED = 0.03
_LEVEL = 0.1


def centre_of_mass_2d(average: Image) -> NDArray[np.float64]:
    """Return how far the centre of mass of a bright particle is off the middle of its average: ``(2,)``, yx, in pixels.

    What counts is above a tenth of the highest value, after smoothing, and hangs together with it, so that neither the noise of
    the background nor a neighbour at the edge pulls the centre. An average without anything bright has its centre in the middle.

    Parameters
    ----------
    average
        ``(b, b)``, protein bright, background near 0; the middle is pixel ``b // 2``.
    """
    side = average.shape[0]
    smooth = ndimage.gaussian_filter(average.astype(np.float64), _SMOOTHED * side, mode="nearest")
    top = float(smooth.max())
    if not top > 0:
        return np.zeros(2)
    parts, _ = ndimage.label(smooth > _LEVEL * top)
    particle = parts == parts[np.unravel_index(int(smooth.argmax()), smooth.shape)]
    weight = np.where(particle, smooth, 0.0)
    offset = np.arange(side) - side // 2
    moments = np.array([weight.sum(axis=1) @ offset, weight.sum(axis=0) @ offset])
    centre: NDArray[np.float64] = moments / weight.sum()
    return centre


def turn_yx(yx: NDArray[np.float64], *, angle_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn vectors ``(n, 2)``, yx, by ``(n,)`` degrees from x towards y."""
    sine, cosine = np.sin(np.deg2rad(angle_deg)), np.cos(np.deg2rad(angle_deg))
    y, x = yx.T
    return np.stack([x * sine + y * cosine, x * cosine - y * sine], axis=1)  # (n, 2)
