"""The steps that estimate and judge the CTF."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.errors import ItemError
from icestream.flow.declaration.step_type import Kind, step_type_of
from icestream.records import Acquisition, CtfFit, Micrograph, PowerSpectra
from icestream.steps.ctf.equiphase import CtfEquiphaseParams, estimate_ctf_equiphase
from icestream.steps.ctf.estimate import CtfParams, estimate_ctf
from icestream.steps.ctf.filter import CtfFilterParams, filter_by_ctf
from icestream.testing.context import StepBench

ACQUISITION = Acquisition(voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07, pixel_size_ang=0.8)
MICROGRAPH = Micrograph(image="session:weighted.mrc", unweighted="session:plain.mrc", height_px=768, width_px=768, bin=2.0)


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    """A session whose unweighted image has a known CTF, and whose weighted one is noise."""
    rng = np.random.default_rng(4)
    ctf = ctf_2d(
        768,
        768,
        pixel_size_ang=1.6,
        defocus_u_ang=15400,
        defocus_v_ang=14600,
        astigmatism_angle_deg=40,
        voltage_kv=300,
        cs_mm=2.7,
        amplitude_contrast=0.07,
    )
    rings = fft.irfft2(fft.rfft2(rng.standard_normal((768, 768))) * ctf)
    mrcfile.write(tmp_path / "plain.mrc", (rings + rng.standard_normal((768, 768))).astype(np.float32))
    mrcfile.write(tmp_path / "weighted.mrc", rng.standard_normal((768, 768)).astype(np.float32))
    return StepBench(tmp_path)


def test_the_unweighted_image_is_fitted_at_its_binned_pixel_size(bench: StepBench) -> None:
    fit = estimate_ctf(MICROGRAPH, CtfParams(), ACQUISITION, bench)
    assert fit.defocus_u_ang == pytest.approx(15400, abs=60)
    assert fit.defocus_v_ang == pytest.approx(14600, abs=60)
    assert fit.astigmatism_angle_deg == pytest.approx(40, abs=5)
    assert fit.phase_shift_deg == 0
    assert fit.score > 0.8
    assert fit.resolution_ang < 5
    assert fit.defocus_error_ang is not None
    assert 0 < fit.defocus_error_ang < 50


def test_curves_are_short_and_a_picture_is_published(bench: StepBench) -> None:
    fit = estimate_ctf(MICROGRAPH, CtfParams(), ACQUISITION, bench)
    lengths = {len(curve) for curve in (fit.frequency_per_ang, fit.profile, fit.profile_fit, fit.correlation)}
    assert lengths == {len(fit.frequency_per_ang)}
    assert 16 <= len(fit.frequency_per_ang) <= 200
    assert fit.spectrum == "session:steps/bench/exposure_ctf.png"
    assert bench.path(fit.spectrum).read_bytes().startswith(b"\x89PNG")
    assert CtfFit.restore(fit.model_dump_json(), version=CtfFit.schema_version, block=None) == fit


def test_without_an_unweighted_sum_the_image_itself_is_fitted(bench: StepBench) -> None:
    fit = estimate_ctf(MICROGRAPH.model_copy(update={"unweighted": None}), CtfParams(), ACQUISITION, bench)
    assert fit.score < 0.4
    assert fit.resolution_ang > 10


@pytest.mark.parametrize("name", ["voltage_kv", "cs_mm", "amplitude_contrast", "pixel_size_ang"])
def test_an_unset_acquisition_value_is_named(bench: StepBench, name: str) -> None:
    with pytest.raises(ItemError, match=f"{name} is unset"):
        estimate_ctf(MICROGRAPH, CtfParams(), ACQUISITION.model_copy(update={name: None}), bench)


def test_an_image_that_cannot_be_fitted_is_an_item_error_with_its_name(bench: StepBench, tmp_path: Path) -> None:
    mrcfile.write(tmp_path / "plain.mrc", np.zeros((768, 768), np.float32), overwrite=True)
    with pytest.raises(ItemError, match=r"session:plain.mrc: .*constant"):
        estimate_ctf(MICROGRAPH, CtfParams(), ACQUISITION, bench)
    mrcfile.write(tmp_path / "plain.mrc", np.zeros((64, 64), np.float32), overwrite=True)
    with pytest.raises(ItemError, match="too small"):
        estimate_ctf(MICROGRAPH, CtfParams(), ACQUISITION, bench)


def test_the_steps_declare_what_they_read() -> None:
    declared = step_type_of(estimate_ctf)
    assert declared.kind is Kind.MAP
    assert declared.reads == {"pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"}
    assert [(port.name, port.record, port.optional) for port in declared.ports] == [
        ("micrograph", Micrograph, False),
        ("spectra", PowerSpectra, True),
    ]
    judge = step_type_of(filter_by_ctf)
    assert judge.kind is Kind.FILTER
    assert [(port.name, port.record) for port in judge.ports] == [("micrograph", Micrograph), ("ctf", CtfFit)]


def ctf_of(**values: float) -> CtfFit:
    fields = {
        "defocus_u_ang": 15000.0,
        "defocus_v_ang": 14500.0,
        "astigmatism_angle_deg": 0.0,
        "score": 0.8,
        "resolution_ang": 5.0,
    }
    return CtfFit(**{**fields, **values})


def test_a_good_ctf_passes_the_filter() -> None:
    assert filter_by_ctf(MICROGRAPH, ctf_of(), CtfFilterParams(min_score=0.5, max_astigmatism_ang=600)).accepted


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"defocus_u_ang": 41000.0, "defocus_v_ang": 39900.0}, "defocus U 4.100 µm is outside 0.4 to 4 µm"),
        ({"defocus_u_ang": 4100.0, "defocus_v_ang": 3900.0}, "defocus V 0.390 µm is outside 0.4 to 4 µm"),
        ({"defocus_v_ang": 14399.0}, "astigmatism 601 Å is above 600 Å"),
        ({"defocus_u_ang": 5500.0, "defocus_v_ang": 4950.0}, "relative astigmatism 0.105 is above 0.1"),
        ({"resolution_ang": 17.5}, "resolution 17.50 Å is coarser than 17 Å"),
        ({"score": 0.29}, "score 0.290 is below 0.3"),
    ],
)
def test_each_criterion_rejects_with_value_and_limit(values: dict[str, float], reason: str) -> None:
    verdict = filter_by_ctf(
        MICROGRAPH, ctf_of(**values), CtfFilterParams(min_score=0.3, max_astigmatism_ang=600, defocus_um=(0.4, 4.0))
    )
    if "defocus_u_ang" in values and values["defocus_u_ang"] > 40000:
        assert verdict.reason == reason + "; astigmatism 1100 Å is above 600 Å"
    else:
        assert verdict.reason == reason
    assert not verdict.accepted


def test_values_on_the_limit_pass_and_unset_criteria_are_off() -> None:
    edge = ctf_of(defocus_u_ang=11000.0, defocus_v_ang=10000.0, resolution_ang=17.0)
    assert filter_by_ctf(MICROGRAPH, edge, CtfFilterParams(max_relative_astigmatism=1000 / 10500, defocus_um=(1.0, 1.1))).accepted
    off = CtfFilterParams(defocus_um=None, max_relative_astigmatism=None, max_resolution_ang=None)
    assert filter_by_ctf(MICROGRAPH, ctf_of(defocus_u_ang=9e4, defocus_v_ang=1.0, resolution_ang=99.0, score=-1.0), off).accepted


def test_every_failing_criterion_is_in_the_reason() -> None:
    verdict = filter_by_ctf(
        MICROGRAPH,
        ctf_of(defocus_u_ang=90000.0, resolution_ang=30.0, score=0.0),
        CtfFilterParams(max_astigmatism_ang=1, min_score=0.2),
    )
    assert verdict.reason is not None
    assert verdict.reason.count(";") == 4


def test_values_that_are_not_numbers_are_rejected() -> None:
    assert not filter_by_ctf(MICROGRAPH, ctf_of(resolution_ang=float("nan")), CtfFilterParams()).accepted


def test_both_estimators_find_the_ctf_and_say_who_they_are(bench: StepBench) -> None:
    first = estimate_ctf(MICROGRAPH, CtfParams(), ACQUISITION, bench)
    second = estimate_ctf_equiphase(MICROGRAPH, CtfEquiphaseParams(), ACQUISITION, bench)
    assert (first.estimator, second.estimator) == ("least_squares", "equiphase")
    assert second.spectrum == "session:steps/bench/exposure_ctf_equiphase.png"
    assert bench.path(second.spectrum).read_bytes().startswith(b"\x89PNG")
    for fit in (first, second):
        assert fit.defocus_u_ang == pytest.approx(15400, abs=60)
        assert fit.defocus_v_ang == pytest.approx(14600, abs=60)
        assert fit.confidence == pytest.approx(1, abs=1e-3)
        assert fit.astigmatism_error_ang is not None
        assert 0 < fit.astigmatism_error_ang < 100
        assert fit.angle_error_deg is not None
        assert 0 < fit.angle_error_deg < 10
        assert fit.phase_shift_error_deg is None


def test_the_second_estimator_names_what_is_missing_or_broken(bench: StepBench, tmp_path: Path) -> None:
    with pytest.raises(ItemError, match="cs_mm is unset"):
        estimate_ctf_equiphase(MICROGRAPH, CtfEquiphaseParams(), ACQUISITION.model_copy(update={"cs_mm": None}), bench)
    mrcfile.write(tmp_path / "plain.mrc", np.zeros((768, 768), np.float32), overwrite=True)
    with pytest.raises(ItemError, match=r"session:plain.mrc: .*constant"):
        estimate_ctf_equiphase(MICROGRAPH, CtfEquiphaseParams(), ACQUISITION, bench)
    with pytest.raises(ValueError, match="give the lower value first"):
        CtfEquiphaseParams(defocus_um=(2.0, 1.0))
