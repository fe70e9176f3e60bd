"""How many good exposures an order of holes gives: by raster, by the mean of the square, and by the score that was learnt.

Simulated grids alone, no images: each hole has a chance to give a good exposure, which nobody knows; an exposure is good or not
by that chance. All three orders see the same grid. Holes are chosen ten at a time, as a microscope is given them.
"""

import argparse
import json
import time

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.grid.choosing import Choice, choose_holes
from icestream.algorithms.grid.quality import Holes, measure_distance
from icestream.microscope.grid import GridSettings, SimulatedGrid, make_grid

N_EXPOSURES, N_FIRST = 400, 100
BATCH = 10
ORDERS = ("raster", "random", "square_mean", "without_ice", "learnt")
TUNED_ON, REPORTED = range(1, 9), range(1000, 1012)


def expose(grid: SimulatedGrid, order: str, *, seed: int, explore: float) -> tuple[float, float]:
    """Return the good exposures per 100 of one order, in all and among the first 100."""
    luck = np.random.default_rng(seed).random(len(grid.square))
    good = (luck < grid.good).astype(float)
    seen: list[int] = []
    while len(seen) < N_EXPOSURES:
        left = np.setdiff1d(np.arange(len(grid.square)), seen)
        seen += pick(grid, order, seen, good[seen], left, explore=explore)
    return 100 * float(good[seen[:N_EXPOSURES]].mean()), 100 * float(good[seen[:N_FIRST]].mean())


def pick(
    grid: SimulatedGrid, order: str, seen: list[int], quality: NDArray[np.float64], left: NDArray[np.int64], *, explore: float
) -> list[int]:
    """Return the next ten holes."""
    if order == "raster":
        return left[:BATCH].tolist()
    if order == "random":
        return np.random.default_rng(len(seen)).permutation(left)[:BATCH].tolist()
    if order == "square_mean":
        counts = np.bincount(grid.square[seen], minlength=len(grid.centres_yx_um))
        sums = np.bincount(grid.square[seen], quality, len(grid.centres_yx_um))
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), quality.mean() if len(quality) else 0.5)
        return left[np.argsort(-mean[grid.square[left]], kind="stable")[:BATCH]].tolist()
    distance = measure_distance(grid.yx_um, grid.square, grid.centres_yx_um)

    def part(which: NDArray[np.int64] | list[int]) -> Holes:
        return Holes(grid.yx_um[which], grid.square[which], distance[which])

    choice = choose_holes(
        part(np.array(seen, int)),
        quality,
        part(left),
        centres_yx_um=grid.centres_yx_um,
        explore=explore,
        most=BATCH,
        covariate=measured_ice(grid)[seen] if order == "learnt" else None,
    )
    return left[choice.order[:BATCH]].tolist()


def measured_ice(grid: SimulatedGrid) -> NDArray[np.float64]:
    """Return the logarithm of the thickness as it is measured: 20 % off by chance, and never less than 2 nm."""
    noise = np.random.default_rng(len(grid.square)).normal(size=len(grid.square))
    return np.log(np.maximum(grid.ice_ang, 20.0)) + 0.2 * noise


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", choices=("tuned", "reported"), default="reported")
    parser.add_argument("--explore", type=float, default=None)
    arguments = parser.parse_args()
    seeds = TUNED_ON if arguments.seeds == "tuned" else REPORTED
    settings = GridSettings(rows=6, columns=7)
    found: dict[str, list[float]] = {name: [] for name in (*ORDERS, "best_possible")}
    early: dict[str, list[float]] = {name: [] for name in ORDERS}
    began = time.perf_counter()
    for seed in seeds:
        grid = make_grid(settings, seed=seed, key=6)
        for order in ORDERS:
            explore = Choice.explore if arguments.explore is None else arguments.explore
            whole, first = expose(grid, order, seed=seed, explore=explore)
            found[order].append(whole)
            early[order].append(first)
        found["best_possible"].append(100 * float(np.sort(grid.good)[-N_EXPOSURES:].mean()))
    gain = np.array(found["learnt"]) / np.maximum(np.array(found["raster"]), 1e-9)
    line = {
        "benchmark": "next_holes",
        "seeds": [seeds[0], seeds[-1]],
        "n_grids": len(seeds),
        "holes": settings.rows * settings.columns * settings.holes_per_side**2,
        "exposures": N_EXPOSURES,
        **{f"{name}_good_per_100": round(float(np.mean(values)), 1) for name, values in found.items()},
        **{f"{name}_good_of_first_100": round(float(np.mean(early[name])), 1) for name in ("raster", "square_mean", "learnt")},
        "learnt_over_raster": round(float(np.mean(found["learnt"]) / np.mean(found["raster"])), 2),
        "learnt_over_square_mean": round(float(np.mean(found["learnt"]) / np.mean(found["square_mean"])), 2),
        "least_learnt_over_raster": round(float(gain.min()), 2),
        "grids_better_than_square_mean": int(sum(a > b for a, b in zip(found["learnt"], found["square_mean"], strict=True))),
        "wall_s": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
