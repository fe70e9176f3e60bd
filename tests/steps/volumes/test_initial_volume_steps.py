"""Initial volumes and their consensus as steps: in a session that is killed, and what they refuse or do not believe."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.initial_volume import Evidence, plan_volume
from icestream.algorithms.volume_consensus import Agreement, VolumeConsensus
from icestream.algorithms.volumes import (
    fourier_shell_correlation_3d,
    project_volume_2d,
    random_rotations,
    resize_volume_3d,
    transform_volume,
)
from icestream.algorithms.volumes.alignment import align_volume_3d, apply_alignment_3d
from icestream.errors import ItemError
from icestream.flow import Context, Params, step
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.io.blocks import to_block
from icestream.io.image import read_stack, write_mrc
from icestream.records import (
    Acquisition,
    ClassAverages,
    ClassInfo,
    ClassSelection,
    JudgedVolume,
    Particles,
    SelectedClass,
    Volume,
)
from icestream.steps.volumes.consensus import VolumeConsensusParams, agree_on_volumes
from icestream.steps.volumes.initial import InitialVolumeParams, find_volume_of_set
from icestream.testing.context import StepBench
from toys.session import TOYS, arrive, outcomes_of, read_rows
from toys.steps import Number
from virtual.machine import VirtualMachine

HERE = __name__
BOX, PIXEL_ANG, DIAMETER_ANG, EXPOSURES, EACH = 32, 5.0, 92.0, 4, 60
SCOPE = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG, **SCOPE)
OPTICS = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")
QUICK: dict[str, Any] = {"diameter_ang": DIAMETER_ANG, "starts": 1, "passes": 16, "tries": 1, "quick_particles": 200}
SWARM: dict[str, Any] = {
    "diameter_ang": DIAMETER_ANG, "rounds": 1, "min_angle_deg": 15, "train_particles": 100, "test_particles": 40,
}  # fmt: skip


def make_volume(seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(24, 3))
    places *= 34 * rng.uniform(0.2, 1, (24, 1)) ** (1 / 3) / np.linalg.norm(places, axis=1, keepdims=True)
    along = (np.arange(BOX) - BOX // 2) * PIXEL_ANG
    z, y, x = (np.exp(-((along - part[:, None]) ** 2) / 72) for part in places.T)
    return np.einsum("az,ay,ax,a->zyx", z, y, x, rng.uniform(0.5, 1.5, 24)).astype(np.float32)


TRUTH = make_volume(11)


class DrawParams(Params):
    """Nothing."""


@step.map("toy_particles", version=1)
def draw_particles(number: Number, params: DrawParams, ctx: Context) -> Particles:
    """Draw the particles of one exposure, dark on bright."""
    return expose(number.value, ctx)


def expose(index: int, ctx: Context, *, signal: float = 0.6) -> Particles:
    rng = np.random.default_rng([7, index])
    table = np.zeros(EACH, dtype=[("pid", "<i8"), *((name, "<f8") for name in OPTICS), ("slice", "<i4")])
    table["pid"] = table["slice"] = np.arange(EACH)
    defocus = rng.uniform(8000, 20000, EACH // 6).repeat(6)
    table["defocus_u_ang"] = table["defocus_v_ang"] = defocus
    images = project_volume_2d(
        transform_volume(TRUTH), random_rotations(EACH, generator=rng), shift_yx_px=rng.normal(0, 0.5, (EACH, 2))
    )
    for i, u in enumerate(defocus):
        lens = {"defocus_u_ang": u, "defocus_v_ang": u, "astigmatism_angle_deg": 0.0}
        images[i] = np.fft.irfft2(np.fft.rfft2(images[i]) * ctf_2d(BOX, BOX, pixel_size_ang=PIXEL_ANG, **lens, **SCOPE))
    images *= signal / images.std()
    with ctx.publish(f"_{index}.mrcs") as out:
        noisy = (images + rng.normal(size=images.shape)).astype(np.float32)
        write_mrc(out.path, noisy, pixel_size_ang=PIXEL_ANG)
    return Particles(
        stack=out.ref, count=EACH, box_px=BOX, bin=1.0, inverted=False, phase_flipped=False, micrograph=f"session:m{index}.mrc",
        origin=f"{index:032x}", picks_key="p", block=to_block(table),
    )  # fmt: skip


def make_session(folder: Path) -> Session:
    arrive(folder, range(EXPOSURES))
    steps = {
        "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": EXPOSURES}},
        "particles": {"use": f"{HERE}:draw_particles", "in": {"number": "numbers"}},
        "enough": {"use": "milestones", "in": {"items": "particles"}, "params": {"at": [EXPOSURES * EACH], "then": "stop"}},
        "first": {"use": "initial_volume", "in": {"particles": "enough"}, "params": QUICK},
        "second": {"use": "initial_volume", "in": {"particles": "enough"}, "params": {**QUICK, "seed": 1}},
        "agreed": {
            "use": "consensus_volumes",
            "in": {"particles": "enough", "volumes": ["first", "second"]},
            "params": SWARM,
        },
    }
    document = {"name": "toy", "roots": {"numbers": "../numbers"}, "acquisition": ACQUISITION.model_dump(), "steps": steps}
    return create_session(folder / "session", SessionDocument.model_validate(document))


def volumes_of(session: Session) -> list[JudgedVolume]:
    rows = [row for row in read_rows(session, schema.result) if row["record_type"] == JudgedVolume.stored_name]
    return [JudgedVolume.restore(row["record"], version=row["record_version"], block=row["block"]) for row in rows]


def correlation_with_truth(session: Session, volume: Volume) -> float:
    stored = read_stack(session.folder / volume.map.removeprefix("session:"))
    truth = resize_volume_3d(TRUTH, new_size=len(stored))
    found = align_volume_3d(stored, truth, max_ring=6, max_shift_px=2.0)
    return float(fourier_shell_correlation_3d(truth, apply_alignment_3d(stored, found))[1][1:6].mean())


def test_a_session_makes_initial_volumes_and_their_consensus_through_kills(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    machine = VirtualMachine(session, seed=2)
    for gap in (11, 7, 19):
        machine.start()
        machine.kill_in = gap
        machine.turn(40)
    assert machine.run_out().finished
    outcomes = outcomes_of(session)
    for name in ("first", "second", "agreed"):
        found = [(row["status"], row["reason"]) for (one, _), row in outcomes.items() if one == name]
        assert [status for status, _ in found] == ["item"], (name, found)
    made = volumes_of(session)
    assert sorted(len(one.candidates) for one in made) == [1, 1, 2]
    agreed = next(one for one in made if len(one.candidates) == 2)
    assert agreed.verdict == "map"
    assert agreed.n_right == sum(one.right for one in agreed.candidates) >= 1
    assert agreed.count == EXPOSURES * EACH
    assert correlation_with_truth(session, agreed) > 0.85
    for one in made:
        for ref in (one.map, one.picture, one.similarity):
            assert ref is not None
            assert (session.folder / ref.removeprefix("session:")).is_file()


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    return StepBench(tmp_path)


def test_candidates_that_no_particle_believes_have_no_consensus(bench: StepBench) -> None:
    particles = [expose(index, bench) for index in range(EXPOSURES)]
    other = make_volume(12)
    write_mrc(bench.path("session:other.mrc"), other[2:30, 2:30, 2:30], pixel_size_ang=PIXEL_ANG)
    wrong = Volume(map="session:other.mrc", count=0, box_px=28, bin=1.0, pixel_size_ang=PIXEL_ANG)
    found = agree_on_volumes(particles, [wrong], VolumeConsensusParams(**SWARM), ACQUISITION, bench)
    assert (found.verdict, found.n_right) == ("none", 0)
    assert found.reason is not None
    assert "held out" in found.reason
    stored = read_stack(bench.path(found.map))
    setting = plan_volume(box_px=BOX, pixel_size_ang=PIXEL_ANG, diameter_ang=DIAMETER_ANG)
    expected = resize_volume_3d(other, new_size=setting.grid.box_px)
    assert fourier_shell_correlation_3d(stored, expected)[1][1:6].min() > 0.8  # the candidate itself, in its own frame


def test_a_merged_volume_that_its_judges_do_not_believe_is_no_map(bench: StepBench, monkeypatch: pytest.MonkeyPatch) -> None:
    particles = [expose(index, bench) for index in range(2)]
    write_mrc(bench.path("session:true.mrc"), TRUTH, pixel_size_ang=PIXEL_ANG)
    good = Volume(map="session:true.mrc", count=0, box_px=BOX, bin=1.0, pixel_size_ang=PIXEL_ANG)
    poor = Evidence(explained=0.31, error=0.02, gain=50.0, twin_gain=10.0, gain_error=1.0, pose_entropy=1.0)

    def merge(candidates: list[NDArray[np.float32]], *_: object, eligible: NDArray[np.bool_], **__: object) -> VolumeConsensus:
        right = replace(poor, explained=0.8)
        agreement = Agreement(np.eye(len(candidates)), np.arange(len(candidates)))
        return VolumeConsensus(candidates[0], tuple(candidates), agreement, (right,) * len(candidates), poor, 0, eligible)

    monkeypatch.setattr("icestream.steps.volumes.consensus.find_consensus", merge)
    refused = good.model_copy(update={"verdict": "none", "reason": "it is noise"})
    params = VolumeConsensusParams(**SWARM)
    found = agree_on_volumes(particles, [good, refused], params, ACQUISITION, bench)
    assert found.verdict == "none"
    assert found.reason is not None
    assert found.reason.startswith("the merged volume explains 31 %")
    assert [one.agrees for one in found.candidates] == [True, False]


def test_candidates_that_are_all_no_map_have_no_consensus_and_are_compared(bench: StepBench) -> None:
    particles = [expose(index, bench) for index in range(2)]
    write_mrc(bench.path("session:true.mrc"), TRUTH, pixel_size_ang=PIXEL_ANG)
    refused = Volume(
        map="session:true.mrc", count=0, box_px=BOX, bin=1.0, pixel_size_ang=PIXEL_ANG, verdict="none", reason="it is noise"
    )
    found = agree_on_volumes(particles, [refused, refused], VolumeConsensusParams(**SWARM), ACQUISITION, bench)
    assert (found.verdict, found.reason) == ("none", "no candidate is a map; of the best of them it was said: it is noise")
    assert [(one.agrees, one.similarity > 0.9) for one in found.candidates] == [(False, True), (False, True)]


def test_noise_has_no_initial_volume(bench: StepBench) -> None:
    particles = [expose(index, bench, signal=0.0) for index in range(2)]
    params = InitialVolumeParams(**{**QUICK, "passes": 8, "quick_particles": 100})
    found = find_volume_of_set(particles, params, ACQUISITION, bench)
    assert found.verdict == "none"
    assert not any(one.right for one in found.candidates)


def test_common_lines_of_selected_classes_make_one_more_candidate(bench: StepBench) -> None:
    particles = [expose(index, bench) for index in range(EXPOSURES)]
    rotations = random_rotations(26, generator=np.random.default_rng(9))
    averages = project_volume_2d(transform_volume(TRUTH), rotations)
    averages[24:] = 0  # classes that were not selected
    write_mrc(bench.path("session:classes.mrcs"), averages, pixel_size_ang=PIXEL_ANG)
    classes = ClassAverages(
        stack="session:classes.mrcs", picture=None, count=240, box_px=BOX, bin=1.0,
        classes=[ClassInfo(id=number, count=10) for number in range(26)],
    )  # fmt: skip
    chosen = [SelectedClass(id=number, count=10, selected=number < 24, by="score") for number in range(26)]
    selection = ClassSelection(picture="session:none.png", n_selected=240, n_particles=260, classes=chosen)
    params = InitialVolumeParams(**{**QUICK, "passes": 8, "quick_particles": 60})
    found = find_volume_of_set(particles, params, ACQUISITION, bench, classes=classes, selection=selection)
    assert len(found.candidates) == 2
    assert found.candidates[1].right
    assert found.verdict == "map"


def test_an_attempt_goes_on_with_the_starts_of_an_earlier_one(bench: StepBench) -> None:
    particles = [expose(index, bench) for index in range(2)]
    params = InitialVolumeParams(**{**QUICK, "passes": 8, "quick_particles": 100})
    once = find_volume_of_set(particles, params, ACQUISITION, bench)
    kept = next(bench.checkpoint_dir.glob("start*.npz"))
    before = kept.stat().st_mtime_ns
    again = find_volume_of_set(particles, params, ACQUISITION, bench)
    assert again == once
    assert kept.stat().st_mtime_ns == before


class Impatient(StepBench):
    """A bench whose call is cancelled before its sixth pass."""

    asked = 0

    def cancelled(self) -> bool:
        """Tell whether five passes have been made."""
        self.asked += 1
        return self.asked > 5


def test_a_search_that_is_stopped_every_fifth_pass_ends_the_same(tmp_path: Path) -> None:
    (tmp_path / "calm").mkdir()
    (tmp_path / "stopped").mkdir()
    params = InitialVolumeParams(**{**QUICK, "passes": 8, "tries": 2, "quick_particles": 60})
    calm = StepBench(tmp_path / "calm")
    once = find_volume_of_set([expose(index, calm) for index in range(2)], params, ACQUISITION, calm)
    particles = [expose(index, Impatient(tmp_path / "stopped")) for index in range(2)]
    again, attempts = None, 0
    while again is None:
        attempts += 1
        bench = Impatient(tmp_path / "stopped")
        with suppress(ItemError):
            again = find_volume_of_set(particles, params, ACQUISITION, bench)
    assert attempts == 4  # 2 x 8 + 3 passes, five an attempt
    assert again == once
    assert bench.path(again.map).read_bytes() == calm.path(once.map).read_bytes()
    assert not list(bench.checkpoint_dir.glob("unfinished*"))


def test_sets_that_cannot_be_searched_are_refused(bench: StepBench) -> None:
    one = expose(0, bench)
    with pytest.raises(ItemError, match="at least 100"):
        find_volume_of_set([one], InitialVolumeParams(**QUICK), ACQUISITION, bench)
    other = one.model_copy(update={"bin": 2.0})
    with pytest.raises(ItemError, match="different sizes"):
        find_volume_of_set([one, other], InitialVolumeParams(**QUICK), ACQUISITION, bench)
    with pytest.raises(ItemError, match="at least one candidate"):
        agree_on_volumes([one, one], [], VolumeConsensusParams(**SWARM), ACQUISITION, bench)
    with pytest.raises(ValueError, match="no point group"):
        InitialVolumeParams(symmetry="Q4")
    assert InitialVolumeParams(symmetry="d7").symmetry == "D7"
