"""Accumulators that are killed anywhere go on: what they publish is an uninterrupted replay of their log."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.flow import Context, Exposure, Params, step
from icestream.flow.declaration.registry import find_step
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.io.image import write_mrc
from icestream.io.picks import empty_parents, make_picks, table_of_picks
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.records import Acquisition, BeamIntensity, CtfFit, Micrograph, PickConsensus, PickerFigures, Picks, Record
from icestream.testing.context import StepBench
from toys.session import TOYS, active_steps, arrive, outcomes_of, read_rows
from toys.steps import Number
from virtual.machine import VirtualMachine

HERE = __name__
N, SIDE_PX, PIXEL_ANG = 6, 320, 4.0
NAMES = ("blob", "log")


class DrawParams(Params):
    """Nothing."""


@step.map("toy_micrograph", version=1)
def draw_micrograph(number: Number, params: DrawParams, ctx: Context) -> Micrograph:
    """Draw particles of 160 Å; on the first two micrographs there is nothing but noise."""
    settings = SimulationSettings(
        n_movies=1, seed=number.value, gain=False, height_px=SIDE_PX, width_px=SIDE_PX, pixel_size_ang=PIXEL_ANG, n_frames=1,
        n_particles=30, dose_per_frame_e_per_ang2=40.0, drift_px=(0, 0), local_motion_px=0, phantom_diameter_ang=160.0,
    )  # fmt: skip
    empty = np.random.default_rng(number.value).normal(100, 5, (SIDE_PX, SIDE_PX))
    with ctx.publish("_m.mrc") as out:
        image = empty if number.value < 2 else render_micrograph(settings, 0)[0]
        write_mrc(out.path, image.astype(np.float32), pixel_size_ang=PIXEL_ANG)
    return Micrograph(image=out.ref, height_px=SIDE_PX, width_px=SIDE_PX, bin=1.0)


@step.map("toy_consensus", version=1)
def draw_consensus(number: Number, params: DrawParams) -> Picks:
    """Draw what two pickers see together; on the first two micrographs they see nothing."""
    rng = np.random.default_rng(number.value)
    count = 0 if number.value < 2 else 40
    places = rng.uniform(20, 1000, (count, 2))
    seen = rng.random((count, 2)) < (0.9, 0.6)
    seen[:, 0] |= ~seen.any(axis=1)
    parents = empty_parents(int(seen.sum()))
    parents["pid"], parents["picker"] = np.nonzero(seen)
    parents["score"] = rng.normal(size=len(parents))
    figures = tuple(PickerFigures(name=name, n_picks=int(seen[:, k].sum())) for k, name in enumerate(NAMES))
    agreed = PickConsensus(rule="any", radius_px=5, jaccard=0.5, n_places=count, pickers=figures)
    table = table_of_picks(places, np.ones(count))
    return make_picks(table, diameter_ang=100, pickers=NAMES, parents=parents, consensus=agreed)


@step.map("toy_ctf", version=1)
def draw_ctf(number: Number, params: DrawParams) -> CtfFit:
    """Draw a defocus."""
    defocus_ang = 9000.0 + 2300.0 * number.value
    return CtfFit(
        defocus_u_ang=defocus_ang, defocus_v_ang=defocus_ang, astigmatism_angle_deg=0, score=0.5, resolution_ang=4, confidence=1
    )


@step.map("toy_intensity", version=1)
def draw_intensity(number: Number, params: DrawParams) -> BeamIntensity:
    """Draw how bright a micrograph is; the third is the brightest."""
    return BeamIntensity(counts_per_px_frame=1.0 - 0.03 * (number.value - 2) ** 2, n_frames=40, clean_share=1.0)


MADE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "particle_size": ("draw_micrograph", "micrograph", {"first_micrographs": 2, "update_micrographs": 2}),
    "picker_quality": ("draw_consensus", "picks", {"first_micrographs": 2, "update_micrographs": 2}),
    "defocus_distribution": ("draw_ctf", "ctf", {"first_count": 2}),
    "vacuum_reference": ("draw_intensity", "intensity", {"n_samples": 2, "window": 2}),
}
"""Step → what makes its input, its port, and parameters."""


def make(folder: Path, name: str) -> Session:
    arrive(folder, range(N))
    maker, port, params = MADE[name]
    steps = {
        "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": N}},
        "made": {"use": f"{HERE}:{maker}", "in": {"number": "numbers"}},
        "learnt": {"use": name, "in": {port: "made"}, "params": params},
    }
    document = {"name": "toy", "roots": {"numbers": "../numbers"}, "acquisition": {"pixel_size_ang": PIXEL_ANG}, "steps": steps}
    return create_session(folder / "session", SessionDocument.model_validate(document))


def log_of(session: Session) -> list[dict[str, Any]]:
    return sorted(read_rows(session, schema.accumulator_log), key=lambda row: int(row["position"]))


def replay(session: Session, name: str, folder: Path) -> Sequence[Record | None]:
    """Compute all versions again from the log, without any interruption; None where there was nothing to publish yet."""
    declared, port = find_step(name), MADE[name][1]
    record = next(one.record for one in declared.ports if one.name == port)
    revisions = {step_name: number for number, step_name in active_steps(session).items()}
    row = next(row for row in read_rows(session, schema.revision) if row["id"] == revisions["learnt"])
    params = declared.params.model_validate(json.loads(row["params"]))
    records = {row["key"]: row for row in read_rows(session, schema.result)}
    bench, accumulator = StepBench(folder), declared.call()
    state, versions = accumulator.start(params, bench), []
    for row in log_of(session):
        entry = json.loads(row["members"])
        stored = [records[keys[port]] for _, keys in entry]
        items = [record.restore(one["record"], version=one["record_version"], block=one["block"]) for one in stored]
        for item in items:
            if isinstance(item, Micrograph):
                link = bench.path(item.image)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(session.folder / item.image.removeprefix("session:"))
        optional: dict[str, Any] = {
            "acquisition": [Acquisition(pixel_size_ang=PIXEL_ANG)] * len(items),
            "particles": [None] * len(items),
            "quality": [None] * len(items),
        }
        named = {port: items, "params": params, "ctx": bench}
        named |= {argument: given for argument, given in optional.items() if argument in declared.arguments}
        exposures = [Exposure(unit, name_of(session, unit)) for unit, _ in entry]
        state = accumulator.add(state, exposures, **named).state
        emitted = accumulator.emit(state, params, bench)
        versions.append(emitted if isinstance(emitted, Record) else None)
    return versions


def name_of(session: Session, unit: str) -> str:
    return next(str(row["name"]) for row in read_rows(session, schema.exposure) if row["unit"] == unit)


@pytest.mark.parametrize("gaps", [(), (9, 17, 5, 31, 12), (23, 3, 3, 29)], ids=["calm", "killed", "killed elsewhere"])
@pytest.mark.parametrize("name", MADE)
def test_it_goes_on_from_its_last_version(tmp_path: Path, name: str, gaps: tuple[int, ...]) -> None:
    session = make(tmp_path, name)
    machine = VirtualMachine(session, seed=len(gaps))
    for gap in gaps:
        machine.start()
        machine.kill_in = gap
        machine.turn(40)
    assert machine.run_out().finished
    assert machine.counts.kills == len(gaps)
    members = [unit for row in log_of(session) for unit, _ in json.loads(row["members"])]
    assert len(members) == len(set(members)) == N
    assert {row["status"] for (one, _), row in outcomes_of(session).items() if one == "learnt"} == {"item"}
    records = {row["key"]: row for row in read_rows(session, schema.result)}
    mine = {number for number, one in active_steps(session).items() if one == "learnt"}
    published = {
        row["version"]: records[row["key"]]["record"] for row in read_rows(session, schema.snapshot) if row["revision"] in mine
    }
    again = replay(session, name, tmp_path / "replay")
    assert published == {number: one.model_dump_json() for number, one in enumerate(again, 1) if one is not None}
    assert len(published) >= 2
