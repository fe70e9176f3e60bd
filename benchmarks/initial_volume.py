"""Initial volumes of simulated particles: how many random starts find the right shape, and whether failures are flagged.

Run ``OMP_NUM_THREADS=1 python benchmarks/initial_volume.py --seed 1001 --starts 10``; ``--relion`` makes RELION's initial model
of the first phantom as well. Pure noise, and volumes of random poses, must never be called right. Prints one JSON line.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from icestream.algorithms.frc import resolution_at_threshold_ang
from icestream.algorithms.initial_volume import (
    find_initial_volume,
    measure_signal,
    plan_volume,
    prepare_volume_particles,
    weigh_evidence,
)
from icestream.algorithms.initial_volume.alternate import random_volume
from icestream.algorithms.scoring.contrast import ctf_polar_2d
from icestream.algorithms.volumes import fourier_shell_correlation_3d, resize_volume_3d
from icestream.algorithms.volumes.alignment import align_volume_3d, apply_alignment_3d
from icestream.io.image import read_stack
from particle_volumes import OPTICS, make_particles, run_relion, write_for_relion

PHANTOMS = (("4zxb", "C1"), ("6msm", "C1"), ("builtin", "D7"))
RIGHT_ANG = 25.0


def prepare(given, setting):
    """Prepare simulated particles as the step does."""
    grid = setting.grid
    ctf = np.empty((len(given), grid.n_rings, grid.half), np.float32)
    for i, row in enumerate(given.defocus_ang):
        same = i and (row == given.defocus_ang[i - 1]).all()
        lens = {"defocus_u_ang": row[0], "defocus_v_ang": row[1], "astigmatism_angle_deg": row[2]}
        box_ang = given.box_px * given.pixel_size_ang
        ctf[i] = ctf[i - 1] if same else -ctf_polar_2d(grid, box_ang=box_ang, **lens, **OPTICS)
    return prepare_volume_particles(given.images, ctf, setting=setting, half_set=given.half_set)


def plan(given, symmetry):
    """Return the working box of simulated particles."""
    return plan_volume(
        box_px=given.box_px, pixel_size_ang=given.pixel_size_ang, diameter_ang=given.diameter_ang, symmetry=symmetry
    )


def against_truth_ang(volume, given, setting):
    """Return where a volume, brought onto the truth with either hand, agrees with it by 0.5."""
    truth = resize_volume_3d(given.volume, new_size=setting.grid.box_px)
    placed = apply_alignment_3d(volume, align_volume_3d(volume, truth, max_ring=9, max_shift_px=3.0))
    frequency, correlation = fourier_shell_correlation_3d(truth, placed)
    found = resolution_at_threshold_ang(frequency, correlation, threshold=0.5, pixel_size_ang=setting.pixel_size_ang)
    return 999.0 if found is None else float(found)


def run_starts(given, symmetry, starts, seed):
    """Make several starts of one set of particles and judge each with particles that it did not see."""
    setting = plan(given, symmetry)
    particles = prepare(given, setting)
    power = measure_signal(particles)
    held = np.arange(len(particles)) % 6 == 0
    rows = []
    for start in range(starts):
        before = time.process_time()
        found = find_initial_volume(particles.take(~held), setting=setting, seed=seed + start)
        cpu_s = time.process_time() - before
        evidence = weigh_evidence(particles.take(held), found.volume, power, setting=setting, seed=start)
        rows.append(
            {
                "resolution_ang": round(against_truth_ang(found.volume, given, setting), 1),
                "explained": round(evidence.explained, 3),
                "error": round(evidence.error, 3),
                "called_right": evidence.is_right,
                "gain": round(evidence.gain, 1),
                "twin_gain": round(evidence.twin_gain, 1),
                "view_entropy": round(found.view_entropy, 3),
                "cpu_s": round(cpu_s, 1),
            }
        )
    return rows


def false_alarms(given, symmetry, seed):
    """Return how often pure noise, and a volume of random poses, are called right."""
    setting = plan(given, symmetry)
    generator = np.random.default_rng(seed)
    noise = replace(given, images=generator.normal(size=given.images.shape).astype(np.float32))
    called = []
    for some, searched in ((noise, True), (given, False)):
        particles = prepare(some, setting)
        held = np.arange(len(particles)) % 6 == 0
        train = particles.take(~held)
        volume = (
            find_initial_volume(train, setting=setting, seed=seed).volume
            if searched
            else random_volume(train, setting=setting, generator=generator)
        )
        evidence = weigh_evidence(particles.take(held), volume, measure_signal(particles), setting=setting, seed=seed)
        called.append({"explained": round(evidence.explained, 3), "error": round(evidence.error, 3), "right": evidence.is_right})
    return {"noise": called[0], "random_poses": called[1]}


def run_relion_initial_model(given):
    """Make RELION's initial model, with the defaults of its job; return CPU seconds and agreement with the truth."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_for_relion(folder, given)
        (folder / "out").mkdir()
        arguments = ["--o", "out/run", "--sgd_ini_iter", 50, "--sgd_inbetween_iter", 200, "--sgd_fin_iter", 50]
        arguments += ["--sgd_write_iter", 300, "--sgd_ini_resol", 35, "--sgd_fin_resol", 15, "--sgd_ini_subset", 100]
        arguments += ["--sgd_fin_subset", 500, "--sgd", "--denovo_3dref", "--i", "particles.star", "--ctf", "--K", 1]
        arguments += ["--sym", "C1"]
        arguments += ["--flatten_solvent", "--zero_mask", "--dont_combine_weights_via_disc", "--pool", 3, "--pad", 1]
        arguments += ["--skip_gridding", "--particle_diameter", round(given.diameter_ang * 1.1), "--oversampling", 1]
        arguments += ["--healpix_order", 1, "--offset_range", 6, "--offset_step", 4, "--j", 1, "--random_seed", 1]
        cpu_s = run_relion("relion_refine", *arguments, cwd=folder)
        volume = read_stack(folder / "out/run_it300_class001.mrc")
    setting = plan(given, "C1")
    small = resize_volume_3d(np.asarray(volume, np.float32), new_size=setting.grid.box_px)
    return {"cpu_s": round(cpu_s), "resolution_ang": round(against_truth_ang(small, given, setting), 1)}


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1001)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--relion", action="store_true")
    parser.add_argument("--relion-only", action="store_true")
    parser.add_argument("--phantoms", type=int, default=len(PHANTOMS))
    chosen = parser.parse_args()
    result = {"seed": chosen.seed, "count": chosen.count, "cores": os.environ.get("OMP_NUM_THREADS", "")}
    rows = []
    for name, symmetry in PHANTOMS[: 0 if chosen.relion_only else chosen.phantoms]:
        given = make_particles(name, n=chosen.count, snr=0.05, seed=chosen.seed, symmetry=symmetry, junk=0.1)
        found = run_starts(given, symmetry, chosen.starts, chosen.seed)
        result[f"{name}_{symmetry}"] = {"starts": found, "false_alarms": false_alarms(given, symmetry, chosen.seed)}
        rows.append(found)
        print(json.dumps(result[f"{name}_{symmetry}"]), file=sys.stderr, flush=True)
    if rows:
        right = [[one["resolution_ang"] <= RIGHT_ANG for one in some] for some in rows]
        flat = [one for some in rows for one in some]
        result["worst_right_of_10"] = min(round(10 * float(np.mean(some)), 1) for some in right)
        result["wrongly_judged"] = sum((one["resolution_ang"] <= RIGHT_ANG) != one["called_right"] for one in flat)
        result["cpu_s"] = round(float(np.median([one["cpu_s"] for one in flat])), 1)
        alarms = [part["right"] for key, value in result.items() if isinstance(value, dict) and "false_alarms" in value
                  for part in value["false_alarms"].values()]  # fmt: skip
        result["false_alarms"] = int(sum(alarms))
    if (chosen.relion or chosen.relion_only) and shutil.which("relion_refine"):
        given = make_particles("4zxb", n=chosen.count, snr=0.05, seed=chosen.seed, junk=0.1)
        result["relion"] = run_relion_initial_model(given)
        if rows:
            result["faster_than_relion"] = round(result["relion"]["cpu_s"] / result["cpu_s"], 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
