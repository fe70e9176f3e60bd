"""Two conformations, 60:40: particles that a 3D classification puts right, and the consensus of three runs against the best.

Run ``python benchmarks/classify3d_accuracy.py [SEEDS [FIRST [PARTICLES]]] [--relion]``. Prints one JSON line. Of a phantom (a
model of ``phantom_models`` if it is there, else the built-in one) 15 % of the mass, the part farthest to one side, is turned by
25° about the point where it meets the rest. Particles are simulated at 64 px of 3.75 Å, SNR 0.05, from the whole sphere, with
poses that are off by 0.6° about each axis and 0.3 px (normal errors), as a good refinement leaves them. Three runs differ in
seed, and each has another nine tenths of the particles; their consensus takes how sure they are into account.

With ``--relion`` the particles of the first run of the first seed are also sorted by RELION's 3D classification, with the same
poses (``--skip_align``) and the mean of all to begin with.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from icestream.algorithms.classes.consensus import vote_on_classes
from icestream.algorithms.classify3d import PosedParticles, Setting, classify_particles_3d, fold_of, prepare_centred
from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.fourier import crop_fourier_2d
from icestream.algorithms.scoring.contrast import ctf_polar_2d
from icestream.algorithms.scoring.polar import PolarGrid
from icestream.algorithms.volumes import rotations_about, turn_volume_3d
from icestream.io.image import write_mrc
from icestream.io.star import read_star
from particle_volumes import OPTICS, find_volume, make_particles, run_relion, true_pose_volumes, write_for_relion

BOX, PIXEL_ANG, SNR = 64, 3.75, 0.05
WORKING_PX = 40
STARTS = 4
SHARE, MASS, TURN_DEG = 0.6, 0.15, 25.0
ANGLE_ERROR_DEG, SHIFT_ERROR_PX = 0.6, 0.3


def two_conformations(name):
    """Return the volume, that with its part turned, and the diameter in Å."""
    volume, diameter = find_volume(name, pixel_size_ang=PIXEL_ANG, box_px=BOX)
    grid = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(grid, grid, grid, indexing="ij")
    mass = np.clip(volume, 0, None)
    points = np.stack([x, y, z], axis=-1)[mass > 0.05 * mass.max()]
    weights = mass[mass > 0.05 * mass.max()]
    _, _, axes = np.linalg.svd((points - np.average(points, axis=0, weights=weights)) * np.sqrt(weights)[:, None], False)
    along = points @ axes[0]
    order = np.argsort(-along)
    border = along[order[np.searchsorted(np.cumsum(weights[order]), MASS * weights.sum())]]
    side = x * axes[0][0] + y * axes[0][1] + z * axes[0][2]
    inside = 1 / (1 + np.exp(-(side - border) / 0.7))
    arm, rest = volume * inside, volume * (1 - inside)
    rim = np.abs(along - border) < 1.5
    hinge = np.average(points[rim], axis=0, weights=weights[rim])
    rotation = rotations_about(np.deg2rad(TURN_DEG) * axes[1][None])[0]
    moved = hinge - rotation @ hinge
    turned = turn_volume_3d(arm, rotation, shift_zyx_px=tuple(moved[::-1]))
    return volume, (rest + turned).astype(np.float32), diameter


def simulate(seed, n, volumes, diameter):
    """Return particles of both conformations in random order, with erring poses, and which is which."""
    rng = np.random.default_rng([seed, 7])
    truth = (rng.random(n) > SHARE).astype(int)
    parts = [
        make_particles(
            "", n=int((truth == k).sum()), snr=SNR, seed=2 * seed + k, box_px=BOX, pixel_size_ang=PIXEL_ANG, volume=one
        )
        for k, one in enumerate(volumes)
    ]
    order = np.empty(n, int)
    order[np.concatenate([np.flatnonzero(truth == k) for k in (0, 1)])] = np.arange(n)

    def whole(name):
        return np.concatenate([getattr(part, name) for part in parts])[order]

    off = rotations_about(np.deg2rad(ANGLE_ERROR_DEG) * rng.normal(size=(n, 3)))
    rotations = off @ whole("rotations")
    shift = whole("shift_yx_px") + SHIFT_ERROR_PX * rng.normal(size=(n, 2))
    size, pixel = WORKING_PX, PIXEL_ANG * BOX / WORKING_PX
    grid = PolarGrid(size, size // 2 - 2, 120)
    setting = Setting(grid, 2, min(diameter / 2 / pixel * 1.1, size / 2 - 4), 3.0, round(size * pixel / 30.0))
    given = replace(
        parts[0], **{name: whole(name) for name in ("images", "defocus_ang", "half_set", "junk")}, rotations=rotations,
        shift_yx_px=shift, diameter_ang=diameter,
    )  # fmt: skip
    images = crop_fourier_2d(given.images, new_shape=(size, size))
    ctf, contrast = (
        np.stack([make(row) for row in whole("defocus_ang")]) for make in (_polar_of(grid, pixel), _plane_of(size, pixel))
    )
    fold, shift = fold_of(np.full(n, b"simulated"), np.arange(n) + seed * n), shift * size / BOX
    polar = prepare_centred(images, ctf, shift_yx_px=shift, setting=setting, half_set=(fold % 2).astype(np.int8))
    return PosedParticles(images, contrast, polar, rotations, shift, fold), setting, truth, given


def _polar_of(grid, pixel):
    def make(row):
        return -ctf_polar_2d(
            grid, box_ang=grid.box_px * pixel, defocus_u_ang=row[0], defocus_v_ang=row[1], astigmatism_angle_deg=row[2], **OPTICS
        )  # fmt: skip

    return make


def _plane_of(size, pixel):
    def make(row):
        return -ctf_2d(
            size, size, pixel_size_ang=pixel, defocus_u_ang=row[0], defocus_v_ang=row[1], astigmatism_angle_deg=row[2], **OPTICS
        ).astype(np.float32)  # fmt: skip

    return make


def right(truth, label):
    """Return the share of particles that are right under the better of both namings."""
    same = float(np.mean(truth == label))
    return max(same, 1 - same)


def classify_with_relion(given):
    """Return the class of each particle by RELION's 3D classification in the poses that they have, and CPU seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_for_relion(folder, given)
        write_mrc(folder / "mean.mrc", true_pose_volumes(given)[0], pixel_size_ang=given.pixel_size_ang)
        (folder / "out").mkdir()
        cpu = run_relion(
            "relion_refine", "--i", "particles.star", "--o", "out/run", "--ref", "mean.mrc", "--ini_high", 30, "--K", 2,
            "--iter", 25, "--tau2_fudge", 4, "--ctf", "--flatten_solvent", "--zero_mask", "--skip_align", "--sym", "C1",
            "--particle_diameter", round(given.diameter_ang * 1.1), "--norm", "--scale", "--pad", 2, "--j", 1,
            "--dont_combine_weights_via_disc", "--dont_check_norm", "--random_seed", 1, cwd=folder,
        )  # fmt: skip
        table = read_star(folder / "out/run_it025_data.star")["particles"]
    number = np.argsort([int(text.partition("@")[0]) for text in table.texts("rlnImageName")])
    return table.floats("rlnClassNumber")[number].astype(int) - 1, cpu


