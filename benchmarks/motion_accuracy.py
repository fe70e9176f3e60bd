"""How exactly motion is found on simulated movies with known truth, and at what cost; prints one line of JSON.

python benchmarks/motion_accuracy.py --side 1024 --frames 16 --settings 6
"""

import argparse
import json
import resource
import time
from functools import partial

import numpy as np
from scipy import fft, ndimage

from icestream.algorithms.motion_align import align_movie
from icestream.algorithms.motion_frames import inspect_frames
from icestream.algorithms.motion_model import local_shift_px
from icestream.algorithms.motion_sum import DoseModel, sum_frames_2d

PAD = 64


def make_specimen(rng, side, contrast):
    """Return a random weak-phase-like image of mean 1 on a grid twice as fine, with a margin."""
    n = 2 * (side + 2 * PAD)
    ky, kx = np.fft.fftfreq(n, 0.5)[:, None], np.fft.rfftfreq(n, 0.5)[None]
    k = np.sqrt(ky**2 + kx**2)
    envelope = np.exp(-20 * k**2) / (1 + (k / 0.03) ** 1.5) * np.abs(np.sin(2500 * k**2 / 4 + 0.1)) * (k < 0.5)
    field = fft.irfft2(fft.rfft2(rng.standard_normal((n, n), dtype=np.float32)) * envelope, s=(n, n))
    image = 1 + contrast * field / field.std()
    return np.maximum(image, 0.05).astype(np.float32)


def make_truth(rng, *, side, n_frames, drift_px, local_px, kind):
    """Return the global track ``(n, 2)`` and a function ``(frame, y, x) -> (2, ...)`` of the local motion."""
    steps = rng.normal(0, 1, 2) / np.sqrt(2) * np.ones((n_frames, 2)) + 0.5 * rng.normal(0, 1, (n_frames, 2))
    steps *= (1 + 3 * np.exp(-np.arange(n_frames) / 3))[:, None]
    track = np.concatenate([np.zeros((1, 2)), np.cumsum(steps[1:], axis=0)])
    track *= drift_px / max(np.linalg.norm(track[-1]), 1e-9)
    coefficients = rng.normal(0, 1, (2, 6))
    coefficients[:, 0] = 0

    def local(frame, y, x):
        v, u = (y - (side - 1) / 2) / side, (x - (side - 1) / 2) / side
        t = frame / (n_frames - 1)
        curve = 1.8 * t - 1.4 * t**2 + 0.6 * t**3 if kind == "polynomial" else 1 - np.exp(-t * 5)
        terms = np.stack(np.broadcast_arrays(np.ones_like(u + v), u, u * u, v, v * v, u * v))
        return local_px * 1.5 * curve * np.tensordot(coefficients, terms, axes=1)

    return track, local


def make_frame(rng, specimen, *, shift, local, side, dose):
    y, x = np.mgrid[:side, :side].astype(np.float32)
    p_y, p_x = y - shift[0], x - shift[1]
    for _ in range(2):
        d = local(p_y, p_x)
        p_y, p_x = y - shift[0] - d[0], x - shift[1] - d[1]
    ideal = ndimage.map_coordinates(specimen, [2 * (p_y + PAD), 2 * (p_x + PAD)], order=3, prefilter=False, mode="mirror")
    return rng.poisson(np.maximum(ideal, 0) * dose).astype(np.uint8)


def make_movie(seed, *, side, n_frames, dose, drift_px, local_px, contrast, kind):
    rng = np.random.default_rng(seed)
    specimen = ndimage.spline_filter(make_specimen(rng, side, contrast), order=3, output=np.float32)
    track, local = make_truth(rng, side=side, n_frames=n_frames, drift_px=drift_px, local_px=local_px, kind=kind)
    frames = np.stack(
        [make_frame(rng, specimen, shift=track[i], local=partial(local, i), side=side, dose=dose) for i in range(n_frames)]
    )
    return frames, track, local


