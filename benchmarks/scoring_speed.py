"""CPU milliseconds for one image, and poses a second, of the scoring kernel alone.

Run ``OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/scoring_speed.py`` on an idle machine. Prints one JSON line:
K = 50 with 29 shifts and 48 angles, 600 views with 5 shifts and 32 angles (a prototype took 1.14 and 1.8 ms without weights),
soft weights included; the same from coarse to fine, with all angles that the rings ask for; what the span of the references
spares, and what the mean of CTF² over a ring costs in the norm of references where there is astigmatism.
"""

import json
import time

import numpy as np

from icestream.algorithms.scoring.bank import make_bank, make_level
from icestream.algorithms.scoring.cascade import Cascade, search_cascade_2d
from icestream.algorithms.scoring.contrast import ctf_polar_2d
from icestream.algorithms.scoring.particles import prepare_images_2d, reference_orders_2d
from icestream.algorithms.scoring.polar import PolarGrid, sample_polar_2d, soft_disc_2d
from icestream.algorithms.scoring.polish import polish_poses_2d
from icestream.algorithms.scoring.search import pick_significant, score_turns, search_poses_2d
from icestream.microscope.phantom import build_phantom
from icestream.microscope.projection import project_2d, transform_volume
from icestream.microscope.score_classes import sphere_directions_deg

BOX, PIXEL_ANG, RINGS, COUNT = 64, 3.0, 28, 256
GRID = PolarGrid(BOX, RINGS, 120)
OPTICS = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "phase_shift_deg": 0.0}
RADIUS_PX, EDGE_PX = 24.0, 3.0


