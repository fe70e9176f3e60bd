"""How the resolution varies within a map: correlation of the halves band by band, within windows.

Cardone, Heymann & Steven (2013), J. Struct. Biol. 184, 226. A band that is kept lowers the squared difference of one half,
filtered, from the other if its correlation exceeds 0.5; so the frequency up to which the sum of gains is highest is what
cross-validation would choose (compare Punjani et al. 2020, Nat. Methods 17, 1214).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.map_quality.shells import Curve, Map, invert_3d, shell_radius, transform_3d

_N_BANDS = 24
_LEAST_SHELL = 2.0


@dataclass(frozen=True)
class LocalResolution:
    """Resolution by voxel.

    Attributes
    ----------
    resolution_ang
        ``(b, b, b)``; NaN outside the mask.
    percentiles_ang
        5, 25, 50, 75 and 95 % of the voxels of the mask.
    """

    resolution_ang: NDArray[np.float32]
    percentiles_ang: tuple[float, float, float, float, float]


def measure_local_resolution(
    half_1: Map,
    half_2: Map,
    mask: NDArray[np.float32],
    *,
    pixel_size_ang: float,
    finest_ang: float,
    window: float = 0.8,
) -> LocalResolution:
    """Measure the resolution around each voxel.

    Parameters
    ----------
    half_1, half_2
        ``(b, b, b)``, without a mask.
    mask
        Where it is measured: above 0.5.
    finest_ang
        Nothing finer is looked for; give somewhat less than the resolution of the whole map.
    window
        Standard deviation of the Gaussian window, in wavelengths of the band.
    """
    box_px = half_1.shape[0]
    last = min(box_px * pixel_size_ang / finest_ang, box_px / 2 - 1.0)
    edges = np.geomspace(_LEAST_SHELL, max(last, _LEAST_SHELL + 2), _N_BANDS + 1)
    inside = np.asarray(mask > 0.5)
    spectra = transform_3d(half_1), transform_3d(half_2)
    agreement = np.empty((_N_BANDS, int(inside.sum())), dtype=np.float32)
    gains = np.empty_like(agreement)
    for index in range(_N_BANDS):
        band = _band(box_px, float(edges[index]), float(edges[index + 1]))
        one, other = (invert_3d(spectrum * band, box_px=box_px) for spectrum in spectra)
        sigma_px = window * box_px / float(np.sqrt(edges[index] * edges[index + 1]))
        cross, power_1, power_2 = (_smooth(product, sigma_px)[inside] for product in (one * other, one * one, other * other))
        agreement[index] = cross / np.sqrt(np.maximum(power_1 * power_2, 1e-30))
        gains[index] = 2 * cross - 0.5 * (power_1 + power_2)
    limit = _choose(agreement, gains, edges)
    resolution = np.full(half_1.shape, np.nan, dtype=np.float32)
    resolution[inside] = box_px * pixel_size_ang / limit
    low, quarter, median, upper, high = (float(x) for x in np.percentile(resolution[inside], (5, 25, 50, 75, 95)))
    return LocalResolution(resolution, (low, quarter, median, upper, high))


def _band(box_px: int, low: float, high: float) -> Curve:
    """Return the part of each coefficient in a band; a shell on the border is shared."""
    radius = shell_radius(box_px)
    part: Curve = np.clip(radius - low + 0.5, 0, 1) * np.clip(high - radius + 0.5, 0, 1)
    return np.sqrt(part)


def _smooth(values: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(
        values, min(sigma_px, values.shape[0] / 6), mode="constant", truncate=3.0
    )
    return smooth


def _choose(agreement: NDArray[np.float32], gains: NDArray[np.float32], edges: Curve) -> Curve:
    """Return the limit of each voxel in cycles per box."""
    middles = np.sqrt(edges[1:] * edges[:-1])
    total = np.cumsum(gains, axis=0)
    at = np.where(total.max(axis=0) > 0, total.argmax(axis=0) + 1, 0)
    before = np.clip(at - 1, 0, len(middles) - 1)
    after = np.clip(at, 0, len(middles) - 1)
    voxels = np.arange(agreement.shape[1])
    high, low = agreement[before, voxels], agreement[after, voxels]
    fraction = np.where(high > low, np.clip((high - 0.5) / np.where(high > low, high - low, 1.0), 0, 1), 0.5)
    limit: Curve = middles[before] + fraction * (middles[after] - middles[before])
    return limit
