"""Judging micrographs, from the image file to the verdict."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from icestream.algorithms.micrograph.features import MicrographMaps
from icestream.errors import ItemError
from icestream.flow.declaration.step_type import Kind, step_type_of
from icestream.io.picture import read_picture
from icestream.records import Acquisition, CtfFit, Micrograph, MicrographQuality
from icestream.steps.micrographs.triage import TriageParams, draw_maps, measure_quality, triage
from icestream.testing.context import StepBench

SIDE_PX = 384
MICROGRAPH = Micrograph(
    image="session:weighted.mrc", unweighted="session:plain.mrc", height_px=SIDE_PX, width_px=SIDE_PX, bin=2.0, n_frames=20
)
ACQUISITION = Acquisition(pixel_size_ang=0.75, dose_per_frame_e_per_ang2=2.0)
Y, X = np.indices((SIDE_PX, SIDE_PX))
BALL = np.hypot(Y - 100, X - 120) < 80


def _particles() -> np.ndarray:
    """Return counts with dark particles in rows, and nothing else."""
    bodies = np.zeros((SIDE_PX, SIDE_PX))
    bodies[20::32, 16::32] = 1.0
    return 90.0 * (1 - 4.0 * ndimage.gaussian_filter(bodies, 3.0))


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    rng = np.random.default_rng(1)
    mrcfile.write(tmp_path / "plain.mrc", rng.poisson(_particles()).astype(np.float32))
    mrcfile.write(tmp_path / "weighted.mrc", rng.poisson(np.full((SIDE_PX, SIDE_PX), 90.0)).astype(np.float32))
    return StepBench(tmp_path)


def _judge(bench: StepBench, image: np.ndarray, acquisition: Acquisition = ACQUISITION) -> MicrographQuality:
    mrcfile.write(bench.path("session:plain.mrc"), image.astype(np.float32), overwrite=True)
    return measure_quality(MICROGRAPH, acquisition, bench)


def test_a_good_micrograph_is_kept_and_the_unweighted_sum_is_judged(bench: StepBench) -> None:
    good = measure_quality(MICROGRAPH, ACQUISITION, bench)
    assert good.kind in ("decent", "great")
    assert good.bragg_share == 0
    assert triage(MICROGRAPH, good, None, TriageParams()).accepted
    assert MicrographQuality.restore(good.model_dump_json(), version=1, block=None) == good
    empty = measure_quality(MICROGRAPH.model_copy(update={"unweighted": None}), ACQUISITION, bench)
    verdict = triage(MICROGRAPH, empty, None, TriageParams())
    assert (verdict.reason or "").startswith("no ice: the strongest octave")


def test_an_ice_ball_is_named_with_its_share_and_drawn_in_red(bench: StepBench) -> None:
    rng = np.random.default_rng(2)
    dirty = _judge(bench, rng.poisson(_particles() * (1 - 0.4 * BALL)))
    assert dirty.kind == "contamination"
    assert dirty.dark_share == pytest.approx(BALL.mean(), rel=0.1)
    assert dirty.picture is not None
    picture = read_picture(bench.path(dirty.picture))
    assert picture.shape == (SIDE_PX, SIDE_PX)
    verdict = triage(MICROGRAPH, dirty, None, TriageParams())
    assert verdict.reason == "contamination: dark objects cover 14% of the image, allowed are 10%"
    assert triage(MICROGRAPH, dirty, None, TriageParams(max_dark_share=0.2)).accepted
    assert triage(MICROGRAPH, dirty, None, TriageParams(keep=("contamination", "great"))).accepted


def test_crystals_are_seen_where_the_pixels_are_known(bench: StepBench) -> None:
    rng = np.random.default_rng(3)
    lattice = 1 + 0.2 * np.cos(2 * np.pi * 1.5 / 3.67 * (0.8 * X + 0.6 * Y))
    image = rng.poisson(_particles() * lattice)
    crystal = _judge(bench, image)
    assert (crystal.kind, crystal.bragg_share) == ("crystalline_ice", 1.0)
    assert crystal.bragg_spacing_ang == pytest.approx(3.67, abs=0.05)
    assert "100% of the tiles have Bragg spots of ice, allowed are 15%" in (
        triage(MICROGRAPH, crystal, None, TriageParams()).reason or ""
    )
    blind = _judge(bench, image, Acquisition())
    assert (blind.bragg_share, blind.bragg_spacing_ang) == (None, None)
    assert triage(MICROGRAPH, blind, None, TriageParams()).accepted


def test_what_has_thon_rings_is_not_called_empty(bench: StepBench) -> None:
    empty = measure_quality(MICROGRAPH.model_copy(update={"unweighted": None}), ACQUISITION, bench)
    assert empty.kind == "no_ice"
    fit = CtfFit(defocus_u_ang=9000, defocus_v_ang=9000, astigmatism_angle_deg=0, score=0.9, resolution_ang=4, confidence=0.99)
    reason = triage(MICROGRAPH, empty, fit, TriageParams()).reason or ""
    assert reason.startswith("bare ice: ")
    for doubtful in (fit.model_copy(update={"confidence": 0.5}), fit.model_copy(update={"confidence": None})):
        assert (triage(MICROGRAPH, empty, doubtful, TriageParams()).reason or "").startswith("no ice: ")
    dirty = empty.model_copy(update={"dark_share": 0.3})
    assert (triage(MICROGRAPH, dirty, fit, TriageParams()).reason or "").startswith("contamination: ")


def test_maps_are_drawn_in_their_colours() -> None:
    masks = [np.zeros((64, 64), bool) for _ in range(4)]
    for index, mask in enumerate(masks):
        mask[16 * index + 4 : 16 * index + 8] = True
    drawn = draw_maps(MicrographMaps(np.full((64, 64), 0.5), *masks))  # film, dark, particles, bragg
    assert [int(np.argmax(drawn[16 * index + 5, 5])) for index in range(3)] == [2, 0, 1]
    assert np.all(drawn[0, 0] == drawn[0, 0, 0])


def test_many_dark_particles_are_kept(bench: StepBench) -> None:
    bodies = np.zeros((SIDE_PX, SIDE_PX))
    bodies[24::48, 24::48] = 1.0
    discs = ndimage.gaussian_filter(bodies, 4.0) * 2 * np.pi * 16.0
    dark = _judge(bench, np.random.default_rng(5).poisson(90.0 * (1 - 0.4 * discs)))
    assert (dark.kind, dark.dark_share) == ("great", 0)
    assert dark.particle_share > 0.03
    assert triage(MICROGRAPH, dark, None, TriageParams()).accepted


def test_a_score_may_be_asked_for(bench: StepBench) -> None:
    good = measure_quality(MICROGRAPH, ACQUISITION, bench)
    unsure = good.model_copy(update={"dark_share": 0.09})
    assert triage(MICROGRAPH, unsure, None, TriageParams()).accepted
    reason = triage(MICROGRAPH, unsure, None, TriageParams(min_score=0.9)).reason or ""
    assert "is below 0.9 (" in reason
    only = triage(MICROGRAPH, good, None, TriageParams(keep=("bare_ice",), min_score=1.0)).reason or ""
    assert only.count("signal to noise") == 1
    assert only.endswith("is below 1")


def test_what_cannot_be_judged_fails_by_name(bench: StepBench) -> None:
    with pytest.raises(ItemError, match=r"session:plain.mrc: cannot be judged: all pixels have the value 7"):
        _judge(bench, np.full((SIDE_PX, SIDE_PX), 7.0))
    with pytest.raises(ItemError, match=r"session:plain.mrc: cannot be judged: .*\(20, 20\)"):
        _judge(bench, np.zeros((20, 20)))


@pytest.mark.parametrize("wrong", [{"keep": ()}, {"keep": ("nice",)}, {"max_dark_share": 0.0}, {"min_score": 1.1}])
def test_parameters_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TriageParams.model_validate(wrong)


def test_declarations() -> None:
    assert step_type_of(measure_quality).reads == {"pixel_size_ang", "dose_per_frame_e_per_ang2"}
    judge = step_type_of(triage)
    assert (judge.kind, [port.record for port in judge.ports]) == (Kind.FILTER, [Micrograph, MicrographQuality, CtfFit])
