"""Votes of classifications about particles: which group each is of, learnt with how each classification confuses the groups.

What each particle is, and how each classification confuses that, are estimated in turn (expectation maximisation; Dawid & Skene
1979, Applied Statistics 28, 20). Classifications may have any numbers of classes, and need not have all particles. Only particles
with different votes are told apart, so the cost is that of the distinct combinations of classes.

What votes cannot tell: two classifications that disagree do not show which of them errs, so both are held equally reliable; and
errors that all classifications make together look like agreement, so stated probabilities are too sure where runs are alike.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

_FIRST_ROUNDS = 20
_MOST_ROUNDS = 300
_TOLERANCE = 1e-6
_PRIOR_VOTES = 1.0
"""Votes that are added to each group in each classification, spread as all its votes are."""
_TIED_ERROR = (1.0, 4.0)
"""Wrong and right votes that are added where two classifications share one rate of errors."""
_RANDOM_STARTS = 4
_RESAMPLED = 20
_LEVELS = 3
"""Unsure, middling and sure votes for each class, as many of each."""
_ROUNDS_OF_SURENESS = 2
"""Few, because votes that are unsure together would become groups of their own."""


@dataclass(frozen=True)
class VoteModel:
    """What is known of groups and classifications.

    ``share`` ``(g,)`` is the part of all particles in each group; ``confusion`` has for each classification ``(g, k)``, how often
    it puts a particle of a group into each of its classes.
    """

    share: Array
    confusion: tuple[Array, ...]


@dataclass(frozen=True)
class Votes:
    """The distinct combinations of votes.

    ``rows`` ``(m, runs)`` are numbers of classes, -1 where missing, ``counts`` how many particles vote so, ``of_particle`` the
    row of each particle, ``sizes`` the classes of each classification and ``spread`` the share of its votes that each class has.
    """

    rows: Labels
    counts: Array
    of_particle: Labels
    sizes: tuple[int, ...]
    spread: tuple[Array, ...]

    @classmethod
    def gather(cls, classes: NDArray[Any]) -> "Votes":
        """Collect the votes in ``classes`` ``(n, runs)``; negative where there is none."""
        numbered = np.full(classes.shape, -1, dtype=np.int64)
        spread = []
        for run in range(classes.shape[1]):
            known = classes[:, run] >= 0
            _, place, counts = np.unique(classes[known, run], return_inverse=True, return_counts=True)
            numbered[known, run] = place.reshape(-1)
            spread.append(counts / counts.sum())
        rows, index, counts = np.unique(numbered, axis=0, return_inverse=True, return_counts=True)
        empty = (rows < 0).all(axis=1)
        weights = np.where(empty, 0.0, counts.astype(np.float64))
        return cls(rows, weights, np.asarray(index).reshape(-1), tuple(len(one) for one in spread), tuple(spread))

    @property
    def n_runs(self) -> int:
        """Number of classifications."""
        return len(self.sizes)


def fit_votes(votes: Votes, n_groups: int, rng: np.random.Generator, *, most_rounds: int = _MOST_ROUNDS) -> VoteModel:
    """Return the most likely model with ``n_groups`` groups of several starts: from each classification, and random ones.

    Every start climbs a little, the best one to the end.
    """
    begun = [climb(votes, belief, most_rounds=_FIRST_ROUNDS) for belief in _starts(votes, n_groups, rng)]
    best = max(begun, key=lambda one: one[1])[0]
    return climb(votes, expect_groups(votes, best)[0], most_rounds=most_rounds)[0]


def _starts(votes: Votes, n_groups: int, rng: np.random.Generator) -> list[Array]:
    """Return beliefs ``(m, g)`` to begin with."""
    starts = []
    for run in range(votes.n_runs):
        if votes.sizes[run] < n_groups:
            continue
        rank = np.empty(votes.sizes[run], dtype=np.int64)
        rank[np.argsort(-votes.spread[run], kind="stable")] = np.arange(votes.sizes[run])
        labels = np.where(votes.rows[:, run] >= 0, np.minimum(rank, n_groups - 1)[votes.rows[:, run]], -1)
        starts.append(_sharpen(labels, n_groups))
        if votes.sizes[run] > n_groups:  # random ways to put its classes together, for runs that split what belongs together
            for _ in range(_RANDOM_STARTS):
                put = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, votes.sizes[run] - n_groups)])
                rng.shuffle(put)
                starts.append(_sharpen(np.where(votes.rows[:, run] >= 0, put[votes.rows[:, run]], -1), n_groups))
    starts += [rng.dirichlet(np.ones(n_groups), len(votes.rows)) for _ in range(_RANDOM_STARTS)]
    return starts


def _sharpen(labels: Labels, n_groups: int) -> Array:
    belief = np.full((len(labels), n_groups), 1.0 / n_groups)
    known = labels >= 0
    belief[known] = 0.1 / n_groups
    belief[known, labels[known]] += 0.9
    return belief


def climb(votes: Votes, belief: Array, *, most_rounds: int = _MOST_ROUNDS) -> tuple[VoteModel, float]:
    """Return the model that expectation maximisation reaches from a belief ``(m, g)``, and its log likelihood."""
    last = -np.inf
    tied = votes.n_runs == 2
    model = learn_votes(votes, belief, tied=tied)
    for _ in range(most_rounds):
        belief, likelihood = expect_groups(votes, model)
        if likelihood - last < _TOLERANCE * votes.counts.sum():
            break
        last, model = likelihood, learn_votes(votes, belief, tied=tied)
    return model, likelihood


def expect_groups(votes: Votes, model: VoteModel) -> tuple[Array, float]:
    """Return how likely each group is for each combination of votes ``(m, g)``, and the log likelihood of all votes."""
    log_joint = np.tile(np.log(model.share), (len(votes.rows), 1))  # (m, g)
    for run, confusion in enumerate(model.confusion):
        vote = votes.rows[:, run]
        log_joint += np.where(vote[:, None] >= 0, np.log(confusion).T[np.maximum(vote, 0)], 0.0)
    whole = logsumexp(log_joint, axis=1, keepdims=True)  # (m, 1)
    return np.exp(log_joint - whole), float(votes.counts @ whole[:, 0])


def learn_votes(votes: Votes, belief: Array, *, tied: bool) -> VoteModel:
    """Return the model that fits what is believed of each combination of votes ``(m, g)``; tied: one rate of errors for all."""
    weighted = belief * votes.counts[:, None]  # (m, g)
    share = weighted.sum(axis=0) + 1.0
    tables = []
    for run, size in enumerate(votes.sizes):
        table = np.zeros((size, belief.shape[1]))
        known = votes.rows[:, run] >= 0
        np.add.at(table, votes.rows[known, run], weighted[known])
        tables.append(table.T)  # (g, k)
    smoothed = [table + _PRIOR_VOTES * votes.spread[run] for run, table in enumerate(tables)]
    confusion = _tie_errors(tables, votes.spread) if tied else smoothed
    return VoteModel(share / share.sum(), tuple(one / one.sum(axis=1, keepdims=True) for one in confusion))


def _tie_errors(tables: list[Array], spread: tuple[Array, ...]) -> list[Array]:
    """Return the confusion of two classifications that err equally often: each class belongs to one group."""
    belongs = [_class_groups(table) for table in tables]  # (k,) each
    right = [np.arange(len(table))[:, None] == own[None] for table, own in zip(tables, belongs, strict=True)]  # (g, k)
    hits = sum(float((table * own).sum()) for table, own in zip(tables, right, strict=True))
    total = sum(float(table.sum()) for table in tables)
    error = (total - hits + _TIED_ERROR[0]) / (total + sum(_TIED_ERROR))
    confusion = []
    for own, part in zip(right, spread, strict=True):
        inside = own * part + 1e-12
        outside = ~own * part + 1e-12
        confusion.append(
            (1.0 - error) * inside / inside.sum(axis=1, keepdims=True) + error * outside / outside.sum(axis=1, keepdims=True)
        )
    return confusion


def _class_groups(table: Array) -> Labels:
    """Return the group that each class belongs to ``(k,)``: the one that gives it the largest part of its particles."""
    rate = table / np.maximum(table.sum(axis=1, keepdims=True), 1e-12)
    groups: Labels = rate.argmax(axis=0)
    return groups


def measure_stability(votes: Votes, model: VoteModel, rng: np.random.Generator) -> Array:
    """Return the mean Jaccard index of each group with its like in models of particles that were drawn again ``(g,)``."""
    n_groups = len(model.share)
    home = expect_groups(votes, model)[0].argmax(axis=1)  # (m,)
    n = int(votes.counts.sum())
    overlap = np.zeros(n_groups)
    for _ in range(_RESAMPLED):
        drawn = replace(votes, counts=rng.multinomial(n, votes.counts / votes.counts.sum()).astype(np.float64))
        again = fit_votes(drawn, n_groups, rng, most_rounds=_FIRST_ROUNDS)
        other = expect_groups(votes, again)[0].argmax(axis=1)
        shared = np.zeros((n_groups, n_groups))
        np.add.at(shared, (home, other), votes.counts)
        either = shared.sum(axis=1)[:, None] + shared.sum(axis=0)[None] - shared
        jaccard = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
        rows, columns = linear_sum_assignment(jaccard, maximize=True)
        overlap[rows] += jaccard[rows, columns] / _RESAMPLED
    return overlap


def weigh_sureness(votes: Votes, belief: Array, sureness: NDArray[Any]) -> Array:
    """Return the belief about each particle ``(n, g)`` when sure and unsure votes for a class are told apart."""
    numbers = votes.rows[votes.of_particle]  # (n, runs)
    finer = np.full(numbers.shape, -1, dtype=np.int64)
    for run, size in enumerate(votes.sizes):
        for number in range(size):
            members = np.flatnonzero(numbers[:, run] == number)
            rank = np.argsort(np.argsort(sureness[members, run], kind="stable"), kind="stable")
            finer[members, run] = number * _LEVELS + rank * _LEVELS // len(members)
    parts = Votes.gather(finer)
    mean = np.zeros((len(parts.rows), belief.shape[1]))  # of the particles with each combination of votes
    np.add.at(mean, parts.of_particle, belief)
    mean /= mean.sum(axis=1, keepdims=True)
    for _ in range(_ROUNDS_OF_SURENESS):
        mean = expect_groups(parts, learn_votes(parts, mean, tied=False))[0]
    return mean[parts.of_particle]
