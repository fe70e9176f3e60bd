"""What the steps of initial volumes share: reading the particles of a set, and publishing a map with its candidates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify2d import Setting
from icestream.algorithms.initial_volume import (
    LEAST_EXPLAINED,
    Evidence,
    VolumeSetting,
    plan_volume,
    prepare_volume_particles,
)
from icestream.algorithms.scoring import PolarParticles
from icestream.algorithms.volume_consensus import Agreement
from icestream.flow import Context, Field, ItemError, Params
from icestream.io.image import write_mrc
from icestream.io.preview import write_rgb
from icestream.records import Acquisition, JudgedVolume, Particles, VolumeCandidate
from icestream.steps.classify2d.segments import Prepared, join, polar_contrast, prepare
from icestream.steps.volumes.gathered import Symmetry, half_sets
from icestream.steps.volumes.published import draw_volume
from icestream.units import Angstrom

READS = ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast")
_TILE_PX = 48
_LEAST_PARTICLES = 100
_DIAMETER_SHARE = 0.7
"""Of the box, where nobody says how wide the particle is."""


class VolumeSearchParams(Params):
    """What is known of the particle, and how finely it is looked at."""

    symmetry: Symmetry = Field("C1", description="Point group in RELION's setting, such as C7, D2, T, O or I")
    diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Diameter of the ball that holds the particle; unset: as the particles say, or 0.7 of the box"
    )
    limit_ang: Angstrom = Field(
        20.0, ge=8, le=25, description="Finest resolution used; sets the size of the working box and the time"
    )
    max_shift_ang: Angstrom = Field(15.0, ge=0, description="Largest shift of a particle from the centre of its box")
    max_particles: int = Field(3000, ge=_LEAST_PARTICLES, description="Most particles that are used, a random part of all")


@dataclass(frozen=True)
class ParticleSet:
    """The particles of a set, ready to be searched, and where they are from."""

    polar: PolarParticles
    setting: VolumeSetting
    bin: float
    stack_pixel_ang: float
    diameter_ang: float

    def part(self, rows: NDArray[np.bool_]) -> "ParticleSet":
        """Return some of the particles, by a mask."""
        return replace(self, polar=self.polar.take(rows))

    @property
    def volume_bin(self) -> float:
        """Pixel size of the working box relative to the raw pixel."""
        return self.bin * self.setting.pixel_size_ang / self.stack_pixel_ang


def read_particle_set(
    particles: Sequence[Particles], acquisition: Acquisition, params: VolumeSearchParams, ctx: Context
) -> ParticleSet:
    """Read the particles of a set, or a random part of them, at the working size.

    Raises
    ------
    ItemError
        There are too few particles, their boxes differ, or an acquisition value is unset.
    """
    filled = [one for one in particles if one.count]
    total = sum(one.count for one in filled)
    if total < _LEAST_PARTICLES:
        raise ItemError(f"{ctx.exposure.name}: {total} particles; an initial volume needs at least {_LEAST_PARTICLES}")
    first = filled[0]
    pixel_ang = acquisition.need("pixel_size_ang") * first.bin
    if any(one.box_px != first.box_px or abs(one.bin / first.bin - 1) > 0.005 for one in filled):
        raise ItemError(f"{ctx.exposure.name}: the particles have boxes or pixels of different sizes")
    box_ang = first.box_px * pixel_ang
    known = params.diameter_ang or first.diameter_ang or _DIAMETER_SHARE * box_ang
    diameter_ang = min(known, 0.95 * box_ang)
    setting = plan_volume(
        box_px=first.box_px,
        pixel_size_ang=pixel_ang,
        diameter_ang=diameter_ang,
        limit_ang=max(params.limit_ang, 2.5 * pixel_ang),
        max_shift_ang=params.max_shift_ang,
        symmetry=params.symmetry,
    )
    polar = _sample(filled, acquisition, setting, total, params.max_particles, ctx)
    return ParticleSet(polar, setting, first.bin, pixel_ang, diameter_ang)


def _sample(
    particles: Sequence[Particles], acquisition: Acquisition, setting: VolumeSetting, total: int, most: int, ctx: Context
) -> PolarParticles:
    """Prepare at most ``most`` of the particles, drawn at random over all exposures."""
    chosen = np.zeros(total, bool)
    chosen[np.random.default_rng(ctx.seed).permutation(total)[:most]] = True
    size = setting.grid.box_px
    parts, start = [], 0
    for number, one in enumerate(particles, 1):
        rows = np.flatnonzero(chosen[start : start + one.count])
        start += one.count
        if not len(rows):
            continue
        ctx.progress(0.1 * start / total, f"reading particles of exposure {number} of {len(particles)}")
        name = f"{ctx.exposure.name}, exposure {number}"
        whole = prepare(one, acquisition, size=size, name=name, exposure_id=one.origin or "", ordinal=0, ctx=ctx)
        parts.append(Prepared(whole.images[rows], whole.table[rows]))
    whole = join(parts)
    contrast = polar_contrast(whole.table, grid=setting.grid, box_ang=size * setting.pixel_size_ang)
    images = whole.images.astype(np.float32)
    return prepare_volume_particles(images, contrast, setting=setting, half_set=half_sets(whole.table))


def in_plane(setting: VolumeSetting) -> Setting:
    """Return the same working box as 2D classification describes it."""
    return Setting(
        grid=setting.grid,
        n_classes=1,
        mask_radius_px=setting.radius_px,
        edge_px=setting.edge_px,
        max_shift_px=setting.max_shift_px,
        start_ring=setting.start_ring,
        warm_ring=setting.middle_ring,
        tau_fudge=1.0,
        forgetting=0.8,
    )


def say_why_none(evidence: Evidence, what: str) -> str:
    """Return why a volume is not believed, for people."""
    least, value, error = (f"{round(100 * part)} %" for part in (LEAST_EXPLAINED, evidence.explained, evidence.error))
    return (
        f"{what} explains {value} (± {error}) of the signal of particles that were held out, beyond what "
        f"phase-randomised twins do; at least {least} are needed"
    )


def publish_judged(
    found: ParticleSet,
    volume: NDArray[np.float32],
    *,
    placed: Sequence[NDArray[np.float32]],
    candidates: list[VolumeCandidate],
    agreement: Agreement,
    evidence: Evidence,
    is_map: bool,
    what: str = "the best candidate",
    ctx: Context,
) -> JudgedVolume:
    """Publish a map with its pictures, and the record that says what is known of it and of its candidates."""
    pixel_ang = found.setting.pixel_size_ang
    with ctx.publish("_volume.mrc") as out:
        write_mrc(out.path, volume.astype(np.float32), pixel_size_ang=pixel_ang)
    with ctx.publish("_candidates.png") as similarity:
        write_rgb(similarity.path, _draw_similarity(placed, agreement.similarity))
    return JudgedVolume(
        map=out.ref,
        picture=draw_volume(volume, ctx),
        similarity=similarity.ref,
        count=len(found.polar),
        box_px=found.setting.grid.box_px,
        bin=found.volume_bin,
        symmetry=found.setting.symmetry,
        diameter_ang=found.diameter_ang,
        verdict="map" if is_map else "none",
        reason=None if is_map else say_why_none(evidence, what),
        candidates=candidates,
        explained=round(evidence.explained, 4),
        explained_error=round(evidence.error, 4),
        n_right=sum(one.right for one in candidates),
    )


def describe_candidates(
    evidence: Sequence[Evidence], agreement: Agreement, best: int, agrees: NDArray[np.bool_], entropy: Sequence[float | None]
) -> list[VolumeCandidate]:
    """Return what is known of each candidate."""
    return [
        VolumeCandidate(
            id=number + 1,
            explained=round(one.explained, 4),
            error=round(one.error, 4),
            gain=round(one.gain, 2),
            twin_gain=round(one.twin_gain, 2),
            similarity=round(float(agreement.similarity[number, best]), 4),
            right=one.is_right,
            agrees=bool(agrees[number]),
            view_entropy=entropy[number],
        )
        for number, one in enumerate(evidence)
    ]


def _draw_similarity(placed: Sequence[NDArray[np.float32]], similarity: NDArray[np.float64]) -> NDArray[Any]:
    """Return the projections of candidates above the table of how far they agree, from black to white: ``(h, w, 3)``."""
    n = len(placed)
    views = []
    for volume in placed:
        view = volume.sum(axis=0)
        view = np.clip((view - view.min()) / max(float(np.ptp(view)), 1e-9), 0, 1)
        steps = np.arange(_TILE_PX) * view.shape[0] // _TILE_PX
        views.append(view[np.ix_(steps, steps)])
    table = np.kron(np.clip(similarity, 0, 1)[::-1], np.ones((_TILE_PX, _TILE_PX)))  # row 0 of a picture is its bottom
    whole = np.concatenate([table, np.concatenate(views, axis=1)])  # ((n + 1) tiles, n tiles)
    whole[::_TILE_PX, :] = whole[:, ::_TILE_PX] = 0.3
    return np.repeat(whole.reshape((n + 1) * _TILE_PX, n * _TILE_PX, 1), 3, axis=2).astype(np.float32)
