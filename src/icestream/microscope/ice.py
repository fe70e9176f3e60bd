"""Ice as the microscope sees it: a weak random phase object with the structure of water, and crystals in it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from icestream.microscope.potential import interaction_parameter_rad_per_v_ang

_MOLECULES_PER_ANG3 = 0.0311
_WATER_POTENTIAL_V_ANG3 = 145.6
_WATER_B_FACTOR_ANG2 = 6.0

# Schematic structure factor of low-density amorphous ice against q = 2 pi g: suppressed at long wavelengths, first peak at
# 1.70 /Å (3.7 Å), second at 3.05 /Å.
_Q_PER_ANG = np.array([0.0, 0.4, 0.8, 1.1, 1.3, 1.5, 1.6, 1.7, 1.8, 1.95, 2.2, 2.6, 2.85, 3.05, 3.3, 3.7, 4.3, 20.0])
_STRUCTURE = np.array([0.10, 0.11, 0.15, 0.24, 0.42, 0.95, 1.50, 1.85, 1.50, 0.95, 0.65, 0.85, 1.15, 1.30, 1.15, 0.95, 1.0, 1.0])


def ice_power_rad2_ang2(
    frequency_per_ang: NDArray[np.floating], *, thickness_ang: float, voltage_kv: float, motion_b_factor_ang2: float
) -> NDArray[np.float64]:
    """Return the power of the phase of ice per area, in rad² Å².

    ``density * thickness * (sigma * C)² * exp(-B g² / 2) * S(g)``: independent molecules, correlated by the structure factor S.
    The decay stands for the form factor of water and for water molecules that move under the beam (McMullan, Vinothkumar &
    Henderson 2015, Ultramicroscopy 158, 26), where the pattern itself is kept the same in all frames (see `flowing_ice`).
    """
    g = np.asarray(frequency_per_ang, np.float64)
    molecule_rad_ang2 = interaction_parameter_rad_per_v_ang(voltage_kv) * _WATER_POTENTIAL_V_ANG3
    structure = np.interp(2 * np.pi * g, _Q_PER_ANG, _STRUCTURE)
    decay = np.exp(-(_WATER_B_FACTOR_ANG2 + motion_b_factor_ang2) * g * g / 2)
    power: NDArray[np.float64] = _MOLECULES_PER_ANG3 * thickness_ang * molecule_rad_ang2**2 * structure * decay
    return power


def pattern_kept(frequency_per_ang: NDArray[np.floating], *, displacement_ang2: float) -> NDArray[np.float32]:
    """Return how much of the pattern of ice is left when its molecules have wandered: ``exp(-2 pi² g² d² / 3)``.

    ``d²`` is the mean squared distance in space, a third of it along each axis. McMullan, Vinothkumar & Henderson (2015),
    Ultramicroscopy 158, 26, measured 1.1 Å² for each e/Å² at 300 kV. Rings at 3.7 Å then show best in the mean of the
    power spectra of images of 4.1 e/Å² each; they found 4.0.
    """
    kept: NDArray[np.float32] = np.exp(-2.0 * np.pi**2 * np.square(frequency_per_ang) * displacement_ang2 / 3.0).astype(
        np.float32
    )
    return kept


def flowing_ice(
    first: NDArray[np.complex64], fresh: Iterator[NDArray[np.complex64]], *, kept: NDArray[np.float32]
) -> Iterator[NDArray[np.complex64]]:
    """Yield the half spectrum of ice frame by frame: of the last one what is ``kept``, the rest ``fresh``; as strong as ever."""
    pattern, new = first, np.sqrt(1.0 - kept * kept)
    while True:
        yield pattern
        pattern = kept * pattern + new * next(fresh)


_CRYSTAL_RINGS = ((3.90, 0.7), (3.67, 1.0), (3.44, 0.5), (2.25, 0.6))
_CRYSTAL_WIDTH_PER_ANG = 0.002


def crystal_rings(frequency_per_ang: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the rings of many small ice crystals of all directions, 1 at the strongest.

    They lie at the spacings of hexagonal ice (3.90, 3.67, 3.44 and 2.25 Å; those of cubic ice are 3.67 and 2.25), as wide as
    crystals of some 200 Å make them; the heights are schematic.
    """
    g = np.asarray(frequency_per_ang, np.float64)
    rings = [height * np.exp(-0.5 * ((g - 1.0 / ang) / _CRYSTAL_WIDTH_PER_ANG) ** 2) for ang, height in _CRYSTAL_RINGS]
    power: NDArray[np.float64] = np.sum(rings, axis=0)
    return power
