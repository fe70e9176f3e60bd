"""The contrast transfer function of the microscope.

Formulas from Rohou & Grigorieff (2015), CTFFIND4, J. Struct. Biol. 192, 216, equations 1-5.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PLANCK_J_S = 6.62607015e-34
_ELECTRON_MASS_KG = 9.1093837015e-31
_ELECTRON_CHARGE_C = 1.602176634e-19
_LIGHT_M_PER_S = 299792458.0


def electron_wavelength_ang(voltage_kv: float) -> float:
    """Return the relativistic wavelength of an electron accelerated by ``voltage_kv``."""
    energy_j = _ELECTRON_CHARGE_C * voltage_kv * 1e3
    rest_j = _ELECTRON_MASS_KG * _LIGHT_M_PER_S**2
    momentum = np.sqrt(energy_j * (energy_j + 2 * rest_j)) / _LIGHT_M_PER_S
    return float(_PLANCK_J_S / momentum * 1e10)


def ctf_phase(
    frequency_squared_per_ang2: NDArray[Any],
    defocus_ang: NDArray[Any] | float,
    *,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    phase_shift_deg: float = 0.0,
) -> NDArray[Any]:
    """Return the phase ``chi`` of the CTF, in radians; the CTF is ``-sin(chi)``.

    Parameters
    ----------
    frequency_squared_per_ang2
        ``g²`` in 1/Å², any shape.
    defocus_ang
        Underfocus along the direction of each frequency; broadcasts with the frequencies.
    """
    wavelength_ang = electron_wavelength_ang(voltage_kv)
    g2 = frequency_squared_per_ang2
    defocus_term = np.pi * wavelength_ang * g2 * defocus_ang
    sphere_term = 0.5 * np.pi * wavelength_ang**3 * (cs_mm * 1e7) * g2 * g2
    contrast_rad = np.arctan2(amplitude_contrast, np.sqrt(1.0 - amplitude_contrast**2))
    phase: NDArray[Any] = defocus_term - sphere_term + (np.deg2rad(phase_shift_deg) + contrast_rad)
    return phase


def defocus_along(
    angle_rad: NDArray[Any], *, defocus_u_ang: float, defocus_v_ang: float, astigmatism_angle_deg: float
) -> NDArray[Any]:
    """Return the underfocus along directions ``angle_rad`` (any shape)."""
    half_difference = 0.5 * (defocus_u_ang - defocus_v_ang)
    defocus: NDArray[Any] = 0.5 * (defocus_u_ang + defocus_v_ang) + half_difference * np.cos(
        2.0 * (angle_rad - np.deg2rad(astigmatism_angle_deg))
    )
    return defocus


def ctf_2d(
    height: int,
    width: int,
    *,
    pixel_size_ang: float,
    defocus_u_ang: float,
    defocus_v_ang: float,
    astigmatism_angle_deg: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    phase_shift_deg: float = 0.0,
) -> NDArray[np.float32]:
    """Return the CTF over the half spectrum of a ``(height, width)`` image: ``(h, w // 2 + 1)``."""
    ky = np.fft.fftfreq(height, pixel_size_ang)[:, None]  # (h, 1)
    kx = np.fft.rfftfreq(width, pixel_size_ang)[None, :]  # (1, w // 2 + 1)
    defocus_ang = defocus_along(
        np.arctan2(ky, kx),
        defocus_u_ang=defocus_u_ang,
        defocus_v_ang=defocus_v_ang,
        astigmatism_angle_deg=astigmatism_angle_deg,
    )
    chi = ctf_phase(
        ky * ky + kx * kx,
        defocus_ang,
        voltage_kv=voltage_kv,
        cs_mm=cs_mm,
        amplitude_contrast=amplitude_contrast,
        phase_shift_deg=phase_shift_deg,
    )
    ctf: NDArray[np.float32] = (-np.sin(chi)).astype(np.float32)
    return ctf
