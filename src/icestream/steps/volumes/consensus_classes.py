"""What several classifications say together, as groups of particles; and the particles of each group."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classes.consensus import Consensus, pairwise_information, vote_on_classes
from icestream.algorithms.classes.identity import count_shared, jaccard
from icestream.algorithms.classes.independence import chance_of_intersection, correct_for_many
from icestream.algorithms.classes.intersections import (
    cut_merging,
    find_elbow,
    intersect_classes,
    merge_intersections,
)
from icestream.flow import Context, Field, ItemError, Params, step
from icestream.io.particles import particles_table, remove_particles
from icestream.io.preview import write_mosaic, write_preview
from icestream.records import (
    DAWID_1979,
    ClassGroup,
    ClassGroups,
    Classification,
    ClassIntersection,
    ComparedClassification,
    Method,
    Particles,
    Text,
    When,
)
from icestream.steps.classify2d.averages import join_classifications
from icestream.steps.classify2d.consensus import draw_classes

GROUPS = np.dtype(
    [("micrograph", "S32"), ("pid", "<i8"), ("group", "<i4"), ("probability", "<f4"), ("entropy", "<f4"), ("decided", "?")]
)
"""One particle: its most likely group or -1, how likely that is, how open it is, and whether it counts as decided."""
_LISTED = 50
_CELL_PX = 48


class ConsensusClassesParams(Params):
    """How classifications become groups."""

    rule: Literal["votes", "intersections"] = Field(
        "votes",
        description="Votes, each weighed by how reliable its classification is; or Scipion's rule: intersections of classes, "
        "merged until they become unlike",
    )
    n_groups: int | None = Field(None, ge=1, le=50, description="How many groups; found if unset")
    min_probability: float = Field(0.8, ge=0.5, lt=1, description="Votes: below it a particle is undecided")
    min_information: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Votes: a classification takes part if its adjusted mutual information with another one is at least this",
    )
    min_class_size: int = Field(0, ge=0, description="Intersections: those with fewer particles are left out")
    distance: Literal["cosine", "euclidean", "cityblock", "correlation"] = Field(
        "cosine", description="Intersections: how the distance of two is measured, on their Jaccard indices with all classes"
    )
    elbow: Literal["profile_likelihood", "origin", "distance_line", "slope"] = Field(
        "profile_likelihood", description="Intersections: which rule finds where merging is to stop"
    )


@step.map(
    "consensus_classes3d",
    version=1,
    method=Method(
        (
            Text(
                "What several classifications say together was found by votes, weighed by how reliable each is.",
                When("rule", equals="votes"),
            ),
            Text(
                "Classes of several classifications were intersected, and the intersections merged.",
                When("rule", equals="intersections"),
            ),
        ),
        (DAWID_1979,),
    ),
)
def find_consensus_classes(classes: list[Classification], params: ConsensusClassesParams, ctx: Context) -> ClassGroups:
    """Find the groups of particles that two or more classifications, 3D or 2D, agree on, and the particles that are undecided.

    Classifications may have any numbers of classes, and need not have all particles. Where they say how probable the class of
    each particle is, surer votes count more. Classifications that are the same to the last bit count once.

    Raises
    ------
    ItemError
        There are fewer than two classifications that differ, or one does not know its particles.
    """
    if len(classes) < 2:
        raise ItemError(f"a consensus is of at least two classifications; got {len(classes)}")
    without = [number for number, one in enumerate(classes, 1) if not one.tables]
    if without:
        raise ItemError(f"classifications {without} have no assignments of their particles")
    particles, votes, sureness = join_classifications(classes, ctx)
    first = _find_first(classes, ctx)
    once = np.unique(first)
    if len(once) < 2:
        raise ItemError(f"all {len(classes)} classifications are the same one; give others another seed")
    sure = None if sureness is None else sureness[:, once]
    found = (
        _merge(votes[:, once], params) if params.rule == "intersections" else _vote(votes[:, once], sure, params, seed=ctx.seed)
    )
    found = _repeat(found, first)
    found, favourites = _number_groups(found, votes)
    table = _publish_table(found, particles, ctx)
    with ctx.publish("_groups.png") as picture:
        write_mosaic(picture.path, draw_classes(classes, favourites, ctx), columns=len(classes))
    with ctx.publish("_agreement.png") as agreement:
        cells = np.kron(np.clip(found.information[::-1], 0.0, 1.0), np.ones((_CELL_PX, _CELL_PX)))  # first run on top
        write_preview(agreement.path, np.pad(cells, 1), percentiles=(0, 100))
    listed = _describe_intersections(votes[:, once], found.group, np.searchsorted(once, first))
    repeated = [run + 1 for run in range(len(classes)) if first[run] != run]
    return ClassGroups(
        rule=params.rule,
        count=len(particles),
        n_decided=int(found.decided.sum()),
        n_undecided=int((~found.decided).sum()),
        entropy=round(float(found.entropy.mean()), 4) if len(particles) else None,
        picture=picture.ref,
        agreement_picture=agreement.ref,
        table=table,
        groups=[_describe_group(found, number, row) for number, row in enumerate(favourites)],
        classifications=[_describe_classification(found, votes, run) for run in range(len(classes))],
        repeated=repeated,
        n_repeated=len(repeated) or None,
        intersections=listed[:_LISTED],
        dropped_intersections=max(len(listed) - _LISTED, 0),
    )


def _publish_table(found: Consensus, particles: NDArray[np.void], ctx: Context) -> str:
    table = np.zeros(len(particles), dtype=GROUPS)
    for name in ("micrograph", "pid"):
        table[name] = particles[name]
    for name in ("group", "probability", "entropy", "decided"):
        table[name] = getattr(found, name)
    with ctx.publish("_groups.npy") as out, out.path.open("wb") as handle:
        np.save(handle, table, allow_pickle=False)
    return out.ref


def _find_first(classes: Sequence[Classification], ctx: Context) -> NDArray[np.int64]:
    """Return for each classification the first one that says the same of the same particles, in every number: ``(runs,)``."""
    known: dict[tuple[object, ...], int] = {}
    first = []
    for run, one in enumerate(classes):
        contents = [hashlib.sha256(ctx.path(table).read_bytes()).digest() for table in one.tables]
        first.append(known.setdefault((*one.class_ids, *contents), run))
    return np.array(first)


def _repeat(found: Consensus, first: NDArray[np.int64]) -> Consensus:
    """Return the consensus of those that differ as one of all; the repeated ones do not count."""
    place = np.searchsorted(np.unique(first), first)
    own = first == np.arange(len(first))
    return replace(
        found,
        information=found.information[np.ix_(place, place)],
        counted=found.counted[place] & own,
        reliability=np.where(own, found.reliability[place], np.nan),
        confusion=tuple(found.confusion[one] for one in place) if found.confusion else (),
    )


def _vote(
    votes: NDArray[np.int32], sureness: NDArray[np.float32] | None, params: ConsensusClassesParams, *, seed: int
) -> Consensus:
    return vote_on_classes(
        votes,
        sureness=sureness,
        n_groups=params.n_groups,
        least_probability=params.min_probability,
        least_information=params.min_information,
        seed=seed,
    )


def _merge(votes: NDArray[np.int32], params: ConsensusClassesParams) -> Consensus:
    """Return the groups of Scipion's rule in the form of votes: who is in an intersection is in its group for certain."""
    found = intersect_classes(votes, least_size=params.min_class_size)
    n_runs = votes.shape[1]
    group = np.full(len(votes), -1, dtype=np.int64)
    if len(found.counts):
        pairs, distance = merge_intersections(found, metric=params.distance)
        members = cut_merging(pairs, params.n_groups or find_elbow(distance, rule=params.elbow))
        inside = found.of_particle >= 0
        group[inside] = members[found.of_particle[inside]]
    known = group >= 0
    return Consensus(
        group=group,
        probability=known.astype(np.float64),
        entropy=(~known).astype(np.float64),
        decided=known,
        stability=np.full(int(group.max(initial=-1)) + 1, np.nan),
        information=pairwise_information(votes),
        counted=np.ones(n_runs, dtype=np.bool_),
        reliability=np.full(n_runs, np.nan),
        confusion=(),
    )


