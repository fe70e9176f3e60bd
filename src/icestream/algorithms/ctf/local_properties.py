"""What a micrograph's spectrum says beyond one defocus: surface of defocus, tilt, thickness, rings of ice."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.ice_ring import IceRing, measure_ice_rings
from icestream.algorithms.ctf.local import LocalDefocus, fit_local_defocus
from icestream.algorithms.ctf.samples import Optics
from icestream.algorithms.ctf.surface import SampleTilt, tilt_of_surface
from icestream.algorithms.ctf.thickness import RingAmplitudes, SampleThickness, measure_ring_amplitudes, measure_thickness
from icestream.algorithms.ctf.transfer import electron_wavelength_ang
from icestream.algorithms.ctf.windows import collect_window_rings
from icestream.algorithms.spectra.spectrum import power_spectrum, spectrum_tile_px

_CLEAR_ICE = 4.0


@dataclass(frozen=True)
class CtfBeyond:
    """All of it for one micrograph; ``window_yx_px`` are the middles of the windows ``(n, 2)``."""

    local: LocalDefocus
    tilt: SampleTilt | None
    amplitudes: RingAmplitudes
    thickness: SampleThickness
    ice_rings: tuple[IceRing, ...]
    window_yx_px: NDArray[np.float64]


def examine_ctf(
    image: NDArray[Any],
    *,
    pixel_size_ang: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    defocus_u_ang: float,
    defocus_v_ang: float,
    astigmatism_angle_deg: float,
    phase_shift_deg: float,
    tile_ang: float,
    resolution_ang: tuple[float, float],
    max_tilt_deg: float,
) -> CtfBeyond:
    """Examine a micrograph whose CTF is known.

    Thickness is measured with each window at its own defocus, so that a slope, which damps the rings of the whole micrograph as
    a thick specimen would, is not taken for one.

    Parameters
    ----------
    image
        ``(h, w)``.
    pixel_size_ang
        Of the image.
    voltage_kv, cs_mm, amplitude_contrast, defocus_u_ang, defocus_v_ang, astigmatism_angle_deg, phase_shift_deg
        The CTF of the whole micrograph.
    tile_ang, resolution_ang
        Of the windows, see `icestream.algorithms.ctf.windows.collect_window_rings`.
    max_tilt_deg
        Steepest slope that is searched.

    Raises
    ------
    ValueError
        If the image is too small, constant, or not finite.
    """
    optics = Optics.of(voltage_kv=voltage_kv, cs_mm=cs_mm, amplitude_contrast=amplitude_contrast)
    half, twice = 0.5 * (defocus_u_ang - defocus_v_ang), np.deg2rad(2.0 * astigmatism_angle_deg)
    ctf = np.array([0.5 * (defocus_u_ang + defocus_v_ang), half * np.cos(twice), half * np.sin(twice), phase_shift_deg])
    shape = (image.shape[0], image.shape[1])
    whole = power_spectrum(image, tile_px=spectrum_tile_px(shape, pixel_size_ang=pixel_size_ang, tile_ang=tile_ang))
    ice = measure_ice_rings(whole, pixel_size_ang=pixel_size_ang, optics=optics, ctf=ctf)
    rings = collect_window_rings(
        image,
        pixel_size_ang=pixel_size_ang,
        tile_ang=tile_ang,
        resolution_ang=resolution_ang,
        optics=optics,
        ctf=ctf,
        left_out_ang=[ring.resolution_ang for ring in ice if ring.significance > _CLEAR_ICE],
    )
    local = fit_local_defocus(rings, shape=shape, pixel_size_ang=pixel_size_ang, max_tilt_deg=max_tilt_deg)
    offset_ang = local.surface.offset_ang(rings.centres_yx_px) + (local.shift_ang if local.surface.degree == 0 else 0.0)
    amplitudes = measure_ring_amplitudes(rings, offset_ang)
    return CtfBeyond(
        local=local,
        tilt=tilt_of_surface(local.surface, pixel_size_ang=pixel_size_ang),
        amplitudes=amplitudes,
        thickness=measure_thickness(amplitudes, wavelength_ang=electron_wavelength_ang(voltage_kv)),
        ice_rings=ice,
        window_yx_px=rings.centres_yx_px,
    )
