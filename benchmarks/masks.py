"""Masks, unusual picks, empty particles and denoised previews: python benchmarks/masks.py <data folder> [<first seed> [<seeds>]].

Prints one JSON line. Simulated micrographs (1536 px of 1.5 Å; particles of 110, 160 or 240 Å, sparse to crowded, contrast 0.35 to
0.6, defocus 0.8 to 2.2 µm) are clean, or have carbon on 20 % of the field, crystals on 15 %, dirt or aggregates on 10 %, or all
of them. Seeds below 100 served for development.

* ``iou``: what is found of a kind and what is true, over all micrographs of the kind; ``any``: whatever its kind.
* ``junk_rejected``: of points drawn in the junk, those that `mask_picks` rejects; ``particles_rejected``: of the true particles,
  none of which touches junk, those that it rejects all the same, with distances as shipped.
* ``outliers``, ``screening``: of true particles, of places of nothing, and of the borders of junk, what is set aside.
* ``denoised``: correlation with the noiseless image, over that of the best Gaussian blur.
* Real micrographs: overlap with the reference mask of the contaminated one (its pixel size is unknown: 4 Å is assumed); how many
  manual picks of apoferritin, and how much of the discs of β-galactosidase, is masked.
"""

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.fourier import crop_fourier_2d
from icestream.algorithms.micrograph.denoise import choose_tile_px, denoise_by_ctf_2d, denoise_halves_2d, reduce_to_pixel_2d
from icestream.algorithms.micrograph.junk import JunkMap, distance_to_mask_px, map_junk_2d
from icestream.algorithms.particles.extract import cut_box_2d, normalise_background_2d, remove_ramp_2d
from icestream.algorithms.particles.outliers import prepare_for_profiles_2d, radial_profiles_2d, score_profiles
from icestream.algorithms.particles.screen import screen_particles_2d
from icestream.io.image import read_image
from icestream.io.preview import write_rgb
from icestream.microscope.junk import distance_to_junk_px, label_junk_2d
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.microscope.truth import ExposureTruth
from icestream.records import JUNK_BITS
from icestream.steps.micrographs.mask import draw_junk
from icestream.steps.particles.screen import ScreenParticlesParams
from icestream.steps.picking.outliers import ProfileOutliersParams

PIXEL_ANG, SIDE_PX, DOSE, BOX_PX = 1.5, 1536, 40.0, 64
SETTINGS: dict[str, Any] = {
    "n_movies": 1, "gain": False, "height_px": SIDE_PX, "width_px": SIDE_PX, "pixel_size_ang": PIXEL_ANG, "n_frames": 4,
    "dose_per_frame_e_per_ang2": DOSE / 4, "drift_px": (0, 0), "local_motion_px": 0, "defocus_um": (0.8, 2.2),
}  # fmt: skip
KINDS: dict[str, dict[str, float]] = {
    "clean": {}, "carbon": {"carbon": 0.2}, "crystalline_ice": {"crystalline_ice": 0.15}, "dirt": {"dirt": 0.1},
    "aggregate": {"aggregate": 0.1}, "all": {"carbon": 0.15, "crystalline_ice": 0.08, "dirt": 0.06, "aggregate": 0.06},
}  # fmt: skip
CLEAN_TIMES = 3
"""Clean micrographs for each of another kind."""


def draw(kind: str, seed: int) -> tuple[NDArray[np.float32], ExposureTruth, float]:
    """Return a micrograph, its truth and the diameter of its particles in Å."""
    rng = np.random.default_rng([seed, sorted(KINDS).index(kind)])
    diameter_ang = float(rng.choice([110.0, 160.0, 240.0]))
    own = {
        "phantom_diameter_ang": diameter_ang, "n_particles": int(rng.integers(40, 260) * (160 / diameter_ang) ** 1.5),
        "spacing_diameters": rng.uniform(0.6, 1.1), "particle_contrast": rng.uniform(0.35, 0.6),
    }  # fmt: skip
    settings = SimulationSettings.model_validate({**SETTINGS, **own, "junk": KINDS[kind], "seed": seed})
    image, truth = render_micrograph(settings, 0)
    return image, truth, diameter_ang


