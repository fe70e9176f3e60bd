"""Micrographs of simple particles at known places, and how well picks agree with them."""

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist


def draw_particle(kind: str, *, diameter_px: float, angle_rad: float) -> np.ndarray:
    """A dark projection (negative values) in a box of 1.5 diameters: ring, disc, or an asymmetric elongated body."""
    half = int(0.75 * diameter_px)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    radius = np.hypot(y, x)
    if kind == "ring":
        image = np.exp(-0.5 * ((radius - 0.4 * diameter_px) / (0.07 * diameter_px)) ** 2)
    elif kind == "disc":
        image = np.sqrt(np.clip(1 - (2 * radius / diameter_px) ** 2, 0, None))
    else:
        along, across = x * np.cos(angle_rad) + y * np.sin(angle_rad), y * np.cos(angle_rad) - x * np.sin(angle_rad)
        body = (along / (0.5 * diameter_px)) ** 2 + (across / (0.25 * diameter_px)) ** 2
        image = np.sqrt(np.clip(1 - body, 0, None)) * (1 + 0.5 * np.tanh(4 * along / diameter_px))
    return -image / image.std()


def draw_micrograph(
    kind: str, *, n_particles: int, shape: tuple[int, int], diameter_px: float, noise: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Particles no closer than a diameter on ice whose thickness varies, with noise; returns the image and ``(n, 2)`` centres."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    centres: list[np.ndarray] = []
    half = int(0.75 * diameter_px)
    while len(centres) < n_particles:
        centre = np.round(rng.uniform(half, np.array(shape) - half - 1)).astype(int)
        if all(np.hypot(*(centre - other)) >= diameter_px for other in centres):
            box = (slice(centre[0] - half, centre[0] + half + 1), slice(centre[1] - half, centre[1] + half + 1))
            image[box] += draw_particle(kind, diameter_px=diameter_px, angle_rad=rng.uniform(0, 2 * np.pi))
            centres.append(centre)
    image -= ndimage.gaussian_filter(image, 0.6 * diameter_px)  # defocus keeps little of the lowest frequencies
    ice = ndimage.gaussian_filter(rng.normal(size=shape), 4 * diameter_px)
    image += noise * (rng.normal(size=shape) + 0.5 * ice / ice.std())
    return (image * 10 + 1000).astype(np.float32), np.array(centres, dtype=float).reshape(-1, 2)


def f1_score(picked: np.ndarray, truth: np.ndarray, *, radius_px: float) -> float:
    """2 TP / (2 TP + FP + FN), pairs by the best assignment within the radius."""
    if not len(picked) or not len(truth):
        return 0.0
    cost = cdist(picked, truth)
    rows, columns = linear_sum_assignment(np.where(cost <= radius_px, cost, 1e6))
    hits = int(np.count_nonzero(cost[rows, columns] <= radius_px))
    return 2 * hits / (len(picked) + len(truth))
