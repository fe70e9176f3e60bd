"""Motion correction over random settings of the simulated microscope: errors, the signal that is kept, and what noise allows.

Run by ``motion_accuracy.py --random N --seed S``. Each setting draws pixel size, dose, frames, defocus, drift and local motion;
the movie comes from `icestream.microscope`, its truth is used for scoring only. Beside each error stands the Cramér-Rao bound for
frames that are aligned freely, from the known power of the specimen: for power ``S`` and noise ``N`` of one frame, a shift of one
of ``n`` frames against the others has the information ``sum over k of (2 pi k)² S² n / (N (N + n S))`` (Knapp & Carter 1976, IEEE
Trans. ASSP 24, 320, for more than two channels); a local model of 15 terms an axis adds ``15 / n`` of that variance.
"""

import sys
import time

import numpy as np
from scipy import fft

from icestream.algorithms.motion.align import align_movie
from icestream.algorithms.motion.frames import inspect_frames
from icestream.algorithms.motion.model import local_shift_px
from icestream.microscope.draw import draw_exposure
from icestream.microscope.exposure import counted_frames, expected_frames, render_specimen
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import open_studio

LOCAL_TERMS = 15
TENTHS = np.arange(1, 10)


def draw_settings(seed, index, *, side):
    """Return the settings of one random session of one movie."""
    rng = np.random.default_rng([seed, index])
    pixel = float(rng.uniform(0.6, 2.0))
    dose = float(rng.uniform(0.5, 1.5))
    drift, local, defocus = (float(rng.uniform(*limits)) for limits in ((3, 30), (0, 3), (0.4, 3.5)))
    return SimulationSettings(
        n_movies=1,
        seed=int(rng.integers(2**31)),
        height_px=side,
        width_px=side,
        n_frames=int(rng.integers(20, 61)),
        pixel_size_ang=pixel,
        dose_per_frame_e_per_ang2=dose / pixel**2,
        voltage_kv=float(rng.choice([200.0, 300.0])),
        defocus_um=(defocus, defocus),
        drift_px=(drift, drift),
        local_motion_px=local,
    )


def render(settings):
    """Return the counted frames, the gain, the truth, and the power of the specimen in one frame, per ring of 128."""
    studio = open_studio(settings)
    truth = draw_exposure(settings, 0, fault=None, diameter_ang=studio.phantom.diameter_ang)
    generator = settings.generator(4, 0, 1)
    specimen = render_specimen(
        truth,
        studio.volume,
        particle_contrast=settings.particle_contrast,
        ice_thickness_ang=settings.ice_thickness_ang,
        generator=generator,
    )
    powers = []

    def ideal():
        frames = expected_frames(truth, specimen, dose_per_frame_e_per_ang2=settings.dose_per_frame_e_per_ang2)
        for number, frame in enumerate(frames):
            if number % 5 == 0:
                powers.append(ring_power(frame))
            yield frame

    frames = np.stack([frame.astype(np.uint8) for frame in counted_frames(ideal(), studio.camera, generator=generator)])
    return frames, studio.camera.gain, truth, np.mean(powers, axis=0)


def ring_power(image):
    """Return ``|F|²`` per pixel of a tapered image in 128 rings to Nyquist: white noise of variance v has v in each."""
    taper = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])
    spectrum = np.abs(fft.rfft2((image - image.mean()) * taper)) ** 2 / np.sum(taper**2)
    k = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1]))
    rings = (k * 256).astype(int).ravel()
    return np.bincount(rings, weights=spectrum.ravel())[:128] / np.bincount(rings)[:128]


def bound_px(power, *, noise, n_frames, n_px):
    """Return the least RMS error of freely aligned frames, both axes together, the common offset taken out."""
    k = (np.arange(len(power)) + 0.5) / 256
    weight = power**2 / (noise * (noise + n_frames * power))
    weight[:2] = 0  # the mean and the slopes of the illumination
    information = n_px * np.sum(weight * 2 * np.pi**2 * k**2 * 2 * np.pi * k) / 256  # of one axis
    return float(np.sqrt(2 / information * (n_frames - 1)) / n_frames)


def snr_kept(error):
    """Return the signal-to-noise of the sum against one with the true shifts at tenths of Nyquist: ``(9,)``.

    ``error`` is ``(n, 2, places)``. At frequency ``k`` the signal of the sum is multiplied by the mean over frames of
    ``exp(2 pi i k·error)``; noise is not. What all frames share is no loss.
    """
    angles = np.arange(16) * np.pi / 16
    along = np.einsum("nap,ad->npd", error, np.stack([np.sin(angles), np.cos(angles)]))  # (n, places, directions)
    return np.array([np.mean(np.abs(np.mean(np.exp(2j * np.pi * 0.05 * k * along), axis=0)) ** 2) for k in TENTHS])


