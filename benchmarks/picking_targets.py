"""Template-free picking on simulated micrographs: python benchmarks/picking_targets.py <models> <first seed> <seeds>.

``models`` is a folder with atomic models (1MNF.pdb.gz, 1aon.pdb.gz, 1oel.pdb.gz, 1gyt.pdb.gz, powerfit_ribosome.pdb.gz,
4zxb.cif.gz, 6msm.pdb.bz2). With built-in phantoms of 100, 160 and 300 Å they are drawn at a contrast of 0.6, 40 e/Å², 300 Å of
ice, a defocus of 1 to 2 µm, no closer than 0.6 diameters, with balls of ice over a tenth of the area; particles beneath those
count for nothing; for ``f1_clear`` neither do those within 0.3 diameters of a ball, which it covers in part. Given is the
diameter, and 0.6 and 1.4 times that. ``found`` is the diameter that `find_diameter_2d` finds without a hint on all micrographs
of a kind, over the true one (a sphere that holds the particle); ``f1_found`` is with that diameter, so nothing is given.
``two_species`` are particles of 120 and 240 Å in one micrograph, each kind found with its own diameter. Then empty ice,
crystalline ice and strong drift: false picks an image, judged from the mean places during the exposure. ``--fdr N`` draws N
weak micrographs and compares stated with true shares of false picks. ``--speed`` picks a micrograph of 4096², particles of 160
Å at 1 Å per pixel. Prints one JSON line. Seeds below 100 served for development.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from icestream.algorithms.matched_picker.diameter import FoundDiameter, find_diameter_2d, pool_diameters
from icestream.algorithms.matched_picker.pick import Blobs, pick_particles_2d
from icestream.microscope.settings import Fault, Scene, SimulationSettings
from icestream.microscope.simulate import open_studio, render_micrograph
from picking_simulated import true_places_px

PIXEL_ANG, SIDE_PX = 2.0, 1024
COVERED = 0.35
"""Area of all particles' discs over that of the micrograph."""
KINDS: dict[str, str | float] = {
    "groel": "1MNF.pdb.gz", "groel_groes": "1aon.pdb.gz", "ring": "1oel.pdb.gz", "aminopeptidase": "1gyt.pdb.gz",
    "ribosome": "powerfit_ribosome.pdb.gz", "receptor_171_kda": "4zxb.cif.gz", "cftr_128_kda": "6msm.pdb.bz2",
    "built_in_100": 100.0, "built_in_160": 160.0, "built_in_300": 300.0,
}  # fmt: skip
SCENES: dict[str, dict[str, Any]] = {
    "empty_ice": {"scenes": {0: Scene.BARE_ICE}},
    "crystalline_ice": {"scenes": {0: Scene.CRYSTALLINE_ICE}, "n_particles": 0},
    "strong_drift": {"faults": {0: Fault.HUGE_DRIFT}, "drift_px": (3, 10), "n_frames": 10, "dose_per_frame_e_per_ang2": 4.0},
}
MATCH_DIAMETERS = 0.3


def settings_of(models: Path, source: str | float, seed: int, **own: Any) -> SimulationSettings:
    phantom = {"phantom": models / source} if isinstance(source, str) else {"phantom_diameter_ang": source}
    plain: dict[str, Any] = {
        "n_movies": 1, "gain": False, "height_px": SIDE_PX, "width_px": SIDE_PX, "pixel_size_ang": PIXEL_ANG, "n_frames": 1,
        "dose_per_frame_e_per_ang2": 40.0, "drift_px": (0, 0), "local_motion_px": 0, "defocus_um": (1.0, 2.0),
        "spacing_diameters": 0.6, "particle_contrast": 0.6, "seed": seed, **phantom,
    }  # fmt: skip
    settings = SimulationSettings.model_validate({**plain, **own})
    if "n_particles" in own:
        return settings
    disc = 0.25 * np.pi * open_studio(settings).phantom.diameter_ang ** 2
    count = int(COVERED * (SIDE_PX * PIXEL_ANG) ** 2 / disc)
    return SimulationSettings.model_validate({**plain, **own, "n_particles": count})


