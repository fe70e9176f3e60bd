"""Where a 3D classification begins: several random starts, of which held-out particles choose one.

A single random start finds what varies most between particles in most cases, and something else in the others. What it has found
shows after a few passes, which are cheap on a sample.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from icestream.algorithms.classify3d.em import Classes3D, PosedParticles, Shares, compare, make_passes, share_softly
from icestream.algorithms.classify3d.model import ClassVolumes, Setting
from icestream.algorithms.scoring import Real

_BALANCED_SHARE = 0.6
"""Part of the passes in which classes are held equally large."""
_STARTED_ON = 3000
"""Most particles that random starts are begun on."""
_BEFORE_HALVING = 3
"""Passes after which the better half of the starts goes on."""


def random_shares(n: int, n_classes: int, *, seed: int) -> Shares:
    """Return shares ``(n, k)`` to begin with: random classes of equal size, half of each particle spread over all."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % n_classes)
    share = np.full((n, n_classes), 0.5 / n_classes)
    share[np.arange(n), label] += 0.5
    return share


def classify_particles_3d(
    particles: PosedParticles,
    *,
    setting: Setting,
    passes: int = 16,
    starts: int = 1,
    share: Shares | None = None,
    seed: int = 0,
    report: Callable[[float, str], None] | None = None,
) -> Classes3D:
    """Sort particles with known poses into classes.

    Parameters
    ----------
    particles
        With their poses in the volume of all.
    setting
        Of the classification.
    passes
        Over all particles; classes are held equally large during the first three fifths.
    starts
        Random ones that are begun, on a sample of the particles; `choose_start` says which one goes on.
    share
        ``(n, k)``, to go on from; random when unset. Then classes are never held equally large.
    seed
        Of the random shares.
    report
        Called before each pass with the fraction done and a message.
    """
    soft = 0 if share is not None else int(np.ceil(_BALANCED_SHARE * passes))
    sharp = passes - soft
    told = _reporter(report, passes + (0 if share is not None else passes_of_starts(starts)))
    if share is None and starts > 1:
        share, done = choose_start(particles, setting=setting, starts=starts, seed=seed, told=told)
        soft = max(soft - done, 0)
    elif share is None:
        share = random_shares(len(particles), setting.n_classes, seed=seed)
    return make_passes(particles, share, setting=setting, soft=soft, sharp=sharp, seed=seed, told=told)


def _reporter(report: Callable[[float, str], None] | None, total: int) -> Callable[[], None]:
    """Return what is called before each pass."""
    done = 0

    def told() -> None:
        nonlocal done
        if report is not None:
            report(min(done / total, 1.0), f"pass {done + 1} of at most {total}")
        done += 1

    return told


def choose_start(
    particles: PosedParticles, *, setting: Setting, starts: int, seed: int, told: Callable[[], None]
) -> tuple[Shares, int]:
    """Begin several times at random, and return the shares ``(n, k)`` of the start that explains particles best.

    Starts are judged after a few passes over a sample, by particles that are no part of the volumes; the better half goes on,
    until one is left (successive halving: Jamieson & Talwalkar 2016, AISTATS 51, 240). The number of passes that it had is
    returned too.
    """
    rng = np.random.default_rng([seed, 11])
    rows = np.sort(rng.permutation(len(particles))[:_STARTED_ON])
    some = particles.take(rows) if len(rows) < len(particles) else particles
    shares = [random_shares(len(some), setting.n_classes, seed=one) for one in rng.integers(0, 2**31, starts)]
    done, found = 0, list[Classes3D]()
    while len(shares) > 1:
        found = [make_passes(some, one, setting=setting, soft=_BEFORE_HALVING, sharp=0, told=told) for one in shares]
        found.sort(key=lambda one: -evidence(some, one.volumes, one.share.mean(axis=0), setting=setting))
        shares = [one.share for one in found[: len(found) // 2]]
        done += _BEFORE_HALVING
    best = found[0]
    if some is particles:
        return best.share, done
    return share_softly(compare(particles, best.volumes, setting=setting, loose=False)), done


def passes_of_starts(starts: int) -> int:
    """Return how many passes `choose_start` makes, all starts together."""
    total = 0
    while starts > 1:
        total += starts * _BEFORE_HALVING
        starts //= 2
    return total


def evidence(
    particles: PosedParticles,
    volumes: ClassVolumes,
    size: NDArray[np.float64],
    *,
    setting: Setting,
    noise: Real | None = None,
) -> float:
    """Return how much better classes explain a particle than their mean does: a log likelihood ratio, mean over particles.

    All classes count as equally large. Particles are no part of the volumes that they are compared with, so that classes which
    differ by noise explain particles worse than their mean. Whatever else changes likelihoods, as how far volumes reach and how
    good their mean is, does not enter.

    Parameters
    ----------
    particles, setting, noise
        As of `compare`.
    volumes
        The classes.
    size
        ``(k,)``, the share of particles in each.
    """
    mean = np.tensordot(volumes.of_fold, size / size.sum(), axes=(1, 0)).astype(np.float32)  # (4, box, box, box)
    beside = replace(volumes, of_fold=np.concatenate([volumes.of_fold, mean[:, None]], axis=1))
    found = compare(particles, beside, setting=setting, loose=False, noise=noise)
    gain = found[:, :-1] - found[:, -1:]
    return float(np.mean(logsumexp(gain, axis=1))) - float(np.log(gain.shape[1]))
