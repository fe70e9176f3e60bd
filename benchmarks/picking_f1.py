"""F1 of the pickers without a template on real micrographs: python benchmarks/picking_f1.py <data> [--relion].

``data`` holds ``empiar10146_apoferritin`` (picked by hand) and ``empiar10017_betagal`` (an expert's masks; the picks of other
programs are scored in the same way, a pick being right within half a disc). ``found`` is `pick_matched` with the diameter that
`find_diameter_2d` finds on all micrographs. With ``--relion`` also RELION's Laplacian-of-Gaussian picker on apoferritin, as
`relion_log_picker` runs it with its defaults.

A pick matches a manual pick within 0.3 diameters (best assignment). Their distance is told too; most of it is that of the manual
picks from the centres, for these are the middles of discs drawn by hand. What lies within half a diameter of the border is not
counted, for there the manual picks are incomplete. Five micrographs served for development; three were held out. The blob
filter alone is shown at the best threshold for each micrograph, which nobody knows beforehand.
"""

import csv
import json
import os
import sys
import tempfile
from pathlib import Path

import imagecodecs
import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from icestream.algorithms.matched_picker.diameter import find_diameter_2d, pool_diameters
from icestream.algorithms.matched_picker.pick import pick_particles_2d as pick_with_matched_filter
from icestream.algorithms.particles.pick_blob import pick_particles_2d
from icestream.external.relion.log_picker import RelionLogPickerParams, pick_with_relion_log
from icestream.io.blocks import from_block
from icestream.io.image import write_mrc
from icestream.io.pick_files import read_pick_file
from icestream.microscope.score import match_picks
from icestream.records import Acquisition, Micrograph
from icestream.testing.context import StepBench

PIXEL_SIZE_ANG = 1.5
DIAMETER_ANG = 120.0
SEARCH_ANG = (100.0, 135.0)
BETAGAL_PIXEL_ANG, BETAGAL_SIDE_PX = 1.77, 4096
HELD_OUT = {"May08_03.15.02", "May08_05.31.00", "May08_05.57.01"}


DISC_RADIUS_PX = 54.0
BALLS = {
    "Falcon_2012_06_12-14_33_35_0": ((3104, 112), 70),
    "Falcon_2012_06_12-15_14_01_0": ((1328, 3136), 90),
    "Falcon_2012_06_12-15_41_22_0": ((1890, 2758), 90),
}
"""The balls of ice on the micrographs of β-galactosidase: centre, rows counted from the top, and radius in pixels, by eye."""
PROGRAMS = {
    "casspper": ("cassper_star", ".star"),
    "cryolo": ("cryolo_casspper_repo", ".star"),
    "gautomatch": ("gautomatch_star", ".star"),
    "cryolo_repic": ("repic_cryolo_box", ".box"),
    "deeppicker": ("repic_deeppicker_box", ".box"),
    "topaz": ("repic_topaz_box", ".box"),
}


def read_mask(path: Path) -> np.ndarray:
    """Centres ``(n, 2)`` of the discs of a mask, rows counted from the bottom as in the coordinates."""
    mask = imagecodecs.png_decode(path.read_bytes())
    mask = (mask if mask.ndim == 2 else mask[..., 0])[::-1] > 0
    cores, n_discs = ndimage.label(ndimage.distance_transform_edt(mask) > DISC_RADIUS_PX - 7)
    return np.array(ndimage.center_of_mass(cores, cores, range(1, n_discs + 1)))


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The image and the manual picks (n, 2), rows counted from the bottom as everywhere in icestream."""
    image = imagecodecs.png_decode(path.read_bytes())[::-1].astype(np.float32)
    name = path.name.removesuffix(".bin_avg.png")
    with (path.parents[1] / "picks" / f"{name}.bin.csv").open() as handle:
        rows = [[image.shape[0] - 1 - float(row["y_px"]), float(row["x_px"])] for row in csv.DictReader(handle)]
    return image, np.array(rows)


def count(picked: np.ndarray, truth: np.ndarray, shape: tuple[int, int], diameter_px: float) -> tuple[int, int, int]:
    """True positives, false positives and false negatives away from the border."""
    distance = cdist(picked, truth)
    rows, columns = linear_sum_assignment(np.where(distance <= 0.3 * diameter_px, distance, 1e6))
    good = distance[rows, columns] <= 0.3 * diameter_px
    margin = 0.5 * diameter_px
    picked_inside, truth_inside = (((p >= margin) & (p < np.array(shape) - margin)).all(axis=1) for p in (picked, truth))
    unmatched = np.ones(len(picked), dtype=bool)
    unmatched[rows[good]] = False
    hits = int(truth_inside[columns[good]].sum())
    return hits, int((unmatched & picked_inside).sum()), int(truth_inside.sum()) - hits


def f1(picked: np.ndarray, truth: np.ndarray, shape: tuple[int, int]) -> float:
    hits, false, missed = count(picked, truth, shape, DIAMETER_ANG / PIXEL_SIZE_ANG)
    return 2 * hits / max(2 * hits + false + missed, 1)


def offsets_ang(picked: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of each matched pick from the manual pick, (n,)."""
    return match_picks(picked, truth, radius_px=0.5 * DIAMETER_ANG / PIXEL_SIZE_ANG).distance_px * PIXEL_SIZE_ANG


