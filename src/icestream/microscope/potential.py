"""Electrostatic potentials: from atoms to a volume in volts, and from volts to the phase of the electron wave."""

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.ctf.transfer import electron_wavelength_ang

PROTEIN_DA_PER_ANG3 = 0.81
"""Density of folded protein (partial specific volume 0.73 cm³/g)."""

ICE_POTENTIAL_V = 4.5
"""Mean inner potential of vitreous water at 0.93 g/cm³, by summing isolated atoms."""

PROTEIN_ABOVE_ICE_V = 3.1
"""Mean potential of protein over that of ice, by the same sum."""

VOLT_ANG2_PER_ANG = 47.878
"""h² / (2 pi m e): turns an electron scattering factor (Å) into an integrated potential (V Å³)."""

_REST_ENERGY_KEV = 510.99895
_SOLVENT_SIGMA_ANG = 3.0


def interaction_parameter_rad_per_v_ang(voltage_kv: float) -> float:
    """Return the phase that one volt over one ångström gives an electron (Kirkland 2010, Advanced Computing in EM, eq. 5.6)."""
    relativistic = (_REST_ENERGY_KEV + voltage_kv) / (2 * _REST_ENERGY_KEV + voltage_kv)
    return float(2 * np.pi / (electron_wavelength_ang(voltage_kv) * voltage_kv * 1e3) * relativistic)


@njit(cache=True)
def _add_gaussians(
    volume: NDArray[np.float32], zyx: NDArray[np.float64], weights: NDArray[np.float64], sigmas: NDArray[np.float64]
) -> None:
    size = volume.shape[0]
    for atom in range(len(weights)):
        sigma = sigmas[atom]
        reach = int(np.ceil(4.0 * sigma))
        start = np.empty(3, np.int64)
        profile = np.zeros((3, 2 * reach + 2))
        for axis in range(3):
            start[axis] = int(np.floor(zyx[atom, axis])) - reach
            total = 0.0
            for i in range(2 * reach + 2):
                offset = start[axis] + i - zyx[atom, axis]
                profile[axis, i] = np.exp(-0.5 * offset * offset / (sigma * sigma))
                total += profile[axis, i]
            profile[axis] /= total
        for i in range(2 * reach + 2):
            z = start[0] + i
            if z < 0 or z >= size:
                continue
            for j in range(2 * reach + 2):
                y = start[1] + j
                if y < 0 or y >= size:
                    continue
                factor = weights[atom] * profile[0, i] * profile[1, j]
                for k in range(2 * reach + 2):
                    x = start[2] + k
                    if 0 <= x < size:
                        volume[z, y, x] += np.float32(factor * profile[2, k])


def splat_gaussians_3d(
    zyx_ang: NDArray[np.float64],
    weight_v_ang3: NDArray[np.float64],
    sigma_ang: NDArray[np.float64],
    *,
    size: int,
    pixel_size_ang: float,
) -> NDArray[np.float32]:
    """Add one Gaussian per atom into a volume.

    Parameters
    ----------
    zyx_ang
        ``(n, 3)`` positions; the origin is voxel ``size // 2``.
    weight_v_ang3
        ``(n,)`` integrated potentials; they are kept exactly for atoms inside the volume.
    sigma_ang
        ``(n,)`` widths; never less than 0.6 voxels, so that nothing aliases.
    size, pixel_size_ang
        Of the volume.

    Returns
    -------
    volume
        ``(size, size, size)``, volts.
    """
    volume = np.zeros((size, size, size), np.float32)
    sigma_px = np.maximum(np.asarray(sigma_ang, np.float64) / pixel_size_ang, 0.6)
    weights = np.asarray(weight_v_ang3, np.float64) / pixel_size_ang**3
    _add_gaussians(volume, np.asarray(zyx_ang, np.float64) / pixel_size_ang + size // 2, weights, sigma_px)
    return volume


def potential_above_ice_3d(
    zyx_ang: NDArray[np.float64],
    weight_v_ang3: NDArray[np.float64],
    mass_da: NDArray[np.float64],
    sigma_ang: NDArray[np.float64],
    *,
    size: int,
    pixel_size_ang: float,
) -> NDArray[np.float32]:
    """Return the potential of atoms minus that of the ice they displace.

    Each atom displaces the volume of its mass at the density of protein; the hole in the ice is smooth (a Gaussian of 3 Å).

    Parameters
    ----------
    zyx_ang, weight_v_ang3, mass_da, sigma_ang
        ``(n, 3)``, ``(n,)``, ``(n,)``, ``(n,)``.
    size, pixel_size_ang
        Of the volume.

    Returns
    -------
    volume
        ``(size, size, size)``, volts.
    """
    atoms = splat_gaussians_3d(zyx_ang, weight_v_ang3, sigma_ang, size=size, pixel_size_ang=pixel_size_ang)
    hole_v_ang3 = np.asarray(mass_da, np.float64) / PROTEIN_DA_PER_ANG3 * ICE_POTENTIAL_V
    narrow = np.full(len(hole_v_ang3), 0.6 * pixel_size_ang)
    holes = splat_gaussians_3d(zyx_ang, hole_v_ang3, narrow, size=size, pixel_size_ang=pixel_size_ang)
    width_px = np.sqrt(max((_SOLVENT_SIGMA_ANG / pixel_size_ang) ** 2 - 0.36, 0.0))
    above: NDArray[np.float32] = atoms - ndimage.gaussian_filter(holes, width_px, mode="constant")
    return above
