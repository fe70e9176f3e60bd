"""The accumulator that classifies in the stream."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.scoring.contrast import ctf_polar_2d
from icestream.algorithms.scoring.polar import polar_from_orders
from icestream.errors import ItemError
from icestream.flow import Exposure, Progress, Update
from icestream.flow.declaration.step_type import step_type_of
from icestream.io.blocks import from_block, to_block
from icestream.io.image import read_stack, write_mrc
from icestream.records import Acquisition, ClassAssignments, ClassAverages, Particles
from icestream.steps.classify2d.averages import all_assignments
from icestream.steps.classify2d.engine import choose_replay
from icestream.steps.classify2d.params import Classify2DParams, plan_for
from icestream.steps.classify2d.segments import Segment, prepare, read_table, sample_polar
from icestream.steps.classify2d.state import Classify2DState, load_model
from icestream.steps.classify2d.streaming import Classify2D
from icestream.steps.particles.assigned import find_assignments
from icestream.testing.context import StepBench

BOX, PIXEL_ANG = 48, 4.0
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG / 2, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.1)
PARAMS = Classify2DParams(
    n_classes=3, limit_ang=12.0, first_iterations=6, anneal_iterations=4, first_particles=20, batch_particles=10
)
BLOBS = np.array([[-9.0, -4, 1.5], [-3, -6, 1.0], [4, -5, 0.7], [8, 2, 1.6], [3, 7, 0.5]])


def draw(psi_rad: float, shift_yx_px: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, weight = BLOBS.T
    x, y = x * np.cos(psi_rad) - y * np.sin(psi_rad) + shift_yx_px[1], x * np.sin(psi_rad) + y * np.cos(psi_rad) + shift_yx_px[0]
    grid = np.arange(BOX) - BOX // 2
    return np.exp(-((grid[:, None, None] - y) ** 2 + (grid[None, :, None] - x) ** 2) / 6) @ weight


def expose(bench: StepBench, index: int, count: int, *, sign: float = 1.0, **changes: Any) -> tuple[Exposure, Particles]:
    """Write a stack of noisy copies of one shape without CTF, and its record; the truth is in the scores and positions."""
    rng = np.random.default_rng(index)
    table = np.zeros(
        count,
        dtype=[
            ("pid", "<i8"),
            ("psi", "<f8"),
            *((n, "<f8") for n in ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")),
        ],
    )
    table["pid"] = np.arange(count) + 100 * index
    table["psi"] = rng.uniform(0, 2 * np.pi, count)
    table["defocus_u_ang"] = table["defocus_v_ang"] = np.nan
    shifts = rng.uniform(-1.5, 1.5, (count, 2))
    stack = None
    if count:
        images = np.stack([draw(psi, s) for psi, s in zip(table["psi"], shifts, strict=True)])
        stack = f"session:stacks/{index}.mrcs"
        bench.path(stack).parent.mkdir(exist_ok=True)
        write_mrc(bench.path(stack), (sign * images + rng.normal(size=images.shape)).astype(np.float32), pixel_size_ang=PIXEL_ANG)
    fields: dict[str, Any] = {
        "stack": stack,
        "count": count,
        "box_px": BOX,
        "bin": 2.0,
        "inverted": sign > 0,
        "phase_flipped": False,
        "micrograph": f"session:m{index}.mrc",
        "block": to_block(table),
    }
    return Exposure(f"{index:032x}", f"exposure{index}"), Particles(**{**fields, **changes})


def call(
    bench: StepBench, state: Classify2DState, batch: list[tuple[Exposure, Particles]], *, version: int, closing: bool = False
) -> tuple[Update[Classify2DState], ClassAverages]:
    bench.version, bench.closing, bench.seed = version, closing, 100 + version
    bench.exposure = Exposure(f"{version:032x}", f"version{version}")
    acquisition = [ACQUISITION] * len(batch)
    update = Classify2D().add(
        state, [e for e, _ in batch], [p for _, p in batch], acquisition=acquisition, params=PARAMS, ctx=bench
    )
    return update, Classify2D().emit(update.state, PARAMS, bench)


def play(folder: Path) -> tuple[Classify2DState, dict[str, Any], ClassAverages, StepBench]:
    """Three calls: the first classes, a small batch, and the closing without anything new; the state goes through JSON."""
    folder.mkdir()
    bench = StepBench(folder)
    state = Classify2D().start(PARAMS, bench)
    assignments: dict[str, Any] = {}
    calls: tuple[list[tuple[int, int]], ...] = ([(0, 12), (1, 8), (2, 0)], [(3, 1)], [])
    for version, sizes in enumerate(calls, 1):
        batch = [expose(bench, index, count) for index, count in sizes]
        update, averages = call(bench, state, batch, version=version, closing=version == 3)
        state = Classify2DState.restore(update.state.model_dump_json(), version=2, block=None)
        assignments |= update.assignments
    return state, assignments, averages, bench


def test_stream_of_batches_ends_in_averages_and_assignments_of_all(tmp_path: Path) -> None:
    state, assignments, averages, bench = play(tmp_path / "a")
    assert state.n_particles == averages.count == 21
    assert [info.id for info in averages.classes] == [0, 1, 2]
    assert sum(info.count for info in averages.classes) == 21
    assert {key: record.count for key, record in assignments.items()} == {
        f"{i:032x}": count for i, count in ((0, 12), (1, 8), (2, 0), (3, 1))
    }
    assert {one.version for one in state.segments} == {3}
    rows = all_assignments(averages, bench)
    assert (set(rows["version"].tolist()), len(set(rows["pid"].tolist()))) == ({3}, 21)
    assert [int((rows["class_id"] == info.id).sum()) for info in averages.classes] == [info.count for info in averages.classes]
    images = read_stack(bench.path(averages.stack))
    assert images.shape == (3, averages.box_px, averages.box_px)
    assert averages.bin * averages.box_px == pytest.approx(2.0 * BOX)
    assert bench.path(averages.picture or "").read_bytes().startswith(b"\x89PNG")
    table = from_block(assignments[f"{3:032x}"].block)
    assert table.dtype.names == ("pid", "class_id", "psi_deg", "shift_y_px", "shift_x_px", "score")
    assert table["pid"].tolist() == [300]


def test_replay_of_the_log_gives_the_same_bits(tmp_path: Path) -> None:
    first, second = play(tmp_path / "a"), play(tmp_path / "b")
    assert first[0] == second[0]
    assert first[1] == second[1]
    assert first[0].model is not None
    with np.load(first[3].path(first[0].model)) as one, np.load(second[3].path(first[0].model)) as two:
        assert sorted(one.files) == sorted(two.files)
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name])


def test_particles_turned_back_by_their_assignment_agree_with_the_truth(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    batch = [expose(bench, 0, 40)]
    params = PARAMS.model_copy(update={"n_classes": 1, "first_iterations": 12})
    bench.exposure = Exposure("v", "v")
    update = Classify2D().add(
        Classify2D().start(params, bench), [batch[0][0]], [batch[0][1]], acquisition=[ACQUISITION], params=params, ctx=bench
    )
    record = update.assignments[batch[0][0].id]
    assert isinstance(record, ClassAssignments)
    found = from_block(record.block)["psi_deg"]
    turns = np.deg2rad(found) - from_block(batch[0][1].block)["psi"]
    error = np.rad2deg(np.abs(np.angle(np.exp(1j * turns) / np.exp(1j * turns).mean())))
    assert np.median(error) < 6.0


def test_dark_protein_gives_bright_classes(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = Classify2D().start(PARAMS, bench)
    _, averages = call(bench, state, [expose(bench, 0, 25, sign=-1.0)], version=1)
    images = read_stack(bench.path(averages.stack))
    biggest = max(averages.classes, key=lambda info: info.count).id
    assert images[biggest].max() > -2 * images[biggest].min()


def test_phase_flipped_stacks_are_weighted_with_the_modulus_of_the_ctf(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    _, particles = expose(bench, 0, 3)
    table = from_block(particles.block).copy()
    table["defocus_u_ang"] = table["defocus_v_ang"] = 12000.0
    setting = plan_for(PARAMS, box_px=BOX, pixel_size_ang=PIXEL_ANG)
    signal = {}
    for flipped in (False, True):
        record = particles.model_copy(update={"phase_flipped": flipped, "block": to_block(table)})
        kept = prepare(record, ACQUISITION, size=setting.grid.box_px, name="e", exposure_id="e", ordinal=0, ctx=bench)
        signal[flipped] = sample_polar(kept, setting=setting, box_ang=BOX * PIXEL_ANG).signal
    scope = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "phase_shift_deg": 0.0}
    defocus = {"defocus_u_ang": 12000.0, "defocus_v_ang": 12000.0, "astigmatism_angle_deg": 0.0}
    ctf = ctf_polar_2d(setting.grid, box_ang=BOX * PIXEL_ANG, **defocus, **scope)
    assert (ctf > 0.1).any()
    turned, plain = (polar_from_orders(signal[key].transpose(0, 2, 1), grid=setting.grid) for key in (True, False))
    np.testing.assert_allclose(turned, -np.sign(ctf) * plain, atol=0.02 * np.abs(plain).max())


def test_a_stream_without_particles_closes_with_empty_classes(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = Classify2D().start(PARAMS, bench)
    update, averages = call(bench, state, [expose(bench, 0, 0)], version=1, closing=True)
    assert update.assignments[f"{0:032x}"].weight == 0
    assert averages.count == 0
    assert [info.count for info in averages.classes] == [0, 0, 0]


@pytest.mark.parametrize("name", ["pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"])
def test_a_missing_acquisition_value_is_named(tmp_path: Path, name: str) -> None:
    bench = StepBench(tmp_path)
    exposure, particles = expose(bench, 0, 3)
    lacking = ACQUISITION.model_copy(update={name: None})
    with pytest.raises(ItemError, match=name):
        Classify2D().add(
            Classify2D().start(PARAMS, bench), [exposure], [particles], acquisition=[lacking], params=PARAMS, ctx=bench
        )


def test_another_box_is_refused_by_name(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    batch = [expose(bench, 0, 3), expose(bench, 1, 3, box_px=50)]
    with pytest.raises(ItemError, match="exposure1: box of 50 px"):
        call(bench, Classify2D().start(PARAMS, bench), batch, version=1)


def test_it_waits_for_enough_particles_and_always_goes_at_the_end() -> None:
    def decide(waiting: int, passed: int, *, closed: bool = False) -> bool:
        return Classify2D().when(Progress(1, waiting, 1, passed, closed), PARAMS).accepted

    assert not decide(19, 0)
    assert decide(20, 0)
    assert not decide(9, 50)
    assert decide(10, 50)
    assert decide(1, 0, closed=True)
    assert not decide(40, 1000)
    assert decide(50, 1000)


def segment(version: int, count: int = 10) -> Segment:
    return Segment(images="session:i", table="session:t", count=count, version=version)


def test_those_looked_at_least_recently_are_looked_at_again_first() -> None:
    known = [segment(5), segment(2), segment(7), segment(2)]
    assert choose_replay(known, 10) == [1]
    assert choose_replay(known, 11) == [1, 3]
    assert choose_replay(known, 35) == [0, 1, 2, 3]
    assert choose_replay(known, 1000) == [0, 1, 2, 3]
    assert choose_replay([], 5) == []


def grow(folder: Path, sizes: list[int], params: Classify2DParams, *, close: bool) -> tuple[list[Classify2DState], StepBench]:
    """Call once for each size, with one exposure each; return the states."""
    folder.mkdir()
    bench = StepBench(folder)
    states = [Classify2D().start(params, bench)]
    for number, size in enumerate(sizes, 1):
        bench.version, bench.seed, bench.closing = number, 100 + number, close and number == len(sizes)
        bench.exposure = Exposure(f"v{number}", f"version{number}")
        exposure, particles = expose(bench, number, size)
        update = Classify2D().add(states[-1], [exposure], [particles], acquisition=[ACQUISITION], params=params, ctx=bench)
        states.append(update.state)
    return states, bench


def test_anneals_come_at_doublings_and_every_batch_mixes_new_and_old(tmp_path: Path) -> None:
    states, bench = grow(tmp_path / "a", [20, 8, 8, 8], PARAMS, close=False)
    assert [state.next_anneal for state in states] == [0, 40, 40, 40, 88]
    versions = [[one.version for one in state.segments] for state in states[1:]]
    assert versions == [[1], [2, 2], [3, 2, 3], [4, 4, 4, 4]]
    assert {int(v) for one in states[-1].segments for v in read_table(one, bench)["version"]} == {4}


def test_sums_stay_at_the_mass_of_all_particles(tmp_path: Path) -> None:
    states, bench = grow(tmp_path / "a", [24, 6, 6], PARAMS, close=False)
    for state in states[1:]:
        model = load_model(state.model or "", bench)
        assert model.n_seen == state.n_particles
        assert model.sums.weight.sum() == pytest.approx(state.n_particles, rel=0.1)


def test_classes_are_the_same_however_the_particles_came(tmp_path: Path) -> None:
    """A closed set in one call, and the same in portions, explain the particles equally well."""
    params = PARAMS.model_copy(update={"n_classes": 1})
    scores = []
    for name, sizes in (("once", [40]), ("portions", [20, 10, 10])):
        states, bench = grow(tmp_path / name, sizes, params, close=True)
        scores.append(np.mean([read_table(one, bench)["score"].mean() for one in states[-1].segments]))
    assert scores[0] > 0
    assert scores[1] == pytest.approx(scores[0], rel=0.25)


def test_the_averages_know_the_newest_assignment_of_every_exposure(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    batch = [expose(bench, index, 12) for index in range(3)]
    _, averages = call(bench, Classify2D().start(PARAMS, bench), batch, version=1)
    for _, particles in batch:
        rows = find_assignments(averages, particles, bench)
        assert rows is not None
        assert rows["pid"].tolist() == from_block(particles.block)["pid"].tolist()
    assert find_assignments(averages, expose(bench, 9, 2)[1], bench) is None


@pytest.mark.parametrize(("box_px", "pixel_ang"), [(32, 8.0), (101, 1.5), (144, 1.5), (400, 0.8)])
def test_plans_fit_their_box(box_px: int, pixel_ang: float) -> None:
    setting = plan_for(Classify2DParams(), box_px=box_px, pixel_size_ang=pixel_ang)
    assert setting.grid.box_px <= box_px
    assert setting.grid.n_rings <= box_px * pixel_ang / 9.0
    assert setting.mask_radius_px + setting.edge_px <= setting.grid.box_px / 2
    assert 360 / setting.grid.n_angles <= 4.0


def test_it_declares_what_it_reads_and_makes() -> None:
    declared = step_type_of(Classify2D)
    assert declared.output is ClassAverages
    assert declared.assigns is ClassAssignments
    assert declared.reads == {"pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"}
