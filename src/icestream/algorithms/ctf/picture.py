"""A picture of a CTF fit: the measured spectrum beside the fitted rings."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.fourier import frequency_radius_2d

_SMOOTH_PX = 600
_BANDS = 32


def draw_ctf_fit(
    spectrum: NDArray[Any],
    *,
    pixel_size_ang: float,
    defocus_u_ang: float,
    defocus_v_ang: float,
    astigmatism_angle_deg: float,
    phase_shift_deg: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    resolution_ang: float,
) -> NDArray[np.float32]:
    """Draw the measured spectrum in the left half and the squared CTF in the right half of one picture.

    Each ring of the measured half is shifted and scaled to mean 0 and spread 1, so that weak rings show beside strong ones. Zero
    frequency is in the middle; the picture shows frequencies up to ``resolution_ang`` along the axes.

    Parameters
    ----------
    spectrum
        ``(tile, tile // 2 + 1)`` power.
    pixel_size_ang
        Of the image that was transformed.
    defocus_u_ang, defocus_v_ang, astigmatism_angle_deg, phase_shift_deg
        The fit.
    voltage_kv, cs_mm, amplitude_contrast
        Of the microscope.
    resolution_ang
        At the edges of the picture.

    Returns
    -------
    picture
        ``(side, side)``, about -1 to 1; row 0 is the most negative frequency along y.
    """
    tile = spectrum.shape[0]
    half = int(min(tile * pixel_size_ang / resolution_ang, tile // 2 - 1))
    rows = np.arange(-half, half + 1) % tile
    measured = _equalise_rings(spectrum)[rows, : half + 1]  # (2 * half + 1, half + 1)
    ctf = ctf_2d(
        tile,
        tile,
        pixel_size_ang=pixel_size_ang,
        defocus_u_ang=defocus_u_ang,
        defocus_v_ang=defocus_v_ang,
        astigmatism_angle_deg=astigmatism_angle_deg,
        voltage_kv=voltage_kv,
        cs_mm=cs_mm,
        amplitude_contrast=amplitude_contrast,
        phase_shift_deg=phase_shift_deg,
    )[rows, : half + 1]
    mirrored = measured[::-1, :0:-1]  # a real image has the same power at opposite frequencies
    picture: NDArray[np.float32] = np.concatenate([mirrored, 2.0 * ctf**2 - 1.0], axis=1).astype(np.float32)
    return picture


def _equalise_rings(spectrum: NDArray[Any]) -> NDArray[np.float64]:
    """Smooth the logarithm of the power, give every broad band of rings mean 0 and spread 1, clip at ±2 and halve."""
    tile = spectrum.shape[0]
    ring = np.rint(frequency_radius_2d(tile, tile) * tile).astype(np.int64)
    count = np.bincount(ring.ravel())
    band = max(tile / _BANDS, 2.0)
    sigma = max(1.0, tile / _SMOOTH_PX)  # a wide tile has finer, noisier frequencies
    floor = np.finfo(np.float32).tiny
    mirrored = np.concatenate([np.roll(spectrum[::-1, 2:0:-1], 1, axis=0), spectrum], axis=1)  # two columns beyond zero frequency
    power = gaussian_filter(np.log(np.maximum(mirrored, floor)).astype(np.float64), sigma, mode=("wrap", "nearest"))[:, 2:]
    mean = gaussian_filter1d(np.bincount(ring.ravel(), power.ravel()) / count, band)  # (n_rings,)
    rest = power - mean[ring]
    spread = np.sqrt(gaussian_filter1d(np.bincount(ring.ravel(), (rest**2).ravel()) / count, band)) + 1e-12
    equal: NDArray[np.float64] = 0.5 * np.clip(rest / spread[ring], -2.0, 2.0)
    return equal
