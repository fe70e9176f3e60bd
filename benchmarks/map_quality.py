"""How true is what is said of a map: resolution, error bars, verdicts on noise, symmetry, views, local resolution? One JSON line.

Half maps are a phantom with noise of its own in each, whose shell correlation is ``1 / (1 + 6 (d0 / d)^6)`` over the box, or are
reconstructed from simulated particles at their true poses.

python benchmarks/map_quality.py --seed 1000 --count 20
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from icestream.algorithms.map_quality.local_resolution import measure_local_resolution
from icestream.algorithms.map_quality.mask import find_mask_3d, soften
from icestream.algorithms.map_quality.orientations import measure_conical_fsc, measure_coverage
from icestream.algorithms.map_quality.resolution import compare_with_truth, measure_resolution
from icestream.algorithms.map_quality.sharpening import sharpen_3d
from icestream.algorithms.map_quality.shells import (
    distance_from_centre,
    invert_3d,
    low_pass_3d,
    mean_shells,
    shell_radius,
    transform_3d,
    weight_shells,
)
from icestream.algorithms.map_quality.symmetry import suggest_symmetry, turn_about
from icestream.algorithms.volumes import random_rotations, rotations_about, symmetry_group
from icestream.io.image import read_stack, write_mrc
from particle_volumes import find_volume, make_particles, run_relion, true_pose_volumes

BOX_PX = 64
PHANTOMS = (("6msm", 3.5), ("4zxb", 4.0), ("powerfit", 5.0), ("1gyt", 3.7), ("betaGal", 3.54))
SYMMETRIC = {
    "C1": (("6msm", 3.5, "C1"), ("4zxb", 4.0, "C1"), ("8zpm", 2.5, "C1"), ("powerfit", 5.0, "C1")),
    "C7": (("1aon", 4.4, "C1"), ("1oel", 3.6, "C1"), ("6msm", 4.4, "C7")),
    "D7": (("1MNF", 3.7, "C1"), ("6msm", 4.4, "D7"), ("8zpm", 4.4, "D7")),
    "O": (("8zpm", 4.4, "O"), ("6msm", 4.4, "O"), ("4zxb", 4.4, "O")),
    "C2": (("6msm", 4.4, "C2"), ("8zpm", 4.0, "C2")),
    "D2": (("betaGal", 3.54, "C1"), ("8zpm", 4.0, "D2")),
    "T": (("8zpm", 4.4, "T"), ("4zxb", 4.4, "T")),
    "I": (("8zpm", 4.4, "I"),),
}
NOISE = (
    "white",
    "coloured",
    "offset",
    "masked by a ball",
    "masked by a particle",
    "offset and ball",
    "offset and particle",
    "C4",
)


def phantom(name, pixel_ang, symmetry="C1", *, box_px=BOX_PX):
    """A true volume of spread 1."""
    volume = np.asarray(find_volume(name, pixel_size_ang=pixel_ang, box_px=box_px, symmetry=symmetry)[0], dtype=np.float64)
    return volume / volume.std()


def noisy_halves(volume, *, limit, rng, noise_of=None):
    """Two halves whose correlation over the box falls to 0.143 at the shell ``limit``, and that correlation.

    The noise is that of another volume if ``noise_of`` is given.
    """
    box = volume.shape[0]
    power = mean_shells(np.abs(transform_3d(volume if noise_of is None else noise_of)) ** 2, box_px=box)
    curve = correlation_of(len(power), limit)
    scale = np.sqrt(power * (1 - curve) / curve / box**3)
    spread = np.interp(shell_radius(box), np.arange(len(power)), scale)
    halves = [
        invert_3d(transform_3d(volume) + transform_3d(rng.standard_normal(volume.shape)) * spread, box_px=box) for _ in range(2)
    ]
    return halves, curve


def correlation_of(n_shells, limit):
    """The correlation of halves by shell."""
    return 1 / (1 + 6 * (np.arange(n_shells) / limit) ** 6)


def turned(volume, rng):
    """The volume in any orientation, its centre off by up to a pixel."""
    middle = np.full(3, volume.shape[0] // 2) + rng.uniform(-0.5, 0.5, 3)
    return turn_about(volume, random_rotations(1, generator=rng)[0], middle).astype(np.float64)


def judge(halves, pixel_ang, *, order=1):
    """Mask and resolution of two halves."""
    found = find_mask_3d(*halves, pixel_size_ang=pixel_ang)
    return found, measure_resolution(halves[0], halves[1], found.mask, pixel_size_ang=pixel_ang, symmetry_order=order)


def honest(options):
    """Resolution of halves over that of their mean against the truth, and how often it is called a map."""
    ratios, maps = [], 0
    for index in range(options.count):
        rng = np.random.default_rng(options.seed + index)
        name, pixel = PHANTOMS[index % len(PHANTOMS)]
        truth = phantom(name, pixel)
        halves, _ = noisy_halves(truth, limit=rng.uniform(9, 24), rng=rng)
        found, measured = judge(halves, pixel)
        maps += measured.verdict in ("map", "pixel_limit")
        against = compare_with_truth(0.5 * (halves[0] + halves[1]), truth, found.mask, pixel_size_ang=pixel)[1]
        ratios.append((measured.resolution_ang or np.inf) / against)
    return {"called_map": maps / options.count, **spread_of(ratios)}


def spread_of(ratios):
    """Median and worst deviation from 1, percent."""
    off = 100 * np.abs(np.array(ratios) - 1)
    return {"median_off_percent": round(float(np.median(off)), 2), "worst_off_percent": round(float(off.max()), 2)}


def honest_particles(options):
    """The same of halves that were reconstructed from particles at their true poses."""
    ratios = []
    for index, (name, pixel, symmetry) in enumerate((("6msm", 3.75, "C1"), ("4zxb", 3.75, "C1"), ("8zpm", 3.75, "D2"))):
        given = make_particles(
            name, n=600, snr=0.05, seed=options.seed + index, pixel_size_ang=pixel, symmetry=symmetry, junk=0.1
        )
        halves = true_pose_volumes(given)[1]
        found, measured = judge(halves, pixel, order=len(given.group))
        mean = 0.5 * (halves[0] + halves[1])
        against = compare_with_truth(mean, given.volume, found.mask, pixel_size_ang=pixel)[1]
        ratios.append((measured.resolution_ang or np.inf) / against)
    return spread_of(ratios)


def error_bars(options):
    """Spread of the correlation over repeated noise, over what its error bars say: median over shells where it is 0.1 to 0.9."""
    truth, pixel = phantom("6msm", 3.5), 3.5
    rng = np.random.default_rng(options.seed)
    clean = find_mask_3d(truth, truth, pixel_size_ang=pixel)
    runs = [
        measure_resolution(one, other, clean.mask, pixel_size_ang=pixel)
        for (one, other), _ in (noisy_halves(truth, limit=15, rng=rng) for _ in range(max(options.count, 12)))
    ]
    curves, errors = np.stack([run.fsc for run in runs]), np.mean([run.error for run in runs], axis=0)
    used = (curves.mean(axis=0) > 0.1) & (curves.mean(axis=0) < 0.9)
    limits = [run.resolution_ang or np.inf for run in runs]
    widths = [run.range_ang[0] - run.range_ang[1] for run in runs]
    return {
        "spread_over_error": round(float(np.median(curves.std(axis=0, ddof=1)[used] / errors[used])), 3),
        "resolution_spread_over_half_range": round(float(np.std(limits, ddof=1) / np.mean(widths) * 2), 3),
    }


def draw_noise(kind, rng, *, pixel_ang, shape):
    """Two halves without any particle, with what they may share all the same."""
    halves = list(rng.standard_normal((2, BOX_PX, BOX_PX, BOX_PX)))
    if kind == "coloured":
        halves = [low_pass_3d(one, resolution_ang=40, pixel_size_ang=pixel_ang) + 0.05 * one for one in halves]
    if kind == "C4":
        halves = [sum(np.rot90(one, turn, (1, 2)) for turn in range(4)) for one in halves]
    if "offset" in kind:
        halves = [one + 1 for one in halves]
    ball = soften(distance_from_centre(BOX_PX) < 24, grow_px=0, edge_px=4)
    return [one * (ball if "ball" in kind else shape if "particle" in kind else 1) for one in halves]


def noise(options):
    """How many halves of noise get a resolution."""
    pixel, reported, tried = 4.0, [], 0
    truth = phantom("4zxb", pixel)
    shape = find_mask_3d(truth, truth, pixel_size_ang=pixel).mask
    for kind in NOISE:
        for index in range(options.count):
            halves = draw_noise(kind, np.random.default_rng(options.seed + index), pixel_ang=pixel, shape=shape)
            measured = judge(halves, pixel, order=4 if kind == "C4" else 1)[1]
            tried += 1
            reported += [kind] if measured.resolution_ang is not None else []
    return {"tried": tried, "reported": len(reported), "kinds": sorted(set(reported))}


def symmetry(options):
    """How many of the suggestions are right, by group; halves in any orientation, resolution 3.5 to 8 pixels."""
    result = {}
    for name, sources in SYMMETRIC.items():
        right, wrong, began = 0, [], time.process_time()
        truths = [phantom(source, pixel, group) for source, pixel, group in sources]
        for index in range(options.count):
            rng = np.random.default_rng(options.seed + index)
            pixel, truth = sources[index % len(sources)][1], truths[index % len(sources)]
            halves, _ = noisy_halves(turned(truth, rng), limit=BOX_PX / rng.uniform(3.5, 8), rng=rng)
            found, measured = judge(halves, pixel)
            suggested = suggest_symmetry(halves[0], halves[1], found.mask, measured.fsc).name
            right += suggested == name
            wrong += [f"{sources[index % len(sources)][0]} {index}: {suggested}"] if suggested != name else []
        seconds = (time.process_time() - began) / options.count
        result[name] = {"right": right, "of": options.count, "wrong": wrong, "cpu_s": round(seconds, 1)}
    return result


def draw_views(rng, n):
    """Views from a density that prefers, or avoids, an axis, and many of the same density."""
    strength, axis = rng.uniform(-4, 4), random_rotations(1, generator=rng)[0][0]

    def some(count):
        kept = [np.zeros((0, 3))]
        while sum(len(one) for one in kept) < count:
            views = random_rotations(8 * count, generator=rng)[:, 2]
            density = np.exp(strength * ((views @ axis) ** 2 - (strength > 0)))
            kept.append(views[rng.random(len(views)) < density])
        return np.concatenate(kept)[:count]

    return some(n), some(40000)


def views(options):
    """Efficiency from 2,000 particles with errors of 2°, a tenth at random, less that of their density; conical correlation."""
    off, with_group = [], []
    for index in range(options.count):
        rng = np.random.default_rng(options.seed + index)
        seen, many = draw_views(rng, 2000)
        turns = rotations_about(np.deg2rad(2.0) * rng.standard_normal((len(seen), 3)))
        blurred = np.einsum("nij,nj->ni", turns, seen)
        blurred[:200] = random_rotations(200, generator=rng)[:, 2]
        off.append(measure_coverage(blurred).efficiency - measure_coverage(many).efficiency)
        group = symmetry_group("C4")
        both = (measure_coverage(one, operations=group).efficiency for one in (blurred, many))
        with_group.append(next(both) - next(both))
    return {
        "worst_off": round(float(np.abs(off).max()), 3),
        "worst_off_with_symmetry": round(float(np.abs(with_group).max()), 3),
        "area_ratio": area_ratios(options),
    }


def area_ratios(options):
    """Area ratio of an isotropic map, and of one without the views along a cone of 40°."""
    truth, pixel = phantom("powerfit", 5.0), 5.0
    rng = np.random.default_rng(options.seed)
    halves, _ = noisy_halves(truth, limit=20, rng=rng)
    found = find_mask_3d(*halves, pixel_size_ang=pixel)
    ratios = [measure_conical_fsc(halves[0], halves[1], found.mask, pixel_size_ang=pixel).area_ratio]
    k = np.fft.fftfreq(BOX_PX)
    z = np.abs(k)[:, None, None]
    missing = z > np.cos(np.deg2rad(40)) * shell_radius(BOX_PX) / BOX_PX
    fill = [transform_3d(rng.standard_normal(truth.shape)) * np.abs(transform_3d(half)).mean() / BOX_PX**1.5 for half in halves]
    worse = [
        invert_3d(np.where(missing, extra, transform_3d(half)), box_px=BOX_PX) for half, extra in zip(halves, fill, strict=True)
    ]
    ratios.append(measure_conical_fsc(worse[0], worse[1], found.mask, pixel_size_ang=pixel).area_ratio)
    return {"isotropic": round(ratios[0], 3), "cone_missing": round(ratios[1], 3)}


def local(options):
    """Local resolution of a map with one part blurred, over that of maps sharp and blurred as a whole (0.5, same mask)."""
    ratios, finer = [], []
    for index in range(min(options.count, 10)):
        rng = np.random.default_rng(options.seed + index)
        name, pixel = PHANTOMS[index % len(PHANTOMS)]
        truth, (fine, coarse) = phantom(name, pixel), (rng.uniform(17, 23), rng.uniform(9, 13))
        weights = np.exp(-3 * np.log(fine / coarse) * (np.arange(BOX_PX // 2) / coarse) ** 2)
        blurred = invert_3d(weight_shells(transform_3d(truth), weights, box_px=BOX_PX), box_px=BOX_PX).astype(np.float64)
        x = np.arange(BOX_PX) - BOX_PX // 2
        part = (1 / (1 + np.exp(-x / 1.5)))[None, None, :]
        maps = [truth, blurred, truth * (1 - part) + blurred * part]
        sharp, soft, mixed = (noisy_halves(one, limit=fine, rng=rng, noise_of=truth)[0] for one in maps)
        found, measured = judge(mixed, pixel)
        finest = 0.8 * measured.resolution_ang
        where = measure_local_resolution(mixed[0], mixed[1], found.mask, pixel_size_ang=pixel, finest_ang=finest).resolution_ang
        inside = found.mask > 0.5
        sides = [where[inside & side[None, None, :]] for side in (x < -5, x > 5)]
        for volumes, values in zip((sharp, soft), sides, strict=True):
            expected = measure_resolution(volumes[0], volumes[1], found.mask, pixel_size_ang=pixel).resolution_half_ang
            ratios.append(float(np.median(values)) / expected)
        finer.append(float(np.mean(rng.choice(sides[0], 2000) < rng.choice(sides[1], 2000))))
    return {**spread_of(ratios), "finer_side_is_finer": round(float(np.mean(finer)), 3)}


def beside_relion(options):
    """What relion_postprocess finds of the same halves and mask."""
    if shutil.which("relion_postprocess") is None:
        return None
    rng, pixel = np.random.default_rng(options.seed), 2.0
    halves, _ = noisy_halves(phantom("powerfit", 5.0), limit=24, rng=rng)
    found, measured = judge(halves, pixel)
    sharp = sharpen_3d(halves[0], halves[1], measured.fsc, pixel_size_ang=pixel, resolution_ang=measured.resolution_ang)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "post").mkdir()
        for name, volume in (("half1_unfil", halves[0]), ("half2_unfil", halves[1]), ("mask", found.mask)):
            write_mrc(place / f"{name}.mrc", volume, pixel_size_ang=pixel, remember=False)
        arguments = "--i half1_unfil.mrc --i2 half2_unfil.mrc --mask mask.mrc --angpix 2 --auto_bfac --autob_lowres 10 --o post"
        seconds = run_relion("relion_postprocess", *arguments.split(), cwd=place)
        words = [line.split() for line in (place / "post.star").read_text().splitlines() if line.startswith("_rln")]
        theirs = {line[0]: line[1] for line in words if len(line) == 2}
        same = float(np.corrcoef(read_stack(place / "post.mrc").ravel(), sharp.volume.ravel())[0, 1])
    return {
        "resolution_ang": float(theirs["_rlnFinalResolution"]),
        "b_factor_ang2": float(theirs["_rlnBfactorUsedForSharpening"]),
        "cpu_s": round(seconds, 2),
        "ours_resolution_ang": round(measured.resolution_ang, 3),
        "ours_b_factor_ang2": round(sharp.b_factor_ang2 or 0.0, 1),
        "correlation_of_maps": round(same, 4),
        "resolution_off_percent": round(100 * abs(measured.resolution_ang / float(theirs["_rlnFinalResolution"]) - 1), 2),
    }


def main():
    parts = (honest, honest_particles, error_bars, noise, symmetry, views, local, beside_relion)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=[part.__name__ for part in parts])
    options = parser.parse_args()
    report = {"benchmark": "map_quality", "seed": options.seed, "count": options.count}
    for part in parts:
        if not options.only or part.__name__ in options.only:
            report[part.__name__] = part(options)
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
