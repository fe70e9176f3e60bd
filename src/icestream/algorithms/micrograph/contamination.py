"""Where a micrograph shows no specimen: ice crystals, carbon, gold and the edges between them."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.fourier import Image

_FAR_MEAN = 2.0  # standard deviations of the detail
_FAR_LOG_VARIANCE = 0.8  # a factor of 2.2
_UNUSUAL = 6.0  # robust standard deviations


def robust_zscore(values: Image) -> Image:
    """Return how many robust standard deviations (1.4826 times the median deviation) each value is from the median.

    Half a part in a million of the largest value is taken as rounding, so that a constant array scores 0.
    """
    centred = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(centred))
    scores: Image = centred / max(float(spread), 5e-7 * float(np.max(np.abs(values), initial=0.0)), 1e-30)
    return scores


def mask_contamination_2d(image: Image, *, diameter_px: float) -> NDArray[np.bool_]:
    """Mark what is much darker, brighter, rougher or smoother than the rest and larger than a particle.

    The local mean (in standard deviations of the fine detail) and the logarithm of the local variance are compared with their
    medians. A place is odd when the two together are far off in grey value and unusual for this micrograph; so a gradient of the
    ice and a sparse field of strong particles are left alone, and an ice ball, a carbon edge or a grid bar is not.

    Parameters
    ----------
    image
        ``(h, w)``.
    diameter_px
        Particle diameter; a marked region must hold a disc of 1.5 diameters, and is widened by half a diameter.

    Returns
    -------
    mask
        ``(h, w)``, true where nothing should be picked.
    """
    detail = image - ndimage.gaussian_filter(image, 0.25 * diameter_px, mode="reflect")  # (h, w)
    noise = 1.4826 * float(np.median(np.abs(detail - np.median(detail)))) + 1e-30
    mean = ndimage.gaussian_filter(image, 0.5 * diameter_px, mode="reflect")
    variance = ndimage.gaussian_filter(detail * detail, diameter_px, mode="reflect")
    rough = np.log(np.maximum(variance, 1e-6 * float(np.median(variance)) + 1e-30))
    off_mean = (mean - np.median(mean)) / (_FAR_MEAN * noise)
    off_rough = (rough - np.median(rough)) / _FAR_LOG_VARIANCE
    unusual = np.maximum(np.abs(robust_zscore(mean)), np.abs(robust_zscore(rough))) > _UNUSUAL
    return _widen_large_regions(
        (np.hypot(off_mean, off_rough) > 1) & unusual, radius_px=0.75 * diameter_px, extra_px=0.5 * diameter_px
    )


def _widen_large_regions(odd: NDArray[np.bool_], *, radius_px: float, extra_px: float) -> NDArray[np.bool_]:
    """Open ``odd`` with a disc of ``radius_px`` (regions go on beyond the border) and widen the rest by ``extra_px``."""
    core = ndimage.distance_transform_edt(np.pad(odd, 1, mode="edge"))[1:-1, 1:-1] >= radius_px
    if not core.any():
        return np.zeros(odd.shape, dtype=bool)
    widened: NDArray[np.bool_] = ndimage.distance_transform_edt(~core) <= radius_px + extra_px
    return widened
