"""The resolution that more particles, or more hours, would give; what an hour is worth, and what else limits it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.frc import frequency_at_threshold
from icestream.algorithms.stop_forecast.signal import Array, ParticleSignal, expected_correlation

THRESHOLD = 0.143
_QUANTILES = (0.1, 0.5, 0.9)
_DRIFT_AN_HOUR = 0.15
"""How much the logarithm of the rate wanders in an hour, where the hours so far do not say."""
_B_GAIN_ANG2 = (3.0, 6.0)
"""By how much the B factor falls at a doubling of the particles, as better references give better poses: mean and spread."""

Cause = Literal["particles", "views", "ice", "motion", "pixel_size"]


@dataclass(frozen=True)
class Band:
    """A forecast: the middle, and between which values it is in eight of ten cases; NaN where no signal is left."""

    low: float
    middle: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the band, as a part of the middle."""
        return (self.high - self.low) / 2 / self.middle


@dataclass(frozen=True)
class Limit:
    """Something that limits the resolution, and how many times the particles its absence would be worth."""

    cause: Cause
    worth: float


def forecast_resolution_ang(
    signal: ParticleSignal,
    n_particles: NDArray[Any] | float,
    *,
    threshold: float = THRESHOLD,
    with_chance: bool = False,
    seed: int = 0,
) -> Band:
    """Return the resolution that a map of ``n_particles`` will have, in Å.

    It includes what is not known of the signal, and that poses become better with better maps. It never passes the last shell of
    the signal.

    Parameters
    ----------
    n_particles
        A number, or one for each draw of the signal ``(m,)`` where it is not known.
    threshold
        What counts as agreement of the half maps.
    with_chance
        The resolution is what a single measured curve will say, whose shells scatter, not that of the curve without chance.
    seed
        Of what is drawn.
    """
    values = draw_resolutions_ang(signal, n_particles, threshold=threshold, with_chance=with_chance, seed=seed)
    return _band(values)


def draw_resolutions_ang(
    signal: ParticleSignal,
    n_particles: NDArray[Any] | float,
    *,
    threshold: float = THRESHOLD,
    with_chance: bool = False,
    seed: int = 0,
) -> Array:
    """Return equally likely resolutions in Å, ``(m,)``, as `forecast_resolution_ang`; infinite where no shell is above it."""
    rng = np.random.default_rng(seed)
    frequency = signal.frequency_per_ang
    n = np.broadcast_to(np.asarray(n_particles, dtype=np.float64), (len(signal.draws),))
    doublings = np.log2(n / signal.n_particles)
    gain = rng.normal(*_B_GAIN_ANG2, len(n)) * doublings  # (m,), of the B factor
    curves = expected_correlation(signal.draws + gain[:, None] / 2 * frequency**2, n[:, None])  # (m, k)
    if with_chance:
        noise = rng.normal(size=curves.shape) / np.sqrt(np.maximum(signal.independent - 3.0, 1.0))
        curves = np.tanh(np.arctanh(np.minimum(curves, 0.9999)) + noise)
    limits = np.array([_crossing(frequency, curve, threshold) for curve in curves])
    resolutions: Array = np.divide(1.0, limits, out=np.full(len(limits), np.inf), where=limits > 0)
    return resolutions


def _crossing(frequency: Array, curve: Array, threshold: float) -> float:
    """Return where a curve first falls below the threshold; 0 where its first shell is below."""
    return frequency_at_threshold(np.concatenate([[0.0], frequency]), np.concatenate([[1.0], curve]), threshold=threshold)


