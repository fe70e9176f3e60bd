"""Two motion corrections of one movie: compared by a map, judged by a filter that names the numbers."""

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow.declaration.step_type import Kind, step_type_of
from icestream.microscope import Pace, SimulationSettings, simulate
from icestream.microscope.truth import load_exposure_truth
from icestream.records import Acquisition, FrameUse, GainReference, Micrograph, Motion, MotionAgreement, Movie
from icestream.steps.motion.consensus import MotionConsensusParams, check_motion_consensus, compare_motion
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.testing.context import StepBench

PIXEL = Acquisition(pixel_size_ang=2.0)
TRACK = [(0.0, 0.0), (4.0, 1.0), (6.0, 2.0), (7.0, 2.5)]


def _micrograph(track, **use):
    motion = None if track is None else Motion(global_yx_px=track, total_px=0, early_px=0)
    frames = FrameUse(**({"movie": "movies:a.mrc", "movie_frames": 9, "height_px": 64, "width_px": 64} | use))
    return Micrograph(image="session:a.mrc", height_px=64, width_px=64, bin=1, motion=motion, frames=frames)


def _agreement(**values):
    usual = {"n_frames": 4, "rms_px": 0.2, "largest_px": 0.4, "field_rms_px": 0.3, "field_largest_px": 0.6, "range_px": 7.0}
    return MotionAgreement(
        **(usual | {"correlation": 0.99, "path_px": 8.0, "second_path_px": 9.0, "largest_frame": 2.0} | values)
    )


def _check(agreement, acquisition=PIXEL, **limits):
    return check_motion_consensus(_micrograph(TRACK), agreement, MotionConsensusParams(**limits), acquisition)


def test_the_record_has_the_numbers():
    found = compare_motion(_micrograph(TRACK), _micrograph([(y + 5, x) for y, x in TRACK]))
    assert (found.n_frames, found.rms_px, found.correlation) == (4, 0.0, 1.0)
    assert found.range_px == pytest.approx(np.hypot(7, 2.5), abs=1e-3)
    off = compare_motion(_micrograph(TRACK), _micrograph([*TRACK[:3], (7.0, 6.5)]))
    assert (off.largest_px, off.largest_frame) == (3.0, 3.0)
    assert off.rms_px == pytest.approx(np.sqrt(3), abs=1e-4)


def test_frames_are_compared_with_the_same_frames():
    late = [(y - 4, x - 1) for y, x in TRACK[1:]]
    found = compare_motion(_micrograph(TRACK), _micrograph(late, first_frame=1))
    assert (found.n_frames, found.rms_px) == (3, 0.0)
    with pytest.raises(ItemError, match="fewer than 2 frames in common: they are of frames 0 to 3 and 8 to 11"):
        compare_motion(_micrograph(TRACK), _micrograph(TRACK, first_frame=8))


def test_what_cannot_be_compared_fails_the_item():
    with pytest.raises(ItemError, match="has no motion to compare"):
        compare_motion(_micrograph(TRACK), _micrograph(None))
    with pytest.raises(ItemError, match=r"two movies, movies:a\.mrc and movies:b\.mrc"):
        compare_motion(_micrograph(TRACK), _micrograph(TRACK, movie="movies:b.mrc"))
    with pytest.raises(ItemError, match="has no frame"):
        compare_motion(_micrograph(TRACK), _micrograph([]))


def test_single_frames_agree():
    found = compare_motion(_micrograph([(0, 0)]), _micrograph([(0, 0)]))
    assert _check(found, Acquisition()).accepted


