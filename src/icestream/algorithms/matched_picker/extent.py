"""How large particles are, from where the signal around their middle ends."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from icestream.algorithms.matched_picker.radial_template import RadialTemplate, explain, radial_profile
from icestream.algorithms.matched_picker.rings import Field, low_pass

_BLUR_PX = 1.2
_N_RADII, _N_ANGLES = 40, 48
_LOW, _HIGH = 0.2, 0.5
_SHARP, _PER_SOFTNESS, _SOFT = 1.1, 2.6, 1.36
_BASE_RADII, _AROUND_EDGE = 5, 1.2


def measure_diameter(field: Field, template: RadialTemplate, yx_px: NDArray[np.float64], *, largest_px: float) -> float | None:
    """Return the diameter of the sphere that holds a particle, None where it has no edge within half of ``largest_px``.

    The mean of views of a particle that is not round ends where the shorter ones end. Therefore what counts is the power around
    the middle, that of the mean and that of the differences from it. The neighbours are taken out, as far as they are round, and
    the half of the particles that has the nearest ones is left out. A view shows the longest side of a particle rarely, so the
    sphere that holds it is wider than where a fifth of the power on a circle is left, and the more so the slower the power falls.
    The numbers are fitted to simulated particles.
    """
    edge_px = template.edge_px
    if edge_px == 0 or not len(yx_px):
        return None
    radius, power = signal_power(field, template, yx_px, radius_px=0.5 * largest_px)
    smooth = ndimage.uniform_filter1d(power, _BASE_RADII, mode="nearest")
    outside = radius >= edge_px
    weighted = (power - (smooth[outside].min() if outside.any() else smooth[-1])) * radius
    inside = weighted[radius <= _AROUND_EDGE * edge_px]
    if not len(inside) or inside.max() <= 0:
        return None
    weighted /= inside.max()
    edges = [_first_below(radius, weighted, int(np.argmax(inside)), level) for level in (_HIGH, _LOW)]
    if edges[0] is None or edges[1] is None:
        return None
    factor = float(np.clip(1 + _PER_SOFTNESS * (edges[1] / edges[0] - 1), _SHARP, _SOFT))
    return 2 * edges[1] * factor


def _first_below(radius: NDArray[np.float64], power: NDArray[np.float64], start: int, level: float) -> float | None:
    """Return the radius from ``start`` on at which the power falls below the level; None if it nowhere does."""
    below = np.flatnonzero(power[start:] < level)
    if not len(below) or below[0] == 0:
        return None
    after = start + int(below[0])
    share = float((power[after - 1] - level) / (power[after - 1] - power[after]))
    return float(radius[after - 1] + share * (radius[after] - radius[after - 1]))


def signal_power(
    field: Field, template: RadialTemplate, yx_px: NDArray[np.float64], *, radius_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return radii in pixels, and the mean power there around the places: ``(40,)`` each."""
    white = low_pass(field.rings, sigma_px=_BLUR_PX) / np.sqrt(template.noise)
    rest = explain(field, template, yx_px).filter(white).astype(np.float64)
    radius = (np.arange(_N_RADII) + 0.5) * radius_px / _N_RADII
    own = radial_profile(field.rings, template.transfer * white, radius_px=radius_px + 1)
    apart = cKDTree(yx_px).query(yx_px, 2)[0][:, 1] if len(yx_px) > 1 else np.full(len(yx_px), np.inf)
    middle = yx_px[apart >= np.median(apart)]
    turn = 2 * np.pi * np.arange(_N_ANGLES) / _N_ANGLES
    y = middle[:, 0, None, None] + radius[:, None] * np.sin(turn)  # (n, r, a)
    x = middle[:, 1, None, None] + radius[:, None] * np.cos(turn)
    around = ndimage.map_coordinates(rest, [y, x], order=1, mode="nearest") + np.interp(radius, *own)[:, None]
    power: NDArray[np.float64] = (around**2).mean(axis=(0, 2))  # (r,)
    return radius, power
