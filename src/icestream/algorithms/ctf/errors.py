"""From the covariance of a CTF fit to the errors a microscopist reads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NO_ANGLE_DEG = 180.0 / 12.0**0.5


@dataclass(frozen=True)
class CtfErrors:
    """Standard deviations of mean defocus, difference of the defocus values, angle, and phase shift (unset: not fitted)."""

    defocus_ang: float
    astigmatism_ang: float
    angle_deg: float
    phase_shift_deg: float | None


def errors_of_fit(parameters: NDArray[np.float64], covariance: NDArray[np.float64]) -> CtfErrors:
    """Return the standard deviations of a CTF fit.

    The astigmatism is a vector ``(a, b)`` of half the difference of the defocus values at twice its angle: its error along itself
    is that of the difference, across it that of the angle. The error of the angle never exceeds 52°, that of an angle drawn by
    chance.

    Parameters
    ----------
    parameters
        ``(4,)``: mean defocus, a, b in Å, phase shift in degrees.
    covariance
        ``(4, 4)``; a phase shift that was not fitted has the variance 0.
    """
    half = float(np.hypot(parameters[1], parameters[2]))
    along = parameters[1:3] / half if half > 0 else np.array([1.0, 0.0])
    across = np.array([-along[1], along[0]])
    vector = covariance[1:3, 1:3]
    sideways_ang = max(float(across @ vector @ across), 0.0) ** 0.5
    angle_deg = float(np.rad2deg(0.5 * sideways_ang / half)) if half > 0 else _NO_ANGLE_DEG
    return CtfErrors(
        defocus_ang=max(float(covariance[0, 0]), 0.0) ** 0.5,
        astigmatism_ang=2.0 * max(float(along @ vector @ along), 0.0) ** 0.5,
        angle_deg=min(angle_deg, _NO_ANGLE_DEG),
        phase_shift_deg=float(covariance[3, 3]) ** 0.5 if covariance[3, 3] > 0.0 else None,
    )
