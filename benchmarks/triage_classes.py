"""How micrographs are sorted: python benchmarks/triage_classes.py <data folder> [<simulated sets> [<picture to write>]].

Prints one JSON line. Four things are kept apart:

* Simulated micrographs of seven kinds in three sizes: ``development`` (seeds from 1; the bounds of texture were set on these, and
  on more of some kinds with seeds 11 to 40) and ``held_out`` (seeds from 101), which were used for nothing else.
* ``simulated_oblique``: good ones with up to 800 Å of astigmatism and up to 40° of tilt (seeds from 201, not used before), which
  could be taken for drifted ones.
* ``simulated_phase_plate``: twelve good ones with phase shifts of 20 to 150°, low defocus, at 200 and 300 kV, with particles from
  90 to 300 Å (seeds from 501, not used before; what tells dark particles from dirt was made on seeds 401 to 412).
* The 18 labelled thumbnails (six classes of three) with the bounds as shipped; they were looked at while features and the order
  of rules were designed, and the bound of ``great`` was chosen on its six good ones. ``resubstitution`` and ``leave_one_out`` set
  the five bounds of texture anew, from all 18 and from the other 17, as someone with few labelled micrographs would: the bounds
  from the simulator are what is expected, and the labels move them. Bounds of shares stay as they are.
* Other real images, good ones and one that is bad: which are kept.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from icestream.algorithms.micrograph.features import MicrographFeatures, measure_features_2d
from icestream.algorithms.micrograph.triage import GOOD, RULES, Rule, judge_micrograph, read_feature
from icestream.io.image import read_image
from icestream.io.preview import write_rgb
from icestream.microscope.settings import Scene, SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.steps.micrographs.triage import draw_maps

SIZES: dict[str, dict[str, Any]] = {
    "thumbnail": {"height_px": 480, "width_px": 512, "pixel_size_ang": 7.5, "n_particles": 250},
    "detail": {"height_px": 1024, "width_px": 1024, "pixel_size_ang": 1.2, "n_particles": 40},
    "small": {"height_px": 320, "width_px": 320, "pixel_size_ang": 1.5, "n_particles": 8, "b_factor_ang2": 20.0},
}
PHASE_PLATE_SIZES: tuple[dict[str, Any], ...] = (
    {"height_px": 768, "width_px": 640, "pixel_size_ang": 2.0},
    {"height_px": 1024, "width_px": 1024, "pixel_size_ang": 1.5},
    {"height_px": 960, "width_px": 960, "pixel_size_ang": 2.5},
)
EXPECTED = {"particles": "good", "contamination": "contamination", "carbon_edge": "carbon"}
CLASSES = {
    "0": "great", "1": "decent", "2": "contamination", "3": "no_ice", "4": "crystalline_ice", "5": "bare_ice",
}  # fmt: skip
AS_CLASS = {"streaks": "contamination", "carbon": "contamination"}
"""The labels put film, cracks, streaks and lumps into one class."""
FITTED = ("signal_to_noise", "anisotropy", "mottle", "particle_evidence", "usable_signal")
GAPS = {"signal_to_noise": (1.10, 1.49), "anisotropy": (0.09, 0.31), "mottle": (2.65, 10.6), "particle_evidence": (0.17, 0.19)}
"""Where simulated micrographs of a kind end and good ones begin, or the other way round; four times what good ones reach for
mottle, which in the simulator has no other end. None for great: it comes from the labels alone."""
WRONG_LABELS = 0.05
"""Share of the labels that may be wrong, so that no single one can move a bound far."""
Sample = tuple[MicrographFeatures, str]


def settings_of(seed: int, size: str, *, drifting: bool) -> SimulationSettings:
    """Return settings of a session with a micrograph of each kind; dose, ice, particles and their number vary with the seed."""
    rng = np.random.default_rng(seed)
    dose = rng.uniform(30, 60)
    own = dict(SIZES[size])
    own["n_particles"] = round(own["n_particles"] * rng.uniform(0.5, 1.2))
    own["ice_thickness_ang"] = rng.uniform(200, 500)
    own["phantom_diameter_ang"] = rng.uniform(110, 190)
    n_frames = 12 if drifting else 3
    motion = {"drift_px": (30, 60) if drifting else (0, 0), "local_motion_px": 0, "n_frames": n_frames}
    scenes = {} if drifting else dict(enumerate(Scene, start=1))
    return SimulationSettings.model_validate(
        {
            "n_movies": 1 + len(scenes), "seed": seed, "gain": False, "scenes": scenes,
            "dose_per_frame_e_per_ang2": dose / n_frames, **motion, **own,
        }
    )  # fmt: skip


def oblique_settings(seed: int, size: str) -> SimulationSettings:
    """Return settings of three good micrographs with strong astigmatism and tilt."""
    plain = settings_of(seed, size, drifting=False).model_dump()
    slanted = {"n_movies": 3, "scenes": {}, "astigmatism_ang": (0, 800), "sample_tilt_deg": (0, 40)}
    return SimulationSettings.model_validate(plain | slanted)


def phase_plate_settings(seed: int) -> SimulationSettings:
    """Return settings of one good micrograph through a phase plate, with at least 16 particles of one size."""
    rng = np.random.default_rng(seed)
    size = PHASE_PLATE_SIZES[seed % 3]
    area_ang2 = size["height_px"] * size["width_px"] * size["pixel_size_ang"] ** 2
    diameter_ang = rng.uniform(90, min(300, np.sqrt(0.3 * area_ang2 / 16)))
    return SimulationSettings.model_validate(
        {
            "n_movies": 1, "seed": seed, "gain": False, "n_frames": 2, "drift_px": (0, 0), "local_motion_px": 0, **size,
            "voltage_kv": (200, 300)[seed // 3 % 2], "cs_mm": (1.2, 2.7)[seed // 3 % 2], "b_factor_ang2": 30,
            "phase_shift_deg": (20, 150), "defocus_um": (0.3, 1.2), "dose_per_frame_e_per_ang2": rng.uniform(15, 25),
            "ice_thickness_ang": max(rng.uniform(200, 500), diameter_ang), "phantom_diameter_ang": diameter_ang,
            "n_particles": round(rng.uniform(0.3, 0.5) * area_ang2 / diameter_ang**2),
        }
    )  # fmt: skip


def simulate_phase_plate(first: int, count: int = 12) -> Iterator[Sample]:
    for seed in range(first, first + count):
        yield from measure_session(phase_plate_settings(seed), "phase plate")


def simulate_set(first: int, count: int, *, oblique: bool = False) -> Iterator[Sample]:
    for seed in range(first, first + count):
        for size in SIZES:
            if oblique:
                yield from measure_session(oblique_settings(seed, size), size)
                continue
            yield from measure_session(settings_of(seed, size, drifting=False), size)
            for features, _ in measure_session(settings_of(seed, size, drifting=True), size):
                yield features, "streaks"


def measure_session(settings: SimulationSettings, size: str) -> Iterator[Sample]:
    pixel = None if size == "thumbnail" else settings.pixel_size_ang
    for index in range(settings.n_movies):
        image, truth = render_micrograph(settings, index)
        dose = settings.n_frames * settings.dose_per_frame_e_per_ang2
        features, _ = measure_features_2d(image, pixel_size_ang=pixel, dose_e_per_ang2=dose)
        kind = "particles" if truth.scene is None else truth.scene.value
        yield features, EXPECTED.get(kind, kind)


def judge_all(samples: Iterable[Sample], *, name: Callable[[str], str]) -> dict[str, Any]:
    """Return the confusion matrix, the share that is right, and the same for good or bad."""
    confusion: dict[str, Counter[str]] = {}
    right = sound = n = 0
    for features, label in samples:
        found = judge_micrograph(features).kind
        said = name(found)
        confusion.setdefault(label, Counter())[said] += 1
        right += said == label
        sound += (found in GOOD) == (label in (*GOOD, "good"))
        n += 1
    return {"n": n, "accuracy": right / n, "good_or_bad": sound / n, "confusion": confusion}


def score_real(samples: list[Sample], rules_for: Callable[[int], tuple[Rule, ...]]) -> dict[str, Any]:
    confusion: dict[str, Counter[str]] = {}
    right = sound = 0
    for index, (features, label) in enumerate(samples):
        kind = judge_micrograph(features, rules=rules_for(index)).kind
        said = AS_CLASS.get(kind, kind)
        confusion.setdefault(label, Counter())[said] += 1
        right += said == label
        sound += (kind in GOOD) == (label in GOOD)
    n = len(samples)
    return {"n": n, "right": right, "accuracy": right / n, "good_or_bad": sound / n, "confusion": confusion}


def fit_rules(samples: list[Sample]) -> tuple[Rule, ...]:
    """Set the bound of each rule of texture, in their order, from the labels that are left and the gap of simulated ones."""
    left = list(samples)
    fitted = []
    for rule in RULES:
        label = AS_CLASS.get(rule.kind, rule.kind)
        if rule.feature in FITTED:
            told = [sample for sample in left if not (rule.kind == "streaks" and sample[1] == label)]  # dirt, or streaks
            rows = [(read_feature(features, rule.feature) or 0.0, kind == label) for features, kind in told]
            rule = replace(rule, bound=choose_bound(rows, rule))  # noqa: PLW2901 - the rule with its bound
        if rule.kind not in AS_CLASS and rule.feature != "bragg_share":
            left = [sample for sample in left if sample[1] != label]
        fitted.append(rule)
    return tuple(fitted)


def choose_bound(rows: list[tuple[float, bool]], rule: Rule) -> float:
    """Return the most probable bound, given the labels and a normal distribution of its logarithm about that of the rule.

    The standard deviation is half the gap between simulated micrographs, and at least the softness of the rule where that is of
    logarithms. Without a gap, all bounds are as probable beforehand.
    """
    gap = GAPS.get(rule.feature)
    ends = [value for value, _ in rows] if gap is None else [*gap, *(value for value, _ in rows)]
    least = rule.softness if rule.logarithmic else 0.0
    spread = np.inf if gap is None else max(0.5 * np.log(gap[1] / gap[0]), least)

    def surprise(bound: float) -> float:
        tried = replace(rule, bound=bound)
        chances = [tried.probability(value) if is_kind else 1 - tried.probability(value) for value, is_kind in rows]
        labels = np.log(WRONG_LABELS + (1 - 2 * WRONG_LABELS) * np.array(chances))
        return float(0.5 * (np.log(bound / rule.bound) / spread) ** 2 - labels.sum())

    return min(np.geomspace(max(min(ends), 1e-2), max(ends), 600).tolist(), key=surprise)


def read_labelled(folder: Path) -> list[Sample]:
    return [(measure_features_2d(read_image(path))[0], CLASSES[path.parent.name[0]]) for path in sorted(folder.glob("*/*.png"))]


def draw_verdicts(folder: Path, picture: Path, *, side_px: int = 120) -> None:
    """Draw the labelled images, a column for each class, with what was found; a green frame is kept, a red one set aside."""
    paths = sorted(folder.glob("*/*.png"))
    sheet = np.zeros((3 * side_px, 6 * side_px, 3))
    for index, path in enumerate(paths):
        features, maps = measure_features_2d(read_image(path))
        small = ndimage.zoom(
            ndimage.uniform_filter(draw_maps(maps), (3, 3, 0)), (*(side_px / n for n in maps.image.shape), 1), order=1
        )
        tile = np.full((side_px, side_px, 3), (0.1, 0.7, 0.2) if judge_micrograph(features).kind in GOOD else (0.85, 0.1, 0.1))
        tile[5:-5, 5:-5] = small[5:-5, 5:-5]
        column, row = index // 3, 2 - index % 3  # row 0 of the sheet is its bottom
        sheet[row * side_px : (row + 1) * side_px, column * side_px : (column + 1) * side_px] = tile
    write_rgb(picture, np.round(24 * sheet) / 24)  # few grey levels make a small file


def bounds_of(rules: Iterable[Rule]) -> dict[str, float]:
    return {rule.feature: float(f"{rule.bound:.3g}") for rule in rules if rule.feature in FITTED}


def kept_of(paths: Iterable[Path], *, pixel_size_ang: float | None = None) -> str:
    kinds = [judge_micrograph(measure_features_2d(read_image(path), pixel_size_ang=pixel_size_ang)[0]).kind for path in paths]
    return f"{sum(kind in GOOD for kind in kinds)} of {len(kinds)}"


def extremes(samples: list[Sample]) -> dict[str, dict[str, list[float]]]:
    """Return the lowest and highest value of each feature of texture in each kind."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in FITTED:
        for kind in dict.fromkeys(label for _, label in samples):
            values = [read_feature(features, name) or 0.0 for features, label in samples if label == kind]
            found.setdefault(name, {})[kind] = [round(min(values), 3), round(max(values), 3)]
    return found


