"""What motion correction costs beside the forward transforms of its frames; prints one line of JSON.

python benchmarks/motion_speed.py --side 4096 --frames 30
python benchmarks/motion_speed.py --side 4096 --frames 30 --relion

``--relion`` runs RELION's own implementation on the same movie; it also decodes a TIFF-LZW file and writes the result, so our
times of writing, and of decoding the same file, are given beside.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import fft
from tifffile import TiffWriter

from icestream.algorithms.motion.align import align_movie
from icestream.algorithms.motion.frames import inspect_frames
from icestream.algorithms.motion.model import N_TERMS
from icestream.algorithms.motion.sum import DoseModel, sum_frames_2d
from icestream.io.image import write_mrc
from icestream.io.movie import open_movie
from relion_peer import relion_version, run_relion

DOSE = DoseModel(voltage_kv=300, pixel_size_ang=1.0, dose_per_frame_e_per_ang2=1.0, pre_exposure_e_per_ang2=0)


def make_movie(side, n_frames):
    """Return a rigid movie at 1 e/px/frame, and its shifts."""
    rng = np.random.default_rng(0)
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]).astype(np.float32)
    spectrum = fft.rfft2(rng.standard_normal((side, side), dtype=np.float32)) * np.exp(-20 * k**2) / (1 + (k / 0.03) ** 1.5)
    field = fft.irfft2(spectrum, s=(side, side)).astype(np.float32)
    specimen = 1 + 0.1 * field / field.std()
    shifts = np.array([(i // 2, i) for i in range(n_frames)])
    return [rng.poisson(np.roll(specimen, tuple(shift), (0, 1))).astype(np.uint8) for shift in shifts], shifts


def correct(frames):
    """Return the estimate and the CPU seconds of each part."""
    clock = [time.process_time()]
    detector = inspect_frames(frames, None, operation="multiply")
    clock.append(time.process_time())
    estimate = align_movie(frames, detector, max_shift_px=100.0)
    clock.append(time.process_time())
    local = np.zeros((2, N_TERMS)) if estimate.local_coefficients is None else estimate.local_coefficients
    sum_frames_2d(frames, detector, global_yx_px=estimate.global_yx_px, local_coefficients=local, dose=DOSE)
    clock.append(time.process_time())
    return estimate, np.diff(clock)


def time_files(frames):
    """Return the CPU seconds of decoding the movie from TIFF-LZW and of writing two images of its size."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "movie.tiff"
        with TiffWriter(path) as writer:
            for frame in frames:
                writer.write(frame, compression="lzw")
        image = frames[0].astype(np.float32)
        clock = [time.process_time()]
        with open_movie(path) as reader:
            for _ in reader.frames():
                pass
        clock.append(time.process_time())
        for suffix in ("plain", "weighted"):
            write_mrc(Path(name) / f"{suffix}.mrc", image, pixel_size_ang=1.0, remember=False)
        clock.append(time.process_time())
    return dict(zip(("decode", "write"), np.round(np.diff(clock), 2).tolist(), strict=True))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--relion", action="store_true")
    parser.add_argument("--patches", type=int, nargs="+", default=(5,), help="for RELION: patches along either axis")
    options = parser.parse_args()
    correct([np.ascontiguousarray(frame[:512, :512]) for frame in make_movie(512, 4)[0]])  # compile
    frames, shifts = make_movie(options.side, options.frames)
    began = time.process_time()
    for frame in frames:
        fft.rfft2(frame.astype(np.float32))
    transforms = time.process_time() - began
    estimate, seconds = correct(frames)
    report = {"side": options.side, "frames": options.frames, "forward_transforms_s": round(transforms, 2)}
    report["cpu_s"] = dict(zip(("inspect", "align", "sum"), np.round(seconds, 2).tolist(), strict=True))
    report["times_the_transforms"] = round(float(seconds.sum() / transforms), 2)
    report["worst_error_px"] = round(float(np.abs(estimate.global_yx_px - shifts).max()), 3)
    if options.relion:
        report["file_cpu_s"] = time_files(frames)
    for patches in options.patches if options.relion else ():
        peer = run_relion(frames, dose_e_per_px=1.0, patches=patches)
        worst = round(float(np.abs(peer.global_yx_px - shifts).max()), 3)
        found = {"version": relion_version(), "cpu_s": round(peer.cpu_s, 2), "worst_error_px": worst}
        whole = seconds.sum() + sum(report["file_cpu_s"].values())
        report[f"relion_{patches}x{patches}"] = found | {"times_ours": round(float(peer.cpu_s / whole), 2)}
    report["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
