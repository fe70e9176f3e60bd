"""How many particles are extracted in a CPU second on one thread, and how exactly are they centred? One JSON line.

python benchmarks/extract_speed.py --side 4096 --count 400 --box 256 --small 64

The whole step is timed, from reading the micrograph's file to writing the stack, in a process of its own; the median of
`--rounds` is told. Centring is measured on Gaussians without noise at places between the pixels: how far the centre of mass of
each image is off the middle, and how far the grey values are off those of a Gaussian there, for whole pixels and with `subpixel`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from icestream.io.image import write_mrc
from icestream.io.memory import image_memory
from icestream.io.picks import make_picks, table_of_picks
from icestream.records import Acquisition, CtfFit, Micrograph
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.steps.particles.reading import read_particles
from icestream.testing.context import StepBench

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
ACQUISITION = Acquisition(pixel_size_ang=1.0, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07)
CTF = CtfFit(defocus_u_ang=15200, defocus_v_ang=14800, astigmatism_angle_deg=30, score=0.5, resolution_ang=4)
WAYS: dict[str, dict[str, Any]] = {
    "scaled": {},
    "scaled_float16": {"stored_as": "float16"},
    "scaled_subpixel": {"subpixel": True},
    "scaled_premultiplied": {"premultiply": True},
    "scaled_phase_flipped": {"phase_flip": True},
    "full_size": {"scaled_box_px": None},
    "virtual": {"virtual": True},
}
"""What is timed; ``virtual`` is reading it, which is where its images are cut."""


def time_way(way, folder, options):
    """Extract with one set of parameters, in this process, after a warm-up on a few particles."""
    bench = StepBench(folder)
    micrograph = Micrograph(image="session:mic.mrc", height_px=options.side, width_px=options.side, bin=1.0)
    params = ExtractParams(**{"box_px": options.box, "scaled_box_px": options.small, **WAYS[way]})
    places = np.random.default_rng(options.seed).uniform(options.box, options.side - options.box, (options.count, 2))
    rates = []
    for count in (4, *[options.count] * options.rounds):
        picks = make_picks(table_of_picks(places[:count], np.ones(count)), diameter_ang=0.6 * options.box)
        image_memory.cache_clear()  # the file is read as if another worker had written it
        began_s = time.process_time()
        particles = extract_particles(micrograph, picks, CTF, params, ACQUISITION, bench)
        if particles.is_virtual:
            began_s = time.process_time()
            read_particles(particles, bench)
        rates.append(count / (time.process_time() - began_s))
    return {"particles_per_cpu_s": round(float(np.median(rates[1:])), 1)}


def measure_centring(options):
    """Cut Gaussians at places between the pixels."""
    side, sigma, rng = 640, 8.0, np.random.default_rng(options.seed)
    along = (np.arange(4) + 0.5) * side / 4
    places = np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2) + rng.uniform(-3, 3, (16, 2))
    y, x = np.mgrid[:side, :side]
    image = sum(np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * sigma**2)) for row, column in places)
    micrograph = Micrograph(image="session:mic.mrc", height_px=side, width_px=side, bin=1.0)
    picks = make_picks(table_of_picks(places, np.ones(16)), diameter_ang=60.0)
    offset = (np.arange(32) - 16) * 4
    truth = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * sigma**2))
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = StepBench(Path(folder))
        write_mrc(Path(folder) / "mic.mrc", image.astype(np.float32), pixel_size_ang=1.0)
        for name, subpixel in (("whole_pixels", False), ("subpixel", True)):
            params = ExtractParams(
                box_px=128, scaled_box_px=32, subpixel=subpixel, normalise="none", dust_level=None, invert=False
            )
            images = read_particles(extract_particles(micrograph, picks, None, params, ACQUISITION, bench), bench)
            total = images.sum(axis=(1, 2))
            off = np.stack([images.sum(axis=2) @ offset, images.sum(axis=1) @ offset], axis=1) / total[:, None]
            report[name] = {
                "off_px_median": round(float(np.median(np.hypot(*off.T))), 4),
                "grey_rms": round(float(np.sqrt(np.mean((images - truth) ** 2))), 6),
            }
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--box", type=int, default=256)
    parser.add_argument("--small", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1001)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(time_way(options.one[0], Path(options.one[1]), options)) + "\n")
        return
    told = {name: value for name, value in vars(options).items() if name != "one"}
    report = {"benchmark": "extract_speed", **told, "centring": measure_centring(options)}
    with tempfile.TemporaryDirectory() as folder:
        image = np.random.default_rng(options.seed).normal(50, 3, (options.side, options.side)).astype(np.float32)
        write_mrc(Path(folder) / "mic.mrc", image, pixel_size_ang=1.0, remember=False)
        for way in WAYS:
            given = [text for name, value in told.items() for text in (f"--{name}", str(value))]
            command = [sys.executable, __file__, *given, "--one", way, folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD)
            report[way] = json.loads(done.stdout)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
