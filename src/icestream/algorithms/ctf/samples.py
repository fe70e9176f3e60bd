"""The part of a power spectrum that a CTF is fitted to: flattened samples with their frequency and direction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from icestream.algorithms.ctf.transfer import electron_wavelength_ang

_CLIP_SIGMA = 6.0
_N_FOR_QUANTILES = 40_000


@dataclass(frozen=True)
class Optics:
    """The phase of the CTF as ``chi = defocus_rate * g² * defocus - sphere_rate * g⁴ + contrast_rad + phase shift``."""

    defocus_rate: float
    sphere_rate: float
    contrast_rad: float

    @classmethod
    def of(cls, *, voltage_kv: float, cs_mm: float, amplitude_contrast: float) -> "Optics":
        """Return the rates of the formula in `icestream.algorithms.ctf.transfer`."""
        wavelength_ang = electron_wavelength_ang(voltage_kv)
        contrast_rad = float(np.arctan2(amplitude_contrast, np.sqrt(1.0 - amplitude_contrast**2)))
        return cls(np.pi * wavelength_ang, 0.5 * np.pi * wavelength_ang**3 * cs_mm * 1e7, contrast_rad)


@dataclass(frozen=True)
class SpectrumSamples:
    """Flattened spectrum values ``P / background - 1`` over an annulus; one entry per frequency, or per polar cell.

    Attributes
    ----------
    g2, cos2, sin2
        ``(n,)``: squared frequency in 1/Å², and cosine and sine of twice its direction.
    value, weight
        ``(n,)``: flattened power, and how many frequencies stand behind it.
    ring
        ``(n,)``: index of the ring of constant frequency.
    ring_per_ang
        ``(n_rings,)``: mean frequency of each ring.
    background
        ``(n_background, n_rings)`` smooth functions of frequency that may be added to ``value`` without notice.
    envelope
        ``(n_envelope, n_rings)`` smooth, non-negative functions of frequency that span the ring amplitude.
    """

    g2: NDArray[np.float64]
    cos2: NDArray[np.float64]
    sin2: NDArray[np.float64]
    value: NDArray[np.float64]
    weight: NDArray[np.float64]
    ring: NDArray[np.int64]
    ring_per_ang: NDArray[np.float64]
    background: NDArray[np.float64]
    envelope: NDArray[np.float64]

    @property
    def step_per_ang(self) -> float:
        """Distance between rings."""
        return float((self.ring_per_ang[-1] - self.ring_per_ang[0]) / (self.ring_per_ang.size - 1))


def sample_spectra(
    spectra: NDArray[Any],
    *,
    pixel_size_ang: float,
    resolution_ang: tuple[float, float],
    n_background: int = 8,
    n_envelope: int = 6,
) -> list[SpectrumSamples]:
    """Cut the annulus between two resolutions from spectra and divide by the smooth fall-off of their mean.

    Frequencies within one pixel of the axes are left out (the cross of image borders and detector lines); single outliers
    (crystal reflections) are clipped.

    Parameters
    ----------
    spectra
        ``(n_sets, tile, tile // 2 + 1)`` power.
    pixel_size_ang
        Of the image that was transformed.
    resolution_ang
        Low and high end of the annulus; the high end is moved to 95 % of Nyquist where it lies beyond.
    n_background, n_envelope
        How many smooth functions may make up the background and the ring amplitude.

    Returns
    -------
    samples
        Those of the mean, then those of each set; they differ in ``value`` alone.

    Raises
    ------
    ValueError
        If fewer than 16 rings are left, or the spectrum is not positive there.
    """
    tile = spectra.shape[1]
    step = 1.0 / (tile * pixel_size_ang)
    low, high = 1.0 / resolution_ang[0], min(1.0 / resolution_ang[1], 0.475 / pixel_size_ang)
    first, last = max(int(np.ceil(low / step)), 2), int(high / step)
    if last - first < 16:
        raise ValueError(
            f"only {max(last - first, 0)} rings between {resolution_ang[0]} and {1 / high:.2f} Å; at least 16 are needed"
        )
    r2, cos2, sin2, ring, power = _cut_annulus(spectra, first, last)  # (n,) four times, (n_sets, n)
    n_rings = last - first + 1
    per_ang = np.bincount(ring, np.sqrt(r2), n_rings) / np.bincount(ring, minlength=n_rings) * step  # (n_rings,)
    whole = SpectrumSamples(
        g2=r2 * step**2,
        cos2=cos2,
        sin2=sin2,
        value=power.mean(axis=0),
        weight=np.ones(ring.size),
        ring=ring,
        ring_per_ang=per_ang,
        background=smooth_basis(per_ang, count=n_background),
        envelope=smooth_basis(per_ang, count=n_envelope),
    )
    falloff = _fit_falloff(whole)[ring]
    return [replace(whole, value=_clip_outliers(each / falloff - 1.0)) for each in (whole.value, *power)]


def smooth_basis(frequency_per_ang: NDArray[np.float64], *, count: int) -> NDArray[np.float64]:
    """Return ``count`` cubic B-splines, denser at low frequency where spectra change fastest: ``(count, n)``."""
    position = np.sqrt(frequency_per_ang)  # even knots in the root of the frequency
    inner = np.linspace(position[0], position[-1], count - 2)
    knots = np.r_[[inner[0]] * 3, inner, [inner[-1]] * 3]
    basis: NDArray[np.float64] = BSpline.design_matrix(np.clip(position, inner[0], inner[-1]), knots, 3).toarray().T
    return basis


def bin_polar(samples: SpectrumSamples, *, n_sectors: int) -> SpectrumSamples:
    """Average samples over cells of one ring and one of ``n_sectors`` directions; empty cells have weight zero.

    Cells are ordered by sector, then ring, so that arrays reshape to ``(n_sectors, n_rings)``.
    """
    return bin_polar_sets([samples], n_sectors=n_sectors)[0]


def bin_polar_sets(sets: Sequence[SpectrumSamples], *, n_sectors: int) -> list[SpectrumSamples]:
    """Do as `bin_polar` does for several sets that differ in ``value`` alone."""
    samples = sets[0]
    n_rings = samples.ring_per_ang.size
    turn = np.arctan2(samples.sin2, samples.cos2) / (2.0 * np.pi) % 1.0  # twice the direction, in turns
    sector = np.minimum((turn * n_sectors).astype(np.int64), n_sectors - 1)
    cell = sector * n_rings + samples.ring
    weight = np.bincount(cell, samples.weight, n_sectors * n_rings).astype(np.float64)  # (n_sectors * n_rings,)
    totals = [np.bincount(cell, samples.weight * each.value, n_sectors * n_rings) for each in sets]
    middle = 2.0 * np.pi * (np.arange(n_sectors) + 0.5) / n_sectors
    cells = SpectrumSamples(
        g2=np.tile(samples.ring_per_ang**2, n_sectors),
        cos2=np.repeat(np.cos(middle), n_rings),
        sin2=np.repeat(np.sin(middle), n_rings),
        value=weight,
        weight=weight,
        ring=np.tile(np.arange(n_rings), n_sectors),
        ring_per_ang=samples.ring_per_ang,
        background=samples.background,
        envelope=samples.envelope,
    )
    return [replace(cells, value=np.divide(each, weight, out=np.zeros_like(each), where=weight > 0)) for each in totals]


def coarsen_cells(cells: SpectrumSamples, *, factor: int, n_rings: int) -> SpectrumSamples:
    """Return the cells that are ``factor`` sectors wide, of the first ``n_rings`` rings: what `bin_polar` would give.

    Raises
    ------
    ValueError
        If fewer than 16 rings are left.
    """
    if n_rings < 16:
        raise ValueError(
            f"only {n_rings} rings up to {1 / cells.ring_per_ang[max(n_rings - 1, 0)]:.2f} Å; at least 16 are needed"
        )
    shape = (-1, factor, cells.ring_per_ang.size)
    weight = cells.weight.reshape(shape)
    total = (weight * cells.value.reshape(shape)).sum(axis=1)[:, :n_rings].ravel()
    weight = weight.sum(axis=1)[:, :n_rings].ravel()
    n_sectors = weight.size // n_rings
    per_ang = cells.ring_per_ang[:n_rings]
    middle = 2.0 * np.pi * (np.arange(n_sectors) + 0.5) / n_sectors
    return SpectrumSamples(
        g2=np.tile(per_ang**2, n_sectors),
        cos2=np.repeat(np.cos(middle), n_rings),
        sin2=np.repeat(np.sin(middle), n_rings),
        value=np.divide(total, weight, out=np.zeros_like(total), where=weight > 0),
        weight=weight,
        ring=np.tile(np.arange(n_rings), n_sectors),
        ring_per_ang=per_ang,
        background=smooth_basis(per_ang, count=cells.background.shape[0]),
        envelope=smooth_basis(per_ang, count=cells.envelope.shape[0]),
    )


def sample_variance(samples: SpectrumSamples, *, n_rings: int | None = None) -> float:
    """Return the variance of a sample about its ring average, over the first ``n_rings`` rings, or all.

    Raises
    ------
    ValueError
        If there is none.
    """
    size = samples.ring_per_ang.size
    count, total, squares = (np.bincount(samples.ring, each, size)[:n_rings] for each in (None, samples.value, samples.value**2))
    variance = float(np.sum(squares - total * total / count) / np.sum(count))
    if variance < 1e-14:
        raise ValueError("the power spectrum is the same everywhere on each ring: it is not that of an image")
    return variance


def _fit_falloff(samples: SpectrumSamples) -> NDArray[np.float64]:
    """Return a smooth fit to the logarithm of the ring averages, as power: ``(n_rings,)``."""
    count = np.bincount(samples.ring).astype(np.float64)
    average = np.bincount(samples.ring, samples.value) / count  # (n_rings,)
    if not np.all(average > 0):
        raise ValueError("the power spectrum is not positive everywhere in the fitted range: is the image constant?")
    root = np.sqrt(count)
    smooth = np.linalg.lstsq((samples.background * root).T, np.log(average) * root, rcond=None)[0]
    falloff: NDArray[np.float64] = np.exp(smooth @ samples.background)
    return falloff


def _clip_outliers(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    some = flat[:: max(flat.size // _N_FOR_QUANTILES, 1) | 1]  # enough for quantiles
    low, middle, high = np.percentile(some, [15.9, 50.0, 84.1])
    clipped: NDArray[np.float64] = np.minimum(flat, middle + _CLIP_SIGMA * 0.5 * (high - low))
    return clipped


@numba.njit(cache=True, nogil=True)
def _cut_annulus(spectra: Any, first: Any, last: Any) -> Any:
    """Return squared radius, cosine and sine of twice the direction, ring, and power of each frequency of an annulus."""
    n_sets, tile, n_columns = spectra.shape
    low, high = (first - 0.5) ** 2, (last + 0.5) ** 2
    starts, ends = np.zeros(tile, np.int64), np.zeros(tile, np.int64)  # the columns of each row
    for row in range(tile):
        ky = row if 2 * row < tile else row - tile
        if -1 <= ky <= 1 or ky * ky >= high:
            continue
        starts[row] = max(int(np.ceil(np.sqrt(max(low - ky * ky, 0.0)))), 2)
        ends[row] = max(min(int(np.sqrt(high - ky * ky)) + 1, n_columns), starts[row])
    n = np.sum(ends - starts)
    r2, cos2, sin2, ring = np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64)
    power = np.empty((n_sets, n))
    i = 0
    for row in range(tile):
        ky = float(row if 2 * row < tile else row - tile)
        for column in range(starts[row], ends[row]):
            kx = float(column)
            r2[i] = kx * kx + ky * ky
            cos2[i] = (kx * kx - ky * ky) / r2[i]
            sin2[i] = 2.0 * kx * ky / r2[i]
            ring[i] = int(np.sqrt(r2[i]) + 0.5) - first
            for k in range(n_sets):
                power[k, i] = spectra[k, row, column]
            i += 1
    return r2, cos2, sin2, ring, power