def forecast_particles(hours: Array, counts: Array, ahead_h: float, *, n_draws: int, seed: int = 0) -> Array:
    """Return how many particles there may be ``ahead_h`` hours from now, ``(n_draws,)``.

    The rate of the last hours goes on, and wanders as it did so far: its logarithm is a random walk whose steps are measured on
    the counts, with a milder one assumed beforehand.

    Parameters
    ----------
    hours
        ``(t,)``, rising times since the beginning, the last one now.
    counts
        ``(t,)``, particles accepted until then.

    Raises
    ------
    ValueError
        Fewer than two times, or they do not rise.
    """
    if len(hours) < 2 or (np.diff(hours) <= 0).any():
        raise ValueError(f"a rate needs two rising times at least; got {hours.tolist()}")
    rng = np.random.default_rng(seed)
    gained, spans = np.maximum(np.diff(counts), 0.0), np.diff(hours)
    log_rate = np.log((gained + 0.5) / spans)
    steps = np.diff(log_rate) ** 2 - 1.0 / (gained[1:] + 0.5) - 1.0 / (gained[:-1] + 0.5)
    between = 0.5 * (spans[1:] + spans[:-1])
    known = float(np.maximum(steps, 0.0).sum())
    drift2 = (known + 4.0 * _DRIFT_AN_HOUR**2) / (float(between.sum()) + 4.0)  # variance an hour
    age = hours[-1] - 0.5 * (hours[1:] + hours[:-1])  # (t - 1,)
    weights = 1.0 / (1.0 / (gained + 0.5) + drift2 * age)
    now = float(weights @ log_rate / weights.sum())
    start = now + rng.normal(size=n_draws) / np.sqrt(weights.sum())
    pieces = max(4, int(np.ceil(ahead_h)))
    walk = np.cumsum(rng.normal(size=(n_draws, pieces)), axis=1) * np.sqrt(drift2 * ahead_h / pieces)
    more = np.exp(np.minimum(start[:, None] + walk, 50.0)).mean(axis=1) * ahead_h
    return np.asarray(counts[-1] + more, dtype=np.float64)


def gain_of_particles_ang(
    signal: ParticleSignal, now: NDArray[Any] | float, later: NDArray[Any] | float, *, seed: int = 0
) -> Band:
    """Return by how many Å going from ``now`` to ``later`` particles improves the resolution; each a number or ``(m,)``."""
    before, after = (draw_resolutions_ang(signal, n, seed=seed) for n in (now, later))
    known = np.isfinite(before) & np.isfinite(after)
    return _band(before[known] - after[known]) if known.any() else Band(np.nan, np.nan, np.nan)


def _band(values: Array) -> Band:
    low, middle, high = np.quantile(values, _QUANTILES, method="inverted_cdf")
    return Band(float(low), float(middle), float(high))


def rank_limits(
    *,
    resolution_ang: float,
    pixel_size_ang: float,
    angular_efficiency: float | None = None,
    power_kept_by_ice: float | None = None,
    motion_left_ang: float | None = None,
) -> list[Limit]:
    """Return what limits the resolution, the worst first; each in numbers of particles that its absence would be worth.

    Doubling the particles is worth 2. Where the resolution is within 10 % of what the pixel size allows, that comes first.

    Parameters
    ----------
    angular_efficiency
        0 to 1, of the distribution of views: views that are missing take their part of the particles with them.
    power_kept_by_ice
        0 to 1, the power of the signal in the ice that there is, over that in the thinnest ice of the session.
    motion_left_ang
        Blur by motion that is left within a frame, root mean square along an axis: it takes ``exp(-4 pi² m² / d²)`` of the power.
    """
    limits = [Limit("particles", 2.0)]
    if angular_efficiency is not None:
        limits.append(Limit("views", 1.0 / max(angular_efficiency, 0.01)))
    if power_kept_by_ice is not None:
        limits.append(Limit("ice", 1.0 / max(power_kept_by_ice, 0.01)))
    if motion_left_ang is not None:
        limits.append(Limit("motion", float(np.exp(min(4.0 * np.pi**2 * (motion_left_ang / resolution_ang) ** 2, 10.0)))))
    if resolution_ang < 2.2 * pixel_size_ang:
        limits.append(Limit("pixel_size", float("inf")))
    return sorted(limits, key=lambda one: -one.worth)
