"""Comparing and averaging two estimates of the CTF of one micrograph.

Where two CTFs differ in phase by 90°, one is at a zero where the other is at an extremum: from there on they contradict each
other (the agreement criterion of Marabini et al. 2015, the CTF challenge, J. Struct. Biol. 190, 348).
"""

import cmath
import math
from dataclasses import astuple, dataclass

from icestream.algorithms.ctf.transfer import electron_wavelength_ang
from icestream.errors import ItemError


@dataclass(frozen=True)
class CtfShape:
    """What is fitted of a CTF; ``astigmatism_angle_deg`` is the direction of ``defocus_u_ang``."""

    defocus_u_ang: float
    defocus_v_ang: float
    astigmatism_angle_deg: float
    phase_shift_deg: float

    @property
    def defocus_ang(self) -> float:
        """Mean of the two defocus values."""
        return 0.5 * (self.defocus_u_ang + self.defocus_v_ang)

    @property
    def astigmatism_ang(self) -> complex:
        """Half the difference of the defocus values as a vector at twice its angle: the same however U and V are named."""
        return cmath.rect(0.5 * (self.defocus_u_ang - self.defocus_v_ang), math.radians(2.0 * self.astigmatism_angle_deg))


def agreement_resolution_ang(one: CtfShape, other: CtfShape, *, voltage_kv: float) -> float:
    """Return the resolution at which the phases of two CTFs of one micrograph first differ by 90°, in any direction.

    Spherical aberration and amplitude contrast are those of the microscope, so they cancel in the difference of the phases:
    ``chi1 - chi2 = pi * wavelength * g² * d(direction) + difference of the phase shifts``. The difference of the defocus, ``d``,
    runs over the directions from ``m - r`` to ``m + r``: ``m`` is the difference of the mean defocus, ``r`` the length of the
    difference of the astigmatism vectors. The smallest ``g`` is reached at one of these ends, in closed form.

    Phase shifts count modulo 180°, for no power spectrum can tell the sign of a CTF.

    Returns
    -------
    resolution_ang
        0 if they agree at all resolutions, infinite if they do at none (phase shifts 90° apart).

    Raises
    ------
    ItemError
        If a value is not a finite number.
    """
    _check(one, other)
    shift_rad = math.radians(_wrap_half_turn(one.phase_shift_deg - other.phase_shift_deg))
    mean_ang = one.defocus_ang - other.defocus_ang
    reach_ang = abs(one.astigmatism_ang - other.astigmatism_ang)
    rate = math.pi * electron_wavelength_ang(voltage_kv)
    rising = rate * max(mean_ang + reach_ang, 0.0) / (0.5 * math.pi - shift_rad) if shift_rad < 0.5 * math.pi else math.inf
    falling = rate * max(reach_ang - mean_ang, 0.0) / (0.5 * math.pi + shift_rad) if shift_rad > -0.5 * math.pi else math.inf
    return math.sqrt(max(rising, falling))  # each is 1 / g² of the first 90°


def average_ctf(one: CtfShape, other: CtfShape) -> CtfShape:
    """Return the mean of two CTFs of one micrograph.

    The defocus along any direction is the mean of the two along it: the mean defocus and the astigmatism vector (at twice its
    angle) are averaged, so that angles of 89° and -89° meet at 90°, and two perpendicular astigmatisms cancel. Phase shifts are
    averaged modulo 180°, on the branch of the first.

    Raises
    ------
    ItemError
        If a value is not a finite number.
    """
    _check(one, other)
    defocus_ang = 0.5 * (one.defocus_ang + other.defocus_ang)
    half_ang, double_rad = cmath.polar(0.5 * (one.astigmatism_ang + other.astigmatism_ang))
    angle_deg = 0.5 * math.degrees(double_rad)
    return CtfShape(
        defocus_u_ang=defocus_ang + half_ang,
        defocus_v_ang=defocus_ang - half_ang,
        astigmatism_angle_deg=90.0 if angle_deg <= -90.0 else angle_deg,
        phase_shift_deg=one.phase_shift_deg + 0.5 * _wrap_half_turn(other.phase_shift_deg - one.phase_shift_deg),
    )


def _wrap_half_turn(angle_deg: float) -> float:
    """Return the angle modulo 180° in [-90, 90)."""
    return (angle_deg + 90.0) % 180.0 - 90.0


def _check(*shapes: CtfShape) -> None:
    for shape in shapes:
        if not all(math.isfinite(value) for value in astuple(shape)):
            raise ItemError(f"a CTF holds a value that is not a finite number: {shape}")