def _number_groups(found: Consensus, votes: NDArray[np.int32]) -> tuple[Consensus, list[list[int | None]]]:
    """Number groups by the classes that are most like them, and return these: a list of classes for each group.

    Ids of classes last, so a group keeps its number in the consensus of later versions.
    """
    favourites: list[list[int | None]] = [[] for _ in range(found.n_groups)]
    for run in range(votes.shape[1]):
        ids = np.unique(votes[votes[:, run] >= 0, run])
        places = np.where(votes[:, run] >= 0, np.searchsorted(ids, votes[:, run]), -1)
        likeness = jaccard(count_shared(found.group, places, n_old=found.n_groups, n_new=len(ids)))  # (g, k)
        for group, row in enumerate(likeness):
            favourites[group].append(int(ids[row.argmax()]) if len(ids) and found.counted[run] and row.any() else None)
    order = sorted(range(found.n_groups), key=lambda group: [-1 if one is None else one for one in favourites[group]])
    number = np.empty(found.n_groups + 1, dtype=np.int64)
    number[order], number[-1] = np.arange(found.n_groups), -1  # group -1 takes the last
    renamed = Consensus(**{**vars(found), "group": number[found.group], "stability": found.stability[order]})
    return renamed, [favourites[group] for group in order]


def _describe_group(found: Consensus, number: int, classes: Sequence[int | None]) -> ClassGroup:
    inside = found.group == number
    sure = inside & found.decided
    stability = float(found.stability[number])
    return ClassGroup(
        id=number,
        count=int(sure.sum()),
        undecided=int((inside & ~found.decided).sum()),
        stability=round(stability, 4) if np.isfinite(stability) else None,
        probability=round(float(found.probability[inside].mean()), 4) if inside.any() else None,
        classes=list(classes),
    )


