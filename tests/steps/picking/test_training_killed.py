"""Training of a picker that is killed anywhere goes on from its last version: no micrograph is lost or held twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.flow import Context, Params, step
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import write_mrc
from icestream.records import ClassAssignments, Micrograph, PickerModel, Picks
from icestream.steps.picking.train import TrainPickerState, purpose_of
from toys.session import TOYS, active_steps, arrive, read_rows
from toys.steps import Number
from virtual.machine import VirtualMachine

HERE = __name__
N, EACH, SIDE = 8, 14, 160
SCOPE = {"pixel_size_ang": 5.0, "voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}


class DrawParams(Params):
    """Nothing."""


def places_of(number: int) -> np.ndarray:
    """Return the middles of the discs on a micrograph: ``(EACH, 2)``."""
    rng = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(np.arange(4), np.arange(4), indexing="ij"), axis=-1).reshape(-1, 2)[:EACH]
    return 32 * grid + 32 + rng.integers(-2, 3, (EACH, 2))


@step.map("toy_micrograph", version=1)
def draw_micrograph(number: Number, params: DrawParams, ctx: Context) -> Micrograph:
    """Draw dark discs in noise."""
    image = np.random.default_rng(100 + number.value).normal(size=(SIDE, SIDE))
    y, x = np.indices(image.shape)
    for row, column in places_of(number.value):
        image -= 2.0 * (np.hypot(y - row, x - column) < 9)
    with ctx.publish("_m.mrc") as out:
        write_mrc(out.path, image.astype(np.float32), pixel_size_ang=5.0)
    return Micrograph(image=out.ref, height_px=SIDE, width_px=SIDE, bin=1.0)


@step.map("toy_picks", version=1)
def draw_picks(number: Number, params: DrawParams) -> Picks:
    """Pick the discs."""
    table = np.zeros(EACH, dtype=dtype_of(Picks.block_columns))
    table["pid"], (table["y_px"], table["x_px"]) = np.arange(EACH), places_of(number.value).T
    return Picks(count=EACH, diameter_ang=110.0, block=to_block(table))


@step.map("toy_assigned", version=1)
def draw_assigned(number: Number, params: DrawParams) -> ClassAssignments:
    """Put all but the last two discs into class 0."""
    table = np.zeros(EACH, dtype=dtype_of(ClassAssignments.block_columns))
    table["pid"], table["class_id"] = np.arange(EACH), np.arange(EACH) // (EACH - 2)
    return ClassAssignments(count=EACH, version=1, block=to_block(table))


STEPS: dict[str, Any] = {
    "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": N}},
    "micrographs": {"use": f"{HERE}:draw_micrograph", "in": {"number": "numbers"}},
    "picks": {"use": f"{HERE}:draw_picks", "in": {"number": "numbers"}},
    "assigned": {"use": f"{HERE}:draw_assigned", "in": {"number": "numbers"}},
    "picker": {
        "use": "train_picker",
        "in": {"micrograph": "micrographs", "picks": "picks", "classes": "assigned"},
        "params": {"good_classes": [0], "first_micrographs": 4},
    },
}


def run(folder: Path, gaps: tuple[int, ...]) -> tuple[Session, list[dict[str, Any]]]:
    """Run a session that is killed after each gap; return it and the log of the training."""
    folder.mkdir()
    arrive(folder, range(N))
    document = {"name": "toy", "roots": {"numbers": "../numbers"}, "acquisition": SCOPE, "steps": STEPS}
    session = create_session(folder / "session", SessionDocument.model_validate(document))
    machine = VirtualMachine(session, seed=len(gaps))
    for gap in gaps:
        machine.start()
        machine.kill_in = gap
        machine.turn(60)
    assert machine.run_out().finished
    assert machine.counts.kills == len(gaps)
    revision = next(number for number, name in active_steps(session).items() if name == "picker")
    log = [row for row in read_rows(session, schema.accumulator_log) if row["revision"] == revision]
    return session, sorted(log, key=lambda row: int(row["position"]))


@pytest.mark.parametrize("gaps", [(), (9, 17, 5, 31), (23, 3, 3, 41)], ids=["calm", "killed", "killed elsewhere"])
def test_it_goes_on_from_its_last_version(tmp_path: Path, gaps: tuple[int, ...]) -> None:
    session, log = run(tmp_path / "one", gaps)
    members = [unit for row in log for unit, _ in json.loads(row["members"])]
    assert len(members) == len(set(members)) == N
    state = TrainPickerState.model_validate_json(log[-1]["state"])
    assert sorted(one.id for one in state.held) == sorted(members)
    assert sorted(one.ordinal for one in state.held) == list(range(N))
    assert {one.count for one in state.held} == {EACH - 2}
    assert [purpose_of(one) for one in sorted(state.held, key=lambda held: held.ordinal)].count("trial") == 2
    assert state.n_exposures == N
    assert state.trials
    assert all((session.folder / one.model.removeprefix("session:")).is_file() for one in state.trials)
    newest = [row for row in read_rows(session, schema.result) if row["record_type"] == PickerModel.stored_name]
    assert max(len(json.loads(row["record"])["trials"]) for row in newest) == len(state.trials)