def add_dirt(image: NDArray[np.float32], seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the image with balls of ice, 250 to 700 Å wide, over a tenth of it, and where they are."""
    rng = np.random.default_rng([seed, 77])
    y, x = np.indices(image.shape)
    passed, cover = np.ones(image.shape, np.float32), np.zeros(image.shape, bool)
    while cover.mean() < 0.1:
        centre, radius = rng.uniform(0, image.shape), rng.uniform(125, 350) / PIXEL_ANG
        height = np.sqrt(np.clip(1 - ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / radius**2, 0, None))
        passed = np.minimum(passed, np.exp(-rng.uniform(0.15, 0.4) * height).astype(np.float32))
        cover |= height > 0
    return image * ndimage.gaussian_filter(passed, 2.0), cover


def judge(found: NDArray[np.float64], true: NDArray[np.float64], dirt: NDArray[np.bool_], diameter_px: float) -> dict[str, Any]:
    """Count hits, false picks and misses; pairs on dirt count for nothing, picks on dirt without a particle are false."""
    covered = dirt[tuple(np.clip(np.round(true).astype(int), 0, SIDE_PX - 1).T)]
    distance = cdist(found, true)
    rows, columns = linear_sum_assignment(np.where(distance <= MATCH_DIAMETERS * diameter_px, distance, 1e6))
    good = distance[rows, columns] <= MATCH_DIAMETERS * diameter_px
    rows, columns = rows[good], columns[good]
    hits = int(np.count_nonzero(~covered[columns]))
    return {
        "hits": hits, "false": len(found) - len(rows), "missed": int(np.count_nonzero(~covered)) - hits,
        "offset": distance[rows, columns] / diameter_px,
    }  # fmt: skip


def f1_of(scores: list[dict[str, Any]]) -> float:
    hits, false, missed = (sum(score[name] for score in scores) for name in ("hits", "false", "missed"))
    return round(2 * hits / max(2 * hits + false + missed, 1), 4)


def pick(image: NDArray[np.float32], diameter_px: float, **own: Any) -> Blobs:
    return pick_particles_2d(-image, diameter_px=(diameter_px, diameter_px), **own)


def pooled_px(found: list[FoundDiameter | None]) -> float | None:
    """Return the diameter that most micrographs show."""
    clear = [one for one in found if one is not None]
    if not clear:
        return None
    return pool_diameters(np.array([one.diameter_px for one in clear]), np.array([one.gain for one in clear])).diameter


def measure_kind(models: Path, source: str | float, seeds: range) -> dict[str, Any]:
    given: dict[float, list[dict[str, Any]]] = {1.0: [], 0.6: [], 1.4: []}
    clear: list[dict[str, Any]] = []
    images, seconds = [], 0.0
    for seed in seeds:
        settings = settings_of(models, source, seed)
        image, truth = render_micrograph(settings, 0)
        image, dirt = add_dirt(image, seed)
        true = true_places_px(truth)
        images.append((image, true, dirt))
        diameter_px = open_studio(settings).phantom.diameter_ang / PIXEL_ANG
        for factor, scores in given.items():
            began_s = time.process_time()
            found = pick(image, factor * diameter_px)
            seconds += time.process_time() - began_s if factor == 1.0 else 0.0
            scores.append(judge(found.yx_px, true, dirt, diameter_px))
            if factor == 1.0:
                beside = ndimage.distance_transform_edt(~dirt) < MATCH_DIAMETERS * diameter_px
                clear.append(judge(found.yx_px, true, beside, diameter_px))
    size_px = pooled_px([find_diameter_2d(-one, smallest_px=70 / PIXEL_ANG, largest_px=400 / PIXEL_ANG) for one, _, _ in images])
    found_scores = [judge(pick(one, size_px or diameter_px).yx_px, true, dirt, diameter_px) for one, true, dirt in images]
    offsets = np.concatenate([score["offset"] for score in given[1.0]])
    return {
        **{f"f1_at_{factor}": f1_of(scores) for factor, scores in given.items()},
        "f1_found": f1_of(found_scores) if size_px is not None else 0.0,
        "f1_clear": f1_of(clear),
        "lost": round(f1_of(given[1.0]) - min(f1_of(given[0.6]), f1_of(given[1.4])), 4),
        "offset_diameters": round(float(np.median(offsets)), 4) if len(offsets) else 1.0,
        "found": None if size_px is None else round(size_px / diameter_px, 3),
        "found_off": 1.0 if size_px is None else round(abs(size_px / diameter_px - 1), 3),
        "cpu_s": round(seconds / len(seeds), 2),
    }


def measure_two_species(models: Path, seeds: range) -> dict[str, Any]:
    """Half of the electrons show one species, half the other, each in half of the ice: a contrast of 0.5 in all.

    Each species is picked with its diameter; picks of the smaller one on picks of the larger one are taken out, as the step
    `pick_difference` does.
    """
    diameters_ang = (120.0, 240.0)
    scores: dict[float, list[dict[str, Any]]] = {one: [] for one in diameters_ang}
    clean = np.zeros((SIDE_PX, SIDE_PX), bool)
    for seed in seeds:
        image, places = np.zeros((SIDE_PX, SIDE_PX), np.float32), {}
        for diameter in diameters_ang:
            count = int(0.12 * (SIDE_PX * PIXEL_ANG) ** 2 / (0.25 * np.pi * diameter**2))
            own = {
                "n_particles": count, "particle_contrast": 1.0, "dose_per_frame_e_per_ang2": 20.0, "ice_thickness_ang": 150.0,
                "defocus_um": (1.5, 1.5), "spacing_diameters": 1.0,
            }  # fmt: skip
            half, truth = render_micrograph(settings_of(models, diameter, seed + int(diameter), **own), 0)
            image, places[diameter] = image + half, true_places_px(truth)
        apart = cdist(places[diameters_ang[0]], places[diameters_ang[1]]) * PIXEL_ANG > 0.4 * sum(diameters_ang)
        alone = {diameters_ang[0]: apart.all(axis=1), diameters_ang[1]: apart.all(axis=0)}
        for diameter, other in zip(diameters_ang, reversed(diameters_ang), strict=True):
            found = pick(image, diameter / PIXEL_ANG).yx_px
            if diameter == min(diameters_ang):
                larger = pick(image, other / PIXEL_ANG).yx_px
                found = found[cdist(found, larger).min(axis=1) > 0.4 * other / PIXEL_ANG] if len(larger) else found
            hidden = places[diameter][~alone[diameter]]
            if len(hidden) and len(found):  # those that overlap count neither way
                found = found[cdist(found, hidden).min(axis=1) > 0.4 * diameter / PIXEL_ANG]
            scores[diameter].append(judge(found, places[diameter][alone[diameter]], clean, diameter / PIXEL_ANG))
            scores[diameter][-1]["on_other"] = _count_near(found, places[other], 0.3 * other / PIXEL_ANG)
    return {
        **{f"f1_{diameter:g}": f1_of(one) for diameter, one in scores.items()},
        **{f"on_other_{diameter:g}": sum(score["on_other"] for score in one) for diameter, one in scores.items()},
        "least_f1": min(f1_of(one) for one in scores.values()),
    }


def _count_near(found: NDArray[np.float64], places: NDArray[np.float64], radius_px: float) -> int:
    return int(np.count_nonzero(cdist(found, places).min(axis=1) < radius_px)) if len(found) else 0


def measure_speed(models: Path, seed: int) -> dict[str, float]:
    own = {"height_px": 4096, "width_px": 4096, "pixel_size_ang": 1.0, "n_particles": 300}
    image, _ = render_micrograph(settings_of(models, 160.0, seed, **own), 0)
    pick(image, 160.0)  # what is compiled and planned once
    seconds = []
    for _ in range(3):
        began_s = time.process_time()
        pick(image, 160.0)
        seconds.append(time.process_time() - began_s)
    return {"cpu_s_4096": round(float(np.median(seconds)), 2)}


def measure_scene(models: Path, own: dict[str, Any], seeds: range) -> dict[str, Any]:
    false = images_with = 0
    for seed in seeds:
        settings = settings_of(models, 160.0, seed, **{"n_particles": 60, **own})
        image, truth = render_micrograph(settings, 0)
        found = pick(image, 160.0 / PIXEL_ANG)
        score = judge(found.yx_px, true_places_px(truth), np.zeros(image.shape, bool), 160.0 / PIXEL_ANG)
        false += score["false"]
        images_with += score["false"] > 0
    return {"images": len(seeds), "false_an_image": round(false / len(seeds), 3), "with_false": images_with}


def measure_rates(models: Path, seeds: range) -> dict[str, Any]:
    """Compare stated with true shares of false picks on weak particles of 160 Å at 20 e/Å²."""
    line: dict[str, Any] = {}
    counts = {rate: np.zeros(3) for rate in (0.02, 0.2)}
    for seed in seeds:
        settings = settings_of(models, 160.0, seed, particle_contrast=0.5, dose_per_frame_e_per_ang2=20.0)
        image, truth = render_micrograph(settings, 0)
        for rate, count in list(counts.items()):
            found = pick(image, 80.0, false_discovery_rate=rate)
            score = judge(found.yx_px, true_places_px(truth), np.zeros(image.shape, bool), 80.0)
            counts[rate] = count + np.array([score["false"], len(found.score), found.false_share * len(found.score)])
    for rate, (false, total, stated) in counts.items():
        line[str(rate)] = {
            "true": round(false / max(total, 1), 4),
            "stated": round(stated / max(total, 1), 4),
            "off": round(abs(false - stated) / max(total, 1), 4),
            "picks": int(total),
        }
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("seeds", type=int)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--scenes", type=int, default=0, help="images of each scene")
    parser.add_argument("--fdr", type=int, default=0, help="micrographs for the shares of false picks")
    parser.add_argument("--two-species", type=int, default=0, help="micrographs of two species")
    parser.add_argument("--speed", action="store_true")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    line: dict[str, Any] = {"benchmark": "picking_targets", "first": arguments.first, "seeds": arguments.seeds}
    line["kinds"] = {kind: measure_kind(arguments.models, KINDS[kind], seeds) for kind in arguments.kinds}
    if line["kinds"]:
        for name in (
            "f1_at_1.0",
            "f1_at_0.6",
            "f1_at_1.4",
            "f1_found",
            "f1_clear",
            "lost",
            "offset_diameters",
            "found_off",
            "cpu_s",
        ):
            line[f"median_{name}"] = round(float(np.median([kind[name] for kind in line["kinds"].values()])), 4)
        line["worst_lost"] = max(kind["lost"] for kind in line["kinds"].values())
        line["worst_found_off"] = max(kind["found_off"] for kind in line["kinds"].values())
    images = range(arguments.first, arguments.first + arguments.scenes)
    line["scenes"] = {name: measure_scene(arguments.models, own, images) for name, own in SCENES.items() if images}
    if arguments.fdr:
        line["false_discovery_rate"] = measure_rates(arguments.models, range(arguments.first, arguments.first + arguments.fdr))
    if arguments.two_species:
        drawn = range(arguments.first, arguments.first + arguments.two_species)
        line["two_species"] = measure_two_species(arguments.models, drawn)
    if arguments.speed:
        line |= measure_speed(arguments.models, arguments.first)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