def _describe_classification(found: Consensus, votes: NDArray[np.int32], run: int) -> ComparedClassification:
    known = votes[:, run] >= 0
    reliability = float(found.reliability[run])
    return ComparedClassification(
        number=run + 1,
        n_classes=len(np.unique(votes[known, run])),
        count=int(known.sum()),
        information=[round(float(one), 4) for one in found.information[run]],
        counted=bool(found.counted[run]),
        reliability=round(reliability, 4) if np.isfinite(reliability) else None,
    )


def _describe_intersections(
    votes: NDArray[np.int32], group: NDArray[np.int64], place: NDArray[np.int64]
) -> list[ClassIntersection]:
    """Return the intersections of all classifications, largest first, and what chance would make of them.

    ``place`` ``(runs,)`` is the column of each classification in ``votes``.
    """
    found = intersect_classes(votes)
    inside = found.of_particle >= 0
    n, common = int(inside.sum()), votes[inside]
    sizes = [dict(zip(*np.unique(column, return_counts=True), strict=True)) for column in common.T]
    chances, expected = [], []
    for together, count in zip(found.classes, found.counts, strict=True):
        own = [int(sizes[run][one]) for run, one in enumerate(together)]
        expected.append(float(np.prod([one / n for one in own]) * n))
        chances.append(chance_of_intersection(int(count), own, n=n))
    corrected = correct_for_many(np.array(chances))
    listed = []
    for row in np.argsort(-found.counts, kind="stable"):
        groups = group[found.of_particle == row]
        most = int(np.bincount(groups[groups >= 0]).argmax()) if (groups >= 0).any() else None
        listed.append(
            ClassIntersection(
                classes=[int(one) for one in found.classes[row][place]],
                count=int(found.counts[row]),
                expected=round(expected[row], 2),
                chance=float(corrected[row]),
                group=most,
            )
        )
    return listed


class GroupParticlesParams(Params):
    """Which particles are kept."""

    take: Literal["groups", "undecided"] = Field("groups", description="Particles of groups, or those that are undecided")
    groups: list[int] = Field(default_factory=list, description="Ids of groups, as the report shows them; empty: all")


@step.map("group_particles", version=1, memory_gb=0.5)
def take_group_particles(particles: Particles, groups: ClassGroups, params: GroupParticlesParams, ctx: Context) -> Particles:
    """Keep the particles of groups that classifications agree on, or those that are undecided; the others are kept beside them.

    The groups are those that were the newest when the exposure came first; `after` makes the step wait until the consensus has
    ended. The others are a stream of their own with `rejected_particles`.

    Raises
    ------
    ItemError
        A group is named that there is not.
    """
    known = [one.id for one in groups.groups]
    unknown = sorted(set(params.groups) - set(known))
    if unknown:
        raise ItemError(f"there is no group {unknown[0]}; the consensus has {known}")
    rows, compared = find_groups(groups, particles, ctx)
    removed = {"no classification has it": ~compared}
    if params.take == "groups":
        removed |= {"undecided": ~rows["decided"]}
    else:
        removed |= {"decided": rows["decided"]}
    if params.groups:
        removed |= {"in another group": ~np.isin(rows["group"], params.groups)}
    return remove_particles(particles, removed)


def find_groups(groups: ClassGroups, particles: Particles, ctx: Context) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """Return what a consensus says of particles, in their order: rows of `GROUPS` ``(n,)``, and which of them it knows."""
    table = np.load(ctx.path(groups.table), mmap_mode="r", allow_pickle=False)
    key, pids = particles.table_key, particles_table(particles)["pid"]
    low, high = np.searchsorted(table["micrograph"], key, "left"), np.searchsorted(table["micrograph"], key, "right")
    known = np.array(table[low:high])
    rows = np.zeros(len(pids), dtype=GROUPS)
    rows["micrograph"], rows["pid"], rows["group"], rows["entropy"] = key, pids, -1, 1.0
    at = np.minimum(np.searchsorted(known["pid"], pids), max(len(known) - 1, 0))
    same = known["pid"][at] == pids if len(known) else np.zeros(len(pids), dtype=np.bool_)
    rows[same] = known[at[same]]
    return rows, same
