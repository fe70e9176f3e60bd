"""What several pickers agree on, by counting votes or by how likely each place is a particle."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.particles.consensus import Candidates, match_picks, rank_scores, thin_out
from icestream.algorithms.particles.consensus_model import (
    ABSENT,
    UNKNOWN,
    PickerModel,
    expected_precision,
    general_model,
    learn_model,
    weigh_candidates,
)
from icestream.flow import Angstrom, Field, InputNames, Params, Pixel, step
from icestream.io.picks import empty_parents, make_picks, picks_table, positions_of, table_of_picks
from icestream.records import (
    Acquisition,
    LearntPicker,
    Method,
    Micrograph,
    PickConsensus,
    PickerFigures,
    PickerQuality,
    Picks,
    Text,
)

N_CLASSES = 8
"""Into how many classes the scores of a picker are divided."""
_PRIOR_WEIGHT = 20.0
"""For how many places of the micrograph itself the quality counts that is known from the session."""

_LEAST_AGREEMENT = 0.5
"""A picker is disregarded on a micrograph on which it finds less than this part of what it finds in the session."""


class RadiusParams(Params):
    """How near picks are that belong to one particle."""

    radius_diameters: float = Field(
        0.4, gt=0, le=1, description="Picks nearer than this part of the diameter are of one particle"
    )
    radius_ang: Angstrom | None = Field(None, gt=0, description="The same in Å; set, it counts instead")
    radius_px: Pixel | None = Field(None, gt=0, description="The same in pixels of the micrograph; set, it counts instead")

    def in_pixels(self, micrograph: Micrograph, acquisition: Acquisition, *, diameter_ang: float) -> float:
        """Return the radius in pixels of the micrograph.

        Raises
        ------
        ItemError
            It is needed, and the pixel size is unset.
        """
        if self.radius_px is not None:
            return self.radius_px
        radius_ang = self.radius_diameters * diameter_ang if self.radius_ang is None else self.radius_ang
        return radius_ang / (acquisition.need("pixel_size_ang") * micrograph.bin)


class PickConsensusParams(RadiusParams):
    """Which places are kept."""

    rule: Literal["probability", "at_least", "exactly", "all", "any"] = Field(
        "probability",
        description="What is kept: places that are likely particles, by the quality of the pickers that see them and of those "
        "that do not; or those with votes of at least or exactly `votes` pickers, of all that are there, or of any",
    )
    votes: int = Field(2, ge=1, description="Number of pickers for the rules at_least and exactly")
    trusted: list[str] = Field(
        default_factory=list, description="Pickers that are known to be better than the others, by the names of their steps"
    )
    min_probability: float = Field(0.5, ge=0, le=1, description="Smallest probability of a particle that is kept, for that rule")


@dataclass(frozen=True)
class _Judged:
    """What a rule says of each candidate: its score ``(n,)``, and why it is removed, by reason."""

    score: NDArray[np.float64]
    removed: dict[str, NDArray[np.bool_]]
    recall: Sequence[float | None]
    precision: Sequence[float | None]
    disregarded: tuple[int, ...] = ()
    """The pickers that do not count on this micrograph."""


@step.map(
    "pick_consensus",
    version=1,
    reads=("pixel_size_ang",),
    memory_gb=0.3,
    method=Method((Text("Picks of several pickers were joined by the rule “{rule}”."),), ()),
)
def find_pick_consensus(
    micrograph: Micrograph,
    picks: list[Picks],
    quality: PickerQuality | None,
    params: PickConsensusParams,
    acquisition: Acquisition,
    names: InputNames,
) -> Picks:
    """Join the picks of several pickers, and keep those that enough of them, or good enough ones, agree on.

    Picks within the radius are of one place, at most one of each picker; its position is their mean. Places get numbers of their
    own, and keep which pick of which picker they are of. Their score is the probability of a particle; of a rule that counts
    votes, the mean rank of the score over all pickers. The result does not depend on the order of the inputs.

    By the rule ``probability``, recall and precision of each picker are estimated from how far the pickers agree: with
    ``quality`` connected, over the session and then on this micrograph; without, on this micrograph alone. Of three pickers or
    more, one that agrees far less here than in the session does not count. One that found nothing, or has no item for this
    exposure, does not stop the others; which were missing is kept.

    Raises
    ------
    ItemError
        The radius needs the pixel size, which is unset.
    """
    tables = [picks_table(one) for one in picks]
    diameter_ang = float(np.median([one.diameter_ang for one in picks]))
    radius_px = params.in_pixels(micrograph, acquisition, diameter_ang=diameter_ang)
    found = match_picks([positions_of(one) for one in picks], radius_px=radius_px)
    given = names.given["picks"]
    alone = len(tables) == 1 and _known_pickers(quality, given) == [None]  # nothing says how good it is: all its picks count
    judge = _judge_by_probability if params.rule == "probability" and not alone else _judge_by_votes
    prior = _prior(given, quality, params.trusted)
    judged = judge(found, tables, _known_pickers(quality, given), prior, params)
    order = np.lexsort((found.yx_px[:, 1], found.yx_px[:, 0], -found.votes, -judged.score))
    found = Candidates(found.yx_px[order], found.pick[order])
    removed = {reason: mask[order] for reason, mask in judged.removed.items()}
    score = judged.score[order]
    kept = ~np.any([*removed.values(), np.zeros(len(score), dtype=bool)], axis=0)
    near = kept.copy()
    near[kept] = ~thin_out(found.yx_px[kept], score[kept], min_distance_px=radius_px)
    figures = [
        PickerFigures(name=name, n_picks=len(table), recall=recall, precision=precision)
        for name, table, recall, precision in zip(given, tables, judged.recall, judged.precision, strict=True)
    ]
    return make_picks(
        table_of_picks(found.yx_px, score),
        diameter_ang=diameter_ang,
        removed={**removed, "too close to a better place": near},
        pickers=given,
        parents=_parents(found, tables),
        consensus=PickConsensus(
            rule=params.rule,
            radius_px=radius_px,
            jaccard=round(found.jaccard, 5),
            n_places=len(score),
            pickers=tuple(figures),
            missing=names.missing["picks"],
            disregarded=tuple(given[picker] for picker in judged.disregarded),
            n_learnt=None if quality is None or params.rule != "probability" else quality.n_micrographs,
        ),
    )


def _known_pickers(quality: PickerQuality | None, given: Sequence[str]) -> list[LearntPicker | None]:
    known = {} if quality is None else {one.name: one for one in quality.pickers}
    return [known.get(name) for name in given]


def _judge_by_votes(
    found: Candidates,
    tables: Sequence[NDArray[Any]],
    _known: Sequence[LearntPicker | None],
    _prior: PickerModel,
    params: PickConsensusParams,
) -> _Judged:
    rank = np.zeros(found.pick.shape)
    for picker, table in enumerate(tables):
        seen = found.pick[:, picker] >= 0
        rank[seen, picker] = rank_scores(table["score"])[found.pick[seen, picker]]
    least = params.votes if params.rule in ("at_least", "exactly") else len(tables) if params.rule == "all" else 1
    removed = {"too few pickers": found.votes < least}
    if params.rule == "exactly":
        removed["too many pickers"] = found.votes > least
    unknown = [None] * len(tables)
    return _Judged(rank.mean(axis=1) if tables else np.zeros(0), removed, unknown, unknown)


def _judge_by_probability(
    found: Candidates,
    tables: Sequence[NDArray[Any]],
    known: Sequence[LearntPicker | None],
    prior: PickerModel,
    params: PickConsensusParams,
) -> _Judged:
    classes = np.full(found.pick.shape, ABSENT, dtype=np.int64)
    for picker, (table, one) in enumerate(zip(tables, known, strict=True)):
        seen = found.pick[:, picker] >= 0
        classes[seen, picker] = _classes_of(table["score"], one)[found.pick[seen, picker]]
    keep_scores = any(one is not None for one in known)
    model = learn_model(classes, prior, keep_scores=keep_scores)
    wrecked = [picker for picker, one in enumerate(known) if one is not None and _is_wrecked(model, prior, picker)]
    if wrecked and len(known) - len(wrecked) >= 2:
        classes = classes.copy()
        classes[:, wrecked] = UNKNOWN
    else:
        wrecked = []
    counts = (classes >= 0).any(axis=1)  # (n,): a picker that is not disregarded sees it
    model = learn_model(classes[counts], prior, keep_scores=keep_scores) if wrecked else model
    probability = np.where(counts, weigh_candidates(classes, model), 0.0)
    precision = expected_precision(classes, probability)
    return _Judged(
        probability,
        {"unlikely a particle": probability < params.min_probability},
        [None if picker in wrecked else round(float(value), 4) for picker, value in enumerate(model.recall)],
        [round(float(value), 4) if np.isfinite(value) else None for value in precision],
        tuple(wrecked),
    )


def _is_wrecked(model: PickerModel, prior: PickerModel, picker: int) -> bool:
    return bool(model.recall[picker] < _LEAST_AGREEMENT * prior.recall[picker])


def _classes_of(score: NDArray[np.floating[Any]], known: LearntPicker | None) -> NDArray[np.int64]:
    """Return the class of each score: by the borders that are known, else by its rank on this micrograph."""
    if known is None:
        return np.minimum((rank_scores(score) * N_CLASSES).astype(np.int64), N_CLASSES - 1)
    return classify_scores(score, known.score_edges)


def classify_scores(score: NDArray[np.floating[Any]], edges: Sequence[float]) -> NDArray[np.int64]:
    """Return the class of each score ``(n,)`` by the borders between classes; what is not finite is in the lowest."""
    return np.searchsorted(np.asarray(edges), np.where(np.isfinite(score), score, -np.inf), side="right").astype(np.int64)


def _prior(given: Sequence[str], quality: PickerQuality | None, trusted: Sequence[str]) -> PickerModel:
    known = _known_pickers(quality, given)
    model = general_model(len(known), n_classes=N_CLASSES, trusted=[given.index(one) for one in trusted if one in given])
    if quality is None:
        return model
    recall, false_rate, ratio = model.recall.copy(), model.false_rate.copy(), model.score_ratio.copy()
    for picker, one in enumerate(known):
        if one is not None:
            recall[picker], false_rate[picker], ratio[picker] = one.recall or recall[picker], one.false_rate, one.score_ratio
    return replace(
        model,
        recall=recall,
        false_rate=false_rate,
        score_ratio=ratio,
        particles=quality.particles,
        false_places=quality.false_places,
        weight=_PRIOR_WEIGHT,
    )


def _parents(found: Candidates, tables: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the rows ``pid, picker, parent_pid, score`` of all places, kept and removed."""
    place, picker = np.nonzero(found.found)
    parents = empty_parents(len(place))
    parents["pid"], parents["picker"] = place, picker
    for number, table in enumerate(tables):
        mine = picker == number
        chosen = table[found.pick[place[mine], number]]
        parents["parent_pid"][mine], parents["score"][mine] = chosen["pid"], chosen["score"]
    return parents
