"""How exactly motion is found on simulated movies with known truth, and at what cost; prints one line of JSON.

python benchmarks/motion_accuracy.py --side 1024 --frames 16 --settings 6
python benchmarks/motion_accuracy.py --side 1024 --frames 30 --settings 6 --snr --relion --patches 1 3 5
python benchmarks/motion_accuracy.py --random 30 --seed 7

``--random`` draws pixel size, dose, frames, defocus and motion of each movie and simulates it with `icestream.microscope`; see
`motion_random`. The other options describe movies of this script's own:
``--snr`` adds the spectral signal-to-noise of the corrected sum, relative to that of a sum with the true motion, and to that of
frames that were never displaced (then the damping of interpolation counts too). Its signal is a specimen with a white spectrum,
moved as the movie and added up with the motion that was found; its noise is white and goes the same way. What counts is the power
of the signal in the sum: an offset that all frames share moves the image and takes nothing from it. ``--relion`` runs
RELION's own implementation on the same movies.
"""

import argparse
import json
import resource
import time
from functools import partial

import numpy as np
from scipy import fft, ndimage

from icestream.algorithms.motion.align import align_movie
from icestream.algorithms.motion.frames import Detector, inspect_frames
from icestream.algorithms.motion.model import local_shift_px
from icestream.algorithms.motion.sum import DoseModel, sum_frames_2d
from motion_random import run_random
from relion_peer import relion_version, run_relion

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
    """Return the global track ``(n, 2)``, a function ``(frame, y, x) -> (2, ...)`` of the local motion, and our coefficients."""
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

    powers = np.array([1.8, -1.4, 0.6])
    table = (local_px * 1.5 * coefficients[:, :, None] * powers).reshape(2, 18) if kind == "polynomial" else None
    return track, local, table


def make_frame(rng, specimen, *, shift, local, side, dose):
    ideal = ideal_frame(specimen, shift=shift, local=local, side=side)
    return rng.poisson(np.maximum(ideal, 0) * dose).astype(np.uint8)


