"""Drawing the truth of one exposure from the seed of the session."""

import numpy as np

from icestream.microscope.exposure import motion_on_grid, place_particles
from icestream.microscope.faults import HUGE_DRIFT_FACTOR, electrons_per_pixel
from icestream.microscope.grid import FIRST_HOLE, FIRST_SQUARE, HoleTruth, SimulatedGrid, make_grid
from icestream.microscope.junk import distance_to_junk_px, draw_junk
from icestream.microscope.layers import Surface
from icestream.microscope.motion import N_SPACE_TERMS, N_TIME_TERMS, make_drift, make_local_motion
from icestream.microscope.projection import random_angles_deg
from icestream.microscope.settings import Fault, Scene, SimulationSettings
from icestream.microscope.truth import ExposureTruth, JunkTruth, ParticleTruth

_EXPOSURE_KEY, _GRID_KEY = 4, 6
_AS_SET = {"n_frames", "pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast", "b_factor_ang2"}
_N_LAYERS = 5
_MEAN_FREE_PATH_ANG, _BLUR_ANG, _LEAST_DIRT = 3500.0, 0.25, 0.01
_HOLES_PER_SQUARE = 20
_SUFFIX = {"tiff": ".tiff", "mrc": ".mrc", "eer": ".eer"}


def name_exposure(settings: SimulationSettings, index: int) -> tuple[str, str]:
    """Return the name of an exposure and its movie's path relative to the folder of the session."""
    if settings.naming == "plain":
        name = f"mic_{index + 1:04d}"
        return name, f"movies/{name}{_SUFFIX[settings.format]}"
    hole = hole_of(settings, index)
    if hole is not None:
        name = f"FoilHole_{FIRST_HOLE + hole.hole}_Data_{index + 1:06d}_Fractions"
        return name, f"movies/Images-Disc1/GridSquare_{FIRST_SQUARE + hole.square}/Data/{name}{_SUFFIX[settings.format]}"
    name = f"FoilHole_{index + 1:06d}_Fractions"
    square = 1000001 + index // _HOLES_PER_SQUARE
    return name, f"movies/Images-Disc1/GridSquare_{square}/Data/{name}{_SUFFIX[settings.format]}"


def grid_of(settings: SimulationSettings) -> SimulatedGrid | None:
    """Return the grid of a session, if it has one."""
    return None if settings.grid is None else make_grid(settings.grid, seed=settings.seed, key=_GRID_KEY)


def hole_of(settings: SimulationSettings, index: int) -> HoleTruth | None:
    """Return the hole that an exposure is of, if the session has a grid."""
    grid = grid_of(settings)
    return None if grid is None else grid.expose(index)


def settings_in_hole(settings: SimulationSettings, index: int) -> SimulationSettings:
    """Return the settings of one exposure: with a grid, ice, dirt, contrast and particles are those of its hole.

    Electrons that lose energy in the ice are lost to the contrast (mean free path 3,500 Å), thick ice moves more under the beam,
    and ice that is thinner than the particle holds fewer of them.
    """
    hole = hole_of(settings, index)
    if hole is None:
        return settings
    if hole.ice_ang == 0:
        return settings.model_copy(update={"scenes": {index: Scene.NO_ICE, **settings.scenes}})
    thicker_ang = hole.ice_ang - settings.ice_thickness_ang
    contrast = settings.particle_contrast * float(np.exp(-thicker_ang / _MEAN_FREE_PATH_ANG))
    room = min(1.0, hole.ice_ang / settings.phantom_diameter_ang)
    junk = {**settings.junk} if hole.dirt < _LEAST_DIRT else {"dirt": hole.dirt, **settings.junk}
    return settings.model_copy(
        update={
            "ice_thickness_ang": hole.ice_ang,
            "particle_contrast": min(contrast, 1.0),
            "b_factor_ang2": settings.b_factor_ang2 + max(thicker_ang, 0.0) * _BLUR_ANG,
            "n_particles": round(settings.n_particles * room**2),
            "junk": junk,
        }
    )


