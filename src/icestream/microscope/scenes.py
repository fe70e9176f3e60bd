"""What may lie in the beam instead of particles in clean vitreous ice: nothing, bare ice, crystals, contamination, carbon.

Everything is added to the waves of `Specimen` in the same linear approximation: a thing of thickness ``t`` takes
``1 - exp(-t / mean free path)`` of the electrons, which is a wave of its own that the lens passes as it is, and shifts the phase
by ``sigma * V * t``, which is levelled off at a quarter of a radian, because the approximation holds for weak phases only. The
edges so get their Fresnel fringes from the CTF.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial import cKDTree

from icestream.microscope.exposure import Specimen
from icestream.microscope.potential import ICE_POTENTIAL_V, interaction_parameter_rad_per_v_ang
from icestream.microscope.settings import Scene
from icestream.microscope.truth import ExposureTruth

HEXAGONAL_ICE_ANG = (3.90, 3.67, 3.44)
"""Spacings of the strongest reflections of hexagonal ice: 100, 002, 101 (Dowell & Rinfret 1960, Nature 188, 1144)."""

_MEAN_FREE_PATH_ANG = {"ice": 3200.0, "carbon": 1800.0}
CARBON_POTENTIAL_V = 7.8
_CARBON_GRAIN_RAD2_ANG2_PER_ANG = 2.4e-4
_LARGEST_PHASE_RAD = 0.25
_DOMAIN_ANG = (150.0, 450.0)
BRAGG_PHASE_RAD = 0.08
DOMAIN_LOSS = 0.07


@dataclass(frozen=True)
class Cover:
    """What is added to a specimen: phase, share of electrons that pass, and where it is; ``(H, W)`` each."""

    phase_rad: NDArray[np.float32]
    transmission: NDArray[np.float32]
    mask: NDArray[np.bool_]


def add_scene(specimen: Specimen, truth: ExposureTruth, *, generator: np.random.Generator) -> Specimen:
    """Return the specimen with what its scene puts in the beam; the same specimen where the scene adds nothing."""
    cover = draw_cover(truth, specimen.canvas, generator=generator)
    return specimen if cover is None else add_cover(specimen, cover)


def add_cover(specimen: Specimen, cover: Cover) -> Specimen:
    """Return the specimen with the phase of a cover, and with one wave more: the electrons that the cover takes."""
    none = np.zeros((1, *specimen.ice.shape[1:]), np.complex64)
    ice = np.concatenate([specimen.ice, fft.rfft2(cover.transmission - np.float32(1))[None]])  # (n_waves + 1, H, W // 2 + 1)
    ice[0] += fft.rfft2(cover.phase_rad)
    lens = np.concatenate([specimen.lens, np.ones(none.shape, np.float32)])
    return replace(specimen, ice=ice, particles=np.concatenate([specimen.particles, none]), lens=lens)


def draw_cover(truth: ExposureTruth, canvas: tuple[int, int], *, generator: np.random.Generator) -> Cover | None:
    """Draw crystals, contamination or a carbon film over ``canvas``; None for the other scenes."""
    if truth.scene is Scene.CRYSTALLINE_ICE:
        return _draw_crystals(truth, canvas, generator)
    if truth.scene is Scene.CONTAMINATION:
        return _draw_contamination(truth, canvas, generator)
    if truth.scene is Scene.CARBON_EDGE:
        return _draw_carbon(truth, canvas, generator)
    return None


def _draw_crystals(truth: ExposureTruth, canvas: tuple[int, int], generator: np.random.Generator) -> Cover:
    """Tile the field with domains, each a lattice of its own direction that takes its own share of the electrons."""
    size_px = generator.uniform(*_DOMAIN_ANG) / truth.pixel_size_ang
    n_domains = max(int(np.prod(canvas) / size_px**2), 8)
    seeds = generator.random((n_domains, 2)) * canvas  # (n, 2)
    yx = np.indices(canvas, np.float32).reshape(2, -1).T  # (H * W, 2)
    domain = cKDTree(seeds).query(yx)[1]  # (H * W,)
    phase = np.zeros(len(yx), np.float32)
    for spacing_ang in HEXAGONAL_ICE_ANG:
        frequency = truth.pixel_size_ang / spacing_ang
        if frequency >= 0.5:
            continue
        angle = generator.uniform(0, np.pi, n_domains)  # one reflection of each kind is excited in a domain
        strength = BRAGG_PHASE_RAD * generator.exponential(1.0, n_domains)
        along = yx[:, 0] * np.sin(angle)[domain] + yx[:, 1] * np.cos(angle)[domain]
        phase += (strength[domain] * np.cos(2 * np.pi * frequency * along)).astype(np.float32)
    loss = np.clip(generator.normal(0.0, DOMAIN_LOSS, n_domains), -3 * DOMAIN_LOSS, 3 * DOMAIN_LOSS)
    transmission = ndimage.gaussian_filter((1 - loss[domain]).reshape(canvas), 0.15 * size_px).astype(np.float32)
    return Cover(phase.reshape(canvas), transmission, np.ones(canvas, bool))


def _draw_contamination(truth: ExposureTruth, canvas: tuple[int, int], generator: np.random.Generator) -> Cover:
    """Lay balls of ice, or strands of small lumps, until a share of the field is covered that is drawn from 15 to 45 %."""
    side_px = min(truth.height_px, truth.width_px)
    strands = generator.random() < 0.4
    wanted = generator.uniform(0.15, 0.45)
    thickness = np.zeros(canvas, np.float32)
    y, x = np.ogrid[: canvas[0], : canvas[1]]
    place = generator.random(2) * canvas
    while np.mean(thickness > 0) < wanted:
        share = generator.uniform(0.02, 0.04) if strands else generator.uniform(0.04, 0.15)
        radius_px = share * side_px
        step = generator.normal(0, 1.5 * radius_px, 2)
        place = (place + step) % canvas if strands and generator.random() < 0.97 else generator.random(2) * canvas
        height2 = radius_px**2 - (y - place[0]) ** 2 - (x - place[1]) ** 2
        thickness = np.maximum(thickness, 2 * truth.pixel_size_ang * np.sqrt(np.maximum(height2, 0)).astype(np.float32))
    thickness *= generator.uniform(700, 1500) / max(float(thickness.max()), 1e-6)  # whatever the field
    return cover_by_thickness(thickness, truth, kind="ice", potential_v=ICE_POTENTIAL_V)


def _draw_carbon(truth: ExposureTruth, canvas: tuple[int, int], generator: np.random.Generator) -> Cover:
    """Cover all but a part of a round hole with a grainy carbon film; from 60 to 85 % of the field is film."""
    film = generator.uniform(0.6, 0.85)
    angle, radius_px = generator.uniform(0, 2 * np.pi), generator.uniform(0.8, 2.0) * max(canvas)
    y, x = np.indices(canvas, np.float32)
    middle = np.array(canvas) / 2 + radius_px * np.array([np.sin(angle), np.cos(angle)])
    distance = np.hypot(y - middle[0], x - middle[1])
    mask = distance > np.quantile(distance, 1 - film)
    thickness_ang = generator.uniform(150, 250)
    cover = cover_by_thickness(mask * np.float32(thickness_ang), truth, kind="carbon", potential_v=CARBON_POTENTIAL_V)
    return draw_carbon_grain(cover, thickness_ang, truth.pixel_size_ang, generator=generator)


def draw_carbon_grain(cover: Cover, thickness_ang: float, pixel_size_ang: float, *, generator: np.random.Generator) -> Cover:
    """Return a smooth film with the grain of amorphous carbon: white phases, stronger with the thickness."""
    grain = np.sqrt(_CARBON_GRAIN_RAD2_ANG2_PER_ANG * thickness_ang) / pixel_size_ang
    grains = np.float32(grain) * generator.standard_normal(cover.mask.shape, dtype=np.float32)
    return replace(cover, phase_rad=cover.phase_rad + cover.mask * grains)


def cover_by_thickness(thickness_ang: NDArray[np.float32], truth: ExposureTruth, *, kind: str, potential_v: float) -> Cover:
    """Return what a thickness ``(H, W)`` of ``ice`` or ``carbon`` does to the beam."""
    mask = thickness_ang > 0
    phase = interaction_parameter_rad_per_v_ang(truth.voltage_kv) * potential_v * thickness_ang
    levelled = (_LARGEST_PHASE_RAD * np.tanh(phase / _LARGEST_PHASE_RAD)).astype(np.float32)
    transmission = np.exp(-thickness_ang / _MEAN_FREE_PATH_ANG[kind]).astype(np.float32)
    return Cover(levelled, transmission, mask)
