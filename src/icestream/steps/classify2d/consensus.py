"""What several 2D classifications of the same particles agree on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classes.agreement import agree_on_classes
from icestream.flow import Context, Field, ItemError, Params, step
from icestream.io.image import read_stack
from icestream.io.preview import write_mosaic
from icestream.records import YANG_2012, ClassAverages, ClassConsensus, Classification, Method, Particles, StableSet, Text
from icestream.steps.classify2d.averages import join_classifications
from icestream.steps.classify2d.segments import shrink_2d

AGREEMENT = np.dtype([("micrograph", "S32"), ("pid", "<i8"), ("set", "<i4"), ("agreement", "<f4")])
"""One particle: its stable set, or -1, and how far the classifications agree about it."""


class ClassConsensusParams(Params):
    """What counts as stable."""

    min_share: float = Field(
        0.5, gt=0, le=1, description="A set is stable if it is at least this share of its classes, in the mean"
    )
    min_particles: int = Field(20, ge=1, description="A set is stable if it has at least this many particles")


@step.map(
    "class_consensus",
    version=1,
    method=Method((Text("Particles that several 2D classifications keep together were found."),), (YANG_2012,)),
)
def agree_on_2d_classes(classes: list[ClassAverages], params: ClassConsensusParams, ctx: Context) -> ClassConsensus:
    """Find the particles that two or more 2D classifications keep together, and how far they agree about each particle.

    A particle's agreement is the share that those which stay with it everywhere have of its classes, in the mean. Classifications
    are of the same particles, by the exposure, the picks and the particle number; boxes and pixel sizes may differ.

    Raises
    ------
    ItemError
        There are fewer than two classifications, one does not know its particles, or they have none in common.
    """
    if len(classes) < 2:
        raise ItemError(f"a consensus is of at least two classifications; got {len(classes)}")
    without = [number for number, one in enumerate(classes, 1) if not one.tables]
    if without:
        raise ItemError(f"classifications {without} have no assignments of their particles")
    particles, votes, _ = join_classifications(classes, ctx)
    in_all = (votes >= 0).all(axis=1)
    common, together = particles[in_all], votes[in_all]
    if not len(common):
        raise ItemError("the classifications have no particles in common")
    found = agree_on_classes(together, least_share=params.min_share, least_size=params.min_particles)
    table = np.zeros(len(common), dtype=AGREEMENT)
    table["micrograph"], table["pid"] = common["micrograph"], common["pid"]
    table["set"], table["agreement"] = found.set_of, found.agreement
    with ctx.publish("_agreement.npy") as out, out.path.open("wb") as handle:
        np.save(handle, table, allow_pickle=False)
    with ctx.publish("_sets.png") as picture:
        write_mosaic(picture.path, draw_classes(classes, found.classes.tolist(), ctx), columns=max(2 * len(classes), 2))
    sets = [
        StableSet(
            id=number,
            count=int((found.set_of == number).sum()),
            agreement=float(found.agreement[found.set_of == number][0]),
            classes=[int(one) for one in row],
        )
        for number, row in enumerate(found.classes)
    ]
    return ClassConsensus(
        count=len(common),
        n_stable=int((found.set_of >= 0).sum()),
        rand_index=round(found.rand_index, 4),
        picture=picture.ref,
        table=out.ref,
        sets=sets,
    )


def draw_classes(found: Sequence[Classification], rows: Sequence[Sequence[int | None]], ctx: Context) -> NDArray[np.float32]:
    """Return, row by row, the image of one class of each classification: ``(rows * runs, b, b)``; black where there is none."""
    size = min(one.box_px for one in found)
    size -= size % 2
    walls = [shrink_2d(read_stack(ctx.path(one.stack)), size=size) for one in found]
    places = [{class_id: place for place, class_id in enumerate(one.class_ids)} for one in found]
    black = np.zeros((size, size), np.float32)
    tiles = [
        black if one is None else wall[place[int(one)]]
        for row in rows
        for wall, place, one in zip(walls, places, row, strict=True)
    ]
    return np.stack(tiles) if tiles else black[None]


def find_agreement(consensus: ClassConsensus, particles: Particles, pids: NDArray[np.int32], ctx: Context) -> NDArray[np.float32]:
    """Return how far classifications agree about particles ``(n,)``; 0 for those that they do not all have."""
    table = np.load(ctx.path(consensus.table), mmap_mode="r", allow_pickle=False)
    key = particles.table_key
    low, high = np.searchsorted(table["micrograph"], key, "left"), np.searchsorted(table["micrograph"], key, "right")
    known = dict(zip(table["pid"][low:high].tolist(), table["agreement"][low:high].tolist(), strict=True))
    return np.array([known.get(int(pid), 0.0) for pid in pids], dtype=np.float32)
