"""The Thon rings of many small windows of one micrograph, and how well rings of a given defocus explain each window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.samples import Optics, SpectrumSamples, bin_polar, sample_spectra
from icestream.algorithms.spectra.spectrum import power_spectrum, spectrum_tile_px

_N_SECTORS = 36
_N_BACKGROUND, _N_ENVELOPE = 8, 12
_FINEST_TURN_RAD = 0.8 * np.pi
_HANN_LAGS = (2.0 / 3.0, 1.0 / 6.0)
_OVERLAP_INFLATION = (1.0 + 2.0 * _HANN_LAGS[1] ** 2) ** 2
_LEAST_PER_SIDE = 2.5
_LEFT_OUT_PER_ANG = 0.007


@dataclass(frozen=True)
class WindowRings:
    """Flattened spectra of windows in polar cells, and the phase of the CTF that the whole micrograph has.

    Attributes
    ----------
    centres_yx_px
        ``(n, 2)``: middles of the windows.
    value
        ``(n, n_cells)``: power over its smooth fall-off, less 1.
    precision
        ``(n,)``: of a window, relative to that in ``weight``.
    weight
        ``(n_cells,)``: one over the variance of a cell; what correlates neighbouring frequencies and overlapping windows is
        counted in.
    cells
        Frequencies and directions of the cells, sector by sector.
    phase_rad, turn_rad_per_ang
        ``(n_cells,)``: twice the phase of the CTF, and how it grows with defocus.
    """

    centres_yx_px: NDArray[np.float64]
    value: NDArray[np.float64]
    precision: NDArray[np.float64]
    weight: NDArray[np.float64]
    cells: SpectrumSamples
    phase_rad: NDArray[np.float64]
    turn_rad_per_ang: NDArray[np.float64]

    @property
    def envelope(self) -> NDArray[np.float64]:
        """Smooth functions of frequency at the cells: ``(n_envelope, n_cells)``."""
        whole: NDArray[np.float64] = self.cells.envelope[:, self.cells.ring]
        return whole

    def rid_of_smooth(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values ``(..., n_cells)`` without what smooth functions of frequency explain."""
        basis = self.cells.background[:, self.cells.ring]  # (n_background, n_cells)
        weighted = basis * self.weight
        left: NDArray[np.float64] = values - (values @ weighted.T) @ np.linalg.pinv(weighted @ basis.T, hermitian=True) @ basis
        return left


def collect_window_rings(
    image: NDArray[Any],
    *,
    pixel_size_ang: float,
    tile_ang: float,
    resolution_ang: tuple[float, float],
    optics: Optics,
    ctf: NDArray[np.float64],
    left_out_ang: Sequence[float] = (),
) -> WindowRings:
    """Cut a micrograph into windows that overlap by half and prepare their spectra.

    Parameters
    ----------
    image
        ``(h, w)``.
    pixel_size_ang
        Of the image.
    tile_ang
        Side of a window; at most 1/2.5 of the short side of the image is used.
    resolution_ang
        Low and high end of the frequencies.
    optics
        Rates of the CTF phase.
    ctf
        ``(4,)``: mean defocus, its astigmatism components a, b in Å, phase shift in degrees, of the whole micrograph.
    left_out_ang
        Resolutions about which frequencies count nothing: rings of ice.

    Raises
    ------
    ValueError
        If the image is too small, constant, or not finite, or too few frequencies are left.
    """
    side_ang = min(tile_ang, min(image.shape) * pixel_size_ang / _LEAST_PER_SIDE)
    tile_px = spectrum_tile_px((image.shape[0], image.shape[1]), pixel_size_ang=pixel_size_ang, tile_ang=side_ang)
    corners = [(y, x) for y in _starts(image.shape[0], tile_px) for x in _starts(image.shape[1], tile_px)]
    spectra = np.stack([power_spectrum(image[y : y + tile_px, x : x + tile_px], tile_px=tile_px) for y, x in corners])
    whole, *each = sample_spectra(
        spectra, pixel_size_ang=pixel_size_ang, resolution_ang=resolution_ang, n_background=_N_BACKGROUND, n_envelope=_N_ENVELOPE
    )
    cells = bin_polar(whole, n_sectors=_N_SECTORS)
    value = np.stack([bin_polar(samples, n_sectors=_N_SECTORS).value for samples in each])  # (n, n_cells)
    mean, a, b, shift_deg = ctf
    linear = optics.defocus_rate * cells.g2 * (mean + a * cells.cos2 + b * cells.sin2) - optics.sphere_rate * cells.g2**2
    rings = WindowRings(
        centres_yx_px=np.array(corners, np.float64) + 0.5 * (tile_px - 1),
        value=value,
        precision=np.ones(len(corners)),
        weight=cells.weight / _noise_correlation(cells, float(mean), optics) * _outside(cells, left_out_ang),
        cells=cells,
        phase_rad=2.0 * (linear + optics.contrast_rad + np.deg2rad(shift_deg)),
        turn_rad_per_ang=2.0 * optics.defocus_rate * cells.g2,
    )
    return _in_units_of_noise(rings, each)


