"""Is a wrong CTF ever reported with a good score, and are the stated errors those that are made? One JSON line, and a plot.

Synthetic micrographs from strong rings to none at all, and images without a CTF (noise, no specimen, ice rings, drift, the edge
of a carbon film, contamination). A fit is wrong if a micrograph corrected with it would be wrong at the resolution to which it
claims to agree: if its phase there is more than 90° off. It is far off if its defocus or astigmatism is wrong by more than 150 Å
and three times the stated error; of an image without a CTF every fit is.

python benchmarks/ctf_calibration.py --count 60 --plot docs/how-to/ctf-calibration.svg
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ctf_accuracy import ESTIMATORS, fit_image
from ctf_micrographs import JUNK, draw_junk, draw_settings, simulate_micrograph
from icestream.algorithms.ctf.consensus import CtfShape, agreement_resolution_ang

GOOD_SCORE, GOOD_CONFIDENCE = 0.5, 0.99
FAR_ANG, FAR_ERRORS = 150.0, 3.0
WIDTH, HEIGHT, EDGE = 640, 300, 40
NAMES = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")


def judge(found, settings):
    true_shape = CtfShape(*(settings[name] for name in NAMES))
    agreed = agreement_resolution_ang(
        CtfShape(*(getattr(found, name) for name in NAMES)), true_shape, voltage_kv=settings["voltage_kv"]
    )
    error = 0.5 * (found.defocus_u_ang + found.defocus_v_ang - settings["defocus_u_ang"] - settings["defocus_v_ang"])
    stretch = abs(found.defocus_u_ang - found.defocus_v_ang) - abs(settings["defocus_u_ang"] - settings["defocus_v_ang"])
    pairs = ((abs(error), found.defocus_error_ang), (abs(stretch), found.astigmatism_error_ang))
    return {
        "far": any(size > max(FAR_ANG, FAR_ERRORS * stated) for size, stated in pairs),
        "score": found.score,
        "confidence": found.confidence,
        "wrong": bool(agreed > found.resolution_ang),
        "error_over_sigma": error / found.defocus_error_ang,
    }


def is_good(row):
    return row["score"] >= GOOD_SCORE and row["confidence"] >= GOOD_CONFIDENCE


def summarise(rows, junk):
    good = [row for row in rows if is_good(row)]
    good_junk = [row for row in junk if is_good(row)]
    ratios = np.abs([row["error_over_sigma"] for row in good if not row["wrong"]])
    wrong = [row["score"] for row in rows if row["wrong"]]
    return {
        "fits": len(rows),
        "wrong": len(wrong),
        "good": len(good),
        "wrong_and_good": sum(row["wrong"] for row in good),
        "far_off": sum(row["far"] for row in rows),
        "far_off_and_good": sum(row["far"] for row in good),
        "without_ctf": len(junk),
        "without_ctf_and_good": len(good_junk),
        "without_ctf_and_good_kinds": sorted({row["kind"] for row in good_junk}),
        "best_score_without_ctf": round(max((row["score"] for row in junk), default=-1.0), 3),
        "share_far_off_or_without_ctf_of_good": (sum(row["far"] for row in good) + len(good_junk))
        / max(len(good + good_junk), 1),
        "best_score_of_a_wrong_fit": round(max(wrong, default=-1.0), 3),
        "within_one_sigma": round(float(np.mean(ratios < 1)), 3),
        "within_two_sigma": round(float(np.mean(ratios < 2)), 3),
        "rms_over_sigma": round(float(np.sqrt(np.mean(ratios**2))), 3),
    }


def draw_plot(results):
    """Score against signal; a dot is a right fit, a cross a wrong one: an SVG."""
    parts = []
    for panel, (name, rows) in enumerate(results.items()):
        left = panel * WIDTH / 2 + EDGE
        wide, high = WIDTH / 2 - 1.5 * EDGE, HEIGHT - 2 * EDGE
        level = EDGE + high * (1 - GOOD_SCORE) / 1.2
        parts.append(f'<rect x="{left}" y="{EDGE}" width="{wide}" height="{high}" fill="none" stroke="#888"/>')
        parts.append(f'<line x1="{left}" x2="{left + wide}" y1="{level}" y2="{level}" stroke="#888" stroke-dasharray="4"/>')
        parts.append(f'<text x="{left}" y="{EDGE - 8}">{name}: score against signal to noise</text>')
        parts += [f'<text x="{left + wide * t}" y="{HEIGHT - 20}">1e-{3 - 2 * t:g}</text>' for t in (0, 0.5, 1)]
        parts += [f'<text x="{left - 26}" y="{EDGE + high * (1 - v) / 1.2 + 4}">{v:g}</text>' for v in (0, 0.5, 1)]
        for row in rows:
            x = left + wide * (np.log10(row["snr"]) + 3) / 2
            y = EDGE + high * (1 - max(row["score"], -0.2)) / 1.2
            colour = "#c33" if row["wrong"] else "#37a"
            mark = (
                f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
                if row["wrong"]
                else f"M{x - 2:.1f} {y:.1f}a2 2 0 1 0 4 0a2 2 0 1 0 -4 0"
            )
            parts.append(f'<path d="{mark}" stroke="{colour}" fill="{"none" if row["wrong"] else colour}"/>')
    body = "\n".join(parts)
    style = 'font-family="sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" {style}>\n{body}\n</svg>\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--junk", type=int, default=5, help="images without a CTF of each kind")
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--phase", action="store_true")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ESTIMATORS}
    for index in range(options.count):
        settings = draw_settings(rng, index, phase=options.phase)
        snr = 10.0 ** rng.uniform(-3.0, -1.0)
        image = simulate_micrograph(rng, settings, side=options.side, snr=snr)
        for name, rows in results.items():
            rows.append(judge(fit_image(image, settings, estimator=name, phase=options.phase)[0], settings) | {"snr": snr})
    junk: dict[str, list[dict[str, Any]]] = {name: [] for name in ESTIMATORS}
    for index in range(options.junk * len(JUNK)):
        settings, kind = draw_settings(rng, index // len(JUNK), phase=False), JUNK[index % len(JUNK)]
        image = draw_junk(rng, kind, side=options.side)
        for name, rows in junk.items():
            found = fit_image(image, settings | {"pixel_size_ang": 1.2}, estimator=name, phase=options.phase)[0]
            rows.append({"kind": kind, "score": found.score, "confidence": found.confidence})
    if options.plot:
        options.plot.write_text(draw_plot(results))
    report = {"benchmark": "ctf_calibration", **{name: value for name, value in vars(options).items() if name != "plot"}}
    sys.stdout.write(json.dumps(report | {name: summarise(rows, junk[name]) for name, rows in results.items()}) + "\n")


if __name__ == "__main__":
    main()
