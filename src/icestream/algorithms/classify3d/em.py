"""The loop of a 3D classification with known poses: from random shares of the particles to classes.

At first nothing tells classes apart, and how likely a particle is each of them says little. Log likelihoods are therefore taken
over their own spread, which makes the first passes a power iteration: what varies most between particles, and is found in all
folds, grows until it decides (in the limit of small differences this is a principal component, Tipping & Bishop 1999, J. R. Stat.
Soc. B 61, 611). Then the likelihoods count as they are (expectation maximisation).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify2d import balance_classes
from icestream.algorithms.classify3d.model import ClassVolumes, Setting, make_volumes, sum_classes
from icestream.algorithms.classify3d.search import score_classes
from icestream.algorithms.scoring import PolarParticles, Real, half_sets_of
from icestream.algorithms.volumes import Rotations

Shares = NDArray[np.float64]

_SOFT = 1.0
"""Spreads of the log likelihood that double the odds by e, while classes are told apart at first."""
_SHARP = 2.5
"""The same later: volumes of noisy classes differ less than those that they stand for, so their likelihoods do."""
_LEAST_CLASS = 0.05
"""Of the particles of a class, if all were equally large: with fewer a class is empty."""
_HALF = 0.5
_LEFT_ALONE = 3
"""Passes at the end in which no class begins again."""
_OTHER_PID = 1 << 40
"""Numbers beyond all of particles: they give each a second half set of its own."""


@dataclass(frozen=True)
class PosedParticles:
    """Particles with their poses.

    ``images`` ``(n, box, box)`` and ``contrast`` are as of `sum_particles`, ``polar`` is centred for the kernel, ``rotations``
    ``(n, 3, 3)`` and ``shift_yx_px`` ``(n, 2)`` are the poses, ``fold`` ``(n,)`` is 0 to 3, for good.
    """

    images: NDArray[np.float32]
    contrast: NDArray[np.float32]
    polar: PolarParticles
    rotations: Rotations
    shift_yx_px: NDArray[np.float64]
    fold: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.int64]) -> "PosedParticles":
        """Return some of the particles."""
        return PosedParticles(
            self.images[rows],
            self.contrast[rows],
            self.polar.take(rows),
            self.rotations[rows],
            self.shift_yx_px[rows],
            self.fold[rows],
        )


@dataclass(frozen=True)
class Classes3D:
    """Classes of particles: their volumes, and for each particle how likely each class is ``(n, k)``.

    ``log_likelihood`` ``(n, k)`` is that of each particle in each class against noise.
    """

    volumes: ClassVolumes
    share: Shares
    log_likelihood: NDArray[np.float64]

    @property
    def class_id(self) -> NDArray[np.int64]:
        """The most likely class of each particle."""
        best: NDArray[np.int64] = self.share.argmax(axis=1)
        return best


def make_passes(
    particles: PosedParticles,
    share: Shares,
    *,
    setting: Setting,
    soft: int,
    sharp: int,
    seed: int = 0,
    told: Callable[[], None] | None = None,
) -> Classes3D:
    """Compare particles with classes again and again, from shares ``(n, k)``: first ``soft`` passes, then ``sharp`` ones.

    A class that the sharp passes leave without particles begins again with half of the largest one, except near the end.
    """
    volumes, likelihood = sum_up(particles, share, setting), np.zeros(share.shape)
    for i in range(soft + sharp):
        if told is not None:
            told()
        likelihood = compare(particles, volumes, setting=setting, loose=i >= soft)
        share = share_softly(likelihood) if i < soft else share_by_likelihood(likelihood, share)
        if soft <= i < soft + sharp - _LEFT_ALONE:
            share = fill_empty(share, seed=seed + i)
        volumes = sum_up(particles, share, setting)
    return Classes3D(volumes, share, likelihood)


def compare(
    particles: PosedParticles, volumes: ClassVolumes, *, setting: Setting, loose: bool = True, noise: Real | None = None
) -> NDArray[np.float64]:
    """Return the log likelihood ratio of each particle in each class ``(n, k)``, by volumes that it is no part of.

    ``noise`` ``(n_rings,)`` is the power of what is not signal; that of the images when unset.
    """
    return score_classes(
        particles.polar,
        volumes.of_fold,
        rotations=particles.rotations,
        fold=particles.fold,
        ring=volumes.ring,
        noise_power=particles.polar.power.mean(axis=0).astype(np.float32) if noise is None else noise,
        setting=setting,
        loose=loose,
    )


def fill_empty(share: Shares, *, seed: int, least: float = _LEAST_CLASS) -> Shares:
    """Return shares in which each class that has hardly any particles has half of those of the largest class.

    ``least`` is how many particles a class needs, as a share of what it would have if all were equally large.
    """
    share = share.copy()
    for k in np.flatnonzero(share.sum(axis=0) < least * share.shape[0] / share.shape[1]).tolist():
        largest = int(share.sum(axis=0).argmax())
        chosen = np.random.default_rng([seed, k]).random(len(share)) < _HALF
        share[chosen, k], share[chosen, largest] = share[chosen, largest], share[chosen, k]
    return share


def sum_up(particles: PosedParticles, share: Shares, setting: Setting) -> ClassVolumes:
    """Return the volumes of classes from shares ``(n, k)`` of particles."""
    sums = sum_classes(
        particles.images,
        particles.contrast,
        rotations=particles.rotations,
        shift_yx_px=particles.shift_yx_px,
        share=share,
        fold=particles.fold,
        setting=setting,
    )
    return make_volumes(sums, setting=setting)


def share_softly(likelihood: NDArray[np.float64]) -> Shares:
    """Return shares by likelihoods in units of their own spread, with classes equally large."""
    relative = likelihood - likelihood.mean(axis=1, keepdims=True)
    relative = relative - np.median(relative, axis=0)
    spread = max(float(np.sqrt(np.mean(relative**2))), 1e-9)
    scaled = np.clip(relative / spread, -4.0, 4.0) * _SOFT
    scaled = scaled + balance_classes(scaled.astype(np.float32))
    return softmax(scaled)


def share_by_likelihood(likelihood: NDArray[np.float64], before: Shares, *, sharpness: float | None = None) -> Shares:
    """Return how likely each class is for each particle, with the sizes of classes that shares of before say.

    ``sharpness`` is what likelihoods are multiplied by; that of these particles when unset.
    """
    size = np.maximum(before.mean(axis=0), 1e-3)
    factor = sharpness_of(likelihood) if sharpness is None else sharpness
    return softmax(likelihood * factor + np.log(size / size.sum()))


def sharpness_of(likelihood: NDArray[np.float64]) -> float:
    """Return what likelihoods ``(n, k)`` of classes that hardly differ yet are multiplied by, at least 1.

    Shares that are too soft make the next volumes differ even less, pass by pass.
    """
    spread = max(float(np.sqrt(np.mean((likelihood - likelihood.mean(axis=1, keepdims=True)) ** 2))), 1e-9)
    return max(1.0, _SHARP / spread)


def softmax(values: NDArray[Any]) -> Shares:
    """Return probabilities ``(n, k)`` from their logarithms, which need not be normalised."""
    shares = np.exp(values - values.max(axis=1, keepdims=True))
    normalised: Shares = shares / shares.sum(axis=1, keepdims=True)
    return normalised


def fold_of(micrograph: NDArray[np.bytes_], pid: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return the fold ``(n,)`` of each particle, 0 to 3: its half set, and twice another one, both from what names it."""
    return np.asarray(half_sets_of(micrograph, pid) + 2 * half_sets_of(micrograph, pid + _OTHER_PID), dtype=np.int8)
