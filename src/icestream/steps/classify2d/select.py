"""Which classes are good, by their score or by hand; and the particles of the good ones."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classes.outliers import find_outliers
from icestream.algorithms.classes.ranking import GENEROUS, STRICT
from icestream.flow import Angstrom, Context, Field, ItemError, Params, step
from icestream.io.image import read_stack
from icestream.io.particles import particles_table, remove_particles
from icestream.io.preview import write_mosaic
from icestream.records import (
    ClassAssignments,
    ClassAverages,
    ClassConsensus,
    ClassInfo,
    ClassSelection,
    Particles,
    SelectedClass,
)
from icestream.steps.classify2d.consensus import find_agreement
from icestream.steps.particles.assigned import newest_rows


class SelectClassesParams(Params):
    """Which classes are good."""

    operating_point: Literal["strict", "generous", "by hand"] = Field(
        "strict",
        description="Classes with at least this score: strict for a clean set (0.5), generous to lose hardly anything (0.2), "
        "or only those that `keep` names",
    )
    min_score: float | None = Field(None, ge=0, le=1, description="Least score, in place of that of the operating point")
    min_particles: int = Field(0, ge=0, description="Classes with fewer particles are set aside")
    max_resolution_ang: Angstrom | None = Field(None, gt=0, description="Classes with a coarser resolution are set aside")
    keep: list[int] = Field(default_factory=list, description="Ids of classes that are good, whatever their numbers say")
    drop: list[int] = Field(default_factory=list, description="Ids of classes that are set aside, whatever their numbers say")


@step.map("select_classes", version=1, memory_gb=0.5)
def select_classes(classes: ClassAverages, params: SelectClassesParams, ctx: Context) -> ClassSelection:
    """Select good classes by their score, by their numbers, or by hand.

    Ids stay with their classes, so a selection by hand holds for later versions too. Changing it makes a new revision of this
    step and of those below it: particles are sorted again, nothing is computed again.

    Raises
    ------
    ItemError
        A class is named that these averages never had, or one is to be kept and dropped.
    """
    both = sorted(set(params.keep) & set(params.drop))
    if both:
        raise ItemError(f"classes {both} are in keep and in drop; name each once")
    known = {info.id for info in classes.classes} | {event.class_id for event in classes.events}
    unknown = sorted((set(params.keep) | set(params.drop)) - known)
    if unknown:
        raise ItemError(f"classes {unknown} are not among these averages; they have {sorted(known)}")
    decided = [_decide(info, params) for info in classes.classes]
    chosen = [place for place, one in enumerate(decided) if one.selected]
    images = read_stack(ctx.path(classes.stack))  # (k, b, b)
    shown = images[chosen] if chosen else np.zeros((1, *images.shape[1:]), np.float32)
    with ctx.publish("_selected.png") as picture:
        write_mosaic(picture.path, shown, columns=int(np.ceil(np.sqrt(2 * len(shown)))))
    return ClassSelection(
        version=classes.version,
        picture=picture.ref,
        n_selected=sum(one.count for one in decided if one.selected),
        n_particles=classes.count,
        classes=decided,
    )


def _decide(info: ClassInfo, params: SelectClassesParams) -> SelectedClass:
    """Decide about one class: by hand before all, then by its size and resolution, then by its score."""
    score = info.score or 0.0
    least = {"strict": STRICT, "generous": GENEROUS, "by hand": np.inf}[params.operating_point]
    if params.min_score is not None and params.operating_point != "by hand":
        least = params.min_score
    selected, by = score >= least, "score"
    if params.operating_point == "by hand":
        by = "hand"
    if selected and (info.count < params.min_particles or info.count == 0):
        selected, by = False, "size"
    coarse = params.max_resolution_ang is not None and (info.resolution_ang or np.inf) > params.max_resolution_ang
    if selected and coarse:
        selected, by = False, "resolution"
    if info.id in params.keep or info.id in params.drop:
        selected, by = info.id in params.keep, "hand"
    return SelectedClass(
        id=info.id, count=info.count, selected=selected, by=by, score=info.score, resolution_ang=info.resolution_ang
    )


class GoodClassesParams(Params):
    """Which particles of good classes are kept."""

    max_misfit: float | None = Field(
        2.3,
        gt=0,
        description="Particles that fit their class worse than its median by more robust standard deviations are set aside; "
        "unset: none",
    )
    max_residual: float | None = Field(
        2.3,
        gt=0,
        description="Particles that have more beside their class than the median, by more robust standard deviations, are set "
        "aside: overlaps, aggregates, particles on edges; unset: none",
    )
    min_amplitude: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Particles that show less than this part of the contrast of their class, as halves do, are set aside; "
        "unset: none",
    )
    min_agreement: float = Field(
        0.5, ge=0, le=1, description="With a consensus of classifications: least agreement about a particle"
    )


@step.map("good_classes", version=2, memory_gb=0.5)
def take_good_classes(
    particles: Particles,
    assignments: ClassAssignments,
    classes: ClassAverages,
    selection: ClassSelection,
    params: GoodClassesParams,
    ctx: Context,
    *,
    consensus: ClassConsensus | None = None,
) -> Particles:
    """Keep the particles of selected classes; the others are kept beside them with the reason.

    The newest assignment counts: that of the averages where they know the particle, otherwise the one it got as it came. The
    averages and the selection are those that were the newest when the exposure came first; `after` makes the step wait until the
    classification has ended. The others are a stream of their own with `rejected_particles`.

    Raises
    ------
    ItemError
        A particle has no assignment, or the assignments are of other picks.
    """
    if not particles.count:
        return remove_particles(particles, {})
    pids = particles_table(particles)["pid"]
    rows = newest_rows(particles, assignments, classes, ctx)
    missing = len(pids) if rows is None else int((rows["class_id"] < 0).sum())
    if rows is None or missing:
        raise ItemError(f"{ctx.exposure.name}: {missing} of {len(pids)} particles have no class; link the same particles")
    by_id = {one.id: one for one in selection.classes}
    removed: dict[str, NDArray[np.bool_]] = {}
    no_particle: set[str] = set()
    filled = {info.id for info in classes.classes if info.count}
    for class_id in sorted({*rows["class_id"].tolist(), *filled}):  # each is told, also where it has no particles here
        one = by_id.get(class_id)
        if one is None:
            removed[f"class {class_id} is not in the selection"] = rows["class_id"] == class_id
        elif not one.selected:
            removed[one.reason] = rows["class_id"] == class_id
            no_particle |= {one.reason} if one.by in ("score", "hand") else set()
    ids, names = rows["class_id"], rows.dtype.names or ()
    if params.max_misfit is not None:
        known = _members(classes, "fit")
        removed["fits its class badly"] = find_outliers(ids, rows["score"], known, limit=params.max_misfit, above=False)
    if params.max_residual is not None and "residual" in names:
        known = _members(classes, "residual")
        removed["has more beside its class"] = find_outliers(ids, rows["residual"], known, limit=params.max_residual, above=True)
    if params.min_amplitude is not None and "amplitude" in names:
        removed["shows too little of its class"] = rows["amplitude"] < params.min_amplitude
    if consensus is not None:
        removed["classifications disagree"] = find_agreement(consensus, particles, pids, ctx) < params.min_agreement
    return remove_particles(particles, removed, no_particle=no_particle)


def _members(classes: ClassAverages, what: str) -> dict[int, tuple[float, float]]:
    """Return median and robust spread of a value of the members of each class."""
    known = ((info.id, getattr(info, f"{what}_median"), getattr(info, f"{what}_spread")) for info in classes.classes)
    return {class_id: (median, spread) for class_id, median, spread in known if median is not None and spread is not None}
