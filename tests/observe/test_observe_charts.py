"""Axes, histograms and words of the report."""

from xml.etree import ElementTree

import pytest

from icestream.observe.charts import draw_curve, draw_histogram, draw_series, draw_share, draw_trajectory
from icestream.observe.sampling import Series, stride_for
from icestream.observe.scales import Axis, count_bins, limits_of, running_median, short_number
from icestream.observe.wording import counted, moment, quantity, span


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.9, 2.1, ["1", "1.5", "2"]),
        (0.42951, 0.43048, ["0.43"]),
        (0.4294, 0.4306, ["0.4295", "0.43", "0.4305"]),
        (-12_345.6, -12_344.4, ["−12,345.5", "−12,345", "−12,344.5"]),
        (0, 2_100_000, ["0", "1,000,000", "2,000,000"]),
        (-3, 3, ["−2", "0", "2"]),
    ],
)
def test_numbers_of_an_axis_can_be_told_apart(low, high, texts):
    assert [text for _, text in Axis(low, high, 0, 1).labels()] == texts


def test_an_axis_maps_its_limits_and_holds_outliers_at_the_edge():
    axis = Axis(2.0, 4.0, 100.0, 0.0)
    assert [axis(value) for value in (2.0, 3.0, 4.0, 9.0, -1.0)] == [100.0, 50.0, 0.0, 0.0, 100.0]


@pytest.mark.parametrize(("low", "high", "ticks"), [(0, 10, [0, 5, 10]), (0.9, 2.1, [1.0, 1.5, 2.0]), (-3, 3, [-2, 0, 2])])
def test_ticks_are_round_and_inside(low, high, ticks):
    assert Axis(low, high, 0, 1).ticks() == pytest.approx(ticks)


def test_outliers_do_not_stretch_the_limits():
    low, high = limits_of([4.0 + 0.01 * n for n in range(100)] + [500.0])
    assert 3.8 < low < 4.0
    assert 5.0 <= high < 9.0
    assert limits_of([1.0, 100.0])[1] > 100.0


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e9])
def test_limits_of_equal_values_have_a_width(value):
    low, high = limits_of([value, value])
    assert low < value < high


def test_bins_count_everything_once():
    assert count_bins([0.0, 0.1, 0.5, 1.0, 7.0, -2.0], 0.0, 1.0, 4) == [3, 0, 1, 2]


def test_a_running_median_ignores_one_outlier():
    assert running_median([1, 1, 9, 1, 1], width=3) == [1, 1, 1, 1, 1]


def test_every_chart_is_well_formed_and_escapes_its_label():
    hostile = '"><script>'
    series = Series((1, 2, 3, 5, 8, 9), (1.0, 2.0, 1.5, 3.0, 2.0, 2.5))
    charts = [
        draw_series(series, label=hostile),
        draw_series(Series((4,), (2.0,)), label=hostile),
        draw_histogram(series.values, label=hostile, unit="<Å>"),
        draw_curve([0.0, 0.1, 0.2], [1, 2, 3], [1, 1, 1], mark=0.125, x_unit="1/Å", label=hostile),
        draw_trajectory([(0.0, 0.0), (1.0, 2.0), (1.5, 1.0)], unit="Å", label=hostile),
        draw_trajectory([(0.0, 0.0), (0.0, 0.0)], unit="px", label=hostile),
    ]
    for chart in charts:
        assert ElementTree.fromstring(chart).get("aria-label") == hostile  # noqa: S314


def test_a_trajectory_goes_up_with_the_rows():
    root = ElementTree.fromstring(draw_trajectory([(0.0, 0.0), (5.0, 0.0)], unit="px", label="path"))  # noqa: S314
    (line,) = [path.get("d") for path in root.iter("path") if path.get("class") == "line"]
    (_, start_y), (_, end_y) = [map(float, point.split()) for point in line[1:].split("L")]
    assert end_y < start_y


@pytest.mark.parametrize("place", [0.0, 3.0, -7.7])
@pytest.mark.parametrize("span", [0.011, 0.3, 1.0, 4.0, 7.9, 130.0])
def test_a_trajectory_has_a_scale_wherever_it_lies(span, place):
    root = ElementTree.fromstring(draw_trajectory([(0.0, place), (span, place)], unit="Å", label="path"))  # noqa: S314
    (bar,) = [path.get("d") for path in root.iter("path") if path.get("class") == "scale"]
    (line,) = [path.get("d") for path in root.iter("path") if path.get("class") == "line"]
    (_, start_y), (_, end_y) = [map(float, point.split()) for point in line[1:].split("L")]
    (said,) = [text.text.removesuffix(" Å") for text in root.iter("text")]
    assert 30 < float(bar.partition("h")[2]) <= 172
    assert float(said) / span == pytest.approx(float(bar.partition("h")[2]) / (start_y - end_y), rel=0.02)


def test_shares_fill_the_bar():
    widths = [float(rect.get("width").rstrip("%")) for rect in ElementTree.fromstring(draw_share([("item", 3), ("failed", 1)]))]  # noqa: S314
    assert widths == [75.0, 25.0]
    assert len(ElementTree.fromstring(draw_share([("item", 0)]))) == 0  # noqa: S314


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3.14159, "3.14"),
        (1234567.8, "1,234,568"),
        (100, "100"),
        (0.00123, "0.00123"),
        (-2.5, "−2.5"),
        (float("nan"), "–"),
    ],
)
def test_short_numbers(value, text):
    assert short_number(value) == text


def test_words():
    assert quantity(3.5, "Å") == "3.5\xa0Å"
    assert quantity(None, "Å") == "–"
    assert (counted(1, "item"), counted(2, "item")) == ("1\xa0item", "2\xa0items")
    assert moment(0) == "1970-01-01 00:00:00 UTC"
    assert [span(s) for s in (None, 0.0001, 2.5, 75, 7200, 200_000)] == [
        *("–", "< 0.001\xa0s", "2.5\xa0s", "1\xa0min 15\xa0s", "2\xa0h 0\xa0min", "2\xa0days 7\xa0h")
    ]


def test_strides_are_powers_of_two_that_bound_the_points():
    assert [stride_for(n) for n in (0, 2000, 2001, 50_000)] == [1, 1, 2, 32]
