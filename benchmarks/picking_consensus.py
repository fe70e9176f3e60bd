"""Consensus of pickers against the best of them and against REPIC's rule: python benchmarks/picking_consensus.py [options].

``--simulated FIRST SEEDS`` draws sessions of 12 micrographs on which three pickers see particles and false places: particles
differ in how hard they are to see, and false places in how tempting they are, for all pickers alike. Six kinds: pickers of about
one quality; one good and two poor; all good; all poor; without scores; and one that is wrecked (its picks are somewhere else) on
a fifth of the micrographs. The gain is that of F1 over the best single picker; of the wrecked one, the cost is that of F1 of the
consensus against the same session unwrecked, and ``cost_if_known`` that of leaving the wrecked picks out. ``gain_trusted`` is
the gain where the best picker is named in ``trusted``.

``--betagal FOLDER`` takes the picks of six programs on real micrographs of β-galactosidase with an expert's masks,
``--apoferritin FOLDER`` two pickers of our own and RELION's on real apoferritin. A pick is right within half the disc of the
mask, within 0.3 diameters elsewhere. Prints one JSON line. Seeds below 100 served for development.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from scipy import ndimage

from icestream.algorithms.particles.pick_blob import pick_particles_2d
from icestream.flow import Exposure, InputNames
from icestream.io.blocks import from_block
from icestream.io.pick_files import read_pick_file
from icestream.io.picks import make_picks, table_of_picks
from icestream.microscope.score import match_picks
from icestream.records import Acquisition, Micrograph, PickerQuality, Picks
from icestream.steps.picking.consensus import PickConsensusParams, find_pick_consensus
from icestream.steps.picking.picker_quality import LearnPickerQuality, PickerQualityParams
from icestream.testing.context import StepBench
from picking_f1 import DIAMETER_ANG, PIXEL_SIZE_ANG, SEARCH_ANG, load, pick_with_relion
from repic_rule import choose_cliques

KINDS: dict[str, tuple[tuple[float, float], ...]] = {
    "alike": ((0.85, 0.10), (0.83, 0.12), (0.80, 0.10)),
    "one_good": ((0.92, 0.06), (0.70, 0.20), (0.65, 0.25)),
    "all_good": ((0.96, 0.05), (0.95, 0.06), (0.94, 0.04)),
    "all_poor": ((0.75, 0.25), (0.70, 0.30), (0.65, 0.20)),
    "without_scores": ((0.85, 0.10), (0.83, 0.12), (0.80, 0.10)),
    "wrecked": ((0.85, 0.10), (0.83, 0.12), (0.80, 0.10)),
}
"""Recall of each picker, and the probability that it sees a false place, of which there are half as many as particles."""
N_MICROGRAPHS, N_PARTICLES, SIDE_PX, DIAMETER_PX = 12, 150, 3000.0, 100.0
DISC_RADIUS_PX = 54.0

Found = tuple[np.ndarray, np.ndarray]
"""Positions ``(n, 2)`` and scores ``(n,)``."""


def _passes(rng: np.random.Generator, rate: float, ease: np.ndarray) -> np.ndarray:
    """Draw who is seen; the mean over ``ease`` is about ``rate``."""
    middle = np.log(rate / (1 - rate)) * np.sqrt(1 + 0.35)
    return np.asarray(rng.random(len(ease)) < 1 / (1 + np.exp(-(middle + ease))))


def draw_session(kind: str, seed: int, *, wreck: bool) -> tuple[list[list[Found]], list[np.ndarray]]:
    """Picks of each micrograph and picker, and the true positions of each micrograph."""
    rng = np.random.default_rng((seed, sorted(KINDS).index(kind)))
    informative = rng.uniform(0.5, 2.0, 3)
    session, truths = [], []
    for _ in range(N_MICROGRAPHS):
        cells = int(SIDE_PX / (0.8 * DIAMETER_PX))
        chosen = rng.permutation(cells**2)[: int(1.5 * N_PARTICLES)]
        places = np.stack(np.divmod(chosen, cells), axis=1) * 0.8 * DIAMETER_PX + rng.uniform(10, 70, (len(chosen), 2))
        true = np.arange(len(chosen)) < N_PARTICLES
        ease = rng.normal(size=len(chosen))
        found = []
        for number, (recall, false_rate) in enumerate(KINDS[kind]):
            seen = np.where(true, _passes(rng, recall, ease), _passes(rng, false_rate, ease))
            score = informative[number] * true + 0.5 * ease + rng.normal(size=len(chosen))
            yx = places + rng.normal(0, 0.06 * DIAMETER_PX, places.shape)
            if kind == "without_scores":
                score = np.zeros_like(score)
            found.append((yx[seen], score[seen]))
        session.append(found)
        truths.append(places[true])
    if wreck:
        for number in rng.permutation(N_MICROGRAPHS)[: round(0.2 * N_MICROGRAPHS)]:
            yx, score = session[number][0]
            session[number][0] = (np.stack([SIDE_PX - yx[:, 0], yx[:, 1]], axis=1), score)
    return session, truths


def agree(session: list[list[Found]], *, diameter_px: float, trusted: int | None = None) -> list[np.ndarray]:
    """Positions that the consensus keeps on each micrograph, by the steps as a session would run them to its end."""
    names = InputNames({"picks": tuple(f"picker_{number}" for number in range(len(session[0])))}, {"picks": ()})
    told = [] if trusted is None else [names.given["picks"][trusted]]
    side = 10**5
    micrograph = Micrograph(image="session:m.mrc", height_px=side, width_px=side, bin=1.0)
    acquisition = Acquisition(pixel_size_ang=1.0)

    def step(found: list[Found], quality: PickerQuality | None, **params: Any) -> Picks:
        picks = [make_picks(table_of_picks(yx, score), diameter_ang=diameter_px) for yx, score in found]
        return find_pick_consensus(micrograph, picks, quality, PickConsensusParams(trusted=told, **params), acquisition, names)

    learner, params, bench = LearnPickerQuality(), PickerQualityParams(trusted=told), StepBench(Path())
    exposures = [Exposure(f"{number:032x}", f"m{number}") for number in range(len(session))]
    places = [step(found, None, rule="any") for found in session]
    quality = learner.emit(learner.add(learner.start(params, bench), exposures, places, params, bench).state, params, bench)
    if not isinstance(quality, PickerQuality):
        raise SystemExit(f"no quality of the pickers: {quality.reason}")
    kept = [from_block(step(found, quality).block) for found in session]
    return [np.stack([one["y_px"], one["x_px"]], axis=1) for one in kept]


def f1(found: list[np.ndarray], truths: list[np.ndarray], *, radius_px: float) -> float:
    hits = sum(match_picks(one, truth, radius_px=radius_px).n_matched for one, truth in zip(found, truths, strict=True))
    return 2 * hits / max(sum(map(len, found)) + sum(map(len, truths)), 1)


def compare(session: list[list[Found]], truths: list[np.ndarray], *, diameter_px: float, radius_px: float) -> dict[str, Any]:
    """F1 of every picker, of the consensus, and of REPIC's rule."""
    singles = [f1([found[k][0] for found in session], truths, radius_px=radius_px) for k in range(len(session[0]))]
    consensus = f1(agree(session, diameter_px=diameter_px), truths, radius_px=radius_px)
    best = int(np.argmax(singles))
    trusting = f1(agree(session, diameter_px=diameter_px, trusted=best), truths, radius_px=radius_px)
    chosen = [choose_cliques([yx for yx, _ in found], [score for _, score in found], box_px=diameter_px) for found in session]
    return {
        "pickers": [round(one, 4) for one in singles],
        "consensus": round(consensus, 4),
        "repic": round(f1(chosen, truths, radius_px=radius_px), 4),
        "gain": round(consensus - max(singles), 4),
        "gain_trusted": round(trusting - max(singles), 4),
        "over_repic": round(consensus - f1(chosen, truths, radius_px=radius_px), 4),
    }


