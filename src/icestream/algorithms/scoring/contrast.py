"""The CTF on polar samples."""

import numpy as np

from icestream.algorithms.ctf.transfer import ctf_phase, defocus_along
from icestream.algorithms.scoring.polar import PolarGrid, Real


def ctf_polar_2d(
    grid: PolarGrid,
    *,
    box_ang: float,
    defocus_u_ang: float,
    defocus_v_ang: float,
    astigmatism_angle_deg: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    phase_shift_deg: float,
) -> Real:
    """Return the CTF on the samples of ``grid`` over a box of ``box_ang``: ``(n_rings, n_angles // 2)``."""
    defocus_ang = defocus_along(
        grid.angles_rad(),
        defocus_u_ang=defocus_u_ang,
        defocus_v_ang=defocus_v_ang,
        astigmatism_angle_deg=astigmatism_angle_deg,
    )  # (half,)
    chi = ctf_phase(
        (grid.radii()[:, None] / box_ang) ** 2,
        defocus_ang,
        voltage_kv=voltage_kv,
        cs_mm=cs_mm,
        amplitude_contrast=amplitude_contrast,
        phase_shift_deg=phase_shift_deg,
    )
    ctf: Real = (-np.sin(chi)).astype(np.float32)
    return ctf
