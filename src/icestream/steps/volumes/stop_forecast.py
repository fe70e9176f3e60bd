"""When to stop: the resolution that more particles, and more hours, would give."""

import numpy as np

from icestream.algorithms.stop_forecast.forecast import Band, forecast_resolution_ang, gain_of_particles_ang, rank_limits
from icestream.algorithms.stop_forecast.signal import Array, Correlation, ParticleSignal, fit_signal
from icestream.algorithms.volumes import symmetry_group
from icestream.flow import Context, Field, ItemError, Params, step
from icestream.io.image import read_stack
from icestream.records import (
    Acquisition,
    ForecastLimit,
    ForecastPoint,
    MapQuality,
    Method,
    StopForecast,
    Text,
    Volume,
)
from icestream.steps.volumes.gathered import need_map

_FIRST_SHELL = 3
_AHEAD = (1, 1.5, 2, 3, 4, 6, 8, 12, 16)
"""Numbers of particles that are looked at, times those of the map."""
_BALL_SHARE = np.pi / 6


class StopForecastParams(Params):
    """How long collection may go on, and how fast particles come."""

    particles_per_hour: float | None = Field(
        None, gt=0, description="Particles an hour that pass all selections; unset: the forecast is by particles alone"
    )
    rate_spread: float = Field(
        0.2, ge=0, le=2, description="How uncertain that is: standard deviation of its logarithm over the hours that are left"
    )
    hours_left: float = Field(8.0, gt=0, le=1000, description="Until the booked time ends")


@step.map(
    "stop_forecast",
    version=1,
    reads=("pixel_size_ang",),
    memory_gb=0.5,
    method=Method((Text("The resolution of more particles was forecast from the shell correlation of the half maps."),)),
)
def forecast_stop(
    volume: Volume,
    params: StopForecastParams,
    acquisition: Acquisition,
    ctx: Context,
    *,
    quality: MapQuality | None = None,
) -> StopForecast:
    """Forecast the resolution of more particles and more hours from the shell correlation of a map, with its uncertainty.

    The signal of one particle is fitted to the whole curve, also where it is near zero: that tells how far the next doubling
    leads. A forecast far beyond twice the particles rests on the B factor going on as it does, and is wide. With the quality of
    the map, what limits it may be its views: what they lack is told in numbers of particles.

    Raises
    ------
    ItemError
        The volume is no map, has no shell correlation of half maps, or is not of particles.
    """
    need_map(volume)
    if volume.fsc is None or volume.frequency_per_ang is None or not volume.count:
        raise ItemError("a forecast needs a map of particles with the shell correlation of its half maps; link a refinement")
    frequency, curve = np.array(volume.frequency_per_ang), np.array(volume.fsc)
    shells = np.arange(len(curve))
    kept = (shells >= _FIRST_SHELL) & (frequency > 0)
    if kept.sum() < 4:
        raise ItemError(f"a forecast needs at least four shells from the third on; the curve has {len(curve)}")
    pixel_ang = volume.pixel_size_ang or acquisition.need("pixel_size_ang") * volume.bin
    share = _part_of_box(volume, pixel_ang, ctx) / len(symmetry_group(volume.symmetry))
    independent = np.asarray(2.0 * np.pi * shells[kept] ** 2 * share, dtype=np.float64)
    signal = fit_signal(frequency[kept], [Correlation(volume.count, curve[kept])], independent=independent, seed=ctx.seed)
    points = [_point(signal, volume.count * times, None, seed=ctx.seed) for times in _AHEAD]
    end, gain = _hours(signal, volume.count, params, seed=ctx.seed)
    limits = rank_limits(
        resolution_ang=points[0].middle_ang or np.inf,
        pixel_size_ang=pixel_ang,
        angular_efficiency=quality.efficiency if quality is not None and volume.symmetry == "C1" else None,
    )
    known = [point for point in points if point.high_ang is not None and point.low_ang is not None]
    b_factor = signal.b_factor_ang2
    return StopForecast(
        n_particles=volume.count,
        b_factor_ang2=round(b_factor, 1) if np.isfinite(b_factor) else None,
        now=points[0],
        doubled=points[_AHEAD.index(2)],
        at_the_end=end,
        gain_an_hour_ang=None if gain is None or not np.isfinite(gain.middle) else round(gain.middle, 4),
        limit=limits[0].cause,
        limits=[ForecastLimit(cause=one.cause, worth=round(one.worth, 2) if np.isfinite(one.worth) else None) for one in limits],
        points=points,
        thousand_particles=[round(point.n_particles / 1000, 3) for point in known],
        low_ang=[float(point.low_ang or 0.0) for point in known],
        high_ang=[float(point.high_ang or 0.0) for point in known],
    )


def _part_of_box(volume: Volume, pixel_ang: float, ctx: Context) -> float:
    """Return the part of the box that the mask leaves: shells have as many independent coefficients fewer."""
    if volume.mask is not None:
        return float(np.mean(read_stack(ctx.path(volume.mask)) ** 2))
    diameter = min((volume.diameter_ang or volume.box_px * pixel_ang) / (volume.box_px * pixel_ang), 1.0)
    return float(_BALL_SHARE * diameter**3)


def _hours(
    signal: ParticleSignal, count: int, params: StopForecastParams, *, seed: int
) -> tuple[ForecastPoint | None, Band | None]:
    """Return the forecast for the end of the booked time, and what the next hour gives; nothing without a rate."""
    if params.particles_per_hour is None:
        return None, None
    rng = np.random.default_rng(seed)
    rate = params.particles_per_hour * np.exp(params.rate_spread * rng.normal(size=len(signal.draws)))
    end = _point(signal, count + rate * params.hours_left, params.hours_left, seed=seed)
    return end, gain_of_particles_ang(signal, float(count), count + rate, seed=seed)


def _point(signal: ParticleSignal, n_particles: float | Array, hours: float | None, *, seed: int) -> ForecastPoint:
    band = forecast_resolution_ang(signal, n_particles, seed=seed)

    def known(value: float) -> float | None:
        return round(value, 3) if np.isfinite(value) else None

    return ForecastPoint(
        n_particles=int(np.median(n_particles)),
        hours=hours,
        low_ang=known(band.low),
        middle_ang=known(band.middle),
        high_ang=known(band.high),
    )
