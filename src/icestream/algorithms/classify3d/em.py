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
from icestream.algorithms.scoring import PolarParticles, half_sets_of
from icestream.algorithms.volumes import Rotations

Shares = NDArray[np.float64]

_SOFT = 1.0
"""Spreads of the log likelihood that double the odds by e, while classes are told apart at first."""
_SHARP = 2.5
"""The same later: volumes of noisy classes differ less than those that they stand for, so their likelihoods do."""
_BALANCED_SHARE = 0.6
"""Part of the passes in which classes are held equally large."""
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
    share
        ``(n, k)``, to go on from; random when unset. Then classes are never held equally large.
    seed
        Of the random shares.
    report
        Called before each pass with the fraction done and a message.
    """
    begun = share is not None
    share = random_shares(len(particles), setting.n_classes, seed=seed) if share is None else share
    noise = particles.polar.power.mean(axis=0).astype(np.float32)
    volumes, likelihood = _volumes(particles, share, setting), np.zeros(share.shape)
    for i in range(passes):
        if report is not None:
            report(i / passes, f"pass {i + 1} of {passes}")
        soft = not begun and i < _BALANCED_SHARE * passes
        likelihood = score_classes(
            particles.polar,
            volumes.of_fold,
            rotations=particles.rotations,
            fold=particles.fold,
            ring=volumes.ring,
            noise_power=noise,
            setting=setting,
            loose=not soft,
        )
        share = _share_softly(likelihood) if soft else share_by_likelihood(likelihood, share)
        volumes = _volumes(particles, share, setting)
    return Classes3D(volumes, share, likelihood)


def _volumes(particles: PosedParticles, share: Shares, setting: Setting) -> ClassVolumes:
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


def _share_softly(likelihood: NDArray[np.float64]) -> Shares:
    """Return shares by likelihoods in units of their own spread, with classes equally large."""
    relative = likelihood - likelihood.mean(axis=1, keepdims=True)
    relative = relative - np.median(relative, axis=0)
    spread = max(float(np.sqrt(np.mean(relative**2))), 1e-9)
    scaled = np.clip(relative / spread, -4.0, 4.0) * _SOFT
    scaled = scaled + balance_classes(scaled.astype(np.float32))
    return softmax(scaled)


def share_by_likelihood(likelihood: NDArray[np.float64], before: Shares) -> Shares:
    """Return how likely each class is for each particle, with the sizes of classes that shares of before say.

    Likelihoods of classes that hardly differ yet are sharpened: shares that are too soft make the next volumes differ even less,
    pass by pass.
    """
    size = np.maximum(before.mean(axis=0), 1e-3)
    spread = max(float(np.sqrt(np.mean((likelihood - likelihood.mean(axis=1, keepdims=True)) ** 2))), 1e-9)
    return softmax(likelihood * max(1.0, _SHARP / spread) + np.log(size / size.sum()))


def softmax(values: NDArray[Any]) -> Shares:
    """Return probabilities ``(n, k)`` from their logarithms, which need not be normalised."""
    shares = np.exp(values - values.max(axis=1, keepdims=True))
    normalised: Shares = shares / shares.sum(axis=1, keepdims=True)
    return normalised


def fold_of(micrograph: NDArray[np.bytes_], pid: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return the fold ``(n,)`` of each particle, 0 to 3: its half set, and twice another one, both from what names it."""
    return np.asarray(half_sets_of(micrograph, pid) + 2 * half_sets_of(micrograph, pid + _OTHER_PID), dtype=np.int8)
