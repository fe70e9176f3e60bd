"""What the lens makes of a specimen: scatterers at any depth as two waves in one plane, and their image.

A scatterer of weak phase ``p`` whose depth adds ``z`` to the defocus has the image ``-2 sin(chi + a) p`` with
``a = pi lambda g² z``, which is ``-2 sin(chi) (p cos a) - 2 cos(chi) (p sin a)``. So scatterers at all depths together make two
waves in one plane, ``p cos a`` and ``p sin a``, and the lens acts on these two, however many depths there are. A specimen that
bends, bends its waves before the lens acts. That is exact in the plane; off the plane it changes the defocus by twice the
strain times ``z``, an Å or two.
"""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.transfer import ctf_2d, electron_wavelength_ang
from icestream.algorithms.fourier import frequency_radius_2d
from icestream.microscope.truth import ExposureTruth

_QUARTER_TURN_DEG = 90.0


def count_waves(truth: ExposureTruth, *, ice_slices: int) -> int:
    """Return 1 if everything lies in one plane, else 2."""
    in_plane = truth.surface.is_flat and ice_slices == 1 and not any(p.depth_ang for p in truth.particles)
    return 1 if in_plane else 2


def waves_at_depth_2d(truth: ExposureTruth, canvas: tuple[int, int], *, depth_ang: float, n_waves: int) -> NDArray[np.float32]:
    """Return what a scatterer at a depth adds to each wave, by frequency: ``(n_waves, H, W // 2 + 1)``."""
    g = frequency_radius_2d(*canvas) / truth.pixel_size_ang
    turn = np.pi * electron_wavelength_ang(truth.voltage_kv) * depth_ang * g * g  # (H, W // 2 + 1)
    return np.stack([np.cos(turn), np.sin(turn)][:n_waves]).astype(np.float32)


def lens_2d(truth: ExposureTruth, canvas: tuple[int, int], *, n_waves: int) -> NDArray[np.float32]:
    """Return what the lens makes of each wave, ``2 * CTF * exp(-B g² / 4)``: ``(n_waves, H, W // 2 + 1)``."""
    return np.stack([transfer_2d(truth, canvas, depth_ang=0.0, turn_deg=k * _QUARTER_TURN_DEG) for k in range(n_waves)])


def transfer_2d(truth: ExposureTruth, canvas: tuple[int, int], *, depth_ang: float, turn_deg: float = 0.0) -> NDArray[np.float32]:
    """Return ``2 * CTF * exp(-B g² / 4)`` over the half spectrum of ``canvas``, at a depth and with a further turn of phase."""
    ctf = ctf_2d(
        *canvas,
        pixel_size_ang=truth.pixel_size_ang,
        defocus_u_ang=truth.defocus_u_ang + depth_ang,
        defocus_v_ang=truth.defocus_v_ang + depth_ang,
        astigmatism_angle_deg=truth.astigmatism_angle_deg,
        voltage_kv=truth.voltage_kv,
        cs_mm=truth.cs_mm,
        amplitude_contrast=truth.amplitude_contrast,
        phase_shift_deg=truth.phase_shift_deg + turn_deg,
    )
    g = frequency_radius_2d(*canvas) / truth.pixel_size_ang
    transfer: NDArray[np.float32] = 2 * ctf * np.exp(-0.25 * truth.b_factor_ang2 * g * g)
    return transfer
