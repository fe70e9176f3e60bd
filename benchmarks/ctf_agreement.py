"""Which agreement and confidence tell right pairs of CTFs from wrong ones? One JSON line.

Each micrograph (synthetic from strong rings to none; of the simulated microscope, also thick and far from focus) is fitted by
both estimators, and by the first one again with a search range that leaves out the truth, as after a wrong `recompute`. A fit
is right if it agrees with the truth to 7 Å; a pair is usable if both fits reach 17 Å, as `ctf_filter` asks by default.

python benchmarks/ctf_agreement.py --count 40
"""

import argparse
import json
import sys

import numpy as np

from ctf_accuracy import ESTIMATORS, fit_image
from ctf_micrographs import draw_microscope, draw_settings, expose_micrograph, simulate_micrograph
from icestream.algorithms.ctf.consensus import CtfShape, agreement_resolution_ang

RIGHT_ANG, USABLE_ANG = 7.0, 17.0
AGREEMENTS_ANG, CONFIDENCES = (5.0, 7.0, 10.0, 15.0), (0.0, 0.1, 0.2, 0.5, 0.9)
NAMES = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")


def shape_of(found):
    return CtfShape(*(found[name] if isinstance(found, dict) else getattr(found, name) for name in NAMES))


def fit_elsewhere(image, settings):
    """Fit with a range of defocus that ends 0.25 µm before the truth, or begins 0.25 µm after it."""
    true_um = 0.5e-4 * (settings["defocus_u_ang"] + settings["defocus_v_ang"])
    away = (max(0.15, 0.5 * true_um - 0.1), true_um - 0.25) if true_um > 1.2 else (true_um + 0.25, true_um + 1.5)
    options = {name: settings[name] for name in ("voltage_kv", "cs_mm", "amplitude_contrast")}
    return ESTIMATORS["first"](image, settings["pixel_size_ang"], options | {"phase_shift_deg": None, "defocus_um": away})


def compare_pairs(image, settings):
    second = fit_image(image, settings, estimator="second", phase=False)[0]
    rows = []
    for recomputed, first in (
        (False, fit_image(image, settings, estimator="first", phase=False)[0]),
        (True, fit_elsewhere(image, settings)),
    ):
        off = [
            agreement_resolution_ang(shape_of(f), shape_of(settings), voltage_kv=settings["voltage_kv"]) for f in (first, second)
        ]
        rows.append(
            {
                "recomputed": recomputed,
                "right": max(off) <= RIGHT_ANG,
                "usable": max(first.resolution_ang, second.resolution_ang) <= USABLE_ANG,
                "agreement": agreement_resolution_ang(shape_of(first), shape_of(second), voltage_kv=settings["voltage_kv"]),
                "confidence": min(first.confidence, second.confidence),
            }
        )
    return rows


def summarise(rows):
    right = [row for row in rows if row["right"]]
    usable = [row for row in right if row["usable"]]
    wrong = [row for row in rows if not row["right"]]
    again = [row for row in wrong if row["recomputed"]]
    table = {}
    for agreement in AGREEMENTS_ANG:
        for confidence in CONFIDENCES:
            kept = [
                sum(r["agreement"] <= agreement and r["confidence"] >= confidence for r in group)
                for group in (right, usable, wrong, again)
            ]
            table[f"{agreement:g} Å, {confidence:g}"] = dict(
                zip(("right", "right_usable", "wrong", "recomputed"), kept, strict=True)
            )
    counts = {"right": len(right), "right_usable": len(usable), "wrong": len(wrong), "recomputed": len(again)}
    return {"pairs": counts, "coarsest_right_usable_ang": max((row["agreement"] for row in usable), default=None), "kept": table}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--seed", type=int, default=2)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    rows = []
    for index in range(options.count):
        settings = draw_settings(rng, index, phase=False)
        rows += compare_pairs(
            simulate_micrograph(rng, settings, side=options.side, snr=10.0 ** rng.uniform(-2.8, -1.0)), settings
        )
        if index % 3 == 0:
            values = draw_microscope(rng, index, phase=False)
            values |= {"ice_thickness_ang": 1500.0} if index % 2 else {}
            values |= {"defocus_um": (4.3, 4.3)} if index % 4 == 0 else {}
            rows += compare_pairs(*expose_micrograph(values, side=options.side))
    sys.stdout.write(json.dumps({"benchmark": "ctf_agreement", **vars(options), **summarise(rows)}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