def main(data: Path, count: int, picture: Path | None) -> None:
    if picture is not None:
        draw_verdicts(data / "micrograph_quality_classes", picture)
    development = list(simulate_set(1, count))
    held_out = list(simulate_set(101, count))
    oblique = list(simulate_set(201, count, oblique=True))
    phase_plate = list(simulate_phase_plate(501))
    betagal = sorted((data / "empiar10017_betagal" / "images").glob("*.jpg"))
    real = read_labelled(data / "micrograph_quality_classes")
    folds = [fit_rules(real[:index] + real[index + 1 :]) for index in range(len(real))]
    whole = fit_rules(real)
    simplify = {"great": "good", "decent": "good"}
    line = {
        "benchmark": "triage_classes",
        "simulated_development": judge_all(development, name=lambda kind: simplify.get(kind, kind)),
        "simulated_held_out": judge_all(held_out, name=lambda kind: simplify.get(kind, kind)),
        "simulated_oblique": judge_all(oblique, name=lambda kind: simplify.get(kind, kind)),
        "simulated_phase_plate": judge_all(phase_plate, name=lambda kind: simplify.get(kind, kind)),
        "development_ranges": extremes(development),
        "real_as_shipped": score_real(real, lambda _: RULES),
        "real_resubstitution": score_real(real, lambda _: whole),
        "real_leave_one_out": score_real(real, lambda index: folds[index]),
        "bounds": {"shipped": bounds_of(RULES), "of_all_18": bounds_of(whole)},
        "other_real_kept": {
            "apoferritin averages (good)": kept_of(sorted((data / "empiar10146_apoferritin" / "averages").glob("*.png"))),
            "beta-galactosidase, denoised, without its pixel size (good)": kept_of(betagal),
            "beta-galactosidase, denoised, at 1.77 Å (good)": kept_of(betagal, pixel_size_ang=1.77),
            "EPU Falcon (good)": kept_of([data / "epu_falcon_titan" / "epu2.9_example.mrc"]),
            "large ice ball (bad)": kept_of([data / "contaminated_micrograph" / "Ucsf_stack_1142_DW.mrc"]),
        },
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
        Path(sys.argv[3]) if len(sys.argv) > 3 else None,
    )
