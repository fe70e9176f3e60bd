"""F1 and centring of pickers on simulated micrographs: python benchmarks/picking_simulated.py <first seed> <seeds>.

Ten kinds are drawn for each seed: plain, few particles on a small image, crowded, weak, dirt, drift that was not corrected, small
and large particles, round ones, and long ones. The true place of a particle is the projection of its centre of mass, at its mean
place during the exposure. A pick matches within 0.3 diameters (F1); the distance from the centre is that of all pairs within half
a diameter. ``--relion`` runs RELION's Laplacian-of-Gaussian picker too, ``--blobs`` the blob filter without learning;
``--picture FILE`` draws the first micrograph of each kind. Prints one JSON line. Seeds below 100 served for development.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.matched_picker.pick import pick_particles_2d as pick_with_matched_filter
from icestream.algorithms.particles.pick_blob import pick_particles_2d
from icestream.io.image import write_mrc
from icestream.io.preview import write_rgb
from icestream.microscope.score import match_picks
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.microscope.truth import ExposureTruth
from picking_f1 import pick_with_relion

PIXEL_ANG, DIAMETER_ANG = 1.5, 160.0
PLAIN: dict[str, Any] = {
    "n_movies": 1, "gain": False, "height_px": 1024, "width_px": 1024, "pixel_size_ang": PIXEL_ANG, "n_frames": 4,
    "dose_per_frame_e_per_ang2": 10.0, "drift_px": (0, 0), "local_motion_px": 0, "phantom_diameter_ang": DIAMETER_ANG,
    "n_particles": 45, "defocus_um": (0.8, 2.2),
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "small_and_few": {"height_px": 512, "width_px": 512, "n_particles": 14},
    "crowded": {"n_particles": 100, "spacing_diameters": 0.85},
    "weak": {"particle_contrast": 0.35, "dose_per_frame_e_per_ang2": 6.0, "defocus_um": (0.6, 1.0)},
    "dirt": {},
    "drift": {"n_frames": 8, "dose_per_frame_e_per_ang2": 5.0, "drift_px": (8, 12)},
    "small_particles": {"phantom_diameter_ang": 100.0, "n_particles": 90},
    "large_particles": {"phantom_diameter_ang": 260.0, "n_particles": 16},
    "round": {"n_particles": 45},
    "long": {"n_particles": 45},
}
"""What differs from ``PLAIN``."""
BODIES_ANG = {"round": (65.0, 65.0, 65.0), "long": (85.0, 40.0, 40.0)}
"""Semi-axes of particles that are drawn here."""
SEARCHED = (0.85, 1.12)
"""Smallest and largest diameter that the picker is given, in true diameters."""


def write_body(path: Path, semi_axes_ang: tuple[float, float, float], seed: int) -> None:
    """Write a map of a lumpy ellipsoid, centred on its mass."""
    rng = np.random.default_rng(seed)
    side = 96
    zyx = (np.indices((side,) * 3).astype(np.float64) - side // 2) * 2.0  # Å
    body = sum((zyx[axis] / semi_axes_ang[axis]) ** 2 for axis in range(3)) <= 1
    lumps = ndimage.gaussian_filter(rng.normal(size=body.shape), 3.0)
    density = ndimage.gaussian_filter(body * np.clip(1 + 0.5 * lumps / lumps.std(), 0.1, None), 1.0)
    centre = np.array(ndimage.center_of_mass(density))
    density = ndimage.shift(density, side // 2 - centre, order=1)
    write_mrc(path, density.astype(np.float32), pixel_size_ang=2.0, remember=False)


def add_balls(image: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return the image with four balls of ice, 250 to 700 Å wide, that take up to a third of the beam."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(image.shape)
    passed = np.ones(image.shape, np.float32)
    for _ in range(4):
        centre, radius = rng.uniform(0, image.shape), rng.uniform(125, 350) / PIXEL_ANG
        height = np.sqrt(np.clip(1 - ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / radius**2, 0, None))
        passed = np.minimum(passed, np.exp(-rng.uniform(0.15, 0.4) * height).astype(np.float32))
    return image * ndimage.gaussian_filter(passed, 2.0)


def draw(kind: str, seed: int, folder: Path) -> tuple[NDArray[np.float32], ExposureTruth, float]:
    """Return a micrograph, its truth and the diameter of its particles in Å."""
    own = KINDS[kind]
    if kind in BODIES_ANG:
        body = folder / f"{kind}_{seed}.mrc"
        write_body(body, BODIES_ANG[kind], seed)
        own = {**own, "phantom": body}
    settings = SimulationSettings.model_validate({**PLAIN, **own, "seed": seed})
    image, truth = render_micrograph(settings, 0)
    image = add_balls(image, seed) if kind == "dirt" else image
    longest = 2 * max(BODIES_ANG[kind]) if kind in BODIES_ANG else settings.phantom_diameter_ang
    return image, truth, longest


def true_places_px(truth: ExposureTruth) -> NDArray[np.float64]:
    """Return where particles were on average during the exposure: ``(n, 2)``."""
    yx = truth.positions_yx_px
    moved = [truth.displacement(float(t), yx[:, 0], yx[:, 1]) for t in range(truth.n_frames)]
    places: NDArray[np.float64] = yx + np.mean(moved, axis=0)
    return places


Picker = Callable[[NDArray[np.float32], tuple[float, float]], NDArray[np.float64]]


def pick(image: NDArray[np.float32], searched_ang: tuple[float, float], *, n_rounds: int) -> NDArray[np.float64]:
    """Return the picks of the blob picker, with as many rounds of learning: ``(n, 2)``."""
    smallest, largest = searched_ang[0] / PIXEL_ANG, searched_ang[1] / PIXEL_ANG
    distance = 0.7 * float(np.sqrt(smallest * largest))
    return pick_particles_2d(-image, diameter_px=(smallest, largest), min_distance_px=distance, n_rounds=n_rounds).yx_px


def pick_with_filter(image: NDArray[np.float32], searched_ang: tuple[float, float]) -> NDArray[np.float64]:
    """Return the picks of the matched filter: ``(n, 2)``."""
    return pick_with_matched_filter(-image, diameter_px=(searched_ang[0] / PIXEL_ANG, searched_ang[1] / PIXEL_ANG)).yx_px


def pick_relion(image: NDArray[np.float32], searched_ang: tuple[float, float]) -> NDArray[np.float64]:
    return pick_with_relion(image, searched_ang, pixel_size_ang=PIXEL_ANG)


def summarise(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the F1 of all micrographs together, and how far the matched picks are from the centres."""
    offset = np.concatenate([score["offset"] for score in scores])
    hits, found, true = (sum(score[name] for score in scores) for name in ("hits", "found", "true"))
    return {
        "f1": round(2 * hits / max(found + true, 1), 4),
        "precision": round(hits / max(found, 1), 4),
        "recall": round(hits / max(true, 1), 4),
        "without_picks": sum(not score["found"] for score in scores),
        "offset_ang": {name: round(float(np.percentile(offset, share)), 2) for name, share in (("median", 50), ("p90", 90))}
        if len(offset)
        else {},
        "offset_diameters": round(float(np.median(np.concatenate([s["offset"] / s["diameter"] for s in scores]))), 4)
        if len(offset)
        else None,
    }


