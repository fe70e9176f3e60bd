"""What does the CTF of a large micrograph cost? CPU seconds on one thread and memory of either estimator; one JSON line.

python benchmarks/ctf_speed.py --side 4096 --pixels 0.65 1.0 1.6
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ctf_accuracy import ESTIMATORS, fit_image
from ctf_micrographs import simulate_micrograph

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
DEFOCUS_ANG = 15100.0


def settings_of(pixel):
    return {
        "pixel_size_ang": pixel,
        "defocus_u_ang": DEFOCUS_ANG + 200.0,
        "defocus_v_ang": DEFOCUS_ANG - 200.0,
        "astigmatism_angle_deg": 30.0,
        "voltage_kv": 300.0,
        "cs_mm": 2.7,
        "amplitude_contrast": 0.07,
        "phase_shift_deg": 0.0,
    }


def measure(estimator, path, pixel, *, phase):
    """Fit one image in this process, after a corner of it, which loads the code; memory is that of the whole process."""
    image, settings = np.load(path), settings_of(pixel)
    fit_image(image[:512, :512], settings, estimator=estimator, phase=phase)
    found, cpu = fit_image(image, settings, estimator=estimator, phase=phase)
    off = 0.5 * (found.defocus_u_ang + found.defocus_v_ang) - DEFOCUS_ANG
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())  # of this program alone
    return {"cpu_s": cpu, "peak_gb": int(status["VmHWM"].split()[0]) / 1e6, "defocus_off_by_ang": off}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--pixels", type=float, nargs="+", default=[0.65, 1.0, 1.6])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phase", action="store_true", help="fit a phase shift too")
    parser.add_argument("--one", nargs=3, metavar=("ESTIMATOR", "IMAGE", "PIXEL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        estimator, path, pixel = options.one
        sys.stdout.write(json.dumps(measure(estimator, path, float(pixel), phase=options.phase)) + "\n")
        return
    rng = np.random.default_rng(options.seed)
    report = {"benchmark": "ctf_speed", **{name: value for name, value in vars(options).items() if name != "one"}}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ESTIMATORS}
    with tempfile.TemporaryDirectory() as folder:
        for pixel in options.pixels:
            path = Path(folder) / "image.npy"
            np.save(path, simulate_micrograph(rng, settings_of(pixel), side=options.side, snr=0.05))
            for name, found in rows.items():
                command = [
                    sys.executable,
                    __file__,
                    "--one",
                    name,
                    str(path),
                    str(pixel),
                    *(["--phase"] if options.phase else []),
                ]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD)
                found.append(json.loads(done.stdout))
    for name, found in rows.items():
        report[name] = {key: [round(row[key], 3) for row in found] for key in found[0]}
        report[name] |= {f"worst_{key}": max(report[name][key]) for key in ("cpu_s", "peak_gb")}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