def views(volume, step_deg):
    images = [project_2d(volume, rot_deg=rot, tilt_deg=tilt, psi_deg=0.0) for rot, tilt in sphere_directions_deg(step_deg)]
    return np.stack([np.pad(image, (BOX - image.shape[0]) // 2) for image in images]).astype(np.float32)


def particles_of(images, *, snr=0.05, seed=0, astigmatism_ang=0.0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, np.sqrt(images.var() / snr), (COUNT, BOX, BOX))
    seen = (images[rng.integers(len(images), size=COUNT)] + noise).astype(np.float32)
    ctf = np.stack([
        -ctf_polar_2d(
            GRID, box_ang=BOX * PIXEL_ANG, defocus_u_ang=defocus + astigmatism_ang, defocus_v_ang=defocus,
            astigmatism_angle_deg=rng.uniform(0, 180), **OPTICS,
        )
        for defocus in rng.uniform(8000, 20000, COUNT)
    ])  # fmt: skip
    half_set = np.zeros(COUNT, np.int8)
    prepared = prepare_images_2d(seen, ctf, grid=GRID, mask_radius_px=RADIUS_PX, edge_px=EDGE_PX, half_set=half_set)
    return (
        prepared,
        ctf,
        np.full(RINGS, noise.var() * (soft_disc_2d(BOX, radius_px=RADIUS_PX, edge_px=EDGE_PX) ** 2).sum(), np.float32),
    )


def timed(call, count=COUNT):
    call()
    began = time.process_time()
    result = call()
    return 1e3 * (time.process_time() - began) / count, result


def measure(orders, particles, noise, *, n_turns, reach_px):
    level = make_level(GRID, n_rings=RINGS, n_turns=n_turns, shift_step_px=1.0, max_shift_px=reach_px)
    overlap = np.pi * (RADIUS_PX + EDGE_PX / 2) ** 2 / BOX**2
    made, bank = timed(lambda: make_bank(orders, grid=GRID, level=level, noise_power=noise, overlap=overlap), len(orders))
    search_ms, poses = timed(lambda: search_poses_2d(particles, bank))
    few = particles.take(np.arange(16))
    products_ms, (even, odd) = timed(lambda: score_turns(few, bank), 16)
    pick_ms, _ = timed(lambda: pick_significant(even, odd, bank.n_shifts, 7.0, 400), 16)
    total = bank.n_references * bank.n_shifts * n_turns
    return {
        "references": bank.n_references, "shifts": bank.n_shifts, "angles": n_turns, "poses": total,
        "ms_per_image": round(search_ms, 3), "million_poses_per_s": round(total / search_ms / 1e3, 1),
        "products_ms": round(products_ms, 3), "weights_ms": round(pick_ms, 3), "bank_ms_per_reference": round(made, 3),
        "rank": int(bank.starts[-1]), "rank_of_rings_and_orders": RINGS * len(bank.basis),
        "significant_poses": round(len(poses.particle) / COUNT, 1),
    }, bank, poses  # fmt: skip


def fine_search(orders, particles, noise):
    """Compare the whole search at all angles with the one from coarse to fine, and polish what it finds."""
    overlap = np.pi * (RADIUS_PX + EDGE_PX / 2) ** 2 / BOX**2
    whole, fine, poses = measure(orders, particles, noise, n_turns=120, reach_px=3.0)
    level = make_level(GRID, n_rings=2 * RINGS // 3, n_turns=60, shift_step_px=1.5, max_shift_px=3.0)
    coarse = make_bank(orders, grid=GRID, level=level, noise_power=noise, overlap=overlap)
    cascade_ms, found = timed(lambda: search_cascade_2d(particles, Cascade(coarse, fine)))
    best = found.best()
    polish_ms, polished = timed(
        lambda: polish_poses_2d(
            particles, orders, class_id=found.class_id[best], psi_rad=found.turn[best] * (2 * np.pi / 120),
            shift_yx_px=fine.level.shifts_yx_px[found.shift[best]], grid=GRID, level=fine.level, shift_step_px=1.0,
            noise_power=noise, overlap=overlap,
        )
    )  # fmt: skip
    return {
        "whole_ms": whole["ms_per_image"], "coarse_to_fine_ms": round(cascade_ms, 3),
        "same_best_pose_or_gain": round(float((np.abs(found.gain - poses.gain) < 0.1).mean()), 3),
        "polish_ms": round(polish_ms, 3), "polish_gains": round(float(polished.gained.mean()), 2),
    }  # fmt: skip


def norm_error(images, astigmatism_ang):
    """Return how much the ring mean of CTF² changes the norm of references, and differences between references of it."""
    particles, ctf, noise = particles_of(images, astigmatism_ang=astigmatism_ang)
    overlap = np.pi * (RADIUS_PX + EDGE_PX / 2) ** 2 / BOX**2
    weight = 2 * np.pi * GRID.radii() * overlap / GRID.n_angles / noise
    power = np.square(np.abs(sample_polar_2d(images, grid=GRID))) * weight[:, None]  # (k, n_rings, half)
    exact = np.einsum("nra,kra->nk", np.square(ctf), power)
    ring = particles.ctf_squared @ power.sum(axis=-1).T
    between = (ring - exact) - (ring - exact).mean(axis=1, keepdims=True)
    return {
        "norm": round(float(exact.mean()), 2), "rms_error": round(float((ring - exact).std()), 3),
        "rms_error_between_references": round(float(between.std()), 3), "worst": round(float(np.abs(between).max()), 3),
    }  # fmt: skip


def main() -> None:
    phantom = build_phantom(120.0, pixel_size_ang=PIXEL_ANG, seed=5)
    volume = transform_volume(phantom.volume)
    few, many = views(volume, 28.9), views(volume, 8.29)
    particles, _, noise = particles_of(few)
    line: dict[str, object] = {"benchmark": "scoring_speed"}
    orders = {len(images): reference_orders_2d(images, grid=GRID) for images in (few, many)}
    line["classes"], _, _ = measure(orders[len(few)], particles, noise, n_turns=48, reach_px=3.0)
    line["views"], _, _ = measure(orders[len(many)], particles, noise, n_turns=32, reach_px=1.0)
    line["fine"] = fine_search(orders[len(few)], particles, noise)
    line["astigmatism"] = {f"{value} Å": norm_error(few, value) for value in (200, 500, 1000, 2000)}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