def pick_with_relion(
    image: np.ndarray, searched_ang: tuple[float, float] = SEARCH_ANG, *, pixel_size_ang: float = PIXEL_SIZE_ANG
) -> np.ndarray:
    """Positions (n, 2) of RELION's LoG picker."""
    with tempfile.TemporaryDirectory() as name:
        write_mrc(Path(name) / "micrograph.mrc", image, pixel_size_ang=pixel_size_ang, remember=False)
        micrograph = Micrograph(image="session:micrograph.mrc", height_px=image.shape[0], width_px=image.shape[1], bin=1.0)
        params = RelionLogPickerParams(diameter_ang=searched_ang)
        picks = pick_with_relion_log(micrograph, params, Acquisition(pixel_size_ang=pixel_size_ang), StepBench(Path(name)))
        table = from_block(picks.block)
    return np.stack([table["y_px"], table["x_px"]], axis=1)


def find_diameter_px(images: list[np.ndarray], *, pixel_size_ang: float) -> float:
    """Return the diameter that most micrographs show, without being told anything but a range of 70 to 400 Å."""
    found = [find_diameter_2d(-image, smallest_px=70 / pixel_size_ang, largest_px=400 / pixel_size_ang) for image in images]
    clear = [one for one in found if one is not None]
    return pool_diameters(np.array([one.diameter_px for one in clear]), np.array([one.gain for one in clear])).diameter


def measure_betagal(folder: Path) -> dict[str, object]:
    """F1 of all micrographs together, for each picker those that it has picked."""
    masks = {path.name.removesuffix("_mask.png"): read_mask(path) for path in sorted((folder / "masks").glob("*_mask.png"))}
    images = {name: load_betagal(folder / "images" / f"{name}.jpg") for name in masks}
    found_px = find_diameter_px(list(images.values()), pixel_size_ang=BETAGAL_PIXEL_ANG)
    picked: dict[str, dict[str, np.ndarray]] = {
        "matched_filter": {
            name: pick_with_matched_filter(-image, diameter_px=(2 * DISC_RADIUS_PX,) * 2).yx_px for name, image in images.items()
        },
        "found": {name: pick_with_matched_filter(-image, diameter_px=(found_px,) * 2).yx_px for name, image in images.items()},
        "learned_template": {
            name: pick_particles_2d(
                -image, diameter_px=(0.85 * 2 * DISC_RADIUS_PX, 1.12 * 2 * DISC_RADIUS_PX), min_distance_px=1.4 * DISC_RADIUS_PX
            ).yx_px
            for name, image in images.items()
        },
    }
    for program, (kept, suffix) in PROGRAMS.items():
        files = {name: folder / "picks" / kept / f"{name}{suffix}" for name in masks}
        picked[program] = {name: read_pick_file(path).yx_px for name, path in files.items() if path.is_file()}
    line: dict[str, object] = {"found_diameter_ang": round(found_px * BETAGAL_PIXEL_ANG, 1)}
    for label, by_name in picked.items():
        scores = [match_picks(yx_px, masks[name], radius_px=DISC_RADIUS_PX) for name, yx_px in by_name.items()]
        total = sum(len(yx_px) + len(masks[name]) for name, yx_px in by_name.items())
        line[label] = {
            "micrographs": len(scores),
            "f1": round(2 * sum(score.n_matched for score in scores) / max(total, 1), 4),
            "on_ice_balls": round(share_on_balls(by_name), 4),
        }
    return line


