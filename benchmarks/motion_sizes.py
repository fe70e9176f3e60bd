"""Memory, CPU and error of the motion step on movies of every size and length; prints one line of JSON.

python benchmarks/motion_sizes.py
python benchmarks/motion_sizes.py --only '8192x8192 x 30'

Each movie is a file of a rigid specimen that a counting camera sees (0 or 1 in each pixel), moved by whole pixels; each runs in a
process of its own, so that the peak of memory is that of the step, libraries and all.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import fft

from icestream.io.mrc import make_mrc_header
from icestream.records import Acquisition, Movie
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.testing.context import StepBench

CASES = {
    "4096x4096 x 50": {"shape": (4096, 4096), "frames": 50},
    "4096x4096 x 50, 16 bit": {"shape": (4096, 4096), "frames": 50, "dtype": "int16"},
    "8192x8192 x 30": {"shape": (8192, 8192), "frames": 30},
    "8192x8192 x 30, bin 2, halves, crop": {
        "shape": (8192, 8192), "frames": 30, "bin": 2.0, "write_halves": True, "crop_offset_yx_px": (100, 201)
    },
    "4092x5760 x 40": {"shape": (4092, 5760), "frames": 40},
    "1023x2049 x 20": {"shape": (1023, 2049), "frames": 20},
    "1024x1024 x 4": {"shape": (1024, 1024), "frames": 4},
    "1024x1024 x 1000": {"shape": (1024, 1024), "frames": 1000, "dose": 0.05},
    "1024x1024 x 1000, 16 bit": {"shape": (1024, 1024), "frames": 1000, "dose": 0.05, "dtype": "int16"},
}  # fmt: skip
LARGEST_DRIFT_PX = 20


def make_specimen(rng, shape):
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    k = np.hypot(ky, kx).astype(np.float32)
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * np.exp(-20 * k**2) / (1 + (k / 0.03) ** 1.5)
    field = fft.irfft2(spectrum, s=shape)
    return (1 + 0.15 * field / field.std()).astype(np.float32)


def write_movie(path, *, shape, n_frames, dtype, dose):
    """Write a movie frame by frame; return its shifts ``(n, 2)``.

    Noise is cut from one larger random image at random places: where two frames have the same noise, it lies further apart than
    shifts are searched.
    """
    rng = np.random.default_rng(1)
    specimen = make_specimen(rng, shape) * dose
    noise = rng.random((shape[0], shape[1]), dtype=np.float32)
    path_px = np.linspace(0, 1, n_frames) ** 0.5 * LARGEST_DRIFT_PX
    shifts = np.stack([np.round(path_px), np.round(-0.5 * path_px)], axis=1).astype(int)
    with path.open("wb") as handle:
        handle.write(make_mrc_header((n_frames, *shape), np.dtype(dtype), 1.0, (0.0, 1.0, dose, 0.5)))
        for number, shift in enumerate(shifts):
            steps = ((number * 211 + 97) % shape[0], (number * 389 + 151) % shape[1])
            seen = np.roll(specimen, tuple(shift), (0, 1)) > np.roll(noise, steps, (0, 1))
            handle.write(seen.astype(dtype).tobytes())
    return shifts


def run_case(name):
    """Run one case in this process; return its figures."""
    case = dict(CASES[name])
    shape, n_frames = case.pop("shape"), case.pop("frames")
    case.pop("dtype", None)
    dose = case.pop("dose", 0.6)
    with tempfile.TemporaryDirectory() as folder:
        bench = StepBench(Path(folder))
        path = bench.folder / "movie.mrc"
        shifts = make_in_another_process(name, path)
        size = {"n_frames": n_frames, "height_px": shape[0], "width_px": shape[1], "size_bytes": path.stat().st_size}
        movie = Movie(file="session:movie.mrc", format="mrc", **size)
        known = Acquisition(pixel_size_ang=1.0, voltage_kv=300, dose_per_frame_e_per_ang2=dose)
        clock = time.process_time(), time.perf_counter()
        micrograph = correct_motion(movie, None, MotionParams(**case), known, bench)
        seconds = time.process_time() - clock[0], time.perf_counter() - clock[1]
    error = np.array(micrograph.motion.global_yx_px) - shifts
    error -= error.mean(axis=0)
    return {
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "cpu_s": round(seconds[0], 1),
        "wall_s": round(seconds[1], 1),
        "rms_error_px": round(float(np.sqrt(np.mean(np.sum(error**2, axis=1)))), 3),
        "micrograph": [micrograph.height_px, micrograph.width_px],
        "note": micrograph.motion.note,
    }


def make_in_another_process(name, path):
    """Write the movie without the memory that takes counting for the step."""
    done = subprocess.run([sys.executable, __file__, "--write", name, str(path)], check=True, stdout=subprocess.PIPE, text=True)
    return np.array(json.loads(done.stdout))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--here", help="run one case in this process (used by the script itself)")
    parser.add_argument("--write", nargs=2, help="write the movie of a case (used by the script itself)")
    options = parser.parse_args()
    if options.write:
        case = CASES[options.write[0]]
        about = {"dtype": case.get("dtype", "int8"), "dose": case.get("dose", 0.6)}
        print(json.dumps(write_movie(Path(options.write[1]), shape=case["shape"], n_frames=case["frames"], **about).tolist()))
        return
    if options.here:
        print(json.dumps(run_case(options.here)))
        return
    found = {}
    for name in options.only:
        command = [sys.executable, __file__, "--here", name]
        found[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        print(name, found[name], file=sys.stderr, flush=True)
    peak = max(case["peak_gb"] for case in found.values())
    error = max(case["rms_error_px"] for case in found.values())
    print(json.dumps({"cases": found, "peak_gb": peak, "worst_rms_error_px": error}))


if __name__ == "__main__":
    main()
