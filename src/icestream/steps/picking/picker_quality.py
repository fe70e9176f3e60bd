"""How good the pickers of a session are, learnt from how far they agree while data arrive."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from icestream.algorithms.particles.consensus_model import (
    ABSENT,
    UNKNOWN,
    expected_precision,
    general_model,
    learn_model,
    weigh_candidates,
)
from icestream.flow import Accumulator, Context, Exposure, ItemError, Params, Progress, Update, Verdict, step, wait
from icestream.io.picks import parents_table
from icestream.records import LearntPicker, PickerQuality, Picks, Record
from icestream.steps.picking.consensus import N_CLASSES, classify_scores


class PickerQualityParams(Params):
    """How many micrographs are waited for."""

    first_micrographs: int = Field(
        10, ge=1, description="Publish the first estimate after this many micrographs; their scores set the classes for good"
    )
    update_micrographs: int = Field(50, ge=1, description="Publish another after this many more")
    trusted: list[str] = Field(default_factory=list, description="Pickers that are known to be better, as in pick_consensus")


class SeenPattern(BaseModel):
    """A combination of classes of scores, and how many places have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[int, ...]
    count: int


class PickerQualityState(Record):
    """What pickers have seen together: counts of every combination, which is all that the estimate needs."""

    names: tuple[str, ...] = ()
    edges: tuple[tuple[float, ...], ...] = ()
    patterns: tuple[SeenPattern, ...] = ()
    n_micrographs: int = 0


@step.accumulate("picker_quality", version=1, memory_gb=0.5)
class LearnPickerQuality(Accumulator[PickerQualityState, PickerQuality]):
    """Learn how good each picker is from a consensus of them: recall, precision, and what its scores say.

    It takes every place at which any picker sees a particle, whatever the rule of that consensus kept. `pick_consensus` uses the
    newest estimate there is when it first comes to an exposure, and keeps it: what is computed again later gives the same.
    """

    portion = 50

    def when(self, progress: Progress, params: PickerQualityParams) -> Verdict:
        """Wait for the first micrographs, then for whole portions, or the end."""
        target = params.update_micrographs if progress.passed else params.first_micrographs
        return progress.wait_for(target, "micrographs")

    def start(self, params: PickerQualityParams, ctx: Context) -> PickerQualityState:
        """Return the state before the first micrograph."""
        return PickerQualityState()

    def add(
        self,
        state: PickerQualityState,
        exposures: Sequence[Exposure],
        picks: Sequence[Picks],
        params: PickerQualityParams,
        ctx: Context,
    ) -> Update[PickerQualityState]:
        """Count what the pickers see on more micrographs.

        Raises
        ------
        ItemError
            The picks are not those of a consensus.
        """
        for one, exposure in zip(picks, exposures, strict=True):
            if one.consensus is None:
                raise ItemError(f"{exposure.name}: its picks are of no consensus; connect a pick_consensus")
        n_micrographs = state.n_micrographs + len(picks)
        if not state.patterns and not any(len(parents_table(one)) for one in picks):  # there are no scores to make classes of
            return Update(state.model_copy(update={"n_micrographs": n_micrographs}))
        state = _know_pickers(state, picks)
        counted = {one.classes: one.count for one in state.patterns}
        for one in picks:
            patterns, counts = np.unique(_classes_of(one, state), axis=0, return_counts=True)
            for row, count in zip(patterns.tolist(), counts.tolist(), strict=True):
                counted[tuple(row)] = counted.get(tuple(row), 0) + count
        found = tuple(SeenPattern(classes=row, count=count) for row, count in sorted(counted.items()))
        return Update(state.model_copy(update={"patterns": found, "n_micrographs": n_micrographs}))

    def emit(self, state: PickerQualityState, params: PickerQualityParams, ctx: Context) -> PickerQuality | Verdict:
        """Estimate the quality of the pickers from all counts; nothing yet while no picker has found anything."""
        if not state.patterns:
            return wait(f"no picker found anything on {state.n_micrographs} micrographs, so nothing is known of them")
        classes = _aligned(state)  # (n, k)
        count = np.array([one.count for one in state.patterns], dtype=np.float64)
        trusted = [state.names.index(name) for name in params.trusted if name in state.names]
        prior = general_model(len(state.names), n_classes=N_CLASSES, trusted=trusted)
        model = learn_model(classes, prior, count=count, n_micrographs=state.n_micrographs)
        precision = expected_precision(classes, weigh_candidates(classes, model), count=count)
        return PickerQuality(
            n_micrographs=state.n_micrographs,
            particles=max(round(model.particles, 6), 1e-6),
            false_places=max(round(model.false_places, 6), 1e-6),
            jaccard=round(float(count @ (classes >= 0).all(axis=1) / count.sum()), 5),
            pickers=tuple(
                LearntPicker(
                    name=name,
                    n_picks=int(count @ (classes[:, picker] >= 0)),
                    recall=round(float(model.recall[picker]), 5),
                    precision=round(float(precision[picker]), 5) if np.isfinite(precision[picker]) else None,
                    false_rate=min(max(round(float(model.false_rate[picker]), 6), 1e-6), 1 - 1e-6),
                    score_edges=state.edges[picker],
                    score_ratio=tuple(round(float(value), 5) for value in model.score_ratio[picker]),
                )
                for picker, name in enumerate(state.names)
            ),
        )


def _know_pickers(state: PickerQualityState, picks: Sequence[Picks]) -> PickerQualityState:
    """Add pickers that come for the first time, with classes of about equal size of the scores they come with."""
    scores: dict[str, list[NDArray[Any]]] = {}
    for one in picks:
        parents = parents_table(one)
        for number, name in enumerate(one.pickers):
            scores.setdefault(name, []).append(parents["score"][parents["picker"] == number])
        for name in () if one.consensus is None else one.consensus.missing:
            scores.setdefault(name, [])
    new = {name: _edges_of(found) for name, found in sorted(scores.items()) if name not in state.names}
    return state.model_copy(update={"names": (*state.names, *new), "edges": (*state.edges, *new.values())})


def _edges_of(scores: Sequence[NDArray[Any]]) -> tuple[float, ...]:
    known = np.concatenate([np.zeros(0), *scores])
    known = known[np.isfinite(known)]
    parts = np.arange(1, N_CLASSES) / N_CLASSES
    return tuple(float(value) for value in np.quantile(known, parts)) if len(known) else (0.0,) * len(parts)


def _classes_of(picks: Picks, state: PickerQualityState) -> NDArray[np.int64]:
    """Return the class of the score of each picker of the session at each place ``(n, k)``."""
    parents = parents_table(picks)
    places, place = np.unique(parents["pid"], return_inverse=True)
    classes = np.full((len(places), len(state.names)), UNKNOWN, dtype=np.int64)
    for number, name in enumerate(picks.pickers):
        column, mine = state.names.index(name), parents["picker"] == number
        classes[:, column] = ABSENT
        classes[place[mine], column] = classify_scores(parents["score"][mine], state.edges[column])
    return classes


def _aligned(state: PickerQualityState) -> NDArray[np.int64]:
    """Return all combinations ``(n, k)``; a picker that came later was missing before."""
    n_pickers = len(state.names)
    rows = [one.classes + (UNKNOWN,) * (n_pickers - len(one.classes)) for one in state.patterns]
    return np.array(rows, dtype=np.int64).reshape(-1, n_pickers)
