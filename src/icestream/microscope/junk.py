"""Carbon, crystals, balls of ice and aggregates that cover a part of a field of particles, every one a disc of known place.

Discs overlap and so make crooked shapes: strands of balls, patches of crystal domains, clumps of protein. What they do to
the beam is that of the scenes (`icestream.microscope.scenes`); an aggregate is particles of all directions upon each other.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.microscope.exposure import Specimen, draw_phase_2d
from icestream.microscope.potential import ICE_POTENTIAL_V, interaction_parameter_rad_per_v_ang
from icestream.microscope.projection import FourierVolume, random_angles_deg
from icestream.microscope.scenes import (
    BRAGG_PHASE_RAD,
    CARBON_POTENTIAL_V,
    DOMAIN_LOSS,
    HEXAGONAL_ICE_ANG,
    Cover,
    add_cover,
    cover_by_thickness,
    draw_carbon_grain,
)
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.truth import ExposureTruth, JunkTruth, ParticleTruth
from icestream.records import JunkClass

_RADIUS_ANG: dict[JunkClass, tuple[float, float]] = {
    "crystalline_ice": (120.0, 350.0),
    "dirt": (60.0, 300.0),
}
_AGGREGATE_RADIUS_DIAMETERS = (0.8, 1.8)
_STAYS_NEAR: dict[JunkClass, float] = {"crystalline_ice": 0.9, "dirt": 0.5, "aggregate": 0.7}
_DIRT_THICKNESS_ANG = (500.0, 1500.0)
_CARBON_THICKNESS_ANG = (150.0, 250.0)
_GRID = 256
_PARTICLES_DEEP = 4.0


def draw_junk(
    settings: SimulationSettings, shape: tuple[int, int], *, diameter_ang: float, generator: np.random.Generator
) -> tuple[JunkTruth, ...]:
    """Draw discs of each kind until each covers its share of the field ``shape``; some percent of the share more or less."""
    discs: list[JunkTruth] = []
    for kind, share in sorted(settings.junk.items()):
        if kind == "carbon" and share > 0:
            discs.append(_draw_hole(share, shape, generator=generator))
        elif share > 0:
            radii_ang = (
                np.array(_AGGREGATE_RADIUS_DIAMETERS) * diameter_ang if kind == "aggregate" else np.array(_RADIUS_ANG[kind])
            )
            discs += _draw_discs(kind, share, shape, radii_px=radii_ang / settings.pixel_size_ang, generator=generator)
    return tuple(
        disc.model_copy(update={"thickness_ang": min(disc.thickness_ang, 2 * disc.radius_px * settings.pixel_size_ang)})
        for disc in discs
    )


def _draw_hole(share: float, shape: tuple[int, int], *, generator: np.random.Generator) -> JunkTruth:
    angle, radius_px = generator.uniform(0, 2 * np.pi), generator.uniform(0.8, 2.0) * max(shape)
    middle = np.array(shape) / 2 + radius_px * np.array([np.sin(angle), np.cos(angle)])
    y, x = _grid(shape)
    radius = float(np.quantile(np.hypot(y - middle[0], x - middle[1]), 1 - share))
    thickness = generator.uniform(*_CARBON_THICKNESS_ANG)
    return JunkTruth(kind="carbon", y_px=middle[0], x_px=middle[1], radius_px=radius, thickness_ang=thickness)


def _draw_discs(
    kind: JunkClass,
    share: float,
    shape: tuple[int, int],
    *,
    radii_px: NDArray[np.float64],
    generator: np.random.Generator,
) -> list[JunkTruth]:
    y, x = _grid(shape)
    covered, place = np.zeros(y.shape, bool), generator.random(2) * shape
    discs: list[JunkTruth] = []
    while (missing := share - covered.mean()) > 0.02 * share:
        largest_px = np.sqrt(missing * shape[0] * shape[1] / np.pi)
        radius = max(min(float(np.exp(generator.uniform(*np.log(radii_px)))), largest_px), 0.5 * float(radii_px[0]))
        step = generator.normal(0, 1.2 * radius, 2)
        place = (place + step) % shape if generator.random() < _STAYS_NEAR[kind] else generator.random(2) * shape
        thickness = generator.uniform(*_DIRT_THICKNESS_ANG) if kind == "dirt" else 0.0
        discs.append(JunkTruth(kind=kind, y_px=place[0], x_px=place[1], radius_px=radius, thickness_ang=thickness))
        covered |= np.hypot(y - place[0], x - place[1]) < radius
    return discs


def _grid(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.meshgrid(*((np.arange(_GRID) + 0.5) / _GRID * side for side in shape), indexing="ij")
    return y, x


def distance_to_junk_px(
    junk: Sequence[JunkTruth], y_px: NDArray[Any], x_px: NDArray[Any], *, kind: JunkClass | None = None
) -> NDArray[np.float64]:
    """Return how far points are from the nearest junk (of one kind), negative inside; infinite where there is none."""
    nearest = np.full(np.broadcast_shapes(np.shape(y_px), np.shape(x_px)), np.inf)
    for disc in junk:
        if kind in (None, disc.kind):
            outside = np.hypot(y_px - disc.y_px, x_px - disc.x_px) - disc.radius_px
            nearest = np.minimum(nearest, -outside if disc.kind == "carbon" else outside)
    return nearest


def label_junk_2d(truth: ExposureTruth, kind: JunkClass, *, box_px: int) -> NDArray[np.bool_]:
    """Return where the middle of each box of whole pixels lies in junk of a kind: ``(h // box, w // box)``."""
    y, x = ((np.arange(side // box_px) + 0.5) * box_px - 0.5 for side in (truth.height_px, truth.width_px))
    inside: NDArray[np.bool_] = distance_to_junk_px(truth.junk, y[:, None], x[None, :], kind=kind) < 0
    return inside


def add_junk(
    specimen: Specimen,
    truth: ExposureTruth,
    volume: FourierVolume,
    *,
    diameter_ang: float,
    particle_contrast: float,
    generator: np.random.Generator,
) -> Specimen:
    """Return the specimen with its junk; the same specimen where there is none."""
    if not truth.junk:
        return specimen
    rows, columns = (slice(side) for side in specimen.canvas)
    for kind in sorted({disc.kind for disc in truth.junk}):
        discs = [disc for disc in truth.junk if disc.kind == kind]
        y, x = (axis - origin for axis, origin in zip(np.ogrid[rows, columns], specimen.origin_yx, strict=True))
        if kind == "aggregate":
            phase = _pile_particles(discs, specimen, volume, truth, diameter_ang=diameter_ang, generator=generator)
            particles = specimen.particles.copy()
            particles[0] += fft.rfft2(particle_contrast * phase)
            specimen = replace(specimen, particles=particles)
        elif kind == "crystalline_ice":
            specimen = add_cover(specimen, _grow_crystals(discs, truth, y, x, generator=generator))
        else:
            specimen = add_cover(specimen, _cover_by_discs(discs, truth, y, x, generator=generator))
    return specimen


def _cover_by_discs(
    discs: list[JunkTruth],
    truth: ExposureTruth,
    y: NDArray[np.int64],
    x: NDArray[np.int64],
    *,
    generator: np.random.Generator,
) -> Cover:
    """Cover the canvas with balls, whose thickness is that of an ellipsoid, or with a film outside of a hole."""
    thickness = np.zeros(np.broadcast_shapes(y.shape, x.shape), np.float32)
    if discs[0].kind == "carbon":
        (hole,) = discs
        thickness[distance_to_junk_px(discs, y, x) < 0] = hole.thickness_ang
        cover = cover_by_thickness(thickness, truth, kind="carbon", potential_v=CARBON_POTENTIAL_V)
        return draw_carbon_grain(cover, hole.thickness_ang, truth.pixel_size_ang, generator=generator)
    for disc in discs:
        height2 = 1 - ((y - disc.y_px) ** 2 + (x - disc.x_px) ** 2) / disc.radius_px**2
        thickness = np.maximum(thickness, (disc.thickness_ang * np.sqrt(np.maximum(height2, 0))).astype(np.float32))
    return cover_by_thickness(thickness, truth, kind="ice", potential_v=ICE_POTENTIAL_V)


def _grow_crystals(
    discs: list[JunkTruth],
    truth: ExposureTruth,
    y: NDArray[np.int64],
    x: NDArray[np.int64],
    *,
    generator: np.random.Generator,
) -> Cover:
    """Fill each disc that is not another's with a lattice of its own, which takes its own share of the electrons."""
    shape = np.broadcast_shapes(y.shape, x.shape)
    owner = np.full(shape, -1)
    for index, disc in enumerate(discs):
        owner[(np.hypot(y - disc.y_px, x - disc.x_px) < disc.radius_px) & (owner < 0)] = index
    phase, transmission = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    for index in range(len(discs)):
        rows, columns = np.nonzero(owner == index)
        for spacing_ang in HEXAGONAL_ICE_ANG:
            frequency = truth.pixel_size_ang / spacing_ang
            angle, strength = generator.uniform(0, np.pi), BRAGG_PHASE_RAD * generator.exponential(1.0)
            if frequency < 0.5:
                along = rows * np.sin(angle) + columns * np.cos(angle)
                phase[rows, columns] += (strength * np.cos(2 * np.pi * frequency * along)).astype(np.float32)
        transmission[rows, columns] -= np.float32(DOMAIN_LOSS * abs(generator.normal()))
    return Cover(phase, transmission, owner >= 0)


def _pile_particles(
    discs: list[JunkTruth],
    specimen: Specimen,
    volume: FourierVolume,
    truth: ExposureTruth,
    *,
    diameter_ang: float,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Return the phases of particles of all directions that lie in the discs, each place under two or three of them."""
    diameter_px = diameter_ang / truth.pixel_size_ang
    shape = (truth.height_px, truth.width_px)
    inner = [disc.model_copy(update={"radius_px": max(disc.radius_px - 0.3 * diameter_px, 1.0)}) for disc in discs]
    n_tried = int(_PARTICLES_DEEP * shape[0] * shape[1] / (0.25 * np.pi * diameter_px**2))
    places = generator.random((n_tried, 2)) * shape
    angles = random_angles_deg(n_tried, generator=generator)
    inside = distance_to_junk_px(inner, places[:, 0], places[:, 1]) < 0
    pile = [
        (ParticleTruth(y_px=y, x_px=x, rot_deg=rot, tilt_deg=tilt, psi_deg=psi, depth_ang=0.0), 1.0)
        for (y, x), (rot, tilt, psi) in zip(places[inside].tolist(), angles[inside].tolist(), strict=True)
    ]
    scale = np.float32(interaction_parameter_rad_per_v_ang(truth.voltage_kv) * truth.pixel_size_ang)
    return draw_phase_2d(pile, volume, specimen.canvas, specimen.origin_yx) * scale
