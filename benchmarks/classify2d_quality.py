"""Streaming 2D classification of simulated particles: purity, resolution against the truth, and CPU time.

Run ``OMP_NUM_THREADS=1 python benchmarks/classify2d_quality.py --views 8 --jitter 8 --snr 0.03``; ``--views 0`` draws views at
random from the whole sphere. Prints one JSON line; the picture is written to ``--out``.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.frc import fourier_ring_correlation_2d, resolution_at_threshold_ang
from icestream.algorithms.scoring.polar import soft_disc_2d
from icestream.flow import Exposure, Progress
from icestream.io.blocks import to_block
from icestream.io.image import read_stack, write_mrc
from icestream.records import Acquisition, ClassAverages, Particles
from icestream.steps.classify2d.averages import all_assignments
from icestream.steps.classify2d.params import Classify2DParams
from icestream.steps.classify2d.streaming import Classify2D
from icestream.testing.context import StepBench

BOX, PIXEL_ANG, PER_EXPOSURE = 144, 1.5, 30
OPTICS = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}


@dataclass(frozen=True)
class Truth:
    """The rotation, shift and view of one particle."""

    rotation: Rotation
    shift_yx_ang: NDArray[np.float64]
    view: int


def make_phantom(seed: int = 3) -> NDArray[np.float64]:
    """Return atoms ``(n, 4)``, xyz in Å and weight, of an asymmetric particle 150 Å long."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, 3))
    centres *= (
        (rng.uniform(size=(60, 1)) ** (1 / 3) / np.linalg.norm(centres, axis=1, keepdims=True)) * 65 * np.array([1, 0.75, 0.6])
    )
    atoms = (centres[:, None, :] + rng.normal(0, 6, (60, 12, 3))).reshape(-1, 3)
    return np.column_stack([atoms, np.repeat(rng.uniform(0.4, 1.6, 60), 12)])