def displacement_errors(estimate, track, local, *, side, n_frames):
    """Return RMS errors of the global track, of the whole model, and of the global track taken as the whole model."""
    y, x = (grid.ravel() for grid in np.meshgrid(*[(np.arange(9) + 0.5) / 9 * side] * 2, indexing="ij"))
    frames = np.arange(n_frames)[:, None]
    truth = np.stack([track[i][:, None] + local(i, y, x) for i in range(n_frames)])  # (n, 2, points)
    found = np.repeat(estimate.global_yx_px[:, :, None], y.size, axis=2)
    alone = found.copy()
    if estimate.local_coefficients is not None:
        found += np.moveaxis(
            local_shift_px(
                estimate.local_coefficients, frame=frames, y_px=y[None], x_px=x[None], shape=(side, side), n_frames=n_frames
            ),
            0,
            1,
        )

    def rms(error):
        error = error - error.mean(axis=0, keepdims=True)
        return float(np.sqrt(np.mean(np.sum(error**2, axis=1))))

    return rms(estimate.global_yx_px[:, :, None] - truth.mean(axis=2, keepdims=True)), rms(found - truth), rms(alone - truth)


def measure(seed, options):
    rng = np.random.default_rng([seed, 1])
    dose = float(rng.uniform(*options.dose))
    drift, local = float(rng.uniform(1, options.drift)), float(rng.uniform(0, options.local))
    frames, track, local_truth = make_movie(
        seed,
        side=options.side,
        n_frames=options.frames,
        dose=dose,
        drift_px=drift,
        local_px=local,
        contrast=options.contrast,
        kind=options.kind,
    )
    times = [time.process_time()]
    detector = inspect_frames(frames, None, operation="multiply")
    times.append(time.process_time())
    estimate = align_movie(frames, detector, max_shift_px=50.0)
    times.append(time.process_time())
    if options.sum:
        model = DoseModel(voltage_kv=300, pixel_size_ang=1.0, dose_per_frame_e_per_ang2=dose, pre_exposure_e_per_ang2=0)
        sum_frames_2d(
            frames, detector, global_yx_px=estimate.global_yx_px, local_coefficients=estimate.local_coefficients, dose=model
        )
    times.append(time.process_time())
    errors = displacement_errors(estimate, track, local_truth, side=options.side, n_frames=options.frames)
    if options.verbose:
        print(f"seed {seed} dose {dose:.2f} drift {drift:.1f} local {local:.1f}: {errors} {estimate.note}")
    return errors, np.diff(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--settings", type=int, default=6)
    parser.add_argument("--dose", type=float, nargs=2, default=(1.0, 1.0), help="range, e/px/frame")
    parser.add_argument("--drift", type=float, default=20.0, help="largest global drift, px")
    parser.add_argument("--local", type=float, default=5.0, help="largest amplitude of local terms, px")
    parser.add_argument("--contrast", type=float, default=0.1)
    parser.add_argument("--kind", choices=("polynomial", "decay"), default="polynomial")
    parser.add_argument("--sum", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    results = [measure(seed, options) for seed in range(options.settings)]
    errors = np.array([result[0] for result in results])
    cpu = np.array([result[1] for result in results])
    report = {
        "side": options.side,
        "frames": options.frames,
        "settings": options.settings,
        "dose": options.dose,
        "kind": options.kind,
    }
    for name, column in zip(("global_px", "local_px", "global_as_local_px"), errors.T, strict=True):
        report[name] = {
            "median": round(float(np.median(column)), 4),
            "p95": round(float(np.quantile(column, 0.95)), 4),
            "worst": round(float(column.max()), 4),
        }
    report["local_worse_than_global"] = int(np.sum(errors[:, 1] > errors[:, 2] + 1e-9))
    report["cpu_s"] = dict(zip(("inspect", "align", "sum"), np.round(np.median(cpu, axis=0), 3).tolist(), strict=True))
    report["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