def rejected(found: JunkMap, yx_px: NDArray[np.float64], diameter_ang: float) -> NDArray[np.bool_]:
    """Return which points the masks reject with the distances that `mask_picks` has by itself."""
    out = np.zeros(len(yx_px), bool)
    for kind in JUNK_BITS:
        distance = distance_to_mask_px(found.mask(kind), yx_px, box_px=found.box_px)
        out |= (distance <= 0) | (distance < (0.0 if kind == "crystalline_ice" else 0.5 * diameter_ang / PIXEL_ANG))
    return out


def in_junk(truth: ExposureTruth, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return points inside junk: ``(<= n, 2)``."""
    yx = rng.uniform(0, SIDE_PX - 1, (4000, 2))
    return yx[distance_to_junk_px(truth.junk, yx[:, 0], yx[:, 1]) < 0][:n]


def beside_particles(truth: ExposureTruth, diameter_ang: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """Return up to 60 places of nothing, and up to 15 on the border of junk that is no crystal."""
    diameter_px = diameter_ang / PIXEL_ANG
    yx = rng.uniform(diameter_px, SIDE_PX - diameter_px, (6000, 2))
    solid = [disc for disc in truth.junk if disc.kind != "crystalline_ice"]
    away = distance_to_junk_px(truth.junk, yx[:, 0], yx[:, 1])
    alone = cKDTree(truth.positions_yx_px).query(yx)[0] > 0.8 * diameter_px
    empty = yx[alone & (away > 0.5 * diameter_px)][:60]
    return empty, yx[np.abs(distance_to_junk_px(solid, yx[:, 0], yx[:, 1])) < 15][:15]


def cut(image: NDArray[np.float32], yx_px: NDArray[np.float64], diameter_ang: float) -> tuple[NDArray[np.float32], float]:
    """Return normalised boxes of one and a half diameters, and the diameter in them."""
    box = 2 * round(0.75 * diameter_ang / PIXEL_ANG)
    boxes = np.stack([cut_box_2d(image, (int(y), int(x)), side_px=box) for y, x in np.rint(yx_px)])  # (n, box, box)
    cut_out = crop_fourier_2d(-boxes, new_shape=(BOX_PX, BOX_PX))
    diameter_px = BOX_PX * diameter_ang / PIXEL_ANG / box
    radius_px = 0.6 * diameter_px
    return normalise_background_2d(remove_ramp_2d(cut_out, radius_px=radius_px), radius_px=radius_px), diameter_px


def find_unusual(image: NDArray[np.float32], places: list[NDArray[np.float64]], diameter_ang: float) -> list[NDArray[np.bool_]]:
    """Return which picks are unusual, of particles and of other places; the first half of the particles is trusted."""
    diameter_px = diameter_ang / PIXEL_ANG
    flat, scale_yx = prepare_for_profiles_2d(image, diameter_px=diameter_px)
    together = np.concatenate(places) / scale_yx
    limits = ProfileOutliersParams()
    radius_px = limits.radius_diameters * diameter_px / float(scale_yx.mean())
    profiles = radial_profiles_2d(flat, together, radius_px=radius_px)
    trusted = np.arange(len(together)) < len(places[0]) // 2
    return np.split(score_profiles(profiles, trusted) > limits.max_deviation, np.cumsum([len(p) for p in places])[:-1])


class Tally:
    """Shares, by name: how many of how many."""

    def __init__(self) -> None:
        self.counts: dict[str, list[float]] = {}

    def add(self, name: str, part: float, whole: float) -> None:
        """Count a part of a whole under a name."""
        one = self.counts.setdefault(name, [0.0, 0.0])
        one[0], one[1] = one[0] + part, one[1] + whole

    def shares(self) -> dict[str, float | None]:
        """Return the share of each name; None where nothing was counted."""
        return {name: round(part / whole, 4) if whole else None for name, (part, whole) in self.counts.items()}


def judge_kind(kind: str, seeds: range, drawn: list[NDArray[np.float64]]) -> dict[str, Any]:
    tally, limit = Tally(), ScreenParticlesParams().min_signal or 0.0
    for seed in seeds:
        image, truth, diameter_ang = draw(kind, seed)
        rng = np.random.default_rng(seed)
        found = map_junk_2d(image, pixel_size_ang=PIXEL_ANG, dose_e_per_ang2=DOSE)
        any_true = np.zeros(found.labels.shape, bool)
        for one in KINDS[kind]:
            true = label_junk_2d(truth, one, box_px=found.box_px)  # type: ignore[arg-type]
            any_true |= true
            mask = found.mask(one)  # type: ignore[arg-type]
            tally.add(f"iou_{one}", float((true & mask).sum()), float((true | mask).sum()))
        masked = found.labels > 0
        tally.add("iou_any", float((masked & any_true).sum()), float((masked | any_true).sum()))
        tally.add("masked_outside", float((masked & ~any_true).sum()), float((~any_true).sum()))
        junk, particles = in_junk(truth, 200, rng), truth.positions_yx_px + rng.normal(0, 3, (len(truth.particles), 2))
        tally.add("junk_rejected", float(rejected(found, junk, diameter_ang).sum()), len(junk))
        tally.add("particles_rejected", float(rejected(found, particles, diameter_ang).sum()), len(particles))
        empty, borders = beside_particles(truth, diameter_ang, rng)
        if len(particles) >= ProfileOutliersParams().min_picks:
            some_empty = empty[: max(len(particles) // 8, 2)]
            names = ("outliers_of_particles", "outliers_of_nothing", "outliers_of_borders")
            for name, bad in zip(names, find_unusual(image, [particles, some_empty, borders], diameter_ang), strict=True):
                tally.add(name, float(bad.sum()), len(bad))
        for name, places in (("screened_particles", particles), ("screened_nothing", empty)):
            if len(places):
                boxes, diameter_px = cut(image, places, diameter_ang)
                signal = screen_particles_2d(boxes, diameter_px=diameter_px).signal
                tally.add(name, float((signal < limit).sum()), len(signal))
        if seed < seeds.start + 2:
            drawn.append(draw_junk(found))
    return {"micrographs": len(seeds), **tally.shares()}


def judge_denoising(seeds: range) -> dict[str, float]:
    """Return the median correlation with the noiseless image: from halves, from the CTF, and of the best blur."""
    rows = []
    for seed in seeds:
        strong = SimulationSettings.model_validate(
            {**SETTINGS, "height_px": 1024, "width_px": 1024, "seed": seed, "n_particles": 60, "particle_contrast": 0.4}
        )
        noiseless, truth = render_micrograph(strong.model_copy(update={"dose_per_frame_e_per_ang2": 1e5}), 0)
        rng = np.random.default_rng(seed)
        mean = noiseless * (DOSE / 4e5)
        factor = 4.0 / PIXEL_ANG
        clean, even, odd = (
            reduce_to_pixel_2d(image.astype(np.float32), factor=factor)
            for image in (mean, rng.poisson(mean / 2), rng.poisson(mean / 2))
        )
        tile_px = choose_tile_px((even.shape[0], even.shape[1]))
        optics = {name: getattr(truth, name) for name in ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg")}
        optics |= {name: getattr(truth, name) for name in ("voltage_kv", "cs_mm", "amplitude_contrast")}
        ctf = ctf_2d(tile_px, tile_px, pixel_size_ang=PIXEL_ANG * 1024 / even.shape[1], **optics)
        blurs = [ndimage.gaussian_filter(even + odd, sigma) for sigma in (0.3, 0.6, 0.9, 1.3, 2.0, 3.0)]
        filtered = [denoise_halves_2d(even, odd).image, denoise_by_ctf_2d(even + odd, ctf).image]
        alike = [float(np.corrcoef(image.ravel(), clean.ravel())[0, 1]) for image in (*filtered, *blurs)]
        rows.append([alike[0], alike[1], max(alike[2:])])
    names = ("halves", "ctf", "best_blur")
    return {name: round(float(value), 4) for name, value in zip(names, np.median(rows, axis=0), strict=True)}


def judge_real(data: Path) -> dict[str, Any]:
    folder = data / "contaminated_micrograph"
    found = map_junk_2d(read_image(folder / "Ucsf_stack_1142_DW.mrc"), pixel_size_ang=4.0)
    box, (height, width) = found.box_px, found.labels.shape
    reference = read_image(folder / "mask" / "Ucsf_stack_1142_DW.mrc")[: height * box, : width * box]
    true = reference.reshape(height, box, width, box).mean((1, 3)) > 0.5
    masked = found.labels > 0
    hit = float((masked & true).sum())
    tally = Tally()
    for path in sorted((data / "empiar10146_apoferritin" / "averages").glob("*.png")):
        image = read_image(path)
        (table,) = (data / "empiar10146_apoferritin" / "picks").glob(f"{path.name.split('.bin')[0]}*.csv")
        with table.open() as lines:
            rows = [list(row.values()) for row in csv.DictReader(lines)]
        yx = np.array([[image.shape[0] - 1 - float(row[1]), float(row[0])] for row in rows])
        junk = map_junk_2d(image, pixel_size_ang=1.5)
        tally.add(
            "apoferritin_picks_masked", float((distance_to_mask_px(junk.labels > 0, yx, box_px=junk.box_px) <= 0).sum()), len(yx)
        )
    for path in sorted((data / "empiar10017_betagal" / "images").glob("*.jpg")):
        junk = map_junk_2d(read_image(path), pixel_size_ang=1.77)
        discs = read_image(data / "empiar10017_betagal" / "masks" / f"{path.stem}_mask.png") > 0
        side, (rows_, columns) = junk.box_px, junk.labels.shape
        inside = discs[: rows_ * side, : columns * side].reshape(rows_, side, columns, side).mean((1, 3)) > 0.5
        tally.add("betagal_discs_masked", float((inside & (junk.labels > 0)).sum()), float(inside.sum()))
    overlap = {"precision": hit / masked.sum(), "recall": hit / true.sum(), "iou": hit / (masked | true).sum()}
    return {"contaminated": {name: round(float(value), 4) for name, value in overlap.items()}, **tally.shares()}


def time_mask() -> float:
    """Return the CPU seconds of masking a dirty micrograph of 4096 pixels a side."""
    image, *_ = draw("all", 1)
    large = np.tile(image, (3, 3))[:4096, :4096]
    map_junk_2d(large[:1024, :1024], pixel_size_ang=1.0, dose_e_per_ang2=DOSE)
    began = time.process_time()
    map_junk_2d(large, pixel_size_ang=1.0, dose_e_per_ang2=DOSE)
    return round(time.process_time() - began, 3)


def main() -> None:
    data = Path(sys.argv[1])
    first, count = (int(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 3 else (1001, 5)
    drawn: list[NDArray[np.float64]] = []
    simulated = {
        kind: judge_kind(kind, range(first, first + count * (CLEAN_TIMES if kind == "clean" else 1)), drawn) for kind in KINDS
    }
    print(
        json.dumps(
            {
                "benchmark": "masks",
                "seeds": [first, count],
                "simulated": simulated,
                "real": judge_real(data),
                "denoised": judge_denoising(range(first, first + count)),
                "cpu_s_4096": time_mask(),
            }
        )
    )
    if len(sys.argv) > 4:
        rows = [np.concatenate(drawn[start : start + 4], axis=1) for start in range(0, len(drawn), 4)]
        write_rgb(Path(sys.argv[4]), np.concatenate(rows[::-1]))


if __name__ == "__main__":
    main()
