"""Picks in images of pure noise: python benchmarks/picking_on_noise.py <first seed> <seeds>.

Promised is that one image in twenty has any pick. Six kinds of noise are drawn for each seed: white on ice of uneven thickness,
and noise behind a contrast transfer function, at several image sizes, pixel sizes and particle diameters. Prints one JSON line.
Seeds below 100 served for development.
"""

import json
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.matched_picker.pick import pick_particles_2d as pick_with_matched_filter
from icestream.algorithms.particles.pick_blob import pick_particles_2d

WHITE = (((480, 560), (30, 42), 25), ((700, 720), (70, 90), 56), ((900, 800), (24, 32), 20))
"""Shape, diameters and distance of picks in pixels."""
BEHIND_A_CTF = (
    ((1000, 960), 1.5, 1.0, True, (42, 58), 35),
    ((1400, 1440), 1.0, 2.0, True, (100, 135), 80),
    ((800, 700), 3.0, 3.0, False, (33, 45), 28),
)
"""Shape, pixel size in Å, defocus in µm, whether the ice is uneven, diameters and distance."""
WAVELENGTH_ANG = 0.0197


def draw_white(shape: tuple[int, int], seed: int, *, ice_px: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ice = ndimage.gaussian_filter(rng.normal(size=shape), ice_px)
    return (20 * (rng.normal(size=shape) + 0.5 * ice / ice.std()) + 1000).astype(np.float32)


def draw_behind_a_ctf(shape: tuple[int, int], seed: int, *, pixel_ang: float, defocus_um: float, uneven: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    square = np.fft.fftfreq(shape[0], pixel_ang)[:, None] ** 2 + np.fft.rfftfreq(shape[1], pixel_ang)[None] ** 2
    phase = np.pi * WAVELENGTH_ANG * defocus_um * 1e4 * square - 0.5 * np.pi * 2.7e7 * WAVELENGTH_ANG**3 * square**2
    transfer = np.sin(phase + 0.07) * np.exp(-20 * square)
    image = np.fft.irfft2(np.fft.rfft2(rng.normal(size=shape)) * transfer, s=shape)
    image = image / image.std() + 0.7 * rng.normal(size=shape)
    if uneven:
        ice = ndimage.gaussian_filter(rng.normal(size=shape), 60)
        image += 0.5 * ice / ice.std()
    return (100 * image + 1000).astype(np.float32)


def draw_all(first: int, seeds: int) -> Iterator[tuple[str, NDArray[np.float32], tuple[int, int], int]]:
    """Yield the kind of noise, an image of it, and the diameters and the distance of what is looked for."""
    for seed in range(first, first + seeds):
        for shape, diameter, distance in WHITE:
            yield f"white_{shape[0]}", draw_white(shape, seed, ice_px=2.0 * sum(diameter)), diameter, distance
        for shape, pixel_ang, defocus_um, uneven, diameter, distance in BEHIND_A_CTF:
            image = draw_behind_a_ctf(shape, seed, pixel_ang=pixel_ang, defocus_um=defocus_um, uneven=uneven)
            yield f"ctf_{shape[0]}", image, diameter, distance


def main(first: int, seeds: int) -> None:
    counts: dict[str, dict[str, list[int]]] = {"learned_template": {}, "matched_filter": {}}
    for kind, image, diameter, distance in draw_all(first, seeds):
        found = pick_particles_2d(-image, diameter_px=diameter, min_distance_px=distance).score
        filtered = pick_with_matched_filter(-image, diameter_px=diameter, min_distance_px=distance).score
        for name, score in (("learned_template", found), ("matched_filter", filtered)):
            counts[name].setdefault(kind, []).append(len(score))
    line: dict[str, object] = {"benchmark": "picking_on_noise"}
    for name, kinds in counts.items():
        every = [count for kind in kinds.values() for count in kind]
        with_picks = int(np.count_nonzero(every))
        line[name] = {"images": len(every), "share_with_picks": round(with_picks / len(every), 3), "picks": kinds}
    print(json.dumps(line))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
