"""The forecast of a map's resolution as a step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.algorithms.stop_forecast.signal import expected_correlation
from icestream.errors import ItemError
from icestream.io.image import write_mrc
from icestream.records import Acquisition, MapQuality, Volume
from icestream.steps.volumes.stop_forecast import StopForecastParams, forecast_stop
from icestream.testing.context import StepBench

BOX, PIXEL_ANG, COUNT = 96, 1.5, 20_000
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG / 2, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.1)
FREQUENCY = np.arange(BOX // 2) / (BOX * PIXEL_ANG)


def quality_with(*, efficiency: float | None) -> MapQuality:
    """Return a quality of a map of which only the efficiency of its views is looked at."""
    fields: dict[str, Any] = {"efficiency": efficiency}
    return MapQuality.model_construct(**fields)


def volume(*, b_factor: float = 300.0, resolution_ang: float = 7.0, **fields: Any) -> Volume:
    """A map whose half maps agree as its B factor and resolution say."""
    level = np.log(0.143 / 0.857 * 2 / COUNT) + b_factor / 2 / resolution_ang**2
    curve = expected_correlation(level - b_factor / 2 * FREQUENCY**2, COUNT)
    given: dict[str, Any] = {
        "map": "session:a.mrc", "count": COUNT, "box_px": BOX, "bin": 2.0, "diameter_ang": 100.0,
        "frequency_per_ang": FREQUENCY.tolist(), "fsc": curve.tolist(), "resolution_ang": resolution_ang,
    }  # fmt: skip
    return Volume(**(given | fields))


def test_a_forecast_by_particles_and_hours(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    params = StopForecastParams(particles_per_hour=5000, hours_left=4)
    found = forecast_stop(volume(), params, ACQUISITION, bench)
    assert found.now.low_ang is not None and found.now.high_ang is not None
    assert found.now.low_ang <= 7.0 <= found.now.high_ang
    doubled = 1 / np.sqrt(1 / 7.0**2 + 2 * np.log(2) / 297)
    assert found.doubled.middle_ang == pytest.approx(doubled, rel=0.05)
    assert found.at_the_end is not None and found.at_the_end.middle_ang is not None
    assert found.at_the_end.hours == 4
    assert found.at_the_end.n_particles == pytest.approx(2 * COUNT, rel=0.02)
    assert found.at_the_end.middle_ang == pytest.approx(found.doubled.middle_ang, rel=0.02)
    assert found.gain_an_hour_ang is not None and 0.1 < found.gain_an_hour_ang < 0.7
    assert found.b_factor_ang2 == pytest.approx(300, rel=0.15)
    assert found.limit == "particles"
    assert found.thousand_particles[0] == 20
    assert all(low <= high for low, high in zip(found.low_ang, found.high_ang, strict=True))
    assert found.high_ang[-1] < found.high_ang[0]


def test_without_a_rate_there_are_no_hours(tmp_path: Path) -> None:
    found = forecast_stop(volume(), StopForecastParams(), ACQUISITION, StepBench(tmp_path))
    assert found.at_the_end is None
    assert found.gain_an_hour_ang is None


def test_a_mask_and_symmetry_leave_fewer_coefficients_and_a_wider_band(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    mask = np.zeros((BOX, BOX, BOX), np.float32)
    mask[40:56, 40:56, 40:56] = 1
    write_mrc(bench.path("session:mask.mrc"), mask, pixel_size_ang=PIXEL_ANG)
    widths = []
    for one in (volume(diameter_ang=144.0), volume(mask="session:mask.mrc"), volume(symmetry="D7", mask="session:mask.mrc")):
        doubled = forecast_stop(one, StopForecastParams(), ACQUISITION, bench).doubled
        widths.append((doubled.high_ang or np.inf) - (doubled.low_ang or 0.0))
    assert widths[0] < widths[1] < widths[2]


def test_a_map_near_nyquist_is_limited_by_its_pixels(tmp_path: Path) -> None:
    found = forecast_stop(volume(b_factor=20.0, resolution_ang=3.1), StopForecastParams(), ACQUISITION, StepBench(tmp_path))
    assert found.limit == "pixel_size"


def test_views_limit_a_map_that_lacks_more_than_half_of_them(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    for efficiency, symmetry, limit in ((0.4, "C1", "views"), (0.9, "C1", "particles"), (0.4, "D7", "particles")):
        quality = quality_with(efficiency=efficiency)
        found = forecast_stop(volume(symmetry=symmetry), StopForecastParams(), ACQUISITION, bench, quality=quality)
        assert found.limit == found.limits[0].cause == limit
    views = forecast_stop(volume(), StopForecastParams(), ACQUISITION, bench, quality=quality_with(efficiency=0.4))
    assert [(one.cause, one.worth) for one in views.limits] == [("views", 2.5), ("particles", 2.0)]


def test_a_map_without_halves_has_no_forecast(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    for one in (volume(fsc=None), volume(count=0), volume(frequency_per_ang=None)):
        with pytest.raises(ItemError, match="half maps"):
            forecast_stop(one, StopForecastParams(), ACQUISITION, bench)
    with pytest.raises(ItemError, match="no map: it is noise"):
        forecast_stop(volume(verdict="none", reason="it is noise"), StopForecastParams(), ACQUISITION, bench)
    with pytest.raises(ItemError, match="four shells"):
        forecast_stop(volume(fsc=[1.0] * 5, frequency_per_ang=FREQUENCY[:5].tolist()), StopForecastParams(), ACQUISITION, bench)
