"""The filter over two CTFs names what failed; the mean is a CTF like any other."""

from typing import Any

import pytest

from icestream.errors import ItemError
from icestream.flow.declaration.step_type import Kind, step_type_of
from icestream.records import Acquisition, CtfFit, Micrograph
from icestream.steps.ctf.consensus import CtfConsensusParams, average_ctf, check_ctf_consensus, compare_ctfs

MICROGRAPH = Micrograph(image="session:a.mrc", height_px=8, width_px=8, bin=1)
TITAN = Acquisition(voltage_kv=300)


def _ctf(**values: float) -> CtfFit:
    plain = {
        "defocus_u_ang": 15000.0,
        "defocus_v_ang": 14500.0,
        "astigmatism_angle_deg": 20.0,
        "score": 0.8,
        "resolution_ang": 5.0,
    }
    return CtfFit(**(plain | values))


def _check(ctf: CtfFit, second: CtfFit | None = None, acquisition: Acquisition = TITAN, **limits: object):
    return check_ctf_consensus(MICROGRAPH, ctf, second, CtfConsensusParams(**limits), acquisition)


def test_without_a_second_ctf_only_the_limits_count_and_no_voltage_is_needed() -> None:
    assert _check(_ctf(), None, Acquisition()).accepted
    assert _check(_ctf(resolution_ang=20.0), None, Acquisition()).reason == "resolution 20.00 Å is coarser than 17 Å"


@pytest.mark.parametrize(
    ("values", "limits", "said"),
    [
        ({"defocus_u_ang": 40100.0, "defocus_v_ang": 39900.0}, {}, "defocus U 4.010 µm is outside 0.4 to 4 µm"),
        ({"defocus_u_ang": 4010.0, "defocus_v_ang": 3900.0}, {}, "defocus V 0.390 µm is outside 0.4 to 4 µm"),
        ({}, {"max_astigmatism_ang": 499.0}, "astigmatism 500 Å is above 499 Å"),
        ({"defocus_v_ang": 13000.0}, {}, "relative astigmatism 0.143 is above 0.1"),
        ({"resolution_ang": 4.6}, {"max_resolution_ang": 4.5}, "resolution 4.60 Å is coarser than 4.5 Å"),
        ({"confidence": 0.4}, {"min_confidence": 0.99}, "confidence 0.400 is below 0.99"),
        ({}, {"min_confidence": 0.99}, "confidence is not stated, but must be at least 0.99"),
    ],
)
def test_every_limit_on_the_first_ctf(values: dict[str, float], limits: dict[str, Any], said: str) -> None:
    assert _check(_ctf(**values), **limits).reason == said


def test_a_confident_fit_is_kept() -> None:
    assert _check(_ctf(confidence=0.995), min_score=0.5, min_confidence=0.99).accepted


def test_two_ctfs_must_agree_as_far_as_asked() -> None:
    second = _ctf(defocus_u_ang=15400.0, defocus_v_ang=14900.0)  # sqrt(2 * 0.019687 Å * 400 Å) = 3.97 Å
    assert _check(_ctf(), second, min_agreement_ang=4.0).accepted
    assert _check(_ctf(), second, min_agreement_ang=3.9).reason == "the two CTFs agree to 4.0 Å only, coarser than 3.9 Å"
    assert _check(_ctf(), second, Acquisition(), min_agreement_ang=None).accepted


def test_a_fit_elsewhere_that_is_not_sure_of_itself_is_rejected_for_both() -> None:
    right = _ctf(confidence=1.0)
    elsewhere = _ctf(defocus_u_ang=11500.0, defocus_v_ang=11000.0, score=0.31, confidence=0.004)
    reason = _check(elsewhere, right).reason
    assert reason == ("the confidence of the first CTF, 0.004, is below 0.1; the two CTFs agree to 11.7 Å only, coarser than 7 Å")
    assert _check(right, elsewhere, min_agreement_ang=None).reason == "the confidence of the second CTF, 0.004, is below 0.1"
    assert _check(right, elsewhere, min_agreement_ang=None, min_confidence_of_both=None).accepted


def test_a_fit_that_states_no_confidence_and_one_that_stands_alone_are_not_judged_by_it() -> None:
    assert _check(_ctf(), _ctf(confidence=0.1)).accepted
    assert _check(_ctf(confidence=0.0), None, Acquisition()).accepted


def test_the_agreement_is_kept_whatever_the_filter_decides() -> None:
    second = _ctf(defocus_u_ang=15400.0, defocus_v_ang=14900.0, score=0.7, confidence=0.9)
    found = compare_ctfs(_ctf(confidence=0.5), second, TITAN)
    assert found.agreement_ang == pytest.approx(3.969, abs=0.001)
    assert (found.defocus_difference_ang, found.astigmatism_difference_ang) == (400.0, 0.0)
    assert (found.least_confidence, found.least_score) == (0.5, 0.7)
    crossed = compare_ctfs(_ctf(), _ctf(astigmatism_angle_deg=-70.0), TITAN)
    assert crossed.astigmatism_difference_ang == 1000.0
    assert crossed.least_confidence is None
    assert compare_ctfs(_ctf(), _ctf(phase_shift_deg=90.0), TITAN).agreement_ang is None
    assert compare_ctfs(_ctf(), _ctf(), TITAN).agreement_ang == 0.0
    with pytest.raises(ItemError, match="voltage_kv is unset"):
        compare_ctfs(_ctf(), _ctf(), Acquisition())


def test_phases_that_never_agree_are_said() -> None:
    assert "at every resolution" in (_check(_ctf(), _ctf(phase_shift_deg=90.0)).reason or "")


def test_every_failing_criterion_is_in_the_reason() -> None:
    bad = _ctf(defocus_u_ang=50000.0, defocus_v_ang=42000.0, resolution_ang=30.0)
    reason = _check(bad, _ctf(), max_astigmatism_ang=1000.0).reason or ""
    assert reason.count(";") == 5
    assert [
        word for word in ("defocus U", "defocus V", "; astigmatism", "relative", "resolution", "agree to") if word not in reason
    ] == []


def test_a_comparison_without_a_voltage_or_of_no_number_fails_the_item() -> None:
    with pytest.raises(ItemError, match="voltage_kv is unset"):
        _check(_ctf(), _ctf(), Acquisition())
    with pytest.raises(ItemError, match="not a finite number"):
        _check(_ctf(), _ctf(defocus_u_ang=float("nan")))


def test_the_mean_keeps_what_is_worse_and_the_curves_of_the_first() -> None:
    one = _ctf(defocus_error_ang=30.0).model_copy(update={"profile": [1.0, 2.0]})
    other = _ctf(defocus_u_ang=15080.0, defocus_v_ang=14580.0, resolution_ang=6.0, score=0.7, defocus_error_ang=10.0)
    mean = average_ctf(one, other)
    assert (mean.defocus_u_ang, mean.defocus_v_ang, mean.astigmatism_angle_deg) == (15040.0, 14540.0, 20.0)
    assert (mean.score, mean.resolution_ang, mean.defocus_error_ang) == (0.7, 6.0, 50.0)
    assert mean.profile == [1.0, 2.0]
    assert average_ctf(_ctf(), _ctf()).defocus_error_ang is None


def test_declarations() -> None:
    declared = step_type_of(check_ctf_consensus)
    assert (declared.name, declared.kind, declared.reads) == ("ctf_consensus", Kind.FILTER, frozenset({"voltage_kv"}))
    assert [(port.name, port.optional) for port in declared.ports] == [("micrograph", False), ("ctf", False), ("second", True)]
    assert step_type_of(average_ctf).output is CtfFit
