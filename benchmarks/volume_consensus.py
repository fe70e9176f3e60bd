"""Consensus of initial volumes: how often one right candidate in four is found, and "none" said when none is.

Wrong candidates are searches that stopped in a wrong shape (beyond 35 Å), and other proteins brought to the same diameter. What
agrees with the truth to between 25 and 35 Å is neither right nor wrong, and takes no part. Every candidate is
judged as `find_consensus` does, on held-out particles that all share; trials draw four of them. For each phantom one consensus is
made to the end. Run ``OMP_NUM_THREADS=1 python benchmarks/volume_consensus.py --seeds 1001 1002``. Prints one JSON line.
"""

import argparse
import json
import sys
import time

import numpy as np
from scipy import ndimage

from icestream.algorithms.initial_volume import (
    find_initial_volume,
    improve,
    level_at,
    match_signal,
    measure_signal,
    search_views,
    weigh_evidence,
)
from icestream.algorithms.initial_volume.alternate import random_volume
from icestream.algorithms.volume_consensus import Agreement, SwarmSetting, decide, find_consensus
from icestream.algorithms.volumes import cut_volume_3d, resize_volume_3d
from initial_volume import RIGHT_ANG, against_truth_ang, plan, prepare
from particle_volumes import find_volume, make_particles

PHANTOMS = (("4zxb", ("6msm", "1gyt", "builtin")), ("1oel", ("1gyt", "4zxb", "builtin")), ("6msm", ("1oel", "1gyt", "builtin")))
FAILED, MOST_SEARCHES = 4, 12
WRONG_ANG = 35.0


def failed_run(train, setting, seed):
    """Return a volume of a search that follows its own first shape: few images, few passes, no forced balance of views."""
    generator = np.random.default_rng(seed)
    some = train.take(generator.permutation(len(train))[: int(generator.choice([100, 150, 250]))])
    volume = random_volume(some, setting=setting, generator=generator)
    passes = int(generator.integers(2, 6))
    for number in range(passes):
        ring = round(setting.start_ring + (setting.middle_ring - setting.start_ring) * number / (passes - 1))
        views = search_views(setting, 2, generator=generator)
        volume = improve(some, volume, views, setting=setting, level=level_at(setting, ring)).volume
    return volume


def other_protein(name, given, setting):
    """Return another protein, as wide as the particle."""
    volume, diameter_ang = find_volume(name, pixel_size_ang=given.pixel_size_ang, box_px=given.box_px)
    zoomed = ndimage.zoom(volume, given.diameter_ang / diameter_ang, order=1)
    even = zoomed if zoomed.shape[0] % 2 == 0 else np.pad(zoomed, ((0, 1),) * 3)
    return resize_volume_3d(cut_volume_3d(even, new_size=given.box_px), new_size=setting.grid.box_px)


def make_pool(name, others, seed, count):
    """Return the particles of a phantom and candidates for it, each with what held-out particles say of it."""
    given = make_particles(name, n=count, snr=0.05, seed=seed, junk=0.1)
    setting = plan(given, "C1")
    particles = prepare(given, setting)
    rows = np.random.default_rng(seed).permutation(len(particles))
    held, train = particles.take(np.sort(rows[:400])), particles.take(np.sort(rows[400:]))
    volumes = [("search", find_initial_volume(train, setting=setting, seed=seed + i, tries=1).volume) for i in range(2)]
    failed: list[np.ndarray] = []
    for i in range(MOST_SEARCHES):
        volume = failed_run(train, setting, 100 * seed + i)
        failed += [volume] if against_truth_ang(volume, given, setting) > WRONG_ANG else []
        if len(failed) == FAILED:
            break
    volumes += [("failed", volume) for volume in failed]
    volumes += [(other, other_protein(other, given, setting)) for other in others]
    power = measure_signal(particles)
    pool = []
    for kind, volume in volumes:
        evidence = weigh_evidence(held, match_signal(volume, power, setting=setting), power, setting=setting, seed=seed)
        reached = against_truth_ang(volume, given, setting)
        pool.append({"kind": kind, "volume": volume, "evidence": evidence, "ang": reached})
    return given, setting, particles, pool


def run_trial(pool, with_right, generator):
    """Draw four candidates, one or none of them right; return whether the verdict is as it should be."""
    right = [i for i, one in enumerate(pool) if one["ang"] <= RIGHT_ANG]
    wrong = [i for i, one in enumerate(pool) if one["ang"] > WRONG_ANG]
    drawn = generator.permutation([*generator.choice(wrong, 4 - with_right, replace=False), *generator.choice(right, with_right)])
    # With one right candidate at most, who is like whom changes nothing: each is a group of its own.
    best, agrees = decide([pool[i]["evidence"] for i in drawn], Agreement(np.eye(4), np.arange(4)))
    if not with_right:
        return not agrees.any()
    return bool(agrees.any() and drawn[best] in right and agrees.sum() == 1)


def make_whole(given, setting, particles, pool, seed):
    """Make one consensus to the end, of one right candidate and three wrong ones, and judge it against the truth."""
    order = sorted(range(len(pool)), key=lambda i: pool[i]["ang"])
    chosen = [pool[i]["volume"] for i in (order[0], *order[-3:])]
    before = time.process_time()
    swarm = SwarmSetting(rounds=3)
    found = find_consensus(chosen, particles, setting=setting, swarm=swarm, seed=seed)
    reached = None if found.volume is None else round(against_truth_ang(found.volume, given, setting), 1)
    return {"resolution_ang": reached, "agrees": found.agrees.tolist(), "cpu_s": round(time.process_time() - before, 1)}


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1001])
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--trials", type=int, default=20)
    chosen = parser.parse_args()
    result = {"seeds": chosen.seeds, "pools": [], "whole": []}
    pools = []
    for seed in chosen.seeds:
        for name, others in PHANTOMS:
            given, setting, particles, pool = make_pool(name, others, seed, chosen.count)
            rows = [
                [one["kind"], round(one["ang"], 1), round(one["evidence"].explained, 3), one["evidence"].is_right] for one in pool
            ]
            result["pools"].append({"phantom": name, "candidates": rows})
            print(json.dumps(result["pools"][-1]), file=sys.stderr, flush=True)
            if any(one["ang"] <= RIGHT_ANG for one in pool):
                pools.append(pool)
            if seed == chosen.seeds[0]:
                result["whole"].append(make_whole(given, setting, particles, pool, seed))
                print(json.dumps(result["whole"][-1]), file=sys.stderr, flush=True)
    generator = np.random.default_rng(chosen.seeds[0])
    for name, with_right in (("found_of_20", 1), ("none_of_20", 0)):
        right = sum(run_trial(pools[i % len(pools)], with_right, generator) for i in range(chosen.trials))
        result[name] = round(20 * right / chosen.trials, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
