"""The path and the local motion of a micrograph, as they are drawn in the gallery of the report."""

import re

import numpy as np
import pytest
from markupsafe import escape
from paper_acquisition import write_acquisition

from icestream.algorithms.motion.model import local_shift_px
from icestream.observe.motion_field import MOST_POINTS, Arrow, draw_arrows, draw_path, local_arrows
from icestream.observe.queries import open_view
from icestream.observe.report import gather, write_report

COEFFICIENTS = np.random.default_rng(5).normal(size=(2, 18))


def test_arrows_are_the_local_model_at_the_last_frame():
    shape, n_frames = (400, 600), 9
    for arrow in local_arrows(COEFFICIENTS.tolist(), scale=1.5):
        y_px, x_px = (np.array(at * side + (side - 1) / 2) for at, side in zip((arrow.y, arrow.x), shape, strict=True))
        expected = local_shift_px(COEFFICIENTS, frame=8, y_px=y_px, x_px=x_px, shape=shape, n_frames=n_frames)
        assert (arrow.dy, arrow.dx) == pytest.approx(tuple(1.5 * expected))
    assert local_arrows(None, scale=1.0) == []


def test_up_is_towards_higher_rows_and_the_longest_arrow_fits_between_its_neighbours():
    drawn = draw_arrows([Arrow(0.4, 0.4, 2.0, 0.0), Arrow(-0.4, 0.0, 0.0, 1.0)], unit="Å", name="mic <1>")
    assert drawn is not None
    first, second = re.findall(r"M[\d.]+ ([\d.]+)l(-?[\d.]+) (-?[\d.]+)", drawn)
    assert float(first[0]) < float(second[0])
    assert (float(first[1]), float(second[2])) == (0.0, 0.0)
    assert -34.4 < float(first[2]) < -20.0
    assert float(second[1]) == pytest.approx(-0.5 * float(first[2]), abs=0.1)
    assert "mic &lt;1&gt;" in drawn
    assert draw_arrows([Arrow(0, 0, 0, 0)], unit="Å", name="m") is None
    assert draw_arrows([], unit="Å", name="m") is None


@pytest.mark.parametrize("n_frames", [2, 59, 60, 61, 1000])
def test_a_long_path_is_drawn_with_few_points_and_keeps_its_ends(n_frames):
    track = [(0.01 * index, 0.02 * index) for index in range(n_frames)]
    drawn = draw_path(track, scale=1.0, unit="px", label="m")
    whole = draw_path([track[0], track[-1]], scale=1.0, unit="px", label="m")
    assert drawn is not None
    assert whole is not None
    points = re.findall(r"M?([\d.]+ [\d.]+)h0", drawn)
    assert len(points) == min(n_frames, len(points)) <= MOST_POINTS
    assert (points[0], points[-1]) == tuple(re.findall(r"M?([\d.]+ [\d.]+)h0", whole))
    assert draw_path([(0.0, 0.0)], scale=1.0, unit="px", label="m") is None


def test_every_micrograph_of_the_gallery_has_its_path(tmp_path):
    paper = write_acquisition(tmp_path, 20)
    paper.store.close("every stream closed")
    with open_view(paper.session) as view:
        shown = gather(view, refresh_s=0).images
    assert [len(one.charts) for one in shown] == [1] * len(shown)
    assert all(f"Path of the specimen in {escape(one.name)}" in one.charts[0] for one in shown)
    html = write_report(paper.session).read_text(encoding="utf-8")
    assert html.count('class="moved"') == len(shown) > 1
    assert sum(len(one.charts[0]) for one in shown) / len(shown) < 4000
