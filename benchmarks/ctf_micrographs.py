"""Micrographs with a known CTF for the CTF benchmarks: those of the simulated microscope, and synthetic ones."""

import numpy as np
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d
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
    white, grain = (fft.rfft2(rng.standard_normal((side, side), dtype=np.float32)) for _ in range(2))
    _, envelope, noise_power = draw_spectrum(rng, settings, side=side)
    signal = fft.irfft2(white * ctf_2d(side, side, **settings) * envelope)
    noise = fft.irfft2(grain * np.sqrt(noise_power))
    return (signal * np.sqrt(snr) / signal.std() + noise / noise.std()).astype(np.float32)


def draw_spectrum(rng, settings, *, side):
    """Squared frequency, and the envelope and noise power of `simulate_micrograph` up to factors: (side, side // 2 + 1) each."""
    pixel = settings["pixel_size_ang"]
    g2 = np.fft.fftfreq(side, pixel)[:, None] ** 2 + np.fft.rfftfreq(side, pixel)[None, :] ** 2
    envelope = np.exp(-rng.uniform(40.0, 200.0) / 4 * g2) * (0.5 + 3 / np.sqrt(1 + 1600 * g2))
    return g2, envelope, 0.3 + 0.7 * np.exp(-30 * g2) + 3 / (1 + 3600 * g2)


def draw_junk(rng, kind, *, side):
    """An image without a CTF to find, whatever the optics: ``(side, side)``."""
    noise = rng.standard_normal((side, side), dtype=np.float32)
    pixel = 1.2
    g2 = np.fft.fftfreq(side, pixel)[:, None] ** 2 + np.fft.rfftfreq(side, pixel)[None, :] ** 2
    if kind == "noise":
        return noise
    if kind == "empty":  # counted electrons of a beam that is not quite even
        y, x = np.mgrid[:side, :side] / side - rng.uniform(0.2, 0.8, (2, 1, 1))
        return rng.poisson(rng.uniform(5.0, 40.0) * np.exp(-(y * y + x * x))).astype(np.float32)
    transform = fft.rfft2(noise)
    if kind == "ice":  # cubic and hexagonal ice: rings at 3.9, 3.67 and 3.44 Å, and at 2.25 Å
        for ring_ang in (3.9, 3.67, 3.44, 2.25):
            height, width = rng.uniform(0.2, 3.0), rng.uniform(0.003, 0.01)
            transform *= np.sqrt(1 + height * np.exp(-(((np.sqrt(g2) - 1 / ring_ang) / width) ** 2)))
    elif kind == "drift":  # a smear along one direction: the zeros of its sinc cross the spectrum as bands
        angle, length_ang = rng.uniform(0, np.pi), rng.uniform(5.0, 30.0)
        ky, kx = np.fft.fftfreq(side, pixel)[:, None], np.fft.rfftfreq(side, pixel)[None, :]
        transform *= 0.2 + np.sinc(length_ang * (ky * np.sin(angle) + kx * np.cos(angle))) / (1 + 30 * np.sqrt(g2))
    elif kind == "carbon_edge":  # a strong edge and a smooth fall-off
        image = fft.irfft2(transform / (1 + 200 * g2))
        y, x = np.mgrid[:side, :side] - side / 2
        return (image / image.std() + 4.0 * (x * rng.uniform(-1, 1) + y > rng.uniform(-0.2, 0.2) * side)).astype(np.float32)
    elif kind == "rings_of_spheres":  # contamination: one kind of ball, whose form factor has rings of its own
        argument = 2 * np.pi * np.maximum(np.sqrt(g2), 1e-6) * rng.uniform(15.0, 60.0)
        transform *= 0.3 + 9 * np.abs(np.sin(argument) - argument * np.cos(argument)) / argument**3
    else:
        raise ValueError(f"{kind} is no kind of junk; {', '.join(JUNK)} are")
    return fft.irfft2(transform).astype(np.float32)


JUNK = ("noise", "empty", "ice", "drift", "carbon_edge", "rings_of_spheres")
