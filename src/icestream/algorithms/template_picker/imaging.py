"""How a micrograph images a template: the lens, how strongly each ring of frequencies comes through, and the noise around it.

A particle in a micrograph is taken for ``gain * CTF * template``. The gain is a number for each ring. It stands for what nobody
knows beforehand: the envelope of the microscope, the detector, a filter that somebody applied, and without a CTF even its sign.
It is learned from the particles themselves: with the templates put where they were found, least squares over the whole
micrograph give the gain, and what is left is the noise, free of the particles (Wiener 1949; the same idea with round templates is
in `matched_picker.radial_template`). ``gain * CTF / noise`` is then the matched filter (Turin 1960, IRE Trans. Inf. Theory 6,
311).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.fourier import frequency_radius_2d
from icestream.algorithms.particles.noise import Transfer

_LONGEST = 2.0  # diameters; longer waves are background
_OUTLIER = 10.0  # of the median power of a ring: spots and stripes
_SMOOTH = 2.0  # rings
_LEAST_NOISE = 0.1
N_GAINS = 25


@dataclass(frozen=True)
class Imaging:
    """How a micrograph of one pixel size images templates.

    Attributes
    ----------
    transfer, pixel_size_ang
        The contrast transfer, and the size of the micrograph's pixels.
    diameter_px
        Of the particle.
    gain
        ``(N_GAINS,)``, from frequency 0 to Nyquist.
    noise
        ``(n,)``, power of a coefficient in an image with one pixel, from frequency 0 to Nyquist.
    """

    transfer: Transfer
    pixel_size_ang: float
    diameter_px: float
    gain: NDArray[np.float64]
    noise: NDArray[np.float64]

    def lens(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return the transfer within the band of the particle: ``(h, w // 2 + 1)``."""
        frequency = frequency_radius_2d(*shape)
        passed = np.clip(frequency * (_LONGEST * self.diameter_px) - 0.5, 0.0, 1.0) * (frequency <= 0.5)
        lens: NDArray[np.float32] = (self.transfer(shape[0], shape[1], self.pixel_size_ang) * passed).astype(np.float32)
        return lens

    def signal(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return gain times lens: ``(h, w // 2 + 1)``."""
        return self.lens(shape) * spread_rings(self.gain, shape)

    def noise_power(self, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return the power of the noise in each coefficient of an image of this shape: ``(h, w // 2 + 1)``."""
        return spread_rings(self.noise, shape) * np.float32(shape[0] * shape[1])

    def learn(self, spectrum: NDArray[np.complex64], model: NDArray[np.complex64], shape: tuple[int, int]) -> "Imaging":
        """Learn gain and noise from a micrograph and the templates put where they were found, half spectra of ``shape``.

        A ring in which the gain is no larger than its error counts for nothing (James & Stein 1961).
        """
        imaged = model * self.lens(shape)
        shared = _gain_rings((np.conj(imaged) * spectrum).real, shape)
        power = _gain_rings(np.abs(imaged) ** 2, shape)
        error = _gain_rings(np.abs(imaged) ** 2 * self.noise_power(shape), shape)
        gain = shared / np.maximum(power, 1e-30 + 1e-12 * power.max())
        variance = error / np.maximum(power, 1e-30 + 1e-12 * power.max()) ** 2
        gain *= np.clip(1 - variance / np.maximum(gain**2, 1e-30), 0.0, 1.0)
        left = spectrum - imaged * spread_rings(gain, shape)
        noise = np.maximum(ring_power(left, shape), _LEAST_NOISE * ring_power(spectrum, shape))
        return replace(self, gain=gain, noise=noise)


def spread_rings(values: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate ``(n,)`` from frequency 0 to Nyquist at each coefficient: ``(h, w // 2 + 1)``, constant beyond."""
    at = frequency_radius_2d(*shape) * np.float32(2 * (len(values) - 1))
    low = np.minimum(at.astype(np.int32), len(values) - 2)
    share = np.minimum(at - low, np.float32(1.0))
    table = values.astype(np.float32)
    spread: NDArray[np.float32] = table[low] * (1 - share) + table[low + 1] * share
    return spread


def _gain_rings(values: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Add up ``(h, w // 2 + 1)`` about each of the frequencies of the gain, in overlapping triangles: ``(N_GAINS,)``."""
    at = (frequency_radius_2d(*shape) * np.float32(2 * (N_GAINS - 1))).ravel()
    low = np.minimum(at.astype(np.int32), N_GAINS - 1)
    share = np.minimum(at - low, 1.0)
    flat = values.ravel()
    total = np.bincount(low, flat * (1 - share), N_GAINS + 1) + np.bincount(low + 1, flat * share, N_GAINS + 1)
    return total[:N_GAINS].astype(np.float64)


def ring_power(spectrum: NDArray[np.complex64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the mean power over rings for one pixel, smoothed, spots and stripes left out: ``(n,)``, frequency 0 to Nyquist."""
    n_rings = min(shape) // 2 + 1
    ring = np.rint(frequency_radius_2d(*shape) * np.float32(2 * (n_rings - 1))).astype(np.int32).ravel()
    power = (np.abs(spectrum) ** 2).ravel() / np.float32(shape[0] * shape[1])
    ceiling = np.full(int(ring.max()) + 1, np.inf)
    order = np.argsort(ring, kind="stable")
    bounds = np.searchsorted(ring[order], np.arange(n_rings + 1))
    ordered = power[order]
    for index in range(n_rings):
        ceiling[index] = _OUTLIER * float(np.median(ordered[bounds[index] : bounds[index + 1]]))
    clipped = np.minimum(power, ceiling[ring])
    mean = np.bincount(ring, clipped)[:n_rings] / np.maximum(np.bincount(ring)[:n_rings], 1)
    mean[0] = mean[1]
    floor = max(1e-12 * float(mean.max()), 1e-30)
    smooth: NDArray[np.float64] = np.exp(ndimage.gaussian_filter1d(np.log(np.maximum(mean, floor)), _SMOOTH, mode="nearest"))
    return smooth


def guess_imaging(
    spectrum: NDArray[np.complex64],
    shape: tuple[int, int],
    *,
    transfer: Transfer,
    pixel_size_ang: float,
    diameter_px: float,
) -> Imaging:
    """Guess how a micrograph images templates: what lowers the noise of a ring lowers its signal as much."""
    noise = ring_power(spectrum, shape)
    frequency = np.linspace(0, 0.5, len(noise))
    usual = float(noise[frequency * diameter_px > 1].max())
    gain = np.sqrt(np.minimum(np.interp(np.linspace(0, 0.5, N_GAINS), frequency, noise) / usual, 1.0))
    return Imaging(transfer, pixel_size_ang, diameter_px, gain, noise)