def project(
    atoms: NDArray[np.float64], rotation: Rotation, shift_yx_ang: NDArray[np.float64], box: int, pixel_ang: float
) -> NDArray[np.float64]:
    """Project atoms, Gaussians of 2.5 Å, along z."""
    xyz = rotation.apply(atoms[:, :3])
    grid = (np.arange(box) - box // 2) * pixel_ang
    along_x = np.exp(-((grid - xyz[:, :1] - shift_yx_ang[1]) ** 2) / 12.5)  # (atoms, box)
    along_y = np.exp(-((grid - xyz[:, 1:2] - shift_yx_ang[0]) ** 2) / 12.5)
    return (along_y * atoms[:, 3:]).T @ along_x


def draw_truth(n: int, views: int, jitter_deg: float, rng: np.random.Generator) -> list[Truth]:
    """Return random poses, about a few preferred views or all over the sphere."""
    preferred = Rotation.random(max(views, 1), rng)
    truths = []
    for _ in range(n):
        view = int(rng.integers(views)) if views else -1
        axis = np.append(rng.normal(size=2), 0.0)
        tilt = Rotation.from_rotvec(axis / np.linalg.norm(axis) * jitter_deg * np.sqrt(rng.uniform()), degrees=True)
        start = tilt * preferred[view] if views else Rotation.random(None, rng)
        turn = Rotation.from_euler("z", rng.uniform(0, 360), degrees=True)
        truths.append(Truth(turn * start, np.clip(rng.normal(0, 4, 2), -9, 9), view))
    return truths


def write_exposures(
    bench: StepBench, truths: list[Truth], atoms: NDArray[np.float64], snr: float, rng: np.random.Generator
) -> list[Particles]:
    """Write noisy stacks with a defocus of 0.8 to 2 µm per exposure; ``snr`` is in the raw pixels of the particle."""
    records, spread = [], None
    for start in range(0, len(truths), PER_EXPOSURE):
        group = truths[start : start + PER_EXPOSURE]
        defocus = rng.uniform(8000, 20000)
        optics = {"defocus_u_ang": defocus, "defocus_v_ang": defocus - 200, "astigmatism_angle_deg": 30.0}
        contrast = -ctf_2d(BOX, BOX, pixel_size_ang=PIXEL_ANG, **optics, **OPTICS)
        clean = np.stack([project(atoms, t.rotation, t.shift_yx_ang, BOX, PIXEL_ANG) for t in group])
        clean = np.fft.irfft2(np.fft.rfft2(clean) * contrast, s=(BOX, BOX))
        spread = spread or float(clean[:, 32:-32, 32:-32].std())
        images = clean * (np.sqrt(snr) / spread) + rng.normal(size=clean.shape)
        table = np.zeros(len(group), dtype=[("pid", "<i8"), *((name, "<f8") for name in (*optics, "phase_shift_deg"))])
        table["pid"] = np.arange(start, start + len(group))
        for name, value in optics.items():
            table[name] = value
        ref = f"session:stacks/{start:06d}.mrcs"
        bench.path(ref).parent.mkdir(parents=True, exist_ok=True)
        write_mrc(bench.path(ref), images.astype(np.float32), pixel_size_ang=PIXEL_ANG, remember=False)
        records.append(
            Particles(
                stack=ref,
                count=len(group),
                box_px=BOX,
                bin=1.0,
                inverted=True,
                phase_flipped=False,
                micrograph=f"session:{start:06d}.mrc",
                block=to_block(table),
            )
        )
    return records


def stream(bench: StepBench, records: list[Particles], params: Classify2DParams) -> tuple[ClassAverages, dict[int, np.void]]:
    """Feed exposures one by one as the engine does; return the last averages and the last assignment per pid."""
    step, waiting, passed = Classify2D(), [], 0
    state = step.start(params, bench)
    averages: ClassAverages | None = None
    for i, record in enumerate(records):
        waiting.append((Exposure(f"{i:032d}", f"exposure{i:04d}"), record))
        closed = i == len(records) - 1
        weight = sum(r.count for _, r in waiting)
        if not step.when(Progress(len(waiting), weight, i, passed, closed), params).accepted:
            continue
        bench.version += 1
        bench.closing = closed
        bench.exposure = Exposure(str(bench.version), f"version{bench.version:04d}")
        began = time.process_time()
        update = step.add(
            state,
            [e for e, _ in waiting],
            [r for _, r in waiting],
            acquisition=[Acquisition(pixel_size_ang=PIXEL_ANG, **OPTICS)] * len(waiting),
            params=params,
            ctx=bench,
        )
        state = update.state
        averages = step.emit(state, params, bench)
        seconds = time.process_time() - began
        print(
            f"{state.n_particles:6d} particles: {seconds:6.1f} CPU s, {len(update.assignments)} exposures assigned",
            file=sys.stderr,
        )
        passed, waiting = passed + weight, []
    if averages is None:
        raise SystemExit("no particles")
    return averages, {int(row["pid"]): row for row in all_assignments(averages, bench)}


def judge(
    bench: StepBench, averages: ClassAverages, found: dict[int, np.void], truths: list[Truth], atoms: NDArray[np.float64]
) -> dict[str, object]:
    """Return, per class, the share of its main view and FRC 0.5 against the best projection of a member and the members' mean."""
    images = read_stack(bench.path(averages.stack))
    box, pixel = averages.box_px, averages.bin * PIXEL_ANG
    mask = soft_disc_2d(box, radius_px=80 / pixel, edge_px=3)
    pure, best_all, mean_all = 0, [], []
    classes: list[dict[str, object]] = []
    for k, image in enumerate(images):
        members = [pid for pid, row in found.items() if row["class_id"] == k]
        if not members:
            continue
        views = np.array([truths[pid].view for pid in members])
        main = max(int((views == v).sum()) for v in set(views.tolist()))
        pure += main
        projections = [_in_class_frame(truths[pid], found[pid], atoms, box, pixel) for pid in members[:30]]
        best = min((_limit(image * mask, p * mask, pixel) for p in projections), default=999.0)
        mean = _limit(image * mask, np.mean(projections, axis=0) * mask, pixel)
        best_all.append(best)
        mean_all.append(mean)
        classes.append(
            {
                "class": k,
                "particles": len(members),
                "main_view": round(main / len(members), 3),
                "frc05_to_projection_ang": round(best, 1),
                "frc05_to_members_mean_ang": round(mean, 1),
                "frc05_of_halves_ang": averages.classes[k].resolution_ang,
            }
        )
    return {
        "purity": round(pure / len(found), 4),
        "median_frc05_to_projection_ang": round(float(np.median(best_all)), 1),
        "median_frc05_to_members_mean_ang": round(float(np.median(mean_all)), 1),
        "classes": classes,
    }


def _in_class_frame(truth: Truth, row: np.void, atoms: NDArray[np.float64], box: int, pixel: float) -> NDArray[np.float64]:
    back = Rotation.from_euler("z", -float(row["psi_deg"]), degrees=True)
    left = truth.shift_yx_ang - np.array([row["shift_y_px"], row["shift_x_px"]]) * PIXEL_ANG
    x, y, _ = back.apply([left[1], left[0], 0.0])
    return project(atoms, back * truth.rotation, np.array([y, x]), box, pixel)


def _limit(a: NDArray[np.float64], b: NDArray[np.float64], pixel_ang: float) -> float:
    frequency, correlation = fourier_ring_correlation_2d(a, b)
    return resolution_at_threshold_ang(frequency, correlation, threshold=0.5, pixel_size_ang=pixel_ang) or 999.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--particles", type=int, default=1500)
    parser.add_argument("--classes", type=int, default=16)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--jitter", type=float, default=8.0)
    parser.add_argument("--snr", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("classes.png"))
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    atoms = make_phantom()
    truths = draw_truth(arguments.particles, arguments.views, arguments.jitter, rng)
    with tempfile.TemporaryDirectory() as folder:
        bench = StepBench(Path(folder), seed=arguments.seed + 1, version=0)
        records = write_exposures(bench, truths, atoms, arguments.snr, rng)
        began = time.process_time()
        averages, found = stream(bench, records, Classify2DParams(n_classes=arguments.classes))
        line = {"benchmark": "classify2d_quality", "views": arguments.views, "cpu_s": round(time.process_time() - began, 1)}
        print(json.dumps({**line, **judge(bench, averages, found, truths, atoms)}))
        shutil.copy(bench.path(averages.picture or ""), arguments.out)


if __name__ == "__main__":
    main()