def share_on_balls(by_name: dict[str, np.ndarray]) -> float:
    """Return the share of picks that lie on balls of ice."""
    on_balls = 0
    for name, ((row, column), radius_px) in BALLS.items():
        picked = by_name.get(name, np.zeros((0, 2)))
        on_balls += int(np.count_nonzero(np.hypot(picked[:, 0] - (BETAGAL_SIDE_PX - 1 - row), picked[:, 1] - column) < radius_px))
    return on_balls / max(sum(len(picked) for picked in by_name.values()), 1)


def load_betagal(path: Path) -> np.ndarray:
    """The image ``(h, w)``, rows counted from the bottom."""
    grey = imagecodecs.jpeg_decode(path.read_bytes())
    return (grey if grey.ndim == 2 else grey[..., 0])[::-1].astype(np.float32)


def main(data: Path, *, with_relion: bool) -> None:
    folder = data / "empiar10146_apoferritin"
    images = [load(path)[0] for path in sorted((folder / "averages").glob("*.png"))]
    found_px = find_diameter_px(images, pixel_size_ang=PIXEL_SIZE_ANG)
    searched_px = (SEARCH_ANG[0] / PIXEL_SIZE_ANG, SEARCH_ANG[1] / PIXEL_SIZE_ANG)
    distance_px = 0.7 * float(np.sqrt(np.prod(searched_px)))
    line: dict[str, object] = {"benchmark": "picking_f1", "found_diameter_ang": round(found_px * PIXEL_SIZE_ANG, 1)}
    given_px = {"matched_filter": searched_px, "found": (found_px, found_px)}
    for label in ("blobs_best_threshold", "learned_template", *given_px, *(["relion_log"] if with_relion else [])):
        scores: dict[bool, list[float]] = {True: [], False: []}
        offsets: dict[bool, list[np.ndarray]] = {True: [], False: []}
        begin_s = sum(os.times()[:4])  # of this process and of RELION
        for path in sorted((folder / "averages").glob("*.png")):
            image, truth = load(path)
            if label == "learned_template":
                picked = pick_particles_2d(-image, diameter_px=searched_px, min_distance_px=distance_px).yx_px
            elif label in given_px:
                picked = pick_with_matched_filter(-image, diameter_px=given_px[label]).yx_px
            elif label == "relion_log":
                picked = pick_with_relion(image)
            else:
                found = pick_particles_2d(
                    -image, diameter_px=searched_px, min_distance_px=distance_px, n_rounds=0, threshold=0.0, centre=False
                )
                best = max(range(20, len(found.score), 5), key=lambda n: f1(found.yx_px[:n], truth, image.shape))
                picked = found.yx_px[:best]
            held_out = path.name.removesuffix(".bin_avg.png") in HELD_OUT
            scores[held_out].append(round(f1(picked, truth, image.shape), 4))
            offsets[held_out].append(offsets_ang(picked, truth))
        line[label] = {
            "mean_f1_development": round(float(np.mean(scores[False])), 4),
            "mean_f1_held_out": round(float(np.mean(scores[True])), 4),
            "f1_development": scores[False],
            "f1_held_out": scores[True],
            "offset_ang_development": round(float(np.median(np.concatenate(offsets[False]))), 2),
            "offset_ang_held_out": round(float(np.median(np.concatenate(offsets[True]))), 2),
            "cpu_s_per_micrograph": round((sum(os.times()[:4]) - begin_s) / 8, 2),
        }
    line["betagal"] = measure_betagal(data / "empiar10017_betagal")
    print(json.dumps(line))


if __name__ == "__main__":
    main(Path(sys.argv[1]), with_relion="--relion" in sys.argv[2:])
