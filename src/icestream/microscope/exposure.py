"""One exposure: a specimen, its image in the microscope, and the frames that the camera counts.

The image is linear in the weak phases (weak-phase-object approximation; Kirkland 2010, Advanced Computing in EM, ch. 3):

    ``I = dose * transmission * (1 + 2 * CTF * envelope * phase)``,  ``CTF = -sin(chi)``, so protein is dark at underfocus.

In each frame the specimen moves and bends first, and then the lens acts: the scale of the rings is that of the microscope,
however the specimen is stretched.

Approximations, said once: particles lie in a few layers of depth, and ice in as many slices as the settings say, each with its
own defocus; no multiple or inelastic scattering; particles bend with the ice; the ice keeps its pattern unless the settings say
how it flows; a frame is the specimen as it is at one moment (no blur within a frame); damage is that of the middle of a frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import cKDTree

from icestream.algorithms.fourier import frequency_radius_2d, shift_spectrum_2d
from icestream.algorithms.motion.dose import critical_exposure_e_per_ang2
from icestream.microscope.camera import Camera, count_electrons
from icestream.microscope.ice import crystal_rings, ice_power_rad2_ang2
from icestream.microscope.layers import slice_depths_ang, split_into_levels, white_levels
from icestream.microscope.lens import count_waves, lens_2d, waves_at_depth_2d
from icestream.microscope.motion import displacement_at, local_at_frame, spline_prefilter_2d, warp_splines_2d
from icestream.microscope.potential import interaction_parameter_rad_per_v_ang
from icestream.microscope.projection import FourierVolume, project_2d
from icestream.microscope.truth import ExposureTruth, ParticleTruth

_ICE_MOTION_B_FACTOR_ANG2 = 40.0
_MARGIN_PX = 8
_PLACEMENT_TRIES = 4000


@dataclass(frozen=True)
class Specimen:
    """The waves of one exposure at frame 0, before damage and before the lens, on a canvas larger than the detector.

    ``ice`` and ``particles`` are half spectra ``(n_waves, H, W // 2 + 1)`` of the waves of `icestream.microscope.lens`, and
    ``lens`` what turns each of them into contrast.
    """

    ice: NDArray[np.complex64]
    particles: NDArray[np.complex64]
    lens: NDArray[np.float32]
    canvas: tuple[int, int]
    origin_yx: tuple[int, int]


def place_particles(
    count: int, *, shape: tuple[int, int], spacing_px: float, border_px: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Draw positions no closer than ``spacing_px``, all ``border_px`` inside the frame: ``(<= count, 2)``, yx.

    Fewer are returned when they do not fit.
    """
    low = min(border_px, 0.5 * (min(shape) - 1))
    span = np.maximum(np.array(shape, np.float64) - 1 - 2 * low, 0.0)
    placed = np.empty((0, 2))
    for _ in range(_PLACEMENT_TRIES):
        if len(placed) >= count:
            break
        candidates = low + generator.random((64, 2)) * span  # (64, 2)
        if len(placed):
            candidates = candidates[cKDTree(placed).query(candidates)[0] >= spacing_px]
        if len(candidates):
            placed = np.concatenate([placed, candidates[:1]])
    return placed


def render_specimen(
    truth: ExposureTruth,
    volume: FourierVolume,
    *,
    particle_contrast: float,
    ice_thickness_ang: float,
    generator: np.random.Generator,
    ice_slices: int = 1,
    ice_ring: float = 0.0,
    ice_flows: bool = False,
) -> Specimen:
    """Lay out all particles and the ice, as they are in the first frame.

    Parameters
    ----------
    truth
        Optics, motion and particles.
    volume
        The phantom in volts, at the pixel size of the exposure.
    particle_contrast
        Fraction of the computed contrast of particles that reaches the image.
    ice_thickness_ang
        0 gives particles in a vacuum.
    generator
        Draws the structure of the ice.
    ice_slices
        Slices of the ice, each with the defocus of its depth; 1: the ice is a thin sheet.
    ice_ring
        Power of crystalline ice over that of vitreous ice, at its strongest ring.
    ice_flows
        The ice is that of one moment: it is not blurred by the motion of its molecules, which `expected_frames` draws.
    """
    canvas, origin = _canvas(truth)
    n_waves = count_waves(truth, ice_slices=ice_slices)
    particles = np.zeros((n_waves, canvas[0], canvas[1] // 2 + 1), np.complex64)
    for depth_ang, layer in _particles_by_depth(truth):
        phase_rad = draw_phase_2d(layer, volume, canvas, origin)
        phase_rad *= particle_contrast * interaction_parameter_rad_per_v_ang(truth.voltage_kv) * truth.pixel_size_ang
        particles += fft.rfft2(phase_rad) * waves_at_depth_2d(truth, canvas, depth_ang=depth_ang, n_waves=n_waves)
    ice = np.zeros_like(particles)
    if ice_thickness_ang > 0:
        patterns = draw_ice(
            truth,
            canvas,
            origin,
            ice_thickness_ang=ice_thickness_ang,
            generator=generator,
            ice_slices=ice_slices,
            ice_ring=ice_ring,
            flows=ice_flows,
        )
        ice = next(patterns)
    return Specimen(ice, particles, lens_2d(truth, canvas, n_waves=n_waves), canvas, origin)


def draw_ice(
    truth: ExposureTruth,
    canvas: tuple[int, int],
    origin: tuple[int, int],
    *,
    ice_thickness_ang: float,
    generator: np.random.Generator,
    ice_slices: int,
    ice_ring: float,
    flows: bool,
) -> Iterator[NDArray[np.complex64]]:
    """Yield independent patterns of ice, the waves of `Specimen` ``(n_waves, H, W // 2 + 1)`` each, without end.

    The parameters are those of `render_specimen`, which takes the first.
    """
    frequency = frequency_radius_2d(*canvas) / truth.pixel_size_ang
    power = ice_power_rad2_ang2(
        frequency,
        thickness_ang=ice_thickness_ang,
        voltage_kv=truth.voltage_kv,
        motion_b_factor_ang2=0.0 if flows else _ICE_MOTION_B_FACTOR_ANG2,
    )
    power *= 1.0 + ice_ring * crystal_rings(frequency)
    amplitude = np.sqrt(power).astype(np.float32) / np.float32(truth.pixel_size_ang)
    amplitude[0, 0] = 0.0
    depths_ang, n_waves = slice_depths_ang(ice_thickness_ang, ice_slices), count_waves(truth, ice_slices=ice_slices)
    at_depth: dict[float, NDArray[np.float32]] = {}
    while True:
        ice = np.zeros((n_waves, *amplitude.shape), np.complex64)
        levels = white_levels(canvas, origin, surface=truth.surface, depths_ang=depths_ang, generator=generator)
        for depth_ang, noise in levels:
            if depth_ang not in at_depth:
                at_depth[depth_ang] = waves_at_depth_2d(truth, canvas, depth_ang=depth_ang, n_waves=n_waves)
            ice += noise * amplitude * at_depth[depth_ang]
        yield ice


def _particles_by_depth(truth: ExposureTruth) -> list[tuple[float, list[tuple[ParticleTruth, float]]]]:
    """Return defocus offsets and the particles imaged with each, with their share; on a slope each counts to two offsets."""
    if not truth.particles:
        return []
    depths = np.array([p.depth_ang for p in truth.particles])
    if truth.surface.is_flat:
        return [(each, [(p, 1.0) for p in truth.particles if p.depth_ang == each]) for each in np.unique(depths).tolist()]
    levels = split_into_levels(depths)
    return [
        (level, [(p, share) for p, share in zip(truth.particles, shares.tolist(), strict=True) if share > 0])
        for level, shares in levels
    ]


def _canvas(truth: ExposureTruth) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return a canvas that still covers the detector when the specimen has moved, and the detector's place on it."""
    points = np.array(truth.local_grid_displacement_yx_px)  # (n_frames, points, 2)
    margin = _MARGIN_PX + int(np.ceil(np.abs(points).max() * 1.2))
    shape = (truth.height_px, truth.width_px)
    canvas = tuple(2 * int(fft.next_fast_len((side + 2 * margin + 1) // 2, real=True)) for side in shape)
    return (canvas[0], canvas[1]), ((canvas[0] - shape[0]) // 2, (canvas[1] - shape[1]) // 2)


def draw_phase_2d(
    layer: list[tuple[ParticleTruth, float]], volume: FourierVolume, canvas: tuple[int, int], origin: tuple[int, int]
) -> NDArray[np.float32]:
    """Add the projections of one layer into an image ``canvas``; what lies outside is cut off."""
    image = np.zeros(canvas, np.float32)
    half = volume.size // 2
    for particle, share in layer:
        y, x = particle.y_px + origin[0], particle.x_px + origin[1]
        whole_y, whole_x = round(y), round(x)
        projection = project_2d(
            volume,
            rot_deg=particle.rot_deg,
            tilt_deg=particle.tilt_deg,
            psi_deg=particle.psi_deg,
            shift_yx_px=(y - whole_y, x - whole_x),
        )
        top, left = whole_y - half, whole_x - half
        y0, y1 = max(top, 0), min(top + volume.size, canvas[0])
        x0, x1 = max(left, 0), min(left + volume.size, canvas[1])
        if y0 < y1 and x0 < x1:
            image[y0:y1, x0:x1] += np.float32(share) * projection[y0 - top : y1 - top, x0 - left : x1 - left]
    return image


def expected_frames(
    truth: ExposureTruth,
    specimen: Specimen,
    *,
    dose_per_frame_e_per_ang2: float,
    ice: Iterator[NDArray[np.complex64]] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield the noiseless frames in electrons per pixel: ``(h, w)`` each.

    The ice is that of the specimen in all frames, unless ``ice`` yields a pattern for each.

    The damage filter, the global drift (a phase ramp) and the lens are exact; the local motion between them is cubic B-spline
    interpolation of the waves.
    """
    height, width = specimen.canvas
    radius_per_ang = frequency_radius_2d(height, width) / truth.pixel_size_ang
    decay = (0.5 / critical_exposure_e_per_ang2(radius_per_ang, voltage_kv=truth.voltage_kv)).astype(np.float32)
    local = np.array(truth.local_coefficients)
    shape = (truth.height_px, truth.width_px)
    top, left = specimen.origin_yx
    arriving = np.float32(truth.electrons_per_pixel * truth.transmission)
    for frame, drift in enumerate(truth.global_yx_px):
        exposure = np.float32((frame + 0.5) * dose_per_frame_e_per_ang2)
        pattern = specimen.ice if ice is None else next(ice)
        waves = pattern + specimen.particles * np.exp(-exposure * decay)  # (n_waves, H, W // 2 + 1)
        waves = shift_spectrum_2d(waves, drift, width=width)
        if local.any() and frame > 0:
            space = local_at_frame(local, frame, n_frames=truth.n_frames)
            waves = _bend(waves, space, drift_yx_px=drift, specimen=specimen, shape=shape)
        contrast = fft.irfft2((waves * specimen.lens).sum(axis=0), s=(height, width))  # (H, W)
        yield np.maximum(arriving * (1 + contrast[top : top + shape[0], left : left + shape[1]]), 0)


def _bend(
    waves: NDArray[np.complex64],
    space_coefficients: NDArray[np.float64],
    *,
    drift_yx_px: tuple[float, float],
    specimen: Specimen,
    shape: tuple[int, int],
) -> NDArray[np.complex64]:
    """Move the waves by the local motion of one frame, on the whole canvas, for the lens mixes what lies near: as ``waves``."""
    along_y, along_x = spline_prefilter_2d(*specimen.canvas)
    bent = [
        warp_splines_2d(
            fft.irfft2(wave * along_y * along_x, s=specimen.canvas).astype(np.float32, copy=False),
            space_coefficients,
            drift_yx_px=drift_yx_px,
            origin_yx=specimen.origin_yx,
            shape=shape,
        )
        for wave in waves
    ]
    spectra: NDArray[np.complex64] = np.stack([fft.rfft2(image) for image in bent])  # (n_waves, H, W // 2 + 1)
    return spectra


def counted_frames(
    frames: Iterator[NDArray[np.float32]], camera: Camera, *, generator: np.random.Generator
) -> Iterator[NDArray[np.int32]]:
    """Yield raw counts of noiseless frames: Poisson numbers about ``expected * response``."""
    for expected in frames:
        yield count_electrons(expected * camera.response, generator=generator)


def motion_on_grid(
    *, global_yx_px: NDArray[np.float64], coefficients: NDArray[np.float64], shape: tuple[int, int], side: int = 5
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points of a regular grid ``(side², 2)`` and their displacement in every frame ``(n_frames, side², 2)``."""
    y, x = np.meshgrid(np.linspace(0, shape[0] - 1, side), np.linspace(0, shape[1] - 1, side), indexing="ij")
    points = np.stack([y.ravel(), x.ravel()], axis=1)  # (side², 2)
    moved = [
        displacement_at(t, points[:, 0], points[:, 1], global_yx_px=global_yx_px, coefficients=coefficients, shape=shape)
        for t in range(len(global_yx_px))
    ]
    return points, np.stack(moved)  # (side², 2), (n_frames, side², 2)