def rms(error):
    """Return the RMS length of an error ``(n, 2, places)`` whose mean over frames is taken out."""
    error = error - error.mean(axis=0, keepdims=True)
    return float(np.sqrt(np.mean(np.sum(error**2, axis=1))))


def measure_setting(seed, index, *, side):
    """Return errors, what was kept and what noise allows of one random setting."""
    settings = draw_settings(seed, index, side=side)
    frames, gain, truth, power = render(settings)
    n = settings.n_frames
    began = time.process_time()
    detector = inspect_frames(frames, gain, operation="multiply")
    estimate = align_movie(frames, detector, max_shift_px=100.0, electrons_per_px=settings.dose_per_pixel)
    cpu = time.process_time() - began
    y, x = (grid.ravel() for grid in np.meshgrid(*[(np.arange(9) + 0.5) / 9 * side] * 2, indexing="ij"))
    moved = np.stack([truth.displacement(t, y, x).T for t in range(n)])  # (n, 2, places)
    alone = np.repeat(estimate.global_yx_px[:, :, None], y.size, axis=2)
    found = alone
    if estimate.local_coefficients is not None:
        place = {"frame": np.arange(n)[:, None], "y_px": y[None], "x_px": x[None]}
        found = alone + np.moveaxis(local_shift_px(estimate.local_coefficients, **place, shape=(side, side), n_frames=n), 0, 1)
    noise = settings.dose_per_pixel
    bound = bound_px(power, noise=noise, n_frames=n, n_px=side**2)
    local_bound = bound * np.sqrt(1 + LOCAL_TERMS / n)
    kept = snr_kept(found - moved)
    return {
        "index": index,
        "pixel_ang": round(settings.pixel_size_ang, 2),
        "dose_e_px": round(noise, 2),
        "frames": n,
        "kv": settings.voltage_kv,
        "defocus_um": round(settings.defocus_um[0], 2),
        "drift_px": round(settings.drift_px[0], 1),
        "local_motion_px": round(settings.local_motion_px, 2),
        "global_px": rms(alone[:, :, :1] - moved.mean(axis=2, keepdims=True)),
        "local_px": rms(found - moved),
        "global_as_local_px": rms(alone - moved),
        "bound_global_px": bound,
        "bound_local_px": float(local_bound),
        "snr": kept[8],
        "snr_worst_tenth": kept.min(),
        "snr_of_bound": float(np.exp(-4 * np.pi**2 * 0.45**2 * local_bound**2 / 2)),
        "cpu_s": round(cpu, 2),
        "note": estimate.note,
    }


def run_random(count, seed, *, side, verbose):
    """Measure ``count`` settings and return the report."""
    rows = []
    for index in range(count):
        rows.append(measure_setting(seed, index, side=side))
        if verbose:
            print(rows[-1], file=sys.stderr, flush=True)
    return summarise(rows, seed, side=side)


def summarise(rows, seed, *, side):
    """Return the report of settings that were measured."""

    def column(name):
        return np.array([row[name] for row in rows], dtype=float)

    def upper(values):
        return {
            "median": round(float(np.median(values)), 4),
            "p95": round(float(np.quantile(values, 0.95)), 4),
            "worst": round(float(values.max()), 4),
        }

    def lower(values):
        return {
            "median": round(float(np.median(values)), 4),
            "p5": round(float(np.quantile(values, 0.05)), 4),
            "worst": round(float(values.min()), 4),
        }

    worse = column("local_px") > column("global_as_local_px") + 1e-9
    short = column("snr_worst_tenth") < 0.95
    bounded = column("snr_of_bound") < 0.95
    errors = ("global_px", "local_px", "global_as_local_px", "bound_global_px", "bound_local_px")
    return {
        "random": len(rows),
        "seed": seed,
        "side": side,
        **{name: upper(column(name)) for name in errors},
        "global_per_axis_px": upper(column("global_px") / np.sqrt(2)),
        "global_over_bound": upper(column("global_px") / column("bound_global_px")),
        "local_over_bound": upper(column("local_px") / column("bound_local_px")),
        "local_worse_than_global": int(worse.sum()),
        "snr_at_0.9_nyquist": lower(column("snr")),
        "snr_of_bound_at_0.9_nyquist": lower(column("snr_of_bound")),
        "n_snr_below_0.95": int(short.sum()),
        "n_snr_below_0.95_where_noise_allows_it": int((short & ~bounded).sum()),
        "cpu_s": upper(column("cpu_s")),
        "below": [_short(row) for row, marked in zip(rows, short | worse, strict=True) if marked],
    }


def _short(row):
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
