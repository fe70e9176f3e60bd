"""Streaming 2D classification against batch on the same closed set; ids over the versions; junk set aside.

Run ``OMP_NUM_THREADS=1 python benchmarks/classify2d_streaming.py --seeds 1000 1001 1002``. Particles of 64 px show a phantom of
150 Å in some preferred views; a fifth of junk is added: edges, ice, aggregates, overlaps, halves, particles off the centre.

Prints one JSON line: medians over the seeds of each number for stream and batch, the share of living classes that keep their id
from version to version, judged by overlap of members, and purity and recall of the particles that strict selection keeps.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from classify2d_quality import make_phantom, project
from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.frc import fourier_ring_correlation_2d, resolution_at_threshold_ang
from icestream.algorithms.scoring.polar import soft_disc_2d
from icestream.flow import Exposure, Progress
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import read_stack, write_mrc
from icestream.io.particles import particles_table
from icestream.records import Acquisition, ClassAverages, Particles
from icestream.steps.classify2d.averages import all_assignments, assignment_record
from icestream.steps.classify2d.params import Classify2DParams
from icestream.steps.classify2d.select import GoodClassesParams, SelectClassesParams, select_classes, take_good_classes
from icestream.steps.classify2d.streaming import Classify2D, classify_batch
from icestream.testing.context import StepBench

BOX, PIXEL_ANG, PER_EXPOSURE = 64, 3.0, 25
OPTICS = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG, **OPTICS)
JUNK = ("edge", "ice", "aggregate", "overlap", "half", "off_centre")


@dataclass(frozen=True)
class Truth:
    """What each particle is: its view (-1: junk), its turn in the plane, its shift in pixels; ``kind`` of junk or ''."""

    view: NDArray[np.int64]
    psi_deg: NDArray[np.float64]
    shift_yx_px: NDArray[np.float64]
    rotations: list[Rotation]
    kind: list[str]


def draw_truth(n: int, *, views: int, junk: float, jitter_deg: float, rng: np.random.Generator) -> Truth:
    """Draw particles about preferred views, and junk, in random order."""
    preferred = Rotation.random(views, rng)
    is_junk = rng.permutation(n) < round(n * junk / (1 + junk))
    view = np.where(is_junk, -1, rng.integers(views, size=n))
    psi = rng.uniform(0, 360, n)
    axes = np.column_stack([rng.normal(size=(n, 2)), np.zeros(n)])
    axes *= (jitter_deg * np.sqrt(rng.uniform(size=n)) / np.linalg.norm(axes, axis=1))[:, None]
    tilts, turns = Rotation.from_rotvec(axes, degrees=True), Rotation.from_euler("z", psi[:, None], degrees=True)
    rotations = [turns[i] * tilts[i] * preferred[int(max(view[i], 0))] for i in range(n)]
    kind = [str(rng.choice(JUNK)) if one else "" for one in is_junk]
    return Truth(view, psi, np.clip(rng.normal(0, 1.0, (n, 2)), -3, 3), rotations, kind)


def draw_junk(kind: str, atoms: NDArray[np.float64], rotation: Rotation, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw what is no single, whole, centred particle; protein and ice are bright."""

    def particle(shift: NDArray[np.float64], some: NDArray[np.float64] = atoms) -> NDArray[np.float64]:
        return project(some, rotation * Rotation.random(None, rng), shift, BOX, PIXEL_ANG)

    half_box_ang = BOX * PIXEL_ANG / 2
    grid = np.arange(BOX) - BOX // 2
    angle = rng.uniform(0, 2 * np.pi)
    along = grid[:, None] * np.sin(angle) + grid[None, :] * np.cos(angle)
    direction = np.array([np.sin(angle), np.cos(angle)])
    level = float(particle(np.zeros(2)).max())
    match kind:
        case "edge":
            return level * rng.uniform(0.6, 1.5) * ndimage.gaussian_filter((along > rng.uniform(-15, 15)) * 1.0, 1.5)
        case "ice":
            centre = rng.uniform(-12, 12, 2)
            distance = np.hypot(grid[:, None] - centre[0], grid[None, :] - centre[1])
            return level * rng.uniform(1, 2.5) * np.sqrt(np.maximum(1 - (distance / rng.uniform(10, 26)) ** 2, 0))
        case "aggregate":
            return np.sum([particle(rng.uniform(-0.8, 0.8, 2) * half_box_ang) for _ in range(int(rng.integers(3, 6)))], axis=0)
        case "overlap":
            return particle(np.zeros(2)) + particle(direction * rng.uniform(50, 90))
        case "half":
            return particle(np.zeros(2), atoms[atoms[:, 0] > np.median(atoms[:, 0])])
        case _:
            return particle(direction * rng.uniform(45, 80))


