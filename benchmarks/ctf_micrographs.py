"""Micrographs with a known CTF for the CTF benchmarks: those of the simulated microscope, and synthetic ones."""

import numpy as np
from scipy import fft

from icestream.algorithms.ctf import ctf_2d
from icestream.microscope.camera import count_electrons
from icestream.microscope.draw import draw_exposure
from icestream.microscope.exposure import expected_frames, render_specimen
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import open_studio

MICROSCOPES = [(300.0, 2.7), (200.0, 2.7), (300.0, 0.01), (100.0, 1.6)]
N_DAMAGE_STEPS = 5


def draw_microscope(rng, index, *, phase):
    """Settings of a simulated movie, from anywhere in the range that a facility sees."""
    voltage_kv, cs_mm = MICROSCOPES[index % 3]
    pixel = float(rng.uniform(0.6, 2.0))
    n_frames, dose = int(rng.integers(20, 61)), float(rng.uniform(0.5, 1.5))
    defocus_um, astigmatism = float(rng.uniform(0.4, 3.5)), float(rng.uniform(0.0, 800.0))
    shift = float(rng.uniform(0.0, 120.0)) if phase else 0.0
    return {
        "seed": int(rng.integers(2**31)),
        "pixel_size_ang": pixel,
        "voltage_kv": voltage_kv,
        "cs_mm": cs_mm,
        "defocus_um": (defocus_um, defocus_um),
        "astigmatism_ang": (astigmatism, astigmatism),
        "phase_shift_deg": (shift, shift),
        "b_factor_ang2": float(rng.uniform(40.0, 150.0)),
        "ice_thickness_ang": float(rng.uniform(200.0, 600.0)),
        "phantom_diameter_ang": 120.0,
        "n_particles": 60,
        "n_frames": N_DAMAGE_STEPS,
        "dose_per_frame_e_per_ang2": n_frames * dose / pixel**2 / N_DAMAGE_STEPS,
    }


def expose_micrograph(values, *, side):
    """What a camera counts of a movie whose motion was corrected, and what is true of it: ``(side, side)``, optics."""
    image, truth = expose_specimen(values, side=side)
    names = ("pixel_size_ang", "defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "voltage_kv", "cs_mm")
    return image, {name: getattr(truth, name) for name in (*names, "amplitude_contrast", "phase_shift_deg")}


def expose_specimen(values, *, side):
    """The same with the whole truth of the exposure.

    Frames are summed before they are counted: a sum of Poisson numbers is a Poisson number.
    """
    settings = SimulationSettings(
        height_px=side, width_px=side, drift_px=(0.0, 0.0), local_motion_px=0.0, gain=False, depth_spread=True, **values
    )
    studio = open_studio(settings)
    truth = draw_exposure(settings, 0, fault=None, diameter_ang=studio.phantom.diameter_ang)
    generator = settings.generator(9)
    specimen = render_specimen(
        truth,
        studio.volume,
        particle_contrast=settings.particle_contrast,
        ice_thickness_ang=settings.ice_thickness_ang,
        generator=generator,
        ice_slices=settings.ice_slices,
        ice_ring=settings.ice_ring,
    )
    frames = expected_frames(truth, specimen, dose_per_frame_e_per_ang2=settings.dose_per_frame_e_per_ang2)
    expected = np.sum(list(frames), axis=0)  # (side, side)
    return count_electrons(expected, generator=generator).astype(np.float32), truth


def draw_settings(rng, index, *, phase):
    """Random optics for `simulate_micrograph`; astigmatism up to 2000 Å."""
    voltage_kv, cs_mm = MICROSCOPES[index % len(MICROSCOPES)]
    defocus = rng.uniform(3500.0, 48000.0)
    difference = rng.uniform(0.0, min(2000.0, 0.2 * defocus))
    return {
        "pixel_size_ang": rng.uniform(0.6, 2.0),
        "defocus_u_ang": defocus + difference / 2,
        "defocus_v_ang": defocus - difference / 2,
        "astigmatism_angle_deg": rng.uniform(-90.0, 90.0),
        "voltage_kv": voltage_kv,
        "cs_mm": cs_mm,
        "amplitude_contrast": 0.07,
        "phase_shift_deg": rng.uniform(10.0, 150.0) if phase else 0.0,
    }


def simulate_micrograph(rng, settings, *, side, snr):
    """Random specimen seen through a CTF with a random envelope, on a noise that falls off smoothly: (side, side)."""
    ctf = ctf_2d(side, side, **settings)
    pixel = settings["pixel_size_ang"]
    g2 = np.fft.fftfreq(side, pixel)[:, None] ** 2 + np.fft.rfftfreq(side, pixel)[None, :] ** 2
    white, grain = (fft.rfft2(rng.standard_normal((side, side), dtype=np.float32)) for _ in range(2))
    envelope = np.exp(-rng.uniform(40.0, 200.0) / 4 * g2) * (0.5 + 3 / np.sqrt(1 + 1600 * g2))
    signal = fft.irfft2(white * ctf * envelope)
    noise = fft.irfft2(grain * np.sqrt(0.3 + 0.7 * np.exp(-30 * g2) + 3 / (1 + 3600 * g2)))
    return (signal * np.sqrt(snr) / signal.std() + noise / noise.std()).astype(np.float32)