def judge(found: NDArray[np.float64], true: NDArray[np.float64], diameter_ang: float) -> dict[str, Any]:
    near = match_picks(found, true, radius_px=0.3 * diameter_ang / PIXEL_ANG)
    wide = match_picks(found, true, radius_px=0.5 * diameter_ang / PIXEL_ANG)
    return {
        "hits": near.n_matched, "found": len(found), "true": len(true), "diameter": diameter_ang,
        "offset": wide.distance_px * PIXEL_ANG,
    }  # fmt: skip


def draw_picks(image: NDArray[np.float32], found: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw true centres as green squares and picks as red crosses on the micrograph, half as large: ``(h, w, 3)``."""
    smooth = ndimage.gaussian_filter(image, 4.0)[::2, ::2]
    middle = np.median(smooth)
    reach = 6 * np.median(np.abs(smooth - middle))
    low, high = middle - reach, middle + reach
    drawn = np.repeat(np.clip((smooth - low) / (high - low), 0, 1)[..., None], 3, axis=2)
    for places, colour, arm in ((true, (0.1, 0.9, 0.2), 5), (found, (1.0, 0.2, 0.1), 3)):
        for y, x in np.round(np.asarray(places) / 2).astype(int):
            for dy, dx in np.argwhere(np.ones((2 * arm + 1,) * 2)) - arm:
                edge = max(abs(dy), abs(dx)) == arm if arm == 5 else dy in (0, -dx, dx) and (dy == 0) == (dx == 0)
                if edge and 0 <= y + dy < drawn.shape[0] and 0 <= x + dx < drawn.shape[1]:
                    drawn[y + dy, x + dx] = colour
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("first", type=int)
    parser.add_argument("seeds", type=int)
    parser.add_argument("--relion", action="store_true")
    parser.add_argument("--blobs", action="store_true", help="the blob filter alone too, without learning")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    pickers: dict[str, Picker] = {"learned_template": partial(pick, n_rounds=3), "matched_filter": pick_with_filter}
    pickers |= {"blobs": partial(pick, n_rounds=0)} if arguments.blobs else {}
    pickers |= {"relion_log": pick_relion} if arguments.relion else {}
    scores: dict[str, dict[str, list[dict[str, Any]]]] = {name: {kind: [] for kind in arguments.kinds} for name in pickers}
    seconds = dict.fromkeys(pickers, 0.0)
    sheet = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            for seed in range(arguments.first, arguments.first + arguments.seeds):
                image, truth, diameter = draw(kind, seed, Path(folder))
                true = true_places_px(truth)
                for name, picker in pickers.items():
                    began_s = time.process_time()
                    found = picker(image, (SEARCHED[0] * diameter, SEARCHED[1] * diameter))
                    seconds[name] += time.process_time() - began_s
                    scores[name][kind].append(judge(found, true, diameter))
                    if name == "learned_template" and seed == arguments.first:
                        sheet.append(draw_picks(image, found, true))
    if arguments.picture is not None:
        side = max(tile.shape[0] for tile in sheet)
        write_rgb(
            arguments.picture, np.hstack([np.pad(t, ((0, side - t.shape[0]), (0, side - t.shape[1]), (0, 0))) for t in sheet])
        )
    line: dict[str, Any] = {"benchmark": "picking_simulated", "first": arguments.first, "seeds": arguments.seeds}
    for name, found_by in scores.items():
        count = sum(map(len, found_by.values()))
        line[name] = {kind: summarise(of_kind) for kind, of_kind in found_by.items()}
        line[name]["all"] = summarise([score for of_kind in found_by.values() for score in of_kind])
        line[name]["worst_kind_offset_diameters"] = max(line[name][kind]["offset_diameters"] or 0.0 for kind in found_by)
        line[name]["cpu_s_per_micrograph"] = round(seconds[name] / count, 2)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
