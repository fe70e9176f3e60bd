"""Consensus of three classifications of two conformations, 60:40, against the best of the three: particles right.

Run ``python benchmarks/class_consensus.py [SEEDS [FIRST]]``. Prints one JSON line. The classifications are label tables with
known truth: each run has evidence about each particle, a part of whose noise is common to all runs (the particle's own noise does
not change from run to run), classes of its own beyond the two, and lacks some of the particles. Each kind states how right the
runs are, how much noise is common, how many classes they have and what they lack. ``gain_points`` is the consensus less the best
run, on the particles that this run has, in percentage points. For runs of different quality no target is set: votes alone do not
show that two runs err together.
"""

import json
import sys
import time

import numpy as np
from scipy.stats import norm

from icestream.algorithms.classes.consensus import vote_on_classes
from icestream.algorithms.classes.intersections import cut_merging, find_elbow, intersect_classes, merge_intersections

COUNT, SHARE = 4000, 0.6
KINDS = {
    "alike": {"right": (0.90, 0.89, 0.88), "common": 0.3},
    "alike_half_common": {"right": (0.90, 0.89, 0.88), "common": 0.5},
    "different_k": {"right": (0.90, 0.89, 0.88), "common": 0.3, "n_classes": (2, 3, 4)},
    "faint": {"right": (0.80, 0.79, 0.77), "common": 0.3, "n_classes": (3, 3, 3)},
    "unequal": {"right": (0.92, 0.85, 0.80), "common": 0.3},
    "one_is_noise": {"right": (0.90, 0.89, 0.5), "common": 0.3},
}
HELD_TO_TARGET = ("alike", "alike_half_common", "different_k", "faint")


def simulate(seed, *, right, common, n_classes=(2, 2, 2), lacking=0.1):
    """Return the truth ``(n,)``, the classes ``(n, runs)`` and how sure each run is."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(COUNT) > SHARE).astype(int)
    of_all = rng.normal(size=COUNT)
    classes, sureness = [], []
    for share, k in zip(right, n_classes, strict=True):
        own = rng.normal(size=COUNT)
        evidence = norm.ppf(share) * (1 - 2 * truth) + np.sqrt(common) * of_all + np.sqrt(1 - common) * own
        vote = (evidence < 0).astype(int)
        label = vote.copy()
        for extra in range(2, k):
            label[(vote == extra % 2) & (rng.random(COUNT) < 0.45)] = extra
        label = rng.permutation(k)[label]
        label[rng.random(COUNT) < lacking] = -1
        classes.append(label)
        sureness.append(np.abs(evidence) * np.exp(0.3 * rng.normal(size=COUNT)))
    return truth, np.stack(classes, axis=1), np.stack(sureness, axis=1)


def hits(truth, labels):
    """Return which particles are right when each class counts for the conformation that most of it is ``(n,)``."""
    found = np.zeros(len(truth), dtype=bool)
    for one in np.unique(labels[labels >= 0]):
        members = labels == one
        found[members] = truth[members] == np.bincount(truth[members], minlength=2).argmax()
    return found


def scipion(classes):
    """Return the groups of Scipion's rule with its first metric and elbow."""
    found = intersect_classes(classes)
    pairs, distance = merge_intersections(found, metric="cosine")
    members = cut_merging(pairs, find_elbow(distance, rule="profile_likelihood"))
    return np.where(found.of_particle >= 0, members[found.of_particle], -1)


def measure(kind, seeds):
    rows = []
    for seed in seeds:
        truth, classes, sureness = simulate(seed, **KINDS[kind])
        of_runs = [(hits(truth, column), column >= 0) for column in classes.T]
        best_hits, has = max(of_runs, key=lambda one: one[0][one[1]].mean())
        best = best_hits[has].mean()
        votes = vote_on_classes(classes)
        sure = vote_on_classes(classes, sureness=sureness)
        merged = scipion(classes)
        both = has & (merged >= 0)
        rows.append(
            {
                "best": best,
                "votes": hits(truth, votes.group)[has].mean() - best,
                "sure_votes": hits(truth, sure.group)[has].mean() - best,
                "scipion": hits(truth, merged)[both].mean() - best_hits[both].mean(),
                "right_where_decided": hits(truth, votes.group)[votes.decided].mean(),
                "decided": votes.decided.mean(),
                "n_groups": votes.n_groups,
            }
        )
    figures: dict[str, object] = {"best_run": round(float(np.mean([row["best"] for row in rows])), 4)}
    for name in ("votes", "sure_votes", "scipion"):
        gains = np.array([row[name] for row in rows]) * 100
        figures[name] = {
            "better_share": round(float(np.mean(gains > 0)), 3),
            "gain_points": round(float(gains.mean()), 2),
            "worst_points": round(float(gains.min()), 2),
        }
    for name in ("right_where_decided", "decided"):
        figures[name] = round(float(np.mean([row[name] for row in rows])), 4)
    figures["two_groups_share"] = round(float(np.mean([row["n_groups"] == 2 for row in rows])), 3)
    return figures


def main(count=10, first=1000):
    began = time.process_time()
    kinds = {kind: measure(kind, range(first, first + count)) for kind in KINDS}
    held = [kinds[kind]["votes"] for kind in HELD_TO_TARGET]
    print(
        json.dumps(
            {
                "seeds": count,
                "particles": COUNT,
                "least_better_share": min(one["better_share"] for one in held),
                "worst_points": min(one["worst_points"] for one in held),
                "kinds": kinds,
                "cpu_s_a_consensus": round((time.process_time() - began) / (2 * count * len(KINDS)), 3),
            }
        )
    )


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
