"""Class averages as people and other steps get them: stack, picture, numbers, and where each particle is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classes.outliers import spread_of_members
from icestream.algorithms.classes.ranking import measure_classes, rank_classes
from icestream.algorithms.classify2d import Model
from icestream.flow import Context
from icestream.io.blocks import dtype_of, index_by_micrograph, to_block
from icestream.io.image import write_mrc
from icestream.io.preview import write_mosaic
from icestream.records import POSE, ClassAssignments, ClassAverages, Classification, ClassInfo, FileRef, parts_in_a_row
from icestream.steps.classify2d.params import Classify2DParams, plan_for
from icestream.steps.classify2d.segments import Segment, read_table
from icestream.steps.classify2d.state import Classify2DState, count_members, load_model

_EMPTY_PX = 32


def publish_averages(state: Classify2DState, params: Classify2DParams, ctx: Context, *, version: int) -> ClassAverages:
    """Write the class averages of a state.

    The averages are corrected for the CTF, filtered to what their half sets agree on and masked; they are as large as the
    resolution limit asks, in pixels that ``bin`` relates to the raw movie.
    """
    if state.model is None or state.box_px is None or state.bin is None or state.pixel_size_ang is None:
        return _publish_nothing(params, ctx, version)
    model = load_model(state.model, ctx)
    averages = model.averages
    size = averages.images.shape[-1]
    pixel_ang = state.pixel_size_ang * state.box_px / size
    setting = plan_for(params, box_px=state.box_px, pixel_size_ang=state.pixel_size_ang)
    tables = [read_table(segment, ctx) for segment in state.segments]
    with ctx.publish("_noise.npy") as noise, noise.path.open("wb") as handle:
        np.save(handle, averages.noise_power, allow_pickle=False)
    stack, picture = write_wall(averages.images, pixel_size_ang=pixel_ang, ctx=ctx)
    return ClassAverages(
        stack=stack,
        picture=picture,
        count=state.n_particles,
        box_px=size,
        bin=state.bin * state.box_px / size,
        classes=_describe_classes(state, model, tables, mask_radius_px=setting.mask_radius_px, pixel_ang=pixel_ang),
        version=version,
        diameter_ang=2 * setting.mask_radius_px * pixel_ang,
        noise=noise.ref,
        tables=[segment.table for segment in state.segments],
        index=_write_index(tables, ctx),
        events=state.events,
    )


def _describe_classes(
    state: Classify2DState, model: Model, tables: Sequence[NDArray[np.void]], *, mask_radius_px: float, pixel_ang: float
) -> list[ClassInfo]:
    """Return the numbers of each class."""
    counts = count_members(state)
    resolution = state.resolution_ang or [None] * len(counts)
    measures = measure_classes(
        model.averages.images,
        np.array(counts),
        resolution_px=np.array([np.inf if r is None else r / pixel_ang for r in resolution]),
        mask_radius_px=mask_radius_px,
    )
    members = _members(tables, n_classes=len(counts))
    scores = rank_classes(measures, fit=members["fit"], residual=members["residual_median"])
    return [
        ClassInfo(
            id=state.ids[k],
            count=counts[k],
            resolution_ang=resolution[k] if counts[k] else None,
            effective_count=round(float(model.sums.weight[:, k].sum()), 1),
            score=round(float(scores[k]), 4),
            born=state.born[k],
            parents=_parents(state, k),
            **{name: round(float(members[name][k]), 4) for name in _MEMBERS if np.isfinite(members[name][k]) and counts[k]},
        )
        for k in range(len(counts))
    ]


def _publish_nothing(params: Classify2DParams, ctx: Context, version: int) -> ClassAverages:
    images = np.zeros((params.n_classes, _EMPTY_PX, _EMPTY_PX), dtype=np.float32)
    stack, picture = write_wall(images, pixel_size_ang=1.0, ctx=ctx)
    classes = [ClassInfo(id=k, count=0) for k in range(params.n_classes)]
    return ClassAverages(stack=stack, picture=picture, count=0, box_px=_EMPTY_PX, bin=1.0, classes=classes, version=version)


def write_wall(images: NDArray[np.float32], *, pixel_size_ang: float, ctx: Context) -> tuple[FileRef, FileRef]:
    """Publish class averages as a stack and as one picture of all."""
    with ctx.publish("_classes.mrcs") as stack:
        write_mrc(stack.path, images, pixel_size_ang=pixel_size_ang)
    with ctx.publish("_classes.png") as picture:
        write_mosaic(picture.path, images, columns=parts_in_a_row(len(images)))
    return stack.ref, picture.ref


def _parents(state: Classify2DState, place: int) -> list[int]:
    """Return the classes that a class came from, by the event of its beginning."""
    mine = [event for event in state.events if event.class_id == state.ids[place] and event.kind in ("born", "split")]
    return mine[-1].others if mine else []


_MEMBERS = ("fit_median", "fit_spread", "residual_median", "residual_spread")


def _members(tables: Sequence[NDArray[np.void]], *, n_classes: int) -> dict[str, NDArray[np.float64]]:
    """Return what the members of each class are like, ``(k,)`` each.

    Medians and robust spreads of their scores and of what they have beside their class, and ``fit``, 0 to 1: where their median
    score stands among the scores of all particles.
    """
    place, score, residual = (np.concatenate([table[name] for table in tables]) for name in ("class_id", "score", "residual"))
    by_score = spread_of_members(place, score, n_classes=n_classes)
    by_residual = spread_of_members(place, residual, n_classes=n_classes)
    medians = np.nan_to_num(by_score[:, 0], nan=-np.inf)
    return {
        "fit_median": by_score[:, 0],
        "fit_spread": by_score[:, 1],
        "residual_median": np.nan_to_num(by_residual[:, 0]),
        "residual_spread": by_residual[:, 1],
        "fit": np.searchsorted(np.sort(score), medians) / max(len(score), 1),
    }


def _write_index(tables: Sequence[NDArray[np.void]], ctx: Context) -> FileRef:
    """Publish where the particles of each exposure are; they are together in one table."""
    parts = [index_by_micrograph(table, number=number) for number, table in enumerate(tables)]
    index = np.sort(np.concatenate(parts), order="micrograph")
    with ctx.publish("_index.npy") as out, out.path.open("wb") as handle:
        np.save(handle, index, allow_pickle=False)
    return out.ref


def all_assignments(found: Classification, ctx: Context, *, places: bool = False) -> NDArray[np.void]:
    """Return what a classification says of all particles, with class ids, or with the places of the classes."""
    ids = np.array(found.class_ids, dtype=np.int32)
    tables = [np.load(ctx.path(table), allow_pickle=False) for table in found.tables]
    for table in [] if places else tables:
        table["class_id"] = ids[table["class_id"]]
    whole: NDArray[np.void] = np.concatenate(tables)
    return whole


def join_classifications(
    found: Sequence[Classification], ctx: Context
) -> tuple[NDArray[np.void], NDArray[np.int32], NDArray[np.float32] | None]:
    """Return all particles of several classifications, their class in each, and how sure each is of it.

    Returns
    -------
    particles
        ``(n,)`` with ``micrograph`` and ``pid``, sorted.
    classes
        ``(n, runs)``, class ids; -1 where a classification lacks the particle.
    sureness
        ``(n, runs)``, the probability of the class; None where a classification does not say it.
    """
    tables = [all_assignments(one, ctx) for one in found]
    keys = [np.ascontiguousarray(table[["micrograph", "pid"]]).view() for table in tables]
    particles, place = np.unique(np.concatenate(keys), return_inverse=True)
    rows = np.split(np.asarray(place).reshape(-1), np.cumsum([len(key) for key in keys])[:-1])
    classes = np.full((len(particles), len(found)), -1, dtype=np.int32)
    sureness = np.zeros(classes.shape, dtype=np.float32)
    known = all("class_probability" in (table.dtype.names or ()) for table in tables)
    for run, (own, table) in enumerate(zip(rows, tables, strict=True)):
        classes[own, run] = table["class_id"]
        if known:
            sureness[own, run] = table["class_probability"]
    return particles, classes, sureness if known else None


def assignment_record(
    table: NDArray[np.void], ids: Sequence[int] | None, *, version: int, picks_key: str | None = None
) -> ClassAssignments:
    """Return the record of one exposure; ``ids`` turn places into class ids."""
    rows = np.empty(len(table), dtype=dtype_of(ClassAssignments.block_columns))
    for name in ("pid", *(column.name for column in POSE)):
        rows[name] = table[name]
    if ids is not None and len(table):
        rows["class_id"] = np.array(ids, dtype=np.int32)[table["class_id"]]
    return ClassAssignments(count=len(rows), version=version, picks_key=picks_key, block=to_block(rows))


def member_tables(segment: Segment, ctx: Context) -> dict[str, NDArray[np.void]]:
    """Return the rows of each exposure of a segment."""
    table = read_table(segment, ctx)
    return {name.decode(): table[table["exposure"] == name] for name in np.unique(table["exposure"])}
