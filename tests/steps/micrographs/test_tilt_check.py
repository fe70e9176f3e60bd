"""Measuring and judging tilt, from the image file to the verdict."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.errors import ItemError
from icestream.flow.declaration.step_type import Kind, step_type_of
from icestream.records import Acquisition, Micrograph, TiltMeasure
from icestream.steps.micrographs.tilt_check import MeasureTiltParams, TiltCheckParams, check_tilt, measure_tilt
from icestream.testing.context import StepBench

SIDE_PX, PIXEL_ANG = 1024, 2.0
MICROGRAPH = Micrograph(
    image="session:weighted.mrc", unweighted="session:plain.mrc", height_px=SIDE_PX, width_px=SIDE_PX, bin=2.0
)
ACQUISITION = Acquisition(pixel_size_ang=1.0)


def _image(defocus_ang: tuple[float, float]) -> np.ndarray:
    """Return noise under a CTF whose defocus is one value in the left half and another in the right."""
    rng = np.random.default_rng(7)
    specimen = fft.rfft2(rng.standard_normal((SIDE_PX, SIDE_PX), dtype=np.float32))
    halves = []
    for defocus in defocus_ang:
        ctf = ctf_2d(
            SIDE_PX,
            SIDE_PX,
            pixel_size_ang=PIXEL_ANG,
            defocus_u_ang=defocus,
            defocus_v_ang=defocus,
            astigmatism_angle_deg=0.0,
            voltage_kv=300.0,
            cs_mm=2.7,
            amplitude_contrast=0.1,
        )
        halves.append(fft.irfft2(specimen * ctf, s=(SIDE_PX, SIDE_PX)))
    image = np.where(np.arange(SIDE_PX) < SIDE_PX // 2, *halves) + 0.3 * rng.standard_normal((SIDE_PX, SIDE_PX))
    return image.astype(np.float32)


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    mrcfile.write(tmp_path / "plain.mrc", _image((14000.0, 14000.0)))
    mrcfile.write(tmp_path / "weighted.mrc", _image((13000.0, 15000.0)))
    return StepBench(tmp_path)


def test_a_level_micrograph_is_kept_and_a_slope_is_not(bench: StepBench) -> None:
    level = measure_tilt(MICROGRAPH, MeasureTiltParams(), ACQUISITION, bench)
    assert (level.window_px, level.n_windows) == (256, 16)
    assert level.picture is not None
    assert bench.path(level.picture).read_bytes().startswith(b"\x89PNG")
    assert check_tilt(MICROGRAPH, level, TiltCheckParams()).accepted
    assert TiltMeasure.restore(level.model_dump_json(), version=1, block=None) == level
    slope = measure_tilt(MICROGRAPH.model_copy(update={"unweighted": None}), MeasureTiltParams(), ACQUISITION, bench)
    verdict = check_tilt(MICROGRAPH, slope, TiltCheckParams())
    assert "spread of the correlations" in (verdict.reason or "")


def test_the_pixel_size_is_needed_and_a_bad_image_is_named(bench: StepBench, tmp_path: Path) -> None:
    with pytest.raises(ItemError, match="pixel_size_ang is unset"):
        measure_tilt(MICROGRAPH, MeasureTiltParams(), Acquisition(), bench)
    mrcfile.write(tmp_path / "plain.mrc", np.zeros((300, 2000), np.float32), overwrite=True)
    with pytest.raises(ItemError, match=r"session:plain.mrc: .*too small"):
        measure_tilt(MICROGRAPH, MeasureTiltParams(), ACQUISITION, bench)


def _measure(mean: float, std: float) -> TiltMeasure:
    return TiltMeasure(window_px=512, n_windows=9, significance=50.0, mean_correlation=mean, std_correlation=std)


@pytest.mark.parametrize(
    ("mean", "std", "reason"),
    [
        (0.51, 0.09, None),
        (0.5, 0.09, "mean correlation of the windows 0.500 is not above 0.5"),
        (0.51, 0.1, "spread of the correlations 0.100 is not below 0.1"),
        (
            0.2,
            0.3,
            "mean correlation of the windows 0.200 is not above 0.5; spread of the correlations 0.300 is not below 0.1",
        ),
    ],
)
def test_mean_above_and_spread_below_their_limits(mean: float, std: float, reason: str | None) -> None:
    verdict = check_tilt(MICROGRAPH, _measure(mean, std), TiltCheckParams())
    assert (verdict.accepted, verdict.reason) == (reason is None, reason)


def test_faint_rings_are_kept_unless_told_otherwise() -> None:
    faint = TiltMeasure(window_px=512, n_windows=9, significance=2.04)
    assert check_tilt(MICROGRAPH, faint, TiltCheckParams()).accepted
    verdict = check_tilt(MICROGRAPH, faint, TiltCheckParams(keep_faint=False))
    assert verdict.reason == "rings are too faint to tell a tilt (2.0 standard deviations of noise)"


def test_declarations() -> None:
    assert step_type_of(measure_tilt).reads == {"pixel_size_ang"}
    judge = step_type_of(check_tilt)
    assert (judge.kind, [port.record for port in judge.ports]) == (Kind.FILTER, [Micrograph, TiltMeasure])
