"""The forecast of the resolution: exact where there is no chance, honest where there is."""

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.stop_forecast.forecast import (
    forecast_particles,
    forecast_resolution_ang,
    gain_of_particles_ang,
    rank_limits,
)
from icestream.algorithms.stop_forecast.signal import Correlation, ParticleSignal, expected_correlation, fit_signal

FREQUENCY = np.arange(3, 48) / (96 * 1.5)
INDEPENDENT = np.pi * np.arange(3.0, 48.0) ** 2 / 2.0
N = 20_000


def _log_signal(*, b_factor: float = 300.0, resolution_ang: float = 7.0) -> NDArray[np.float64]:
    """Return a signal whose map of N particles has the resolution."""
    level = np.log(0.143 / 0.857 * 2 / N) + b_factor / 2 / resolution_ang**2
    return np.asarray(level - b_factor / 2 * FREQUENCY**2)


def _curves(log_signal: NDArray[np.float64], *, chance: bool, seed: int = 0) -> list[Correlation]:
    rng = np.random.default_rng(seed)
    curves = []
    for n in (N, N // 2, N // 2, N // 4, N // 4):
        curve = expected_correlation(log_signal, float(n))
        noise = rng.normal(size=len(curve)) / np.sqrt(INDEPENDENT - 3) if chance else 0.0
        curves.append(Correlation(n, np.tanh(np.arctanh(curve) + noise)))
    return curves


@pytest.fixture(scope="module")
def signal() -> ParticleSignal:
    return fit_signal(FREQUENCY, _curves(_log_signal(), chance=True), independent=INDEPENDENT, n_draws=200)


def test_the_correlation_of_halves_is_that_of_signal_and_noise() -> None:
    rng = np.random.default_rng(0)
    signal, n = rng.normal(size=200_000) * np.sqrt(1e-3), 1000
    halves = [signal + rng.normal(size=len(signal)) / np.sqrt(n / 2) for _ in range(2)]
    assert expected_correlation(np.array([np.log(1e-3)]), n)[0] == pytest.approx(np.corrcoef(*halves)[0, 1], abs=0.01)


def test_the_signal_is_found(signal: ParticleSignal) -> None:
    seen = expected_correlation(_log_signal(), N) > 0.1
    low, high = np.quantile(signal.draws, (0.02, 0.98), axis=0)
    inside = (low <= _log_signal()) & (_log_signal() <= high)
    assert inside[seen].mean() > 0.85
    assert np.abs(np.median(signal.draws, axis=0) - _log_signal())[seen].max() < 0.4
    assert signal.b_factor_ang2 == pytest.approx(300, rel=0.15)


def test_the_resolution_of_twice_the_particles_follows_from_the_b_factor(signal: ParticleSignal) -> None:
    now, later = forecast_resolution_ang(signal, N), forecast_resolution_ang(signal, 2 * N)
    assert now.low <= 7.0 <= now.high
    expected = 1 / np.sqrt(1 / 7.0**2 + 2 * np.log(2) / (300 - 3))  # poses become better by 3 Å² at a doubling
    assert later.low <= expected <= later.high
    assert later.middle == pytest.approx(expected, rel=0.04)
    assert later.half_width < 0.1
    assert forecast_resolution_ang(signal, 8 * N).half_width > later.half_width


def test_a_measured_curve_scatters_more_than_the_forecast(signal: ParticleSignal) -> None:
    plain = forecast_resolution_ang(signal, 2 * N)
    measured = forecast_resolution_ang(signal, 2 * N, with_chance=True)
    assert measured.half_width > plain.half_width


def test_noise_has_no_resolution() -> None:
    rng = np.random.default_rng(1)
    curves = [Correlation(n, rng.normal(size=len(FREQUENCY)) / np.sqrt(INDEPENDENT)) for n in (N, N // 2, N // 4)]
    found = fit_signal(FREQUENCY, curves, independent=INDEPENDENT, n_draws=50)
    assert np.isinf(forecast_resolution_ang(found, N).high)


def test_a_resolution_never_passes_the_last_shell(signal: ParticleSignal) -> None:
    assert forecast_resolution_ang(signal, 1e12 * N).low >= 1 / FREQUENCY[-1] - 1e-9


def test_a_fit_is_reproducible_and_refuses_curves_of_other_shells() -> None:
    curves = _curves(_log_signal(), chance=True)
    again = [fit_signal(FREQUENCY, curves, independent=INDEPENDENT, n_draws=5, seed=4).draws for _ in range(2)]
    assert (again[0] == again[1]).all()
    with pytest.raises(ValueError, match="45 shells"):
        fit_signal(FREQUENCY, [Correlation(10, np.zeros(4))], independent=INDEPENDENT)
    with pytest.raises(ValueError, match="45 shells"):
        fit_signal(FREQUENCY, [], independent=INDEPENDENT)


def test_a_steady_rate_goes_on() -> None:
    hours = np.arange(6.0)
    more = forecast_particles(hours, 1000 * hours, 4.0, n_draws=2000)
    low, middle, high = np.quantile(more, (0.1, 0.5, 0.9))
    assert middle == pytest.approx(9000, rel=0.02)
    assert low > 8000
    assert high < 10_000


def test_a_wandering_rate_is_less_certain_and_its_last_hours_count() -> None:
    hours = np.arange(7.0)
    steady = forecast_particles(hours, 1000 * hours, 3.0, n_draws=1000)
    counts = np.concatenate([[0], np.cumsum([1000, 1000, 900, 500, 250, 250])])
    falling = forecast_particles(hours, counts.astype(float), 3.0, n_draws=1000)
    assert np.median(falling) - counts[-1] < 1500
    assert np.std(np.log(falling - counts[-1])) > 1.5 * np.std(np.log(steady - 6000))
    with pytest.raises(ValueError, match="rising"):
        forecast_particles(np.array([1.0, 1.0]), np.array([0.0, 5.0]), 1.0, n_draws=5)


def test_particles_are_worth_less_later(signal: ParticleSignal) -> None:
    early = gain_of_particles_ang(signal, N, 1.25 * N)
    late = gain_of_particles_ang(signal, 4 * N, 4.25 * N)
    assert early.middle > 3 * late.middle > 0
    assert early.low < early.middle < early.high


def test_what_limits_is_ranked_by_particles() -> None:
    ranked = rank_limits(
        resolution_ang=6.0, pixel_size_ang=1.0, angular_efficiency=0.3, power_kept_by_ice=0.8, motion_left_ang=0.1
    )
    assert [one.cause for one in ranked] == ["views", "particles", "ice", "motion"]
    assert ranked[0].worth == pytest.approx(1 / 0.3)
    assert ranked[2].worth == pytest.approx(1.25)
    assert rank_limits(resolution_ang=2.1, pixel_size_ang=1.0)[0].cause == "pixel_size"
    assert rank_limits(resolution_ang=3.0, pixel_size_ang=1.0, motion_left_ang=1.0)[0].cause == "motion"
