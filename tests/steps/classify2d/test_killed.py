"""A classification that is killed anywhere goes on from its last version: nothing is lost, nothing is counted twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.flow import Context, Exposure, Params, step
from icestream.flow.commands.garbage import plan_cleaning
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.flow.workflow.keys import seed_of
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import write_mrc
from icestream.records import Acquisition, ClassAverages, Particles
from icestream.steps.classify2d.params import Classify2DParams
from icestream.steps.classify2d.segments import read_table
from icestream.steps.classify2d.state import Classify2DState
from icestream.steps.classify2d.streaming import Classify2D
from icestream.testing.context import StepBench
from toys.session import TOYS, active_steps, arrive, outcomes_of, read_rows
from toys.steps import Number
from virtual.machine import VirtualMachine

HERE = __name__
N, EACH, BOX, PIXEL_ANG = 6, 8, 24, 5.0
SCOPE = {"pixel_size_ang": PIXEL_ANG, "voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}
CLASSIFY = {
    "n_classes": 2, "limit_ang": 20.0, "psi_step_deg": 15.0, "max_shift_ang": 5.0, "first_iterations": 4, "anneal_iterations": 4,
    "first_particles": 16, "batch_particles": 8,
}  # fmt: skip


class DrawParams(Params):
    """Nothing."""


@step.map("toy_particles", version=1)
def draw_particles(number: Number, params: DrawParams, ctx: Context) -> Particles:
    """Draw bars and dots in noise."""
    rng = np.random.default_rng(number.value)
    grid = np.arange(BOX) - BOX // 2
    bar = np.exp(-(grid[:, None] ** 2) / 40 - (grid[None, :] ** 2) / 8)
    dot = np.exp(-(grid[:, None] ** 2 + grid[None, :] ** 2) / 8)
    images = np.stack([bar if i % 2 else dot for i in range(EACH)]) * 2 + rng.normal(size=(EACH, BOX, BOX))
    table = np.zeros(EACH, dtype=dtype_of(Particles.block_columns))
    table["pid"], table["slice"] = np.arange(EACH) + EACH * number.value, np.arange(EACH)
    table["defocus_u_ang"] = np.nan
    with ctx.publish("_p.mrcs") as out:
        write_mrc(out.path, images.astype(np.float32), pixel_size_ang=PIXEL_ANG)
    return Particles(
        stack=out.ref, count=EACH, box_px=BOX, bin=1.0, inverted=True, phase_flipped=False,
        micrograph=f"session:m{number.value}.mrc", block=to_block(table),
    )  # fmt: skip


STEPS: dict[str, Any] = {
    "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": N}},
    "particles": {"use": f"{HERE}:draw_particles", "in": {"number": "numbers"}},
    "classes": {"use": "classify2d", "in": {"particles": "particles"}, "params": CLASSIFY},
    "selected": {"use": "select_classes", "in": {"classes": "classes"}, "params": {"operating_point": "generous"}},
    "good": {
        "use": "good_classes",
        "in": {"particles": "particles", "assignments": "classes.assignments", "classes": "classes", "selection": "selected"},
        "after": ["classes"],
    },
}


def make(folder: Path) -> Session:
    arrive(folder, range(N))
    document = {"name": "toy", "roots": {"numbers": "../numbers"}, "acquisition": SCOPE, "steps": STEPS}
    return create_session(folder / "session", SessionDocument.model_validate(document))


def log_of(session: Session) -> list[dict[str, Any]]:
    revision = next(number for number, name in active_steps(session).items() if name == "classes")
    rows = [row for row in read_rows(session, schema.accumulator_log) if row["revision"] == revision]
    return sorted(rows, key=lambda row: int(row["position"]))


def replay(session: Session, folder: Path) -> tuple[Classify2DState, StepBench]:
    """Compute the classification again from its own log."""
    records = {row["key"]: row for row in read_rows(session, schema.result)}
    bench = StepBench(folder, roots={})
    params, state = Classify2DParams.model_validate(CLASSIFY), None
    for row in log_of(session):
        entry = json.loads(row["members"])
        stored = [records[keys["particles"]] for _, keys in entry]
        particles = [Particles.restore(one["record"], version=one["record_version"], block=one["block"]) for one in stored]
        for one in particles:
            target = bench.path(one.stack or "")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(session.folder / (one.stack or "").removeprefix("session:"))
        bench.seed, bench.version, bench.closing = seed_of(row["state_key"]), int(row["position"]), bool(row["closing"])
        bench.exposure = Exposure(f"v{bench.version}", f"v{bench.version}")
        state = Classify2D().start(params, bench) if state is None else state
        exposures, scope = [Exposure(unit, unit) for unit, _ in entry], [Acquisition(**SCOPE)] * len(entry)
        state = Classify2D().add(state, exposures, particles, acquisition=scope, params=params, ctx=bench).state
    assert state is not None
    return state, bench


def newest(session: Session) -> ClassAverages:
    last = max(read_rows(session, schema.snapshot), key=lambda row: row["version"] * (row["revision"] in _classes(session)))
    record = next(row for row in read_rows(session, schema.result) if row["key"] == last["key"])
    return ClassAverages.restore(record["record"], version=record["record_version"], block=None)


def _classes(session: Session) -> set[int]:
    return {number for number, name in active_steps(session).items() if name == "classes"}


@pytest.mark.parametrize("gaps", [(), (9, 17, 5, 31, 12, 7), (23, 3, 3, 41, 19)], ids=["calm", "killed", "killed elsewhere"])
def test_it_goes_on_from_its_last_version(tmp_path: Path, gaps: tuple[int, ...]) -> None:
    session = make(tmp_path)
    machine = VirtualMachine(session, seed=len(gaps))
    for gap in gaps:
        machine.start()
        machine.kill_in = gap
        machine.turn(60)
    assert machine.run_out().finished
    assert machine.counts.kills == len(gaps)
    members = [unit for row in log_of(session) for unit, _ in json.loads(row["members"])]
    assert len(members) == len(set(members)) == N
    averages = newest(session)
    assert averages.count == sum(info.count for info in averages.classes) == N * EACH
    rows = np.concatenate([np.load(session.folder / one.removeprefix("session:")) for one in averages.tables])
    assert sorted(rows["pid"].tolist()) == list(range(N * EACH))
    assert set(rows["version"].tolist()) == {averages.version}
    check_replay(session, rows, tmp_path / "replay")
    check_good(session)


def check_replay(session: Session, rows: np.ndarray, folder: Path) -> None:
    """Check that the assignments are those of an uninterrupted replay of the session's own log."""
    state, bench = replay(session, folder)
    again = np.concatenate([read_table(segment, bench) for segment in state.segments])
    for name in ("pid", "class_id", "psi_deg", "score"):
        np.testing.assert_array_equal(rows[name], again[name])


def check_good(session: Session) -> None:
    """Check that every particle was kept or removed, once."""
    results = {row["key"]: row for row in read_rows(session, schema.result)}
    good = [row for (name, _), row in outcomes_of(session).items() if name == "good"]
    records = [json.loads(results[row["keys"]["out"]]["record"]) for row in good]
    assert [one["count"] + one["n_removed"] for one in records] == [EACH] * N


def test_files_that_no_version_needs_are_gone(tmp_path: Path) -> None:
    session = make(tmp_path)
    VirtualMachine(session).run_out()
    last = log_of(session)[-1]
    state = Classify2DState.model_validate_json(last["state"])
    images = {path.name for path in (session.folder / "steps/classes/1").glob("*_images.npy")}
    assert images == {Path(segment.images).name for segment in state.segments}
    made = session.folder / "steps/classes/1"
    assert len(list(made.glob("*_state.npz"))) <= 3
    assert find_garbage_in(session) == []


def find_garbage_in(session: Session) -> list[str]:
    """Return the files of the classification that nothing names."""
    return [path for path in plan_cleaning(session, old_revisions=False).files if path.startswith("steps/classes/")]