def ideal_frame(specimen, *, shift, local, side):
    """Return a frame without noise, of spline coefficients of the specimen on the finer grid."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    p_y, p_x = y - shift[0], x - shift[1]
    for _ in range(2):
        d = local(p_y, p_x)
        p_y, p_x = y - shift[0] - d[0], x - shift[1] - d[1]
    return ndimage.map_coordinates(specimen, [2 * (p_y + PAD), 2 * (p_x + PAD)], order=3, prefilter=False, mode="mirror")


def make_movie(seed, *, side, n_frames, dose, drift_px, local_px, contrast, kind):
    rng = np.random.default_rng(seed)
    specimen = ndimage.spline_filter(make_specimen(rng, side, contrast), order=3, output=np.float32)
    track, local, table = make_truth(rng, side=side, n_frames=n_frames, drift_px=drift_px, local_px=local_px, kind=kind)
    frames = np.stack(
        [make_frame(rng, specimen, shift=track[i], local=partial(local, i), side=side, dose=dose) for i in range(n_frames)]
    )
    return frames, track, local, table


def relative_snr(seed, estimates, track, local, *, side):
    """Return the signal-to-noise of the sum relative to that of frames that were never displaced, per tenth of Nyquist.

    ``estimates`` are pairs of track and coefficients; one row for each.
    """
    rng = np.random.default_rng([seed, 2])
    n, n_frames, inner = 2 * (side + 2 * PAD), len(track), slice(PAD, side - PAD)
    k = np.hypot(np.fft.fftfreq(n, 0.5)[:, None], np.fft.rfftfreq(n, 0.5)[None])
    fine = fft.irfft2(fft.rfft2(rng.standard_normal((n, n), dtype=np.float32)) * (k < 0.5), s=(n, n))  # nothing beyond Nyquist
    specimen = ndimage.spline_filter(fine, order=3, output=np.float32)
    moved = [ideal_frame(specimen, shift=track[i], local=partial(local, i), side=side) for i in range(n_frames)]
    noise = [rng.standard_normal((side, side), dtype=np.float32) for _ in range(n_frames)]
    still = fine[2 * PAD : 2 * PAD + 2 * side : 2, 2 * PAD : 2 * PAD + 2 * side : 2][inner, inner]
    whole = Detector(np.ones((side, side), np.float32), np.zeros((side, side), bool), np.zeros((0, 2), np.intp))
    taper = np.hanning(len(still))[:, None] * np.hanning(len(still))
    ring = (np.hypot(np.fft.fftfreq(len(still))[:, None], np.fft.rfftfreq(len(still))[None]) * 20).astype(int).ravel()

    def per_ring(values):
        return np.bincount(ring, weights=values.ravel())[:10]

    white = n_frames * np.sum(taper**2)
    spectrum = fft.rfft2(still * taper)
    curves = []
    for found, coefficients in estimates:
        motion = {"global_yx_px": found, "local_coefficients": coefficients, "dose": None}
        signal, rest = (fft.rfft2(sum_frames_2d(frames, whole, **motion)[0][inner, inner] * taper) for frames in (moved, noise))
        kept = per_ring(np.abs(signal) ** 2) / per_ring(np.abs(spectrum) ** 2) / n_frames**2
        curves.append(kept / (per_ring(np.abs(rest) ** 2) / np.bincount(ring)[:10] / white))
    return np.array(curves)


def places(side):
    return tuple(grid.ravel() for grid in np.meshgrid(*[(np.arange(9) + 0.5) / 9 * side] * 2, indexing="ij"))


def our_displacement(estimate, *, side, n_frames):
    """Return the displacement that we found at 81 places, ``(n, 2, places)``."""
    y, x = places(side)
    found = np.repeat(estimate.global_yx_px[:, :, None], y.size, axis=2)
    if estimate.local_coefficients is None:
        return found
    place = {"frame": np.arange(n_frames)[:, None], "y_px": y[None], "x_px": x[None]}
    return found + np.moveaxis(local_shift_px(estimate.local_coefficients, **place, shape=(side, side), n_frames=n_frames), 0, 1)


def displacement_errors(track_found, found, track, local, *, side):
    """Return RMS errors of the global track, of the whole model, and of the global track taken as the whole model."""
    y, x = places(side)
    truth = np.stack([track[i][:, None] + local(i, y, x) for i in range(len(track))])  # (n, 2, places)

    def rms(error):
        error = error - error.mean(axis=0, keepdims=True)
        return float(np.sqrt(np.mean(np.sum(error**2, axis=1))))

    alone = track_found[:, :, None]
    return rms(alone - truth.mean(axis=2, keepdims=True)), rms(found - truth), rms(alone - truth)


def measure(seed, options):
    rng = np.random.default_rng([seed, 1])
    dose = float(rng.uniform(*options.dose))
    drift, local = float(rng.uniform(1, options.drift)), float(rng.uniform(0, options.local))
    frames, track, local_truth, table = make_movie(
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
    truth = (track, local_truth)
    ours = our_displacement(estimate, side=options.side, n_frames=options.frames)
    result = {"errors": displacement_errors(estimate.global_yx_px, ours, *truth, side=options.side), "cpu": np.diff(times)}
    if options.snr:
        ways = [(estimate.global_yx_px, estimate.local_coefficients)] + ([(track, table)] if table is not None else [])
        result["snr"] = relative_snr(seed, ways, *truth, side=options.side)
    for patches in options.patches if options.relion else ():
        peer = run_relion(frames, dose_e_per_px=dose, patches=patches)
        theirs = peer.displacement(np.arange(options.frames), *places(options.side), shape=(options.side, options.side))
        errors = displacement_errors(peer.global_yx_px, theirs, *truth, side=options.side)
        result[f"relion_{patches}x{patches}"] = (errors, peer.cpu_s)
    if options.verbose:
        print(f"seed {seed} dose {dose:.2f} drift {drift:.1f} local {local:.1f}: {result} {estimate.note}")
    return result


def summary(column):
    column = np.asarray(column)
    return {
        "median": round(float(np.median(column)), 4),
        "p95": round(float(np.quantile(column, 0.95)), 4),
        "worst": round(float(column.max()), 4),
    }


def summary_of_least(column):
    return {"median": round(float(np.median(column)), 3), "worst": round(float(np.min(column)), 3)}


def summarise_errors(errors):
    """Return the three errors; per axis they are smaller by the root of two."""
    names = ("global_px", "local_px", "global_as_local_px")
    columns = dict(zip(names, np.transpose(errors), strict=True))
    table = {name: summary(column) for name, column in columns.items()}
    per_axis = {f"{name[:-3]}_per_axis_px": summary(columns[name] / np.sqrt(2)) for name in names[:2]}
    worse = {"local_worse_than_global": int(np.sum(columns["local_px"] > columns["global_as_local_px"] + 1e-9))}
    return {**table, **per_axis, **worse}


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
    parser.add_argument("--snr", action="store_true", help="spectral signal-to-noise relative to frames that never moved")
    parser.add_argument("--relion", action="store_true", help="run RELION's own implementation on the same movies")
    parser.add_argument("--patches", type=int, nargs="+", default=(5,), help="for RELION: patches along either axis")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--random", type=int, default=0, help="this many random settings of the simulated microscope")
    parser.add_argument("--seed", type=int, default=0, help="for --random")
    options = parser.parse_args()
    if options.random:
        print(json.dumps(run_random(options.random, options.seed, side=options.side, verbose=options.verbose)))
        return
    version = relion_version() if options.relion else None
    results = [measure(seed, options) for seed in range(options.settings)]
    report = {name: getattr(options, name) for name in ("side", "frames", "settings", "dose", "kind")}
    report |= summarise_errors([result["errors"] for result in results])
    cpu = np.array([result["cpu"] for result in results])
    report["cpu_s"] = dict(zip(("inspect", "align", "sum"), np.round(np.median(cpu, axis=0), 3).tolist(), strict=True))
    if options.snr:
        curves = np.array([result["snr"] for result in results])  # (settings, 1 or 2, 10)
        report["snr_to_unmoved_at_tenths_of_nyquist"] = np.round(np.median(curves[:, 0], axis=0), 3).tolist()
        if curves.shape[1] == 2:
            ratio = curves[:, 0] / curves[:, 1]
            report["snr_to_true_shifts_at_tenths_of_nyquist"] = np.round(np.median(ratio, axis=0), 3).tolist()
            report["snr_to_true_shifts_at_0.9_nyquist"] = summary_of_least(ratio[:, 8])
    for name in [f"relion_{patches}x{patches}" for patches in options.patches] if options.relion else []:
        found = summarise_errors([result[name][0] for result in results])
        report[name] = {"version": version, **found, "cpu_s": round(float(np.median([result[name][1] for result in results])), 2)}
    report["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
