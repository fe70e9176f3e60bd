"""Radiation damage: how much of each frame to keep at each frequency.

Critical exposure curve of Grant & Grigorieff (2015), eLife 4:e06980, equation 3; the factors for lower voltages are those
used by cisTEM. Between their voltages (100, 200, 300 kV) the factor is interpolated, beyond them it stays that of the nearest.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_VOLTAGE_FACTOR = {300: 1.0, 200: 0.8, 100: 0.532}


def critical_exposure_e_per_ang2(frequency_per_ang: NDArray[Any], *, voltage_kv: float) -> NDArray[Any]:
    """Return the exposure that reduces the signal at ``frequency_per_ang`` to 1/e (infinite at zero frequency)."""
    voltages = sorted(_VOLTAGE_FACTOR)
    factor = float(np.interp(voltage_kv, voltages, [_VOLTAGE_FACTOR[v] for v in voltages]))
    with np.errstate(divide="ignore"):
        curve: NDArray[Any] = (0.24499 * np.power(frequency_per_ang, -1.6649) + 2.8141) * factor
    return curve


def dose_weights(frequency_per_ang: NDArray[Any], exposure_e_per_ang2: NDArray[Any], *, voltage_kv: float) -> NDArray[np.float32]:
    """Return the amplitude weight of each frame at each frequency, 1 at zero frequency.

    Parameters
    ----------
    frequency_per_ang
        Any shape ``S``.
    exposure_e_per_ang2
        ``(n_frames,)``: pre-exposure plus the dose accumulated at the end of each frame.

    Returns
    -------
    weights
        ``(n_frames, *S)``: ``exp(-N / (2 Ne(g)))``, not yet normalised (divide the weighted sum by ``sqrt(sum(w²))``).
    """
    critical = critical_exposure_e_per_ang2(frequency_per_ang, voltage_kv=voltage_kv)
    exposure = np.asarray(exposure_e_per_ang2).reshape(-1, *([1] * np.ndim(frequency_per_ang)))  # (n_frames, 1…)
    weights: NDArray[np.float32] = np.exp(-exposure / (2.0 * critical)).astype(np.float32)  # (n_frames, *S)
    return weights
