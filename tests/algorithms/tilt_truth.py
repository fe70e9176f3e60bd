"""Images of a specimen whose height, and so its defocus, runs over the field."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.fourier import frequency_radius_2d

PLANE_STEP_ANG = 150.0
B_FACTOR_ANG2 = 60.0


@lru_cache(maxsize=16)
def tilted_image(
    *, side_px: int, pixel_size_ang: float, tilt_deg: float, snr: float, seed: int, axis_deg: float = 37.0
) -> NDArray[np.float32]:
    """Return a white specimen in white noise, ``(h, w)``; 1.5 µm defocus in the middle, ``snr`` of powers before the CTF.

    Images at planes of equal defocus are mixed so that every pixel has its own.
    """
    rng = np.random.default_rng(seed)
    shape = (side_px, side_px)
    specimen = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    specimen *= np.exp(-0.25 * B_FACTOR_ANG2 * (frequency_radius_2d(*shape) / pixel_size_ang) ** 2)
    y, x = np.mgrid[:side_px, :side_px] - 0.5 * (side_px - 1)
    along = x * np.cos(np.deg2rad(axis_deg)) + y * np.sin(np.deg2rad(axis_deg))
    height_ang = np.tan(np.deg2rad(tilt_deg)) * pixel_size_ang * along
    planes = np.arange(np.floor(height_ang.min() / PLANE_STEP_ANG), np.ceil(height_ang.max() / PLANE_STEP_ANG) + 1)
    image = np.zeros(shape, np.float32)
    for plane in planes:
        share = np.maximum(1.0 - np.abs(height_ang / PLANE_STEP_ANG - plane), 0.0).astype(np.float32)
        ctf = ctf_2d(
            *shape,
            pixel_size_ang=pixel_size_ang,
            defocus_u_ang=15100.0 + plane * PLANE_STEP_ANG,
            defocus_v_ang=14900.0 + plane * PLANE_STEP_ANG,
            astigmatism_angle_deg=30.0,
            voltage_kv=300.0,
            cs_mm=2.7,
            amplitude_contrast=0.1,
        )
        image += share * fft.irfft2(specimen * ctf, s=shape).astype(np.float32)
    image = np.sqrt(np.float32(snr)) * image + rng.standard_normal(shape, dtype=np.float32)
    image.flags.writeable = False
    return image