def write_exposures(
    bench: StepBench, truth: Truth, atoms: NDArray[np.float64], *, snr: float, rng: np.random.Generator
) -> list[Particles]:
    """Write noisy stacks with a defocus of 1 to 2 µm each; ``snr`` is the ratio of variances in the circle of the particle."""
    records = []
    inside = soft_disc_2d(BOX, radius_px=75 / PIXEL_ANG, edge_px=1) > 0.5
    spread: float | None = None
    for start in range(0, len(truth.view), PER_EXPOSURE):
        rows = range(start, min(start + PER_EXPOSURE, len(truth.view)))
        clean = np.stack([_draw(truth, i, atoms, rng) for i in rows])
        defocus = float(rng.uniform(10000, 20000))
        optics = {"defocus_u_ang": defocus, "defocus_v_ang": defocus - 200, "astigmatism_angle_deg": 30.0}
        contrast = -ctf_2d(BOX, BOX, pixel_size_ang=PIXEL_ANG, **optics, **OPTICS)
        clean = np.fft.irfft2(np.fft.rfft2(clean) * contrast, s=(BOX, BOX))
        good = [clean[j][inside].std() for j, i in enumerate(rows) if truth.view[i] >= 0]
        spread = spread or float(np.median(good))
        images = clean * (np.sqrt(snr) / spread) + rng.normal(size=clean.shape)
        outside = ~inside
        images = (images - images[:, outside].mean(axis=1)[:, None, None]) / images[:, outside].std(axis=1)[:, None, None]
        table = np.zeros(len(rows), dtype=dtype_of(Particles.block_columns))
        table["pid"], table["slice"] = np.arange(rows.start, rows.stop), np.arange(len(rows))
        for name, value in optics.items():
            table[name] = value
        ref = f"session:stacks/{start:06d}.mrcs"
        bench.path(ref).parent.mkdir(parents=True, exist_ok=True)
        write_mrc(bench.path(ref), images.astype(np.float32), pixel_size_ang=PIXEL_ANG, remember=False)
        records.append(
            Particles(
                stack=ref,
                count=len(rows),
                box_px=BOX,
                bin=1.0,
                inverted=True,
                phase_flipped=False,
                micrograph=f"session:m{start:06d}.mrc",
                block=to_block(table),
            )
        )
    return records


