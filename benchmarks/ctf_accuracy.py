"""How accurate and how fast is the CTF fit? Simulated micrographs with random settings; one JSON line.

python benchmarks/ctf_accuracy.py --side 1024 --count 40                  # the simulated microscope, both estimators
python benchmarks/ctf_accuracy.py --images synthetic --estimator first    # white specimen with a random envelope
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

from ctf_micrographs import draw_microscope, draw_settings, expose_micrograph, simulate_micrograph
from icestream.algorithms.ctf.equiphase_fit import fit_ctf_equiphase
from icestream.algorithms.ctf.fit import fit_ctf
from icestream.algorithms.spectra.multitaper import multitaper_spectra, multitaper_tile_px
from icestream.algorithms.spectra.periodogram import periodogram, periodogram_tile_px
from icestream.algorithms.spectra.spectrum import power_spectra, spectrum_tile_px

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


def fit_first(image, pixel, options):
    tile_px = spectrum_tile_px(image.shape, pixel_size_ang=pixel, tile_ang=1000.0)
    fine_px = periodogram_tile_px(image.shape, pixel_size_ang=pixel, tile_ang=2000.0)
    spectra, fine = power_spectra(image, tile_px=tile_px, n_sets=2), periodogram(image, tile_px=fine_px)
    return fit_ctf(spectra, fine_spectrum=fine, pixel_size_ang=pixel, **options)


def fit_second(image, pixel, options):
    tile_px = multitaper_tile_px(image.shape, pixel_size_ang=pixel, tile_ang=1800.0)
    return fit_ctf_equiphase(multitaper_spectra(image, tile_px=tile_px), pixel_size_ang=pixel, **options)


ESTIMATORS = {"first": fit_first, "second": fit_second}


def fit_image(image, settings, *, estimator, phase):
    options = {name: settings[name] for name in ("voltage_kv", "cs_mm", "amplitude_contrast")}
    start = time.process_time()
    options["phase_shift_deg"] = (0.0, 175.0) if phase else None
    found = ESTIMATORS[estimator](image, settings["pixel_size_ang"], options)
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
        done = subprocess.run([python, "-c", ASPIRE, folder], check=True, capture_output=True, text=True, cwd=folder)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    rows = [errors(s, u, v, angle) | {"cpu_s": cpu} for s, (u, v, angle, cpu) in zip(settings, found, strict=True)]
    return summarise(rows, ("defocus_ang", "astigmatism_ang", "angle_deg", "cpu_s"))


def measure(estimator, images, settings, *, phase):
    fit_image(images[0], settings[0], estimator=estimator, phase=phase)  # compiles, or loads what was compiled
    rows, ratios = [], []
    for image, values in zip(images, settings, strict=True):
        found, cpu = fit_image(image, values, estimator=estimator, phase=phase)
        row = errors(values, found.defocus_u_ang, found.defocus_v_ang, found.astigmatism_angle_deg, found.phase_shift_deg)
        rows.append(row | {"score": found.score, "resolution_ang": found.resolution_ang, "cpu_s": cpu})
        stated = (found.defocus_error_ang, found.astigmatism_error_ang, found.angle_error_deg, found.phase_shift_error_deg)
        ratios.append([np.nan if e is None or s is None else e / s for e, s in zip(list(row.values())[:4], stated, strict=True)])
    names = ["defocus_ang", "astigmatism_ang", "angle_deg", *(["phase_deg"] if phase else []), "score", "resolution_ang", "cpu_s"]
    report = summarise(rows, names)
    rms = [float(np.sqrt(np.mean(column[np.isfinite(column)] ** 2))) for column in np.array(ratios).T[: 4 if phase else 3]]
    report["error_over_stated_error_rms"] = dict(zip(names, (round(value, 3) for value in rms), strict=False))
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--estimator", choices=["first", "second", "both"], default="both")
    parser.add_argument("--images", choices=["microscope", "synthetic"], default="microscope")
    parser.add_argument(
        "--snr", type=float, default=0.1, help="synthetic: variance of specimen over variance of noise, per pixel"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phase", action="store_true", help="with a random phase shift, fitted too")
    parser.add_argument("--aspire-python", help="a Python that can import aspire")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.images == "synthetic":
        settings = [draw_settings(rng, index, phase=options.phase) for index in range(options.count)]
        images = [simulate_micrograph(rng, values, side=options.side, snr=options.snr) for values in settings]
    else:
        drawn = [draw_microscope(rng, index, phase=options.phase) for index in range(options.count)]
        exposed = [expose_micrograph(values, side=options.side) for values in drawn]
        images, settings = [image for image, _ in exposed], [values for _, values in exposed]
    report = {"benchmark": "ctf_accuracy", **{key: value for key, value in vars(options).items() if key != "aspire_python"}}
    for estimator in ESTIMATORS:
        if options.estimator in (estimator, "both"):
            report[estimator] = measure(estimator, images, settings, phase=options.phase)
    if options.aspire_python:
        report["aspire"] = run_aspire(options.aspire_python, images, settings)
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