def draw_exposure(settings: SimulationSettings, index: int, *, fault: Fault | None, diameter_ang: float) -> ExposureTruth:
    """Draw optics, motion and particles of exposure ``index``; it depends on nothing but settings and index."""
    generator = settings.generator(_EXPOSURE_KEY, index, 0)
    name, file = name_exposure(settings, index)
    shape = (settings.height_px, settings.width_px)
    if fault is Fault.WRONG_SIZE:
        shape = (2 * (shape[0] * 3 // 8), 2 * (shape[1] * 3 // 8))
    scene = settings.scenes.get(index)
    optics = {**_draw_optics(settings, generator), "transmission": _transmission_of_ice(settings, scene)}
    length_px = generator.uniform(*settings.drift_px) * (HUGE_DRIFT_FACTOR if fault is Fault.HUGE_DRIFT else 1.0)
    drift = make_drift(settings.n_frames, length_px=length_px, generator=generator)
    local = np.zeros((2, N_TIME_TERMS, N_SPACE_TERMS))
    if settings.local_motion_px > 0 and settings.n_frames > 1:
        local = make_local_motion(rms_px=settings.local_motion_px, generator=generator)
    surface = _draw_surface(settings, index, shape)
    junk = draw_junk(settings, shape, diameter_ang=diameter_ang, generator=settings.generator(_EXPOSURE_KEY, index, 4))
    empty = scene in (Scene.NO_ICE, Scene.BARE_ICE)
    drawn = () if empty else _draw_particles(settings, surface, diameter_ang=diameter_ang, generator=generator)
    particles = _away_from(junk, drawn, diameter_px=diameter_ang / settings.pixel_size_ang)
    points, moved = motion_on_grid(global_yx_px=drift, coefficients=local, shape=shape)
    return ExposureTruth.model_validate(
        {
            "index": index,
            "name": name,
            "file": file,
            "fault": fault,
            "scene": scene,
            **dict(zip(("height_px", "width_px"), shape, strict=True)),
            "electrons_per_pixel": electrons_per_pixel(settings, fault),
            **settings.model_dump(include=_AS_SET),
            **optics,
            **{name: getattr(surface, name) for name in ("tilt_deg", "tilt_axis_deg", "bend_ang")},
            "global_yx_px": drift.tolist(),
            "local_coefficients": local.tolist(),
            "local_grid_yx_px": points.tolist(),
            "local_grid_displacement_yx_px": moved.tolist(),
            "particles": particles,
            "hole": hole_of(settings, index),
            "junk": junk,
        }
    )


def _transmission_of_ice(settings: SimulationSettings, scene: Scene | None) -> float:
    """Return the share of the electrons that the ice lets through: ``exp(-thickness / mean free path)``."""
    path_ang = settings.ice_mean_free_path_ang
    return 1.0 if path_ang is None or scene is Scene.NO_ICE else float(np.exp(-settings.ice_thickness_ang / path_ang))


def _draw_optics(settings: SimulationSettings, generator: np.random.Generator) -> dict[str, float]:
    mean_ang = 1e4 * generator.uniform(*settings.defocus_um)
    astigmatism_ang = generator.uniform(*settings.astigmatism_ang)
    angle_deg = generator.uniform(-90, 90)
    return {
        "defocus_u_ang": mean_ang + astigmatism_ang / 2,
        "defocus_v_ang": mean_ang - astigmatism_ang / 2,
        "astigmatism_angle_deg": angle_deg,
        "phase_shift_deg": generator.uniform(*settings.phase_shift_deg),
    }


def _draw_surface(settings: SimulationSettings, index: int, shape: tuple[int, int]) -> Surface:
    """Draw slope and bend from numbers of their own, so that they change nothing else of a session."""
    generator = settings.generator(_EXPOSURE_KEY, index, 2)
    tilt_deg, bend_ang = generator.uniform(*settings.sample_tilt_deg), generator.uniform(*settings.bend_ang)
    axis_deg = generator.uniform(-180, 180) if tilt_deg > 0 else 0.0
    return Surface(tilt_deg, axis_deg, bend_ang, shape, settings.pixel_size_ang)


def _draw_particles(
    settings: SimulationSettings, surface: Surface, *, diameter_ang: float, generator: np.random.Generator
) -> tuple[ParticleTruth, ...]:
    diameter_px = diameter_ang / settings.pixel_size_ang
    positions = place_particles(
        settings.n_particles,
        shape=surface.shape,
        spacing_px=settings.spacing_diameters * diameter_px,
        border_px=diameter_px / 2,
        generator=generator,
    )
    angles = random_angles_deg(len(positions), generator=generator)
    layers_ang = np.linspace(-0.35, 0.35, _N_LAYERS) * settings.ice_thickness_ang
    depths = generator.choice(layers_ang, len(positions)) if settings.depth_spread else np.zeros(len(positions))
    if not surface.is_flat:
        depths = depths + surface.offset_ang(positions[:, 0], positions[:, 1])
    return tuple(
        ParticleTruth(y_px=y, x_px=x, rot_deg=rot, tilt_deg=tilt, psi_deg=psi, depth_ang=depth)
        for (y, x), (rot, tilt, psi), depth in zip(positions.tolist(), angles.tolist(), depths.tolist(), strict=True)
    )


def _away_from(
    junk: tuple[JunkTruth, ...], particles: tuple[ParticleTruth, ...], *, diameter_px: float
) -> tuple[ParticleTruth, ...]:
    """Return the particles that no carbon, dirt or aggregate touches, and whose centre is in no crystal."""
    kept = []
    for particle in particles:
        place = np.array(particle.y_px), np.array(particle.x_px)
        solid = [disc for disc in junk if disc.kind != "crystalline_ice"]
        clear = distance_to_junk_px(solid, *place) > diameter_px / 2
        if clear and distance_to_junk_px(junk, *place, kind="crystalline_ice") > 0:
            kept.append(particle)
    return tuple(kept)