def _draw(truth: Truth, i: int, atoms: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    if truth.kind[i]:
        return draw_junk(truth.kind[i], atoms, truth.rotations[i], rng)
    return project(atoms, truth.rotations[i], truth.shift_yx_px[i] * PIXEL_ANG, BOX, PIXEL_ANG)


def run_stream(bench: StepBench, records: list[Particles], params: Classify2DParams) -> list[ClassAverages]:
    """Feed exposures one by one as the engine does; return the averages of all versions."""
    step, waiting, passed = Classify2D(), list[tuple[Exposure, Particles]](), 0
    state, versions = step.start(params, bench), list[ClassAverages]()
    for i, record in enumerate(records):
        waiting.append((Exposure(f"{i:032d}", f"exposure{i:04d}"), record))
        closed = i == len(records) - 1
        weight = sum(r.count for _, r in waiting)
        if not step.when(Progress(len(waiting), weight, i, passed, closed), params).accepted:
            continue
        bench.version, bench.closing = len(versions) + 1, closed
        bench.exposure = Exposure(f"stream{bench.version}", f"stream{bench.version:04d}")
        exposures, given = [e for e, _ in waiting], [r for _, r in waiting]
        update = step.add(state, exposures, given, acquisition=[ACQUISITION] * len(given), params=params, ctx=bench)
        state = update.state
        versions.append(step.emit(state, params, bench))
        passed, waiting = passed + weight, []
    return versions


def kept_ids(bench: StepBench, versions: list[ClassAverages]) -> tuple[int, int]:
    """Return how many classes lived on from one version to the next, by overlap of members, and how many of them kept their id.

    A class lives on in the class of the next version that holds most of its members, if that one took most of its own from it.
    """
    alive = kept = 0
    for before, after in pairwise(versions):
        old, new = ({int(r["pid"]): int(r["class_id"]) for r in all_assignments(one, bench)} for one in (before, after))
        pairs = np.array([(old[pid], new[pid]) for pid in old])
        for one in np.unique(pairs[:, 0]):
            goals, counts = np.unique(pairs[pairs[:, 0] == one, 1], return_counts=True)
            goal = goals[np.argmax(counts)]
            sources, back = np.unique(pairs[pairs[:, 1] == goal, 0], return_counts=True)
            if counts.max() > 0.5 * counts.sum() and sources[np.argmax(back)] == one and counts.sum() >= 10:
                alive, kept = alive + 1, kept + (goal == one)
    return kept, alive


def judge(bench: StepBench, averages: ClassAverages, truth: Truth, atoms: NDArray[np.float64]) -> dict[str, float]:
    """Return the 2D numbers of the true particles: purity, errors of turn and shift, resolution of averages against the truth."""
    rows = all_assignments(averages, bench)
    rows = rows[truth.view[rows["pid"]] >= 0]
    images = {info.id: image for info, image in zip(averages.classes, read_stack(bench.path(averages.stack)), strict=True)}
    pure, turns, shifts, limits = 0, list[float](), list[float](), list[float]()
    for one in np.unique(rows["class_id"]):
        mine = rows[rows["class_id"] == one]
        views, counts = np.unique(truth.view[mine["pid"]], return_counts=True)
        pure += int(counts.max())
        mine = mine[truth.view[mine["pid"]] == views[np.argmax(counts)]]
        if len(mine) < 10:
            continue
        error, offset = _pose_errors(mine, truth)
        turns += error
        shifts += offset
        limits.append(_resolution(images[int(one)], mine, truth, atoms, averages))
    return {
        "purity": pure / len(rows),
        "turn_error_deg": float(np.median(turns)),
        "shift_error_px": float(np.median(shifts)),
        "frc05_ang": float(np.median(limits)),
    }


def _pose_errors(rows: NDArray[Any], truth: Truth) -> tuple[list[float], list[float]]:
    """Return errors after the class's own turn and shift."""
    pid, psi = rows["pid"], np.deg2rad(rows["psi_deg"].astype(float))
    turn = np.exp(1j * (psi - np.deg2rad(truth.psi_deg[pid])))
    turn /= turn.mean() / abs(turn.mean())
    left = truth.shift_yx_px[pid] - np.stack([rows["shift_y_px"], rows["shift_x_px"]], axis=1)  # (n, 2)
    x = left[:, 1] * np.cos(psi) + left[:, 0] * np.sin(psi)
    y = -left[:, 1] * np.sin(psi) + left[:, 0] * np.cos(psi)
    in_class = np.stack([y, x], axis=1)
    return np.rad2deg(np.abs(np.angle(turn))).tolist(), np.linalg.norm(in_class - np.median(in_class, axis=0), axis=1).tolist()


def _resolution(
    image: NDArray[np.float32], rows: NDArray[Any], truth: Truth, atoms: NDArray[np.float64], averages: ClassAverages
) -> float:
    """Return where the FRC with the mean of the members' true projections falls below 0.5, in Å."""
    box, pixel = averages.box_px, averages.bin * PIXEL_ANG
    mask = soft_disc_2d(box, radius_px=80 / pixel, edge_px=3)
    frames = []
    for row in rows[:25]:
        i = int(row["pid"])
        back = Rotation.from_euler("z", -float(row["psi_deg"]), degrees=True)
        left = (truth.shift_yx_px[i] - np.array([row["shift_y_px"], row["shift_x_px"]])) * PIXEL_ANG
        x, y, _ = back.apply([left[1], left[0], 0.0])
        frames.append(project(atoms, back * truth.rotations[i], np.array([y, x]), box, pixel))
    frequency, curve = fourier_ring_correlation_2d(image * mask, np.mean(frames, axis=0) * mask)
    return resolution_at_threshold_ang(frequency, curve, threshold=0.5, pixel_size_ang=pixel) or 99.0


def select(bench: StepBench, averages: ClassAverages, records: list[Particles], truth: Truth) -> dict[str, float]:
    """Return purity and recall of the particles of selected classes."""
    selection = select_classes(averages, SelectClassesParams(), bench)
    rows, kept = all_assignments(averages, bench), list[int]()
    ids = [info.id for info in averages.classes]
    for record in records:
        mine = rows[rows["micrograph"] == record.table_key]
        assigned = assignment_record(mine, None, version=1)
        good = take_good_classes(record, assigned, averages, selection, GoodClassesParams(), bench)
        kept += particles_table(good)["pid"].tolist()
    true = truth.view >= 0
    picked = np.zeros(len(true), dtype=bool)
    picked[kept] = True
    if "--verbose" in sys.argv:
        for info in averages.classes:
            pids = rows[rows["class_id"] == info.id]["pid"]
            print(
                info.id,
                info.count,
                f"score {info.score} true {np.mean(true[pids]):.2f} res {info.resolution_ang}",
                file=sys.stderr,
            )
        print({kind: np.mean(picked[[k == kind for k in truth.kind]]) for kind in ("", *JUNK)}, len(ids), file=sys.stderr)
    return {"selected_purity": float(true[picked].mean()) if picked.any() else 0.0, "selected_recall": float(picked[true].mean())}


def run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Classify one simulated set both ways."""
    rng = np.random.default_rng(seed)
    atoms = make_phantom(seed)
    truth = draw_truth(arguments.particles, views=arguments.views, junk=arguments.junk, jitter_deg=arguments.jitter, rng=rng)
    n = arguments.particles
    batch = max(1, round((n - 250) / (arguments.versions - 1)))
    params = Classify2DParams(n_classes=arguments.classes, diameter_ang=170, batch_particles=batch, batch_share=0.0)
    with tempfile.TemporaryDirectory() as folder:
        bench = StepBench(Path(folder), seed=seed + 1)
        records = write_exposures(bench, truth, atoms, snr=arguments.snr, rng=rng)
        began = time.process_time()
        versions = run_stream(bench, records, params)
        stream_s, began = time.process_time() - began, time.process_time()
        bench.exposure, bench.closing = Exposure("batch", "batch"), False
        whole = classify_batch(records, params, ACQUISITION, bench)
        batch_s = time.process_time() - began
        kept, alive = kept_ids(bench, versions)
        found = {
            name: {**judge(bench, one, truth, atoms), **select(bench, one, records, truth)}
            for name, one in (("stream", versions[-1]), ("batch", whole))
        }
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            for name, one in (("stream", versions[-1]), ("batch", whole)):
                if one.picture:
                    shutil.copy(bench.path(one.picture), arguments.out / f"{name}_{seed}.png")
    return {**found, "versions": len(versions), "kept": kept, "alive": alive, "stream_cpu_s": stream_s, "batch_cpu_s": batch_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--particles", type=int, default=1200)
    parser.add_argument("--classes", type=int, default=16)
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--jitter", type=float, default=8.0)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--junk", type=float, default=0.2)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1000, 1001, 1002, 1003, 1004])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print what became of each class, to stderr")
    arguments = parser.parse_args()
    results = [run(seed, arguments) for seed in arguments.seeds]
    line: dict[str, Any] = {"benchmark": "classify2d_streaming", "seeds": arguments.seeds, "versions": results[0]["versions"]}
    for mode in ("stream", "batch"):
        line[mode] = {name: round(float(np.median([one[mode][name] for one in results])), 4) for name in results[0][mode]}
    stream, batch = line["stream"], line["batch"]
    errors, shares = ("turn_error_deg", "shift_error_px", "frc05_ang"), ("purity", "selected_purity", "selected_recall")
    line["stream_over_batch"] = {name: round(stream[name] / batch[name], 4) for name in errors}
    line["stream_lost"] = {name: round(batch[name] - stream[name], 4) for name in shares}
    line["id_kept_share"] = round(sum(one["kept"] for one in results) / max(1, sum(one["alive"] for one in results)), 4)
    for name in ("stream_cpu_s", "batch_cpu_s"):
        line[name] = round(float(np.median([one[name] for one in results])), 1)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
