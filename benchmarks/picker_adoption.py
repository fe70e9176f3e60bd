"""Is a model adopted if, and only if, it is truly better than the picks or the model in use? One JSON line.

Micrographs of the simulated microscope with a tenth of the field dirty. The trainer is given picks whose quality is known:
particles that survived 2D classification (all of them true), and picks that a classification refused. Cases, each for every seed:

- "weak picks": a third of the particles is not picked, and a third of the picks is none: a trained model is truly better.
- "perfect picks": every particle, nothing else: no model can be better.
- "same model": the model in use against one that is trained on the same micrographs with other labels: they differ by chance.
- "worse model", "better model": a model whose threshold is far too high, against that in use, and the other way round.

F1 is that against the truth, on micrographs that the trainer never saw; "truly better" is decided by it.

python benchmarks/picker_adoption.py --seeds 1000 1001 1002
"""

import argparse
import json
import time
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from icestream.algorithms.trained_picker.features import WORKING_DIAMETER_PX, prepare_micrograph_2d
from icestream.algorithms.trained_picker.model import Labelled, train_model
from icestream.algorithms.trained_picker.trial import calibrate, pick_with_model_2d, try_model
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.records import Acquisition
from icestream.steps.picking.template import contrast_of

DIAMETER_ANG, PIXEL_ANG, SIDE = 150.0, 3.0, 512
DISTANCE_PX = 0.5 * WORKING_DIAMETER_PX
RADIUS = 0.3
N_TRAIN, N_CALIBRATE, N_FRESH = 6, 2, 4
CONFIDENCE = 0.95


def draw(seed, count):
    """Prepared micrographs with the places of their particles, in the pixels that the picker works in."""
    settings = SimulationSettings(
        n_movies=count, seed=seed, height_px=SIDE, width_px=SIDE, pixel_size_ang=PIXEL_ANG, n_frames=1,
        dose_per_frame_e_per_ang2=40.0, drift_px=(0.0, 0.0), local_motion_px=0.0, gain=False, n_particles=45,
        phantom_diameter_ang=DIAMETER_ANG, particle_contrast=0.5, spacing_diameters=0.8, defocus_um=(1.0, 2.0),
        junk={"dirt": 0.1},
    )  # fmt: skip
    transfer = contrast_of(None, Acquisition(pixel_size_ang=PIXEL_ANG), dark=True)
    drawn = []
    for index in range(count):
        image, truth = render_micrograph(settings, index)
        prepared = prepare_micrograph_2d(image, pixel_size_ang=PIXEL_ANG, diameter_ang=DIAMETER_ANG, transfer=transfer)
        drawn.append((prepared, truth.positions_yx_px / prepared.scale))
    return drawn


def label(one, rng, *, kept, wrong):
    """What the trainer is told: a share of the particles, and picks that were refused, so many for each particle that is told."""
    prepared, true = one
    good = true[rng.random(len(true)) < kept]
    places = rng.uniform(0, np.array(prepared.image.shape), (400, 2))
    apart = cKDTree(true).query(places)[0] > 0.6 * WORKING_DIAMETER_PX
    bad = places[apart][: round(wrong * len(good))]
    return Labelled(prepared, good, bad, np.empty((0, 2)))


def true_f1(picked, truths):
    hits = total = 0
    for yx, true in zip(picked, truths, strict=True):
        near = cKDTree(yx).query(true)[0] < RADIUS * WORKING_DIAMETER_PX if len(yx) else np.zeros(len(true), bool)
        hits, total = hits + int(near.sum()), total + len(yx) + len(true)
    return 2 * hits / total


def judge(new, old, trial, truths, *, seed):
    """The verdict of a trial, and the F1 of both on the very micrographs of which the truth is known."""
    tried = try_model(new, old, trial, min_distance_px=DISTANCE_PX, seed=seed)

    def f1_of(model):
        if model is None:
            return true_f1([np.concatenate([one.good_yx_px, one.bad_yx_px]) for one in trial], truths)
        found = [pick_with_model_2d(one.prepared, model, min_distance_px=DISTANCE_PX, seed=seed).yx_px for one in trial]
        return true_f1(found, truths)

    numbers = {
        "f1": tried.f1,
        "rival_f1": tried.rival_f1,
        "error": tried.error,
        "true_f1": f1_of(new),
        "true_rival_f1": f1_of(old),
    }
    verdict = tried.judge(least_gain=0.0, confidence=CONFIDENCE)
    return {"verdict": verdict, **{name: round(float(value), 4) for name, value in numbers.items()}}


def train(drawn, *, kept, wrong, seed):
    rng = np.random.default_rng(seed)
    told = [label(one, rng, kept=kept, wrong=wrong) for one in drawn]
    model = train_model(told[:N_TRAIN], min_distance_px=DISTANCE_PX, seed=seed)
    return calibrate(model, told[N_TRAIN : N_TRAIN + N_CALIBRATE], min_distance_px=DISTANCE_PX, seed=seed), told[
        N_TRAIN + N_CALIBRATE :
    ]


def run_seed(seed):
    drawn = draw(seed, N_TRAIN + N_CALIBRATE + N_FRESH)
    truths = [true for _, true in drawn[N_TRAIN + N_CALIBRATE :]]
    weak, weak_trial = train(drawn, kept=0.67, wrong=0.5, seed=seed)
    perfect, perfect_trial = train(drawn, kept=1.0, wrong=0.0, seed=seed)
    same, _ = train(drawn, kept=0.67, wrong=0.5, seed=seed + 1)
    worse = replace(weak, threshold=weak.threshold + 3.0)
    return {
        "weak picks": judge(weak, None, weak_trial, truths, seed=seed),
        "perfect picks": judge(perfect, None, perfect_trial, truths, seed=seed),
        "same model": judge(same, weak, weak_trial, truths, seed=seed),
        "worse model": judge(worse, weak, weak_trial, truths, seed=seed),
        "better model": judge(weak, worse, weak_trial, truths, seed=seed),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1000, 1001, 1002])
    args = parser.parse_args()
    start = time.process_time()
    runs = [run_seed(seed) for seed in args.seeds]
    verdicts = {case: [one[case]["verdict"] for one in runs] for case in runs[0]}
    print(
        json.dumps(
            {
                "benchmark": "picker_adoption",
                "seeds": args.seeds,
                "trial_micrographs": N_FRESH,
                "adopted": {case: f"{told.count('better')} of {len(told)}" for case, told in verdicts.items()},
                "cases": {case: [one[case] for one in runs] for case in runs[0]},
                "cpu_s": round(time.process_time() - start, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
