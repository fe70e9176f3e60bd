"""The spectral signal-to-noise ratio of one particle, fitted to the Fourier shell correlations of maps of many sizes.

Half maps of ``n`` particles together correlate as ``x / (1 + x)`` with ``x = s(g) n / 2``: one curve ``s(g)`` explains the maps
of all subsets, over all shells, not only where they cross a threshold (the relation of signal and number of particles is that of
Rosenthal & Henderson 2003, J. Mol. Biol. 333, 721). The logarithm of ``s`` falls with a B factor; how the protein departs from
that is smooth and not known, a Gaussian process beforehand (Rasmussen & Williams 2006). Where a curve is near zero it still says
how small the signal is there, which tells how far the next doubling leads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]

_B_MEAN_ANG2, _B_SPREAD_ANG2 = 150.0, 100.0
_LEVEL_SPREAD = 20.0
_SMOOTH = ((1.0, 0.08), (0.3, 0.025))
"""Spreads of the smooth departures from a B factor, and over which frequencies in 1/Å each changes."""
_ROUGH = 0.05
"""Spread of departures from shell to shell."""
_HIGHEST = 0.9999
_WEIGHT_OF_SUBSETS = 0.5
"""How much the curves of one number of particles count beside that of all, together: their particles are the same."""
_MOST_STEPS = 100
_THINNED = 5


@dataclass(frozen=True)
class Correlation:
    """The correlation of half maps of ``n_particles`` together; ``curve`` ``(k,)``, by shells."""

    n_particles: int
    curve: Array


@dataclass(frozen=True)
class ParticleSignal:
    """What is known of the signal of one particle.

    Attributes
    ----------
    frequency_per_ang
        ``(k,)``, of the shells.
    draws
        ``(m, k)``, equally likely logarithms of the signal-to-noise ratio of one particle.
    independent
        ``(k,)``, independent Fourier coefficients of each shell.
    n_particles
        Particles of the largest map.
    """

    frequency_per_ang: Array
    draws: Array
    independent: Array
    n_particles: int

    @property
    def b_factor_ang2(self) -> float:
        """B factor of the falling signal, from a straight line through the middle of the draws where there is signal."""
        middle = np.median(self.draws, axis=0)
        seen = np.exp(middle) * self.n_particles / 2 > 0.02
        if seen.sum() < 3:
            return float("nan")
        return float(-2.0 * np.polyfit(self.frequency_per_ang[seen] ** 2, middle[seen], 1)[0])


def expected_correlation(log_signal: Array, n_particles: NDArray[Any] | float) -> Array:
    """Return the correlation of half maps of ``n_particles`` together, from the logarithm of the signal of one particle."""
    ratio = np.exp(np.clip(log_signal, -60.0, 60.0)) * np.asarray(n_particles) / 2
    return np.asarray(ratio / (1.0 + ratio), dtype=np.float64)


def fit_signal(
    frequency_per_ang: Array, correlations: Sequence[Correlation], *, independent: Array, n_draws: int = 400, seed: int = 0
) -> ParticleSignal:
    """Fit the signal of one particle to the curves of all subsets.

    Parameters
    ----------
    frequency_per_ang
        ``(k,)``, of the shells, rising; leave out the first shells, which say nothing but how large the particle is.
    correlations
        Of half maps of all particles, and of subsets of them with the same poses; several of one number of particles are fine.
    independent
        ``(k,)``, how many independent Fourier coefficients a shell has: half its voxels, times the part of the box that the mask
        leaves, over the order of the symmetry.
    n_draws
        How many equally likely curves are given.
    seed
        Of the draws.

    Raises
    ------
    ValueError
        There is no curve, or one has another number of shells.
    """
    shells = len(frequency_per_ang)
    if not correlations or any(one.curve.shape != (shells,) for one in correlations):
        raise ValueError(f"the signal is fitted to curves of {shells} shells; got {[one.curve.shape for one in correlations]}")
    particles = np.array([one.n_particles for one in correlations], dtype=np.float64)
    observed = np.arctanh(np.clip(np.stack([one.curve for one in correlations]), -_HIGHEST, _HIGHEST))  # (c, k)
    precision = _weights(particles)[:, None] * np.maximum(independent - 3.0, 0.5)[None]  # (c, k)
    posterior = _Posterior(_prior(frequency_per_ang), particles, observed, precision)
    mode, covariance = posterior.climb(_first_guess(frequency_per_ang, particles))
    draws = posterior.draw(mode, covariance, n_draws, np.random.default_rng(seed))
    return ParticleSignal(frequency_per_ang, draws, np.asarray(independent, dtype=np.float64), int(particles.max()))


def _weights(particles: Array) -> Array:
    """Return how much each curve counts: the largest map wholly, the others share what one number of particles has."""
    largest = particles == particles.max()
    same = (particles[:, None] == particles[None]).sum(axis=1)
    weights = np.where(largest, 1.0, _WEIGHT_OF_SUBSETS) / same
    return np.asarray(weights, dtype=np.float64)


def _prior(frequency: Array) -> tuple[Array, Array]:
    """Return mean and covariance of the logarithm of the signal beforehand, ``(k,)`` and ``(k, k)``."""
    square = frequency**2
    apart = frequency[:, None] - frequency[None]
    covariance = _LEVEL_SPREAD**2 + (_B_SPREAD_ANG2 / 2) ** 2 * np.outer(square, square)
    for spread, length in _SMOOTH:
        covariance = covariance + spread**2 * np.exp(-0.5 * (apart / length) ** 2)
    return -_B_MEAN_ANG2 / 2 * square, covariance + _ROUGH**2 * np.eye(len(frequency))


def _first_guess(frequency: Array, particles: Array) -> Array:
    return np.asarray(np.log(2.0 / particles.max()) - _B_MEAN_ANG2 / 2 * (frequency**2 - np.mean(frequency) ** 2))


@dataclass(frozen=True)
class _Posterior:
    """How likely a curve of signal is: prior, numbers of particles ``(c,)``, inverse tangents and their precisions ``(c, k)``."""

    prior: tuple[Array, Array]
    particles: Array
    observed: Array
    precision: Array

    def log_likelihood(self, log_signal: Array) -> float:
        curve = np.minimum(expected_correlation(log_signal[None], self.particles[:, None]), _HIGHEST)  # (c, k)
        return float(-0.5 * (self.precision * (self.observed - np.arctanh(curve)) ** 2).sum())

    def log_density(self, log_signal: Array) -> float:
        mean, covariance = self.prior
        off = log_signal - mean
        return self.log_likelihood(log_signal) - 0.5 * float(off @ cho_solve(cho_factor(covariance), off))

    def climb(self, start: Array) -> tuple[Array, Array]:
        """Return the most likely curve and the covariance around it, by damped Gauss-Newton steps."""
        mean, covariance = self.prior
        inverse = np.linalg.inv(covariance)
        here, damping = start, 1.0
        density = self.log_density(here)
        for _ in range(_MOST_STEPS):
            curve = np.minimum(expected_correlation(here[None], self.particles[:, None]), _HIGHEST)  # (c, k)
            slope = curve * (1.0 - curve) / (1.0 - curve**2)  # d atanh / d log s
            gradient = (self.precision * slope * (self.observed - np.arctanh(curve))).sum(axis=0) - inverse @ (here - mean)
            curvature = inverse + np.diag((self.precision * slope**2).sum(axis=0))
            step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
            there = here + np.clip(step, -2.0, 2.0)
            higher = self.log_density(there)
            if higher <= density:
                damping *= 8.0
                if damping > 1e8:
                    break
                continue
            gained, here, density, damping = higher - density, there, higher, max(damping / 8.0, 1e-9)
            if gained < 1e-7:
                break
        return here, np.linalg.inv(curvature)

    def draw(self, mode: Array, covariance: Array, n_draws: int, rng: np.random.Generator) -> Array:
        """Return equally likely curves by elliptical slice sampling around the most likely one.

        Murray, Adams & MacKay 2010, J. Machine Learning Research W&CP 9, 541; the normal approximation is in place of the prior.
        """
        root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(mode)) * np.trace(covariance))
        inverse = np.linalg.inv(root)

        def surplus(off: Array) -> float:
            return self.log_density(mode + off) + 0.5 * float(((inverse @ off) ** 2).sum())

        off, kept = np.zeros(len(mode)), []
        height = surplus(off)
        for turn in range((n_draws + 10) * _THINNED):
            other = root @ rng.normal(size=len(mode))
            floor = height + np.log(rng.random())
            angle = rng.uniform(0.0, 2.0 * np.pi)
            low, high = angle - 2.0 * np.pi, angle
            while True:
                there = off * np.cos(angle) + other * np.sin(angle)
                height = surplus(there)
                if height >= floor:
                    break
                low, high = (angle, high) if angle < 0 else (low, angle)
                angle = rng.uniform(low, high)
            off = there
            if turn >= 10 * _THINNED and turn % _THINNED == 0:
                kept.append(mode + off)
        return np.stack(kept)