@pytest.mark.parametrize(
    ("values", "limits", "said"),
    [
        (
            {"correlation": 0.5},
            {},
            "correlation of the two tracks is 0.500, at least 0.75 is needed (paths of 8.0 and 9.0 px)",
        ),
        ({"rms_px": 1.2}, {}, "rms distance of the two tracks is 2.40 Å (1.20 px), above the limit of 2 Å"),
        ({}, {"max_distance_ang": 0.5}, "distance of the two tracks in frame 2 is 0.80 Å (0.40 px), above the limit of 0.5 Å"),
        ({}, {"max_field_rms_ang": 0.5}, "rms distance over the field is 0.60 Å (0.30 px), above the limit of 0.5 Å"),
        ({}, {"max_rms_px": 0.1}, "rms distance of the two tracks is 0.20 px, above the limit of 0.1 px"),
        ({}, {"max_distance_px": 0.3}, "distance of the two tracks in frame 2 is 0.40 px, above the limit of 0.3 px"),
    ],
)
def test_every_criterion_names_value_and_limit(values, limits, said):
    verdict = _check(_agreement(**values), **limits)
    assert (verdict.accepted, verdict.reason) == (False, said)


def test_agreement_values_at_the_limit_and_unset_criteria_are_kept():
    assert _check(_agreement()).accepted
    assert _check(_agreement(rms_px=1.0, correlation=0.75)).accepted
    nothing = {"min_correlation": None, "max_rms_ang": None}
    assert _check(_agreement(rms_px=50.0, correlation=-1.0), Acquisition(), **nothing).accepted


def test_a_specimen_that_hardly_moved_is_not_judged_by_correlation():
    assert _check(_agreement(correlation=-0.3, range_px=2.9)).accepted
    assert not _check(_agreement(correlation=-0.3, range_px=3.0)).accepted
    assert _check(_agreement(correlation=None)).accepted


def test_limits_in_angstrom_without_a_pixel_size_are_said():
    verdict = _check(_agreement(), Acquisition())
    assert not verdict.accepted and "pixel size is not known" in verdict.reason
    assert _check(_agreement(), Acquisition(), max_rms_ang=None, max_rms_px=1.0).accepted


def test_every_failure_is_in_the_reason():
    reason = _check(_agreement(correlation=0.1, rms_px=9.0, largest_px=20.0), max_distance_ang=1.0, max_rms_px=1.0).reason
    assert reason.count(";") == 3


def test_agreement_declarations():
    compared, judged = step_type_of(compare_motion), step_type_of(check_motion_consensus)
    assert (compared.kind, compared.reads, compared.output) == (Kind.MAP, frozenset(), MotionAgreement)
    assert (judged.name, judged.kind, judged.reads) == ("motion_consensus", Kind.FILTER, frozenset({"pixel_size_ang"}))


def test_two_corrections_of_a_simulated_movie_agree_and_a_wrong_one_does_not(tmp_path):
    settings = SimulationSettings(
        n_movies=1, height_px=384, width_px=384, n_frames=8, n_particles=6, format="mrc", drift_px=(12, 12), local_motion_px=0.5
    )
    simulate(tmp_path, settings=settings, pace=Pace())
    path = tmp_path / "movies/mic_0001.mrc"
    size = {"n_frames": 8, "height_px": 384, "width_px": 384, "size_bytes": path.stat().st_size}
    movie = Movie(file="session:movies/mic_0001.mrc", format="mrc", **size)
    gain = GainReference(file="session:gain.mrc", height_px=384, width_px=384)
    bench, known = StepBench(tmp_path), Acquisition(pixel_size_ang=1.5)
    ways = (MotionParams(), MotionParams(local=False, group=2, b_factor_px2=600, crop_offset_yx_px=(30, 20)))
    first, second = (correct_motion(movie, gain, params, known, bench) for params in ways)
    found = compare_motion(first, second)
    assert check_motion_consensus(first, found, MotionConsensusParams(), known).accepted, found
    assert found.correlation > 0.95 and found.range_px > 3
    truth = load_exposure_truth(tmp_path, "mic_0001")
    right = first.model_copy(update={"motion": Motion(global_yx_px=truth.global_yx_px, total_px=0, early_px=0)})
    assert compare_motion(first, right).rms_px < 0.6
    lost = [(-y, -x) for y, x in truth.global_yx_px]
    wrong = first.model_copy(update={"motion": Motion(global_yx_px=lost, total_px=0, early_px=0)})
    verdict = check_motion_consensus(first, compare_motion(first, wrong), MotionConsensusParams(), known)
    assert "correlation of the two tracks is -" in verdict.reason and "rms distance" in verdict.reason
