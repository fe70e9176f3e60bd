"""How accurate and how fast is the CTF fit? Simulated micrographs with random settings; one JSON line.

python benchmarks/ctf_accuracy.py --side 1024 --count 40
python benchmarks/ctf_accuracy.py --aspire-python ~/aspire/bin/python     # the same images through ASPIRE's estimator
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np
from scipy import fft

from icestream.algorithms.ctf import ctf_2d
from icestream.algorithms.ctf_fit import fit_ctf
from icestream.algorithms.spectrum import power_spectra, spectrum_tile_px

MICROSCOPES = [(300.0, 2.7), (200.0, 2.7), (300.0, 0.01), (100.0, 1.6)]

# ASPIRE prints its own progress; the answer is the last line.
ASPIRE = """
import json, sys, time
from aspire.ctf import estimate_ctf
folder, rows = sys.argv[1], []
for name, s in json.load(open(folder + "/settings.json")).items():
    start = time.process_time()
    found = estimate_ctf(data_folder=folder + "/" + name, pixel_size=s["pixel_size_ang"], cs=s["cs_mm"],
                         amplitude_contrast=s["amplitude_contrast"], voltage=s["voltage_kv"], num_tapers=2,
                         psd_size=512, g_min=30.0, g_max=5.0, output_dir=folder + "/out", dtype="float64")
    best = next(iter(found.values()))
    rows.append([best["defocus_u"], best["defocus_v"], best["defocus_ang"], time.process_time() - start])
print(json.dumps(rows))
"""


def draw_settings(rng, index, *, phase):
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


def fit_image(image, settings, *, tile_ang, phase):
    optics = {name: settings[name] for name in ("voltage_kv", "cs_mm", "amplitude_contrast")}
    pixel = settings["pixel_size_ang"]
    start = time.process_time()
    tile_px = spectrum_tile_px(image.shape, pixel_size_ang=pixel, tile_ang=tile_ang)
    spectra = power_spectra(image, tile_px=tile_px, n_sets=2)
    found = fit_ctf(spectra, pixel_size_ang=pixel, phase_shift_deg=(0.0, 175.0) if phase else None, **optics)
    return found, time.process_time() - start


def errors(settings, u, v, angle, phase_shift=0.0):
    true_difference = settings["defocus_u_ang"] - settings["defocus_v_ang"]
    turn = abs((angle - settings["astigmatism_angle_deg"] + 90) % 180 - 90)
    return {
        "defocus_ang": abs(u + v - settings["defocus_u_ang"] - settings["defocus_v_ang"]) / 2,
        "astigmatism_ang": abs(abs(u - v) - true_difference),
        "angle_deg": turn if true_difference >= 300 else None,
        "phase_deg": abs((phase_shift - settings["phase_shift_deg"] + 90) % 180 - 90),
    }


def summarise(rows, names):
    report = {}
    for name in names:
        values = np.array([row[name] for row in rows if row[name] is not None])
        quantiles = np.percentile(values, [50, 95, 100])
        report[name] = dict(zip(("median", "p95", "worst"), (round(float(q), 3) for q in quantiles), strict=True))
    return report


def run_aspire(python, images, settings):
    with tempfile.TemporaryDirectory() as folder:
        named = {}
        for index, (image, values) in enumerate(zip(images, settings, strict=True)):
            (Path(folder) / f"m{index}").mkdir()
            mrcfile.write(Path(folder) / f"m{index}" / "image.mrc", image)
            named[f"m{index}"] = values
        (Path(folder) / "settings.json").write_text(json.dumps(named))
        done = subprocess.run([python, "-c", ASPIRE, folder], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    rows = [errors(s, u, v, angle) | {"cpu_s": cpu} for s, (u, v, angle, cpu) in zip(settings, found, strict=True)]
    return summarise(rows, ("defocus_ang", "astigmatism_ang", "angle_deg", "cpu_s"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--snr", type=float, default=0.1, help="variance of specimen over variance of noise, per pixel")
    parser.add_argument("--tile-ang", type=float, default=1000.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phase", action="store_true", help="with a random phase shift, fitted too")
    parser.add_argument("--aspire-python", help="a Python that can import aspire")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    settings = [draw_settings(rng, index, phase=options.phase) for index in range(options.count)]
    images = [simulate_micrograph(rng, values, side=options.side, snr=options.snr) for values in settings]
    fit_image(images[0], settings[0], tile_ang=options.tile_ang, phase=options.phase)  # compiles, or loads what was compiled
    rows, ratios = [], []
    for image, values in zip(images, settings, strict=True):
        found, cpu = fit_image(image, values, tile_ang=options.tile_ang, phase=options.phase)
        row = errors(values, found.defocus_u_ang, found.defocus_v_ang, found.astigmatism_angle_deg, found.phase_shift_deg)
        rows.append(row | {"score": found.score, "resolution_ang": found.resolution_ang, "cpu_s": cpu})
        ratios.append(row["defocus_ang"] / found.defocus_error_ang)
    names = [
        "defocus_ang",
        "astigmatism_ang",
        "angle_deg",
        *(["phase_deg"] if options.phase else []),
        "score",
        "resolution_ang",
        "cpu_s",
    ]
    report = {"benchmark": "ctf_accuracy", **{key: value for key, value in vars(options).items() if key != "aspire_python"}}
    report["icestream"] = summarise(rows, names)
    report["error_over_stated_error_rms"] = round(float(np.sqrt(np.mean(np.square(ratios)))), 3)
    if options.aspire_python:
        report["aspire"] = run_aspire(options.aspire_python, images, settings)
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
