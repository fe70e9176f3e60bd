"""The motion filter decides as its rule says and names value and limit."""

import pytest

from icestream.flow.declaration.step_type import Kind, step_type_of
from icestream.records import Acquisition, Micrograph, Motion
from icestream.steps.motion.max_shift import MaxShiftParams, check_max_shift

PIXEL = Acquisition(pixel_size_ang=2.0)


def _micrograph(track):
    motion = None if track is None else Motion(global_yx_px=track, total_px=0, early_px=0)
    return Micrograph(image="session:a.mrc", height_px=8, width_px=8, bin=1, motion=motion)


def _check(track, **params):
    return check_max_shift(_micrograph(track), MaxShiftParams(**params), PIXEL)


JUMP = [(0, 0), (3, 4), (3, 4)]  # one step of 10 Å, path 10 Å
CREEP = [(0, 0), (1, 0), (0, 0), (1, 0), (0, 0)]  # steps of 2 Å, path 8 Å, no net displacement


@pytest.mark.parametrize(
    ("track", "rule", "accepted"),
    [
        (JUMP, "frame", False),
        (JUMP, "movie", False),
        (CREEP, "frame", True),
        (CREEP, "movie", False),
        (CREEP, "frame and movie", True),
        (JUMP, "frame and movie", False),
        (CREEP, "frame or movie", False),
        (JUMP, "frame or movie", False),
    ],
)
def test_rules(track, rule, accepted):
    assert _check(track, rule=rule, max_frame_shift_ang=5, max_movie_shift_ang=7).accepted is accepted


def test_a_value_at_the_limit_is_kept():
    assert _check(JUMP, rule="frame or movie", max_frame_shift_ang=10, max_movie_shift_ang=10).accepted


def test_reason_names_value_and_limit():
    reason = _check(JUMP, max_frame_shift_ang=5, max_movie_shift_ang=7).reason
    assert reason == (
        "moved 10.0 Å from one frame to the next, above the limit of 5 Å; moved 10.0 Å in total, above the limit of 7 Å"
    )
    assert (
        _check(CREEP, rule="movie", max_frame_shift_ang=1, max_movie_shift_ang=7).reason
        == "moved 8.0 Å in total, above the limit of 7 Å"
    )


@pytest.mark.parametrize("track", [None, [(0, 0)], [(0, 0), (0, 0)], []])
def test_images_without_motion_pass_even_without_a_pixel_size(track):
    assert check_max_shift(_micrograph(track), MaxShiftParams(), Acquisition()).accepted


def test_unknown_pixel_size_is_said():
    verdict = check_max_shift(_micrograph(JUMP), MaxShiftParams(), Acquisition())
    assert not verdict.accepted and "pixel size" in verdict.reason


def test_declaration():
    declared = step_type_of(check_max_shift)
    assert (declared.name, declared.kind, declared.reads) == ("max_shift", Kind.FILTER, frozenset({"pixel_size_ang"}))
