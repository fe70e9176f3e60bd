"""What several classifications say together: groups of particles, and how sure that is of each particle.

Classifications that say nothing about any other are left out; the others vote (`voting`). How many groups there are is decided by
what votes support: a group has to be found again on particles that are drawn again, and two classifications at least have to
tell it from each other one.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from icestream.algorithms.classes.independence import adjusted_mutual_information, count_together
from icestream.algorithms.classes.voting import (
    VoteModel,
    Votes,
    climb,
    expect_groups,
    fit_votes,
    measure_stability,
    weigh_sureness,
)

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

_LEAST_JACCARD = 0.75
"""A group is stable if it overlaps at least so much with itself on particles that were drawn again (Hennig 2007)."""


@dataclass(frozen=True)
class Consensus:
    """What classifications say together.

    Attributes
    ----------
    group
        ``(n,)``, the most likely group of each particle, largest group first; -1 where no classification that counts has it.
    probability, entropy
        ``(n,)``, that of this group, and how open it is which one it is, from 0 to 1 (all groups equally likely).
    decided
        ``(n,)``, the probability is at least what was asked for.
    stability
        ``(g,)``, mean Jaccard index of each group with itself on particles that were drawn again.
    information
        ``(runs, runs)``, adjusted mutual information of each two classifications, 1 on the diagonal.
    counted
        ``(runs,)``, the classification took part; one that says nothing about any other does not.
    reliability
        ``(runs,)``, the share of votes that fit the group; NaN of one that did not take part.
    confusion
        For each classification ``(g, k)`` with its classes in rising order; nothing of one that did not take part.
    """

    group: Labels
    probability: Array
    entropy: Array
    decided: NDArray[np.bool_]
    stability: Array
    information: Array
    counted: NDArray[np.bool_]
    reliability: Array
    confusion: tuple[Array, ...]

    @property
    def n_groups(self) -> int:
        """Number of groups; 0 where classifications have nothing in common."""
        return len(self.stability)


def vote_on_classes(
    classes: NDArray[Any],
    *,
    sureness: NDArray[Any] | None = None,
    n_groups: int | None = None,
    most_groups: int = 10,
    least_probability: float = 0.8,
    least_information: float = 0.02,
    seed: int = 0,
) -> Consensus:
    """Find the groups of particles that classifications agree on, and how sure that is of each particle.

    The number of groups is the one with the best Bayesian information criterion among those whose groups are all stable, and all
    told from each other by two classifications at least.

    Parameters
    ----------
    classes
        ``(n, runs)``, the class of each particle in each of at least two classifications; negative where it has none.
    sureness
        ``(n, runs)``, how sure each classification is of its vote, on any rising scale of its own; how much more a sure vote
        counts is learnt. Unset: not known.
    n_groups
        How many groups; found if unset.
    most_groups
        At most so many are looked for.
    least_probability
        Below it a particle is undecided.
    least_information
        A classification counts if its adjusted mutual information with another one is at least this.
    seed
        Of random starts and of the particles that are drawn again.

    Raises
    ------
    ValueError
        There are fewer than two classifications.
    """
    n_runs = classes.shape[1]
    if n_runs < 2:
        raise ValueError(f"a consensus is of at least two classifications; got {n_runs}")
    information = pairwise_information(classes)
    others = information - 2 * np.eye(n_runs)
    counted = others.max(axis=1) >= least_information
    nothing = _no_consensus(classes, information, counted)
    if counted.sum() < 2:
        return nothing
    votes = Votes.gather(classes[:, counted])
    rng = np.random.default_rng(seed)
    if n_groups is None:
        found = _choose_number(votes, most_groups, rng)
    else:
        model = fit_votes(votes, n_groups, rng)
        found = (model, measure_stability(votes, model, rng))
    if found is None:
        return nothing
    belief = expect_groups(votes, found[0])[0][votes.of_particle]  # (n, g)
    if sureness is not None:
        belief = weigh_sureness(votes, belief, sureness[:, counted])
    return _describe(votes, *found, belief, nothing=nothing, least_probability=least_probability)


def pairwise_information(classes: NDArray[Any]) -> Array:
    """Return the adjusted mutual information of each two classifications ``(runs, runs)``, over the particles that both have."""
    n_runs = classes.shape[1]
    information = np.eye(n_runs)
    for a, b in combinations(range(n_runs), 2):
        information[a, b] = information[b, a] = adjusted_mutual_information(count_together(classes[:, a], classes[:, b]))
    return information


def align_groups(reference: NDArray[Any], labels: NDArray[Any]) -> Labels:
    """Return labels under the numbers of the reference that they share most particles with; others get the next free numbers.

    The whole assignment is the one with the most particles in common (Kuhn 1955). Negative labels stay as they are.
    """
    ids, place = np.unique(labels[labels >= 0], return_inverse=True)
    names = np.unique(reference[reference >= 0])
    numbers = np.full(len(ids), -1, dtype=np.int64)
    both = (labels >= 0) & (reference >= 0)
    shared = np.zeros((len(ids), len(names)))
    np.add.at(shared, (np.searchsorted(ids, labels[both]), np.searchsorted(names, reference[both])), 1.0)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    numbers[rows] = names[columns]
    free = numbers < 0
    numbers[free] = (int(names.max()) + 1 if len(names) else 0) + np.arange(int(free.sum()))
    aligned = np.array(labels, dtype=np.int64)
    aligned[labels >= 0] = numbers[place.reshape(-1)]
    return aligned


def _choose_number(votes: Votes, most: int, rng: np.random.Generator) -> tuple[VoteModel, Array] | None:
    """Return the model with the best number of groups, and the stability of each; None where no number will do."""
    best: tuple[VoteModel, Array] | None = None
    n = votes.counts.sum()
    parameters = sum(size - 1 for size in votes.sizes)
    lowest = -2.0 * climb(votes, np.ones((len(votes.rows), 1)))[1] + parameters * np.log(n)
    for n_groups in range(2, min(most, max(votes.sizes)) + 1):
        model = fit_votes(votes, n_groups, rng)
        criterion = -2.0 * expect_groups(votes, model)[1] + (n_groups - 1 + n_groups * parameters) * np.log(n)
        if votes.n_runs == 2:
            criterion = -2.0 * expect_groups(votes, model)[1] + (n_groups + parameters) * np.log(n)
        if criterion >= lowest or not _told_apart(model):
            continue
        stability = measure_stability(votes, model, rng)
        if (stability >= _LEAST_JACCARD).all():
            best, lowest = (model, stability), criterion
    return best


def _told_apart(model: VoteModel) -> bool:
    """Tell whether at least two classifications put any two groups mostly into different classes."""
    favourite = np.stack([confusion.argmax(axis=1) for confusion in model.confusion])  # (runs, g)
    pairs = combinations(range(favourite.shape[1]), 2)
    return all(int((favourite[:, a] != favourite[:, b]).sum()) >= 2 for a, b in pairs)


def _no_consensus(classes: NDArray[Any], information: Array, counted: NDArray[np.bool_]) -> Consensus:
    n, n_runs = classes.shape
    return Consensus(
        group=np.full(n, -1, dtype=np.int64),
        probability=np.zeros(n),
        entropy=np.ones(n),
        decided=np.zeros(n, dtype=np.bool_),
        stability=np.zeros(0),
        information=information,
        counted=counted,
        reliability=np.full(n_runs, np.nan),
        confusion=tuple(np.zeros((0, 0)) for _ in range(n_runs)),
    )


def _describe(
    votes: Votes, model: VoteModel, stability: Array, belief: Array, *, nothing: Consensus, least_probability: float
) -> Consensus:
    order = np.argsort(-model.share, kind="stable")
    belief, n_groups = belief[:, order], len(order)
    confusion = [one[order] for one in model.confusion]
    sure = belief.max(axis=1)  # (n,)
    entropy = -(belief * np.log(np.maximum(belief, 1e-300))).sum(axis=1) / np.log(max(n_groups, 2))
    voted = (votes.counts > 0)[votes.of_particle]
    reliability, all_confusion = np.full(len(nothing.counted), np.nan), list(nothing.confusion)
    for run, one in zip(np.flatnonzero(nothing.counted), confusion, strict=True):
        own = one.argmax(axis=0)[None] == np.arange(n_groups)[:, None]  # (g, k)
        reliability[run] = float((model.share[order][:, None] * one * own).sum())
        all_confusion[int(run)] = one
    return replace(
        nothing,
        group=np.where(voted, belief.argmax(axis=1), -1),
        probability=np.where(voted, sure, 0.0),
        entropy=np.where(voted, np.clip(entropy, 0.0, 1.0), 1.0),
        decided=voted & (sure >= least_probability),
        stability=stability[order],
        reliability=reliability,
        confusion=tuple(all_confusion),
    )