def measure(seed, n, volumes, diameter, *, relion=False):
    particles, setting, truth, given = simulate(seed, n, volumes, diameter)
    rng = np.random.default_rng([seed, 8])
    labels, sureness, figures, cpu = np.full((n, 3), -1), np.zeros((n, 3)), [], []
    for run in range(3):
        rows = np.sort(rng.permutation(n)[: int(0.9 * n)])
        began = time.process_time()
        found = classify_particles_3d(particles.take(rows), setting=setting, starts=STARTS, seed=10 * seed + run)
        cpu.append(time.process_time() - began)
        labels[rows, run], sureness[rows, run] = found.class_id, found.share.max(axis=1)
        figures.append(right(truth[rows], found.class_id))
        if relion and run == 0:
            theirs, seconds = classify_with_relion(given.take(rows))
            beside = {"right": right(truth[rows], theirs), "ours": figures[0], "cpu_s": seconds, "our_cpu_s": cpu[0]}
    best = int(np.argmax(figures))
    has = labels[:, best] >= 0
    row = {"runs": [round(one, 4) for one in figures], "cpu_s": round(float(np.mean(cpu)), 1)}
    for name, given in (("votes", None), ("sure_votes", sureness)):
        consensus = vote_on_classes(labels, sureness=given)
        row[name] = round(right(truth[has], consensus.group[has]) if consensus.n_groups == 2 else 0.0, 4)
        row[f"{name}_gain"] = round(100 * (row[name] - figures[best]), 2)
        row["decided"] = round(float(consensus.decided.mean()), 3)
    return row | ({"relion": {name: round(value, 4) for name, value in beside.items()}} if relion else {})


def main(count=10, first=1000, n=3000, *, relion=False):
    before, after, diameter = two_conformations("6msm")
    seeds = range(first, first + count)
    rows = [measure(seed, n, (before, after), diameter, relion=relion and seed == first) for seed in seeds]
    runs = [one for row in rows for one in row["runs"]]
    figures = {"seeds": count, "particles": n, "right": {"median": float(np.median(runs)), "worst": min(runs)}}
    for name in ("votes", "sure_votes"):
        gains = [row[f"{name}_gain"] for row in rows]
        figures[name] = {"better_share": float(np.mean([gain > 0 for gain in gains])), "worst_points": min(gains)}
    if relion:
        theirs = rows[0]["relion"]
        figures["relion"] = {**theirs, "more_right_points": round(100 * (theirs["ours"] - theirs["right"]), 2)}
    print(json.dumps({**figures, "cpu_s": float(np.median([row["cpu_s"] for row in rows])), "rows": rows}))


if __name__ == "__main__":
    words = sys.argv[1:]
    main(*(int(word) for word in words if word != "--relion"), relion="--relion" in words)