def without_the_wrecked(session: list[list[Found]], truths: list[np.ndarray], whole: list[list[Found]]) -> float:
    """F1 where the first picker is left out on the micrographs on which it is wrecked: as well as somebody who knows can do."""
    wrecked = [not np.array_equal(one[0][0], other[0][0]) for one, other in zip(session, whole, strict=True)]
    all_three, two = agree(whole, diameter_px=DIAMETER_PX), agree([one[1:] for one in session], diameter_px=DIAMETER_PX)
    kept = [pair if bad else triple for bad, pair, triple in zip(wrecked, two, all_three, strict=True)]
    return f1(kept, truths, radius_px=0.3 * DIAMETER_PX)


def simulate(first: int, seeds: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for kind in KINDS:
        results, costs, floors = [], [], []
        for seed in range(first, first + seeds):
            session, truths = draw_session(kind, seed, wreck=kind == "wrecked")
            results.append(compare(session, truths, diameter_px=DIAMETER_PX, radius_px=0.3 * DIAMETER_PX))
            if kind == "wrecked":
                whole, _ = draw_session(kind, seed, wreck=False)
                before = f1(agree(whole, diameter_px=DIAMETER_PX), truths, radius_px=0.3 * DIAMETER_PX)
                costs.append(before - results[-1]["consensus"])
                floors.append(before - without_the_wrecked(session, truths, whole))
        gains = [one["gain"] for one in results]
        told[kind] = {
            "best_picker": round(float(np.median([max(one["pickers"]) for one in results])), 4),
            "consensus": round(float(np.median([one["consensus"] for one in results])), 4),
            "repic": round(float(np.median([one["repic"] for one in results])), 4),
            "gain": round(float(np.median(gains)), 4),
            "least_gain": min(gains),
            "gain_trusted": round(float(np.median([one["gain_trusted"] for one in results])), 4),
            **(
                {
                    "cost": round(float(np.median(costs)), 4),
                    "largest_cost": round(max(costs), 4),
                    "cost_if_known": round(float(np.median(floors)), 4),
                }
                if costs
                else {}
            ),
        }
    return told


def read_mask(path: Path) -> np.ndarray:
    """Centres ``(n, 2)`` of the discs of a mask, rows counted from the bottom as in the coordinates."""
    mask = imagecodecs.png_decode(path.read_bytes())
    mask = (mask if mask.ndim == 2 else mask[..., 0])[::-1] > 0
    cores, n_discs = ndimage.label(ndimage.distance_transform_edt(mask) > DISC_RADIUS_PX - 7)
    return np.array(ndimage.center_of_mass(cores, cores, range(1, n_discs + 1)))


PROGRAMS = {
    "casspper": ("cassper_star", ".star"),
    "cryolo": ("cryolo_casspper_repo", ".star"),
    "gautomatch": ("gautomatch_star", ".star"),
    "cryolo_repic": ("repic_cryolo_box", ".box"),
    "deeppicker": ("repic_deeppicker_box", ".box"),
    "topaz": ("repic_topaz_box", ".box"),
}
SETS = (
    ("cryolo_repic", "deeppicker", "topaz"),
    ("casspper", "cryolo", "gautomatch"),
    ("casspper", "gautomatch", "topaz"),
    ("casspper", "gautomatch", "cryolo_repic", "topaz"),
    ("casspper", "gautomatch", "cryolo_repic", "deeppicker", "topaz"),
)


def measure_betagal(folder: Path) -> dict[str, Any]:
    told = {}
    for programs in SETS:
        session, truths = [], []
        for mask in sorted((folder / "masks").glob("*_mask.png")):
            name = mask.name.removesuffix("_mask.png")
            files = [folder / "picks" / PROGRAMS[one][0] / f"{name}{PROGRAMS[one][1]}" for one in programs]
            if not all(path.is_file() for path in files):
                continue
            found = [read_pick_file(path) for path in files]
            session.append([(one.yx_px, one.score) for one in found])
            truths.append(read_mask(mask))
        told["+".join(programs)] = {
            "micrographs": len(session),
            **compare(session, truths, diameter_px=2 * DISC_RADIUS_PX, radius_px=DISC_RADIUS_PX),
        }
    return told


def measure_apoferritin(folder: Path) -> dict[str, Any]:
    low, high = (one / PIXEL_SIZE_ANG for one in SEARCH_ANG)
    diameter_px = DIAMETER_ANG / PIXEL_SIZE_ANG
    session, truths = [], []
    for path in sorted((folder / "averages").glob("*.png")):
        image, truth = load(path)
        distance_px = 0.7 * float(np.sqrt(low * high))
        learned = pick_particles_2d(-image, diameter_px=(low, high), min_distance_px=distance_px)
        blobs = pick_particles_2d(
            -image, diameter_px=(low, high), min_distance_px=distance_px, n_rounds=0, threshold=0.2, centre=False
        )
        relion = pick_with_relion(image)
        margin = 0.5 * diameter_px
        parts = [(learned.yx_px, learned.score), (blobs.yx_px, blobs.score), (relion, np.zeros(len(relion)))]
        inside = [((yx >= margin) & (yx < np.array(image.shape) - margin)).all(axis=1) for yx, _ in parts]
        session.append([(yx[mask], score[mask]) for (yx, score), mask in zip(parts, inside, strict=True)])
        truths.append(truth[((truth >= margin) & (truth < np.array(image.shape) - margin)).all(axis=1)])
    return compare(session, truths, diameter_px=diameter_px, radius_px=0.3 * diameter_px)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulated", nargs=2, type=int, metavar=("FIRST", "SEEDS"))
    parser.add_argument("--betagal", type=Path)
    parser.add_argument("--apoferritin", type=Path)
    asked = parser.parse_args()
    line: dict[str, Any] = {"benchmark": "picking_consensus"}
    begin_s = time.process_time()
    if asked.simulated:
        line["simulated"] = simulate(*asked.simulated)
        every = line["simulated"].values()
        line["least_median_gain"] = min(one["gain"] for one in every)
        line["least_median_gain_below_95"] = min(one["gain"] for one in every if one["best_picker"] <= 0.95)
    if asked.betagal:
        line["betagal"] = measure_betagal(asked.betagal)
        line["least_over_repic"] = min(one["over_repic"] for one in line["betagal"].values())
    if asked.apoferritin:
        line["apoferritin"] = measure_apoferritin(asked.apoferritin)
    line["cpu_s"] = round(time.process_time() - begin_s, 1)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