def _starts(side: int, tile_px: int) -> list[int]:
    count = max(round(2.0 * (side - tile_px) / tile_px), 1) + 1
    starts: list[int] = np.linspace(0, side - tile_px, count).astype(int).tolist()
    return starts


def _noise_correlation(cells: SpectrumSamples, defocus_ang: float, optics: Optics) -> NDArray[np.float64]:
    """Return by how much noise that neighbours share changes the variance of a sum over the rings: ``(n_cells,)``.

    A Hann window correlates the power of neighbouring frequencies by 4/9 and 1/36; along a ring the model hardly changes, across
    it turns by ``turn``, so noise counts with the cosine of that. Cells whose rings are too fine for the window get no weight.
    """
    radial = cells.ring_per_ang
    phase = 2.0 * (optics.defocus_rate * radial**2 * defocus_ang - optics.sphere_rate * radial**4)
    turn = np.abs(np.gradient(phase))  # (n_rings,)
    near, far = (lag**2 for lag in _HANN_LAGS)
    across = 1.0 + 2.0 * (near * np.cos(turn) + far * np.cos(2.0 * turn))
    along = 1.0 + 2.0 * (near + far)
    inflation = np.where(turn < _FINEST_TURN_RAD, along * across * _OVERLAP_INFLATION, np.inf)
    if np.count_nonzero(np.isfinite(inflation)) < 16:
        raise ValueError(f"the windows are too small to resolve the rings of {defocus_ang:.0f} Å of defocus; make them wider")
    correlated: NDArray[np.float64] = inflation[cells.ring]
    return correlated


def _outside(cells: SpectrumSamples, left_out_ang: Sequence[float]) -> NDArray[np.float64]:
    """Return 0 for cells next to a resolution that is left out, 1 for the others: ``(n_cells,)``."""
    outside = np.ones(cells.ring_per_ang.size)
    for ang in left_out_ang:
        outside[np.abs(cells.ring_per_ang - 1.0 / ang) < _LEFT_OUT_PER_ANG] = 0.0
    kept: NDArray[np.float64] = outside[cells.ring]
    return kept


def _in_units_of_noise(rings: WindowRings, samples: list[SpectrumSamples]) -> WindowRings:
    """Divide each window by its own fall-off, take out what is smooth, and measure its noise."""
    power = 1.0 + rings.value
    smooth = np.maximum(power - rings.rid_of_smooth(power), 0.1)  # (n, n_cells)
    value = rings.rid_of_smooth(power / smooth - 1.0)
    variances = []
    for each, fall in zip(samples, smooth[:, : rings.cells.ring_per_ang.size], strict=True):
        flat = (1.0 + each.value) / fall[each.ring]
        average = np.bincount(each.ring, flat) / np.bincount(each.ring)
        variances.append(float(np.mean((flat - average[each.ring]) ** 2)))
    return WindowRings(
        rings.centres_yx_px, value, 1.0 / np.array(variances), rings.weight, rings.cells, rings.phase_rad, rings.turn_rad_per_ang
    )
