"""What streaming 3D classification remembers: its particles on disk with their poses and shares, and the sums of classes.

The sums hold every particle once, in the pose and with the shares that its table says: when it is looked at again, what it gave
before is taken out of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from icestream.algorithms.classify3d import N_FOLDS, PosedParticles, Setting, fold_of, prepare_centred, sum_classes
from icestream.algorithms.refine3d import Setting as Refining
from icestream.algorithms.volumes import VolumeSums
from icestream.flow import Angstrom, Context
from icestream.records import ClassEvent, FileRef, Volume
from icestream.steps.classify2d.segments import TABLE, Prepared, pixel_contrast, polar_contrast
from icestream.steps.volumes.growing import GrowingState
from icestream.steps.volumes.poses import rotations_of

Sums = list[list[VolumeSums]]
"""By fold and class."""


def table_of(n_classes: int) -> np.dtype[np.void]:
    """Return the type of the rows of particles: as in 2D, with a pose in the volume and the share of each class.

    ``posed`` is the number of the volume that gave the pose, 0 without one.
    """
    return np.dtype([*TABLE.descr, ("rot_deg", "<f4"), ("tilt_deg", "<f4"), ("posed", "<i4"), ("share", "<f4", (n_classes,))])


class Classify3DState(GrowingState):
    """A classification so far; sums are in ``model``, ``.npz`` without pickles, and particles in the segments."""

    schema_version: ClassVar[int] = 1

    model: FileRef | None = None
    next_anneal: int = 0
    diameter_ang: Angstrom | None = Field(None, description="Of the ball that holds the particle, from the first volume")
    volume: Volume | None = Field(None, description="Whose poses are used")
    n_volumes: int = Field(0, description="Volumes whose poses were used so far")
    frame: list[float] = Field(
        default_factory=list, description="Turn (row by row) and move (x, y, z, in pixels of the stacks) of its poses into ours"
    )
    refused: str | None = Field(None, description="Why the newest volume is not used")
    ids: list[int] = Field(default_factory=list, description="Of the class at each place")
    born: list[int] = Field(default_factory=list, description="Version that showed the class at each place first")
    next_id: int = 0
    events: list[ClassEvent] = Field(default_factory=list)


@dataclass(frozen=True)
class Model:
    """The sums of all classes, and how particles are compared with them: power of the noise ``(n_rings,)`` and sharpness."""

    sums: Sums
    noise: NDArray[np.float32]
    sharpness: float

    @property
    def size(self) -> NDArray[np.float64]:
        """How many particles each class amounts to ``(k,)``."""
        counts: NDArray[np.float64] = np.array([[one.count for one in fold] for fold in self.sums]).sum(axis=0)
        return counts


def save_model(model: Model, ctx: Context) -> FileRef:
    """Publish a model."""
    signal, weight, count = (
        np.array([[getattr(one, name) for one in fold] for fold in model.sums]) for name in ("signal", "weight", "count")
    )
    with ctx.publish("_sums.npz") as out, out.path.open("wb") as handle:
        noise, sharpness = model.noise, np.float64(model.sharpness)
        np.savez(handle, noise=noise, sharpness=sharpness, signal=signal, weight=weight, count=count)
    return out.ref


def load_model(ref: FileRef, ctx: Context) -> Model:
    """Read a model, bit for bit as it was."""
    with np.load(ctx.path(ref), allow_pickle=False) as stored:
        signal, weight, count = (stored[name] for name in ("signal", "weight", "count"))
        size = signal.shape[2] // 2
        sums = [
            [VolumeSums(signal[f, k], weight[f, k], size, float(count[f, k])) for k in range(signal.shape[1])]
            for f in range(N_FOLDS)
        ]
        return Model(sums, stored["noise"], float(stored["sharpness"]))


def posed_particles(part: Prepared, *, plan: Refining, setting: Setting, stack_px: float) -> PosedParticles:
    """Return particles of a segment ready to be compared with classes, in the poses of their rows.

    ``stack_px`` is a pixel of the working images in pixels of the stacks.
    """
    table, size = part.table, plan.grid.box_px
    box_ang = size * plan.pixel_size_ang
    images = part.images.astype(np.float32)
    shift = shifts_of(table) / stack_px
    polar = prepare_centred(
        images,
        polar_contrast(table, grid=plan.grid, box_ang=box_ang),
        shift_yx_px=shift,
        setting=setting,
        half_set=table["half"].astype(np.int8),
    )
    contrast = pixel_contrast(table, size=size, box_ang=box_ang)
    return PosedParticles(images, contrast, polar, rotations_of(table), shift, fold_of(table["micrograph"], table["pid"]))


def shifts_of(table: NDArray[np.void]) -> NDArray[np.float64]:
    """Return the shifts ``(n, 2)`` of rows, in pixels of the stacks."""
    return np.column_stack([table["shift_y_px"], table["shift_x_px"]]).astype(np.float64)


def add_particles(sums: Sums | None, particles: PosedParticles, share: NDArray[np.floating], *, setting: Setting) -> Sums:
    """Return sums with particles in them, by their shares ``(n, k)``."""
    return sum_classes(
        particles.images,
        particles.contrast,
        rotations=particles.rotations,
        shift_yx_px=particles.shift_yx_px,
        share=np.asarray(share, dtype=np.float64),
        fold=particles.fold,
        setting=setting,
        onto=sums,
    )


def take_out(sums: Sums, other: Sums) -> Sums:
    """Return sums without what other ones hold."""
    return [[a + b.scaled(-1.0) for a, b in zip(one, two, strict=True)] for one, two in zip(sums, other, strict=True)]


def reorder_sums(sums: Sums, order: Sequence[int]) -> Sums:
    """Return the sums of classes in another order."""
    return [[fold[k] for k in order] for fold in sums]
