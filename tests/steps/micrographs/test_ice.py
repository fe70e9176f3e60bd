"""The steps that say how thick the ice is, and that what they say is told apart wherever it is shown."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow import Exposure
from icestream.io.image import write_mrc
from icestream.io.picture import encode_picture
from icestream.records import (
    Acquisition,
    BeamIntensity,
    CtfLocal,
    FrameUse,
    IceRing,
    IceTransmission,
    JunkMask,
    Micrograph,
    MicrographQuality,
    VacuumReference,
)
from icestream.steps.micrographs.ice import (
    VacuumReferenceParams,
    VacuumReferences,
    VacuumReferenceState,
    compare_transmission,
    measure_ice_ring,
    measure_intensity,
)
from icestream.testing.context import StepBench

EMPTY = MicrographQuality(
    kind="no_ice",
    score=0.0,
    reason="shot noise",
    probability={},
    signal_to_noise=1.0,
    mottle=1.0,
    anisotropy=0.0,
    film_share=0.0,
    dark_share=0.0,
    skewness=0.0,
    usable_share=1.0,
)


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    return StepBench(tmp_path)


def _write(bench: StepBench, name: str, image: np.ndarray) -> str:
    write_mrc(bench.folder / name, image.astype(np.float32), pixel_size_ang=1.0, dtype="float32")
    return f"session:{name}"


def _micrograph(bench: StepBench, image: np.ndarray, **values: object) -> Micrograph:
    ref = _write(bench, "m.mrc", image)
    return Micrograph.model_validate(
        {"image": ref, "height_px": image.shape[0], "width_px": image.shape[1], "bin": 1.0, "n_frames": 10} | values
    )


def _learn(
    bench: StepBench, calls: Sequence[Sequence[float]], *, empty: Sequence[float] = (), **params: object
) -> VacuumReference:
    """Feed intensities call by call, then empty holes, with the state stored and read back between calls."""
    learner, rules = VacuumReferences(), VacuumReferenceParams.model_validate(params)
    state = learner.start(rules, bench)
    for counts, judged in [*((one, None) for one in calls), (empty, EMPTY)]:
        exposures = [Exposure(f"{i:032d}", f"e{i}") for i in range(len(counts))]
        intensity = [BeamIntensity(counts_per_px_frame=one, n_frames=10, clean_share=1.0) for one in counts]
        state = learner.add(state, exposures, intensity, [judged] * len(counts), rules, bench).state
        state = VacuumReferenceState.restore(state.model_dump_json(), version=1, block=None)
    return learner.emit(state, rules, bench)


def test_the_intensity_is_that_of_a_frame(bench: StepBench) -> None:
    image = np.full((64, 96), 30.0)
    found = measure_intensity(_micrograph(bench, image), None, bench)
    assert (found.counts_per_px_frame, found.n_frames, found.clean_share) == (pytest.approx(3.0), 10, 1.0)


def test_a_weighted_sum_has_the_intensity_of_the_plain_one(bench: StepBench) -> None:
    weighted = _micrograph(bench, np.full((64, 96), 30.0 / 10**0.5), dose_weighted=True)
    assert measure_intensity(weighted, None, bench).counts_per_px_frame == pytest.approx(3.0)
    both = weighted.model_copy(update={"unweighted": _write(bench, "plain.mrc", np.full((64, 96), 30.0))})
    assert measure_intensity(both, None, bench).counts_per_px_frame == pytest.approx(3.0)


def test_camera_frames_that_were_added_up_count_one_by_one(bench: StepBench) -> None:
    use = FrameUse(movie="movies:m.eer", movie_frames=40, height_px=64, width_px=96, eer_group=4)
    found = measure_intensity(_micrograph(bench, np.full((64, 96), 80.0), frames=use), None, bench)
    assert (found.counts_per_px_frame, found.n_frames) == (pytest.approx(2.0), 40)


def test_what_is_masked_is_not_counted(bench: StepBench) -> None:
    image = np.full((64, 96), 30.0)
    image[:, 48:] = 10.0
    labels = np.zeros((8, 12), np.uint8)
    labels[:, 6:] = 1
    encode_picture(bench.folder / "labels.png", labels)
    mask = JunkMask(
        labels="session:labels.png",
        box_px=8,
        bin=8.0,
        height_px=64,
        width_px=96,
        carbon_share=0.5,
        dirt_share=0.0,
        aggregate_share=0.0,
        any_share=0.5,
    )
    found = measure_intensity(_micrograph(bench, image), mask, bench)
    assert (found.counts_per_px_frame, found.clean_share) == (pytest.approx(3.0), 0.5)
    with pytest.raises(ItemError, match="is of 32 x 96 px"):
        measure_intensity(_micrograph(bench, image), mask.model_copy(update={"height_px": 32}), bench)


def test_grey_values_that_are_no_counts_fail_with_a_reason(bench: StepBench) -> None:
    with pytest.raises(ItemError, match="normalised"):
        measure_intensity(_micrograph(bench, np.full((64, 96), -1.0)), None, bench)


def test_the_brightest_that_others_confirm_is_the_reference(bench: StepBench) -> None:
    found = _learn(bench, [[2.0, 2.01, 1.99, 1.5, 3.5]])
    assert (found.counts_per_px_frame, found.origin, found.warning) == (2.01, "brightest", None)


def test_few_exposures_have_a_reference_too(bench: StepBench) -> None:
    assert _learn(bench, [[2.0]]).counts_per_px_frame == 2.0
    assert _learn(bench, [[3.0, 2.0, 1.0]]).counts_per_px_frame == 1.0


def test_an_empty_hole_is_more_certain(bench: StepBench) -> None:
    found = _learn(bench, [[2.0, 2.01, 1.99]], empty=[2.2, 0.01])
    assert (found.counts_per_px_frame, found.origin, found.n_empty, found.n_updates) == (2.2, "empty_hole", 2, 1)
    assert found.warning is not None and "0.090 mean free paths too little" in found.warning


def test_what_a_person_stated_stays(bench: StepBench) -> None:
    found = _learn(bench, [[2.0, 2.01, 1.99], [4.0, 4.0, 4.0]], empty=[2.2], vacuum_counts_per_px_frame=2.5)
    assert (found.counts_per_px_frame, found.origin, found.n_updates) == (2.5, "stated", 0)


def test_the_reference_changes_only_for_what_is_clearly_brighter(bench: StepBench) -> None:
    first = [2.0, 2.0, 2.0]
    assert _learn(bench, [first, [2.04, 2.04, 2.04]]).counts_per_px_frame == 2.0
    assert _learn(bench, [first, [1.0] * 9]).counts_per_px_frame == 2.0
    risen = _learn(bench, [first, [2.5, 2.5, 2.5]])
    assert (risen.counts_per_px_frame, risen.n_updates) == (2.5, 1)


def test_transmission_names_where_its_reference_comes_from() -> None:
    reference = VacuumReference(counts_per_px_frame=2.0, origin="brightest", n_measured=20)
    found = compare_transmission(BeamIntensity(counts_per_px_frame=1.0, n_frames=10, clean_share=1.0), reference)
    assert found.mean_free_paths == pytest.approx(np.log(2), abs=1e-5)
    assert (found.transmission, found.vacuum_origin) == (0.5, "brightest")


def test_pixels_too_coarse_for_the_ring_are_told(bench: StepBench) -> None:
    noise = np.random.default_rng(3).poisson(20.0, (256, 256))
    found = measure_ice_ring(_micrograph(bench, noise), Acquisition(pixel_size_ang=2.0), bench)
    assert found.strength is None and found.note == "pixels of 2 Å do not reach the ring of ice at 3.7 Å with its surroundings"


def test_shot_noise_has_no_ring(bench: StepBench) -> None:
    noise = np.random.default_rng(3).poisson(20.0, (512, 512))
    found = measure_ice_ring(_micrograph(bench, noise), Acquisition(pixel_size_ang=1.0), bench)
    assert found.strength is not None and found.error is not None
    assert found.strength <= 4 * found.error


def test_the_three_columns_are_told_apart() -> None:
    measures = [
        next(one for one in record.shown.measures if one.metric == metric)
        for record, metric in (
            (IceTransmission, "ice_transmission_mean_free_paths"),
            (CtfLocal, "ctf_local_thickness_angstroms"),
            (IceRing, "ice_ring_percent"),
        )
    ]
    assert len({one.label for one in measures}) == 3
    assert len({one.origin for one in measures}) == 3 and all(one.origin for one in measures)
    assert [one.unit for one in measures] == ["mean free paths", "Å", "% of noise"]
    assert all(one.better == "low" for one in measures)
