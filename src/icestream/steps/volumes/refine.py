"""Refinement of a set of particles to a map by the gold standard, and of their poses."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from icestream.algorithms.refine3d import Maps, Model, PoseTable, Progress, Refined, Setting, refine_volume
from icestream.algorithms.scoring import PolarGrid
from icestream.flow import Context, Field, ItemError, Params, step
from icestream.records import SCHERES_2012, Acquisition, Method, Particles, Text, Volume
from icestream.steps.volumes.checkpoints import forget, keep_arrays, load_arrays, read_kept
from icestream.steps.volumes.gathered import Gathered, Symmetry, gather_particles, need_map, read_map
from icestream.steps.volumes.published import publish_volume
from icestream.units import Angstrom

_EDGE_PX = 3.0
_ROOM_PX = 5.0
READS = ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast")


class Refine3DParams(Params):
    """How particles are refined."""

    symmetry: Symmetry | None = Field(None, description="Point group in RELION's setting; unset: that of the initial volume")
    diameter_ang: Angstrom | None = Field(
        None,
        gt=0,
        description="Diameter of the particle; unset: that of the initial volume, or 0.8 of the box",
    )
    initial_ang: Angstrom = Field(40.0, gt=0, description="Resolution to which the initial volume is trusted")
    limit_ang: Angstrom = Field(6.0, gt=0, description="Finest resolution used; sets the size of the working images and the time")
    max_shift_ang: Angstrom = Field(15.0, ge=0, description="Largest shift of a particle from the centre of its box")
    max_iterations: int = Field(15, ge=3, le=50, description="Most passes over all particles; it ends when nothing changes")


@step.map(
    "refine3d",
    version=1,
    reads=READS,
    memory_gb=4,
    method=Method(
        (Text("Particles were refined in 3D from an initial volume at {initial_ang} Å, in two half sets that shared nothing."),),
        (SCHERES_2012,),
    ),
)
def refine_particles(
    particles: list[Particles], volume: Volume, params: Refine3DParams, acquisition: Acquisition, ctx: Context
) -> Volume:
    """Refine the poses of a closed set of particles, and the map that they give, from an initial volume.

    The half sets never share anything but the initial volume, to ``initial_ang``; which half a particle is in follows from its
    exposure, picks and number. Each iteration looks at all particles and is kept: a new attempt goes on after the last one. Poses
    are RELION's rot, tilt and psi; a shift is where the centre of the particle is beyond the middle of its box, in pixels of its
    stack. What noise gives as well has the verdict ``none``, and no resolution.

    Raises
    ------
    ItemError
        The volume is no map, the set has no particles in one of its halves, their boxes differ, or an acquisition value is unset.
    """
    need_map(volume)
    some = [one for one in particles if one.count]
    raw_ang = acquisition.need("pixel_size_ang")
    boxes = {(one.box_px, one.bin) for one in some}
    if len(boxes) != 1:
        raise ItemError(f"{ctx.exposure.name}: particles must have one box and pixel size; got {sorted(boxes) or 'none'}")
    box_px, particle_bin = boxes.pop()
    setting = plan_refinement(params, volume, box_px=box_px, pixel_size_ang=raw_ang * particle_bin)
    folder = ctx.checkpoint_dir / "refine3d"
    folder.mkdir(parents=True, exist_ok=True)
    gathered = gather_particles(some, acquisition, size=setting.grid.box_px, folder=folder, ctx=ctx)
    if min(np.bincount(gathered.table["half"], minlength=2)) == 0:
        raise ItemError(f"{ctx.exposure.name}: {len(gathered)} particles do not fill two half sets")
    start = read_map(volume, ctx, size=setting.grid.box_px, pixel_size_ang=setting.pixel_size_ang, raw_pixel_ang=raw_ang)
    done = _refine(start, gathered, setting, params, folder, ctx)
    found = publish_volume(
        gathered, done.progress, done.maps, done.verdict, setting=setting, particles=some, acquisition=acquisition, ctx=ctx
    )
    forget(folder)
    return found


def plan_refinement(params: Refine3DParams, volume: Volume, *, box_px: int, pixel_size_ang: float) -> Setting:
    """Return the working size, rings, angles and radii for boxes of ``box_px``."""
    box_ang = box_px * pixel_size_ang
    largest = 2 * (box_px // 2)
    n_rings = max(4, min(int(box_ang / params.limit_ang), int(0.44 * largest)))
    size = min(2 * next_fast_len(int(np.ceil(1.14 * n_rings)) + 1), largest)
    pixel_ang = box_ang / size
    diameter_ang = params.diameter_ang or volume.diameter_ang or 0.8 * box_ang
    radius_px = min(diameter_ang / 2 / pixel_ang, size / 2 - _ROOM_PX)
    max_shift_px = params.max_shift_ang / pixel_ang
    extent = min(2 * (radius_px + max_shift_px + _EDGE_PX) / size, 1.0)
    n_angles = 24 * int(np.ceil(2 * np.pi * n_rings * extent / 24))
    return Setting(
        grid=PolarGrid(size, n_rings, n_angles),
        pixel_size_ang=pixel_ang,
        mask_radius_px=radius_px,
        edge_px=_EDGE_PX,
        max_shift_px=max_shift_px,
        start_ring=min(n_rings, max(3, round(box_ang / params.initial_ang))),
        symmetry=params.symmetry or volume.symmetry,
    )


def _refine(
    start: NDArray[np.float32], gathered: Gathered, setting: Setting, params: Refine3DParams, folder: Path, ctx: Context
) -> Refined:
    """Refine until nothing changes, from where an earlier attempt has come to."""
    path = folder / "progress.npz"

    def report(iteration: int, done: int) -> None:
        if ctx.cancelled():
            raise ItemError("was cancelled")
        fraction = (iteration + done / len(gathered)) / params.max_iterations
        ctx.progress(min(fraction, 1.0), f"iteration {iteration + 1}, {done} of {len(gathered)} particles")

    return refine_volume(
        start,
        lambda: gathered.portions(setting),
        setting=setting,
        count=len(gathered),
        most_iterations=params.max_iterations,
        seed=ctx.seed,
        kept=read_kept(path, _load),
        keep=lambda progress, maps: _keep(path, progress, maps),
        report=report,
    )


def _keep(path: Path, progress: Progress, maps: Maps) -> None:
    """Write what an iteration needs of the one before, bit by bit."""
    model, poses = progress.model, progress.poses
    if poses is None:
        raise ValueError("a refinement is kept after an iteration")
    keep_arrays(
        path,
        references=model.references,
        noise_power=model.noise_power,
        correlation=model.correlation,
        ring=np.int64(model.ring),
        rotations=poses.rotations,
        shift=poses.shift_yx_px,
        score=poses.score,
        probability=poses.probability,
        changes=np.array(progress.changes),
        whole=maps.whole,
        halves=maps.halves,
        unmasked=maps.unmasked,
    )


def _load(path: Path) -> tuple[Progress, Maps]:
    stored = load_arrays(path)
    model = Model(stored["references"], stored["noise_power"], stored["correlation"], int(stored["ring"]))
    poses = PoseTable(stored["rotations"], stored["shift"], stored["score"], stored["probability"])
    changes = tuple((float(ring), float(turned)) for ring, turned in stored["changes"])
    maps = Maps(stored["whole"], stored["halves"], stored["correlation"], stored["unmasked"])
    return Progress(model, poses, len(changes), changes), maps
