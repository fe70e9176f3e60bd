"""A round template, learned from a micrograph at places where particles are, and the response to it.

The micrograph is taken for a sum of equal round particles at the places given and of noise. Least squares then give the particle
in each Fourier ring: the mean of the micrograph's spectrum times the conjugate spectrum of the places, over the mean power of the
places. Unlike an average of cut-out squares, this keeps neighbours out of the particle, however crowded it is. What is left is
the noise; template over noise power is the matched filter (North 1943; Turin 1960, IRE Trans. Inf. Theory 6, 311), whose
response is in standard deviations of the noise.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special

from icestream.algorithms.matched_picker.rings import Field, PerRing, Rings, Spectrum, low_pass, smooth_rings

_PRIOR = 0.05
"""Of the power of the places: it keeps rings finite in which the places interfere."""
_LEAST_NOISE = 0.05
_TAPER = 0.3  # diameters
_STEP_PX = 0.5


@dataclass(frozen=True)
class RadialTemplate:
    """A round particle in each Fourier ring, and the noise around it.

    Attributes
    ----------
    transfer
        ``(n,)``, its spectrum.
    noise
        ``(n,)``, mean power of what it does not explain.
    profile
        ``(m,)``, its grey values at radius 0, 0.5, 1, … pixels.
    cost
        Description length in nats of the micrograph with the template, less that without; the lower, the better it explains.
    """

    transfer: PerRing
    noise: PerRing
    profile: PerRing
    cost: float

    @property
    def edge_px(self) -> float:
        """Radius at which the profile changes its sign outside of where most of the particle is; 0 where it nowhere does."""
        middle = int(np.argmax(self.profile * np.arange(len(self.profile))))
        outside = np.flatnonzero(self.profile[middle:] <= 0)
        if not len(outside) or outside[0] == 0:
            return 0.0
        last = middle + int(outside[0]) - 1
        rise, fall = self.profile[last], self.profile[last + 1]
        return float(_STEP_PX * (last + rise / (rise - fall)))


def place_points(shape: tuple[int, int], yx_px: NDArray[np.float64]) -> Spectrum:
    """Return the half spectrum of an image that is 1 at each point, shared by the four pixels around it."""
    image = np.zeros(shape, np.float32)
    low = np.floor(yx_px).astype(np.int64)
    share = yx_px - low
    for step_y in (0, 1):
        for step_x in (0, 1):
            weight = np.abs(1 - step_y - share[:, 0]) * np.abs(1 - step_x - share[:, 1])
            np.add.at(image, ((low[:, 0] + step_y) % shape[0], (low[:, 1] + step_x) % shape[1]), weight)
    spectrum: Spectrum = fft.rfft2(image)
    return spectrum


def learn_template(field: Field, yx_px: NDArray[np.float64], *, diameter_px: float) -> RadialTemplate:
    """Learn the round particle that the places ``(n, 2)`` have in common; it ends within a diameter of its middle."""
    rings, places = field.rings, place_points(field.shape, yx_px)
    shared = rings.mean((np.conj(places) * field.spectrum).real)
    transfer = smooth_rings(shared / (rings.mean(np.abs(places) ** 2) + _PRIOR * max(len(yx_px), 1)), rings=1.0)
    to_profile, to_rings = _hankel(rings.shape, round(diameter_px / _STEP_PX) + 1)
    radius = _STEP_PX * np.arange(to_profile.shape[0])
    profile = to_profile @ transfer * np.clip((diameter_px - radius) / (_TAPER * diameter_px), 0, 1)
    transfer = to_rings @ profile
    left = rings.mean(np.abs(field.spectrum - places * rings.spread(transfer)) ** 2)
    noise = smooth_rings(np.maximum(left, _LEAST_NOISE * field.power))
    gain = 0.5 * float(np.sum(rings.count * np.log(noise / field.power)))
    return RadialTemplate(transfer, noise, profile, gain)


@lru_cache(maxsize=16)
def _hankel(shape: tuple[int, int], n_radii: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Hankel transforms from rings to radii, ``(n_radii, n)``, and from radii to rings."""
    rings = Rings.of(shape)
    radius = _STEP_PX * np.arange(n_radii, dtype=np.float64)
    bessel = special.j0(2 * np.pi * np.outer(radius, rings.frequency))
    area = radius * _STEP_PX
    area[0] = _STEP_PX**2 / 8
    return bessel * rings.count / np.prod(shape), (2 * np.pi * bessel * area[:, None]).T


def matched_filter(rings: Rings, template: RadialTemplate, *, blur_px: float = 0.0) -> PerRing:
    """Return the transfer ``(n,)`` whose response to the noise of ``template`` has a standard deviation of 1."""
    transfer = template.transfer / template.noise * low_pass(rings, sigma_px=blur_px)
    return scale_to_noise(rings, transfer, template.noise)


def scale_to_noise(rings: Rings, transfer: PerRing, noise: PerRing) -> PerRing:
    """Scale ``transfer`` so that noise of this power has a standard deviation of 1 after it."""
    variance = float(np.sum(rings.count * transfer**2 * noise)) / float(np.prod(rings.shape)) ** 2
    scaled: PerRing = transfer / np.sqrt(max(variance, 1e-60))
    return scaled


def radial_profile(rings: Rings, transfer: PerRing, *, radius_px: float) -> tuple[PerRing, PerRing]:
    """Return radii in pixels and the values there of the round image with this spectrum."""
    to_profile, _ = _hankel(rings.shape, round(radius_px / _STEP_PX) + 1)
    radius: PerRing = _STEP_PX * np.arange(to_profile.shape[0], dtype=np.float64)
    return radius, to_profile @ transfer


def blob_filter(field: Field, *, diameter_px: float) -> PerRing:
    """Return the Laplacian of a Gaussian whose response changes its sign at the edge of a disc (Lindeberg 1998)."""
    scaled = (2 * np.pi * field.rings.frequency * diameter_px) ** 2 / 8.0
    return scale_to_noise(field.rings, scaled * np.exp(-0.5 * scaled), field.power)


def explain(field: Field, template: RadialTemplate, yx_px: NDArray[np.float64]) -> Field:
    """Return the field without the particles at the places given."""
    model = place_points(field.shape, yx_px) * field.rings.spread(template.transfer)
    return replace(field, spectrum=field.spectrum - model)
