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
from icestream.flow.declaration.step import step_type_of
from icestream.io.blocks import from_block, to_block
from icestream.io.image import read_stack, write_mrc
from icestream.records import Acquisition, ClassAssignments, ClassAverages, Particles
from icestream.steps.classify2d.state import Classify2DState, HeldExposure, choose_held, hold_exposure, load_particles
from icestream.steps.classify2d.streaming import Classify2D, Classify2DParams, plan_classification
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
        "micrograph": "session:m.mrc",
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
        state = Classify2DState.restore(update.state.model_dump_json(), version=1, block=None)
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
    assert all(record.version == 3 for record in assignments.values() if record.count)
    images = read_stack(bench.path(averages.stack))
    assert images.shape == (3, averages.box_px, averages.box_px)
    assert averages.bin * averages.box_px == pytest.approx(2.0 * BOX)
    assert bench.path(averages.picture).read_bytes().startswith(b"\x89PNG")
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
    exposure, particles = expose(bench, 0, 3)
    table = from_block(particles.block).copy()
    table["defocus_u_ang"] = table["defocus_v_ang"] = 12000.0
    setting = plan_classification(PARAMS, box_px=BOX, pixel_size_ang=PIXEL_ANG)
    signal = {}
    for flipped in (False, True):
        record = particles.model_copy(update={"phase_flipped": flipped, "block": to_block(table)})
        held = hold_exposure(exposure, record, ACQUISITION, 0, bench)
        signal[flipped] = load_particles([held], setting=setting, box_ang=BOX * PIXEL_ANG, ctx=bench).signal
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


def test_the_reservoir_is_bounded_and_the_same_however_the_stream_was_cut() -> None:
    def held(index: int) -> HeldExposure:
        return HeldExposure(
            id=f"{index:032x}", name=f"e{index}", stack="session:s", table="session:t", count=10, ordinal=index,
            inverted=True, phase_flipped=False, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.1,
        )  # fmt: skip

    stream = [held(i) for i in range(100)]
    at_once, dropped = choose_held(stream, seed=5, most=200)
    kept: list[HeldExposure] = []
    for exposure in stream:
        kept, _ = choose_held([*kept, exposure], seed=5, most=200)
    assert [e.id for e in at_once] == [e.id for e in kept]
    assert sum(e.count for e in at_once) == 200
    assert len(dropped) == 80
    assert max(e.ordinal for e in at_once) > 50


@pytest.mark.parametrize(("box_px", "pixel_ang"), [(32, 8.0), (101, 1.5), (144, 1.5), (400, 0.8)])
def test_plans_fit_their_box(box_px: int, pixel_ang: float) -> None:
    setting = plan_classification(Classify2DParams(), box_px=box_px, pixel_size_ang=pixel_ang)
    assert setting.grid.box_px <= box_px
    assert setting.grid.n_rings <= box_px * pixel_ang / 9.0
    assert setting.mask_radius_px + setting.edge_px <= setting.grid.box_px / 2
    assert 360 / setting.grid.n_angles <= 4.0


def test_it_declares_what_it_reads_and_makes() -> None:
    declared = step_type_of(Classify2D)
    assert declared.output is ClassAverages
    assert declared.assigns is ClassAssignments
    assert declared.reads == {"pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"}
