"""Maps at milestones in a session: they begin when 2D classes allow it, keep their frame, and go on after a kill."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_views import BOX, DRAWN, EACH, PIXEL_ANG, SCOPE, DrawParams, draw_views, make_volume

from icestream.algorithms.refine3d import find_frame
from icestream.algorithms.volumes import symmetry_group
from icestream.errors import ItemError
from icestream.flow import Context, Exposure, step
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.io.image import write_mrc
from icestream.records import Acquisition, ClassAverages, ClassInfo, MapQuality, Particles, Volume
from icestream.steps.volumes.milestones import MilestoneParams, MilestoneState, RefineMilestones
from icestream.steps.volumes.poses import find_rows, read_poses, rotations_of
from icestream.steps.volumes.readiness import ReadyParams, pass_when_ready
from icestream.testing.context import StepBench
from toys.session import TOYS, active_steps, arrive, outcomes_of, read_rows
from toys.steps import Number
from virtual.machine import VirtualMachine

HERE = __name__
N = 6
REFINE: dict[str, Any] = {
    "limit_ang": 16.0, "max_shift_ang": 6.0, "diameter_ang": 84.0, "max_iterations": 5, "at": [2 * EACH, 4 * EACH], "then": "end",
}  # fmt: skip


def quality_with(*, efficiency: float | None) -> MapQuality:
    """Return a quality of a map of which only the efficiency of its views is looked at."""
    fields: dict[str, Any] = {"efficiency": efficiency}
    return MapQuality.model_construct(**fields)


@step.map("toy_averages", version=1)
def draw_averages(particles: list[Particles], params: DrawParams, ctx: Context) -> ClassAverages:
    """Say that 2D classes are the sharper, the more particles there are."""
    return averages(30.0 / len(particles))


def averages(resolution_ang: float) -> ClassAverages:
    rows = [(0, 80, 20.0), (1, 20, resolution_ang), (2, 1, 3.0)]
    classes = [ClassInfo(id=k, count=count, resolution_ang=ang) for k, count, ang in rows]
    return ClassAverages(stack="session:a.mrcs", picture=None, count=101, box_px=8, bin=1.0, classes=classes)


STEPS: dict[str, Any] = {
    "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": N}},
    "particles": {"use": f"{DRAWN}:draw_views", "in": {"number": "numbers"}},
    "sets": {"use": "milestones", "in": {"items": "particles"}, "params": {"at": [2 * EACH, 3 * EACH], "then": "end"}},
    "classes": {"use": f"{HERE}:draw_averages", "in": {"particles": "sets"}},
    "start": {"use": "import_volume", "params": {"root": "maps", "stable_s": 0.0}},
    "ready": {"use": "ready_for_3d", "in": {"volume": "start", "classes": "classes"}},
    "map": {"use": "refine3d_milestones", "in": {"particles": "particles", "volume": "ready"}, "params": REFINE},
}


def make(folder: Path) -> Session:
    arrive(folder, range(N))
    (folder / "maps").mkdir()
    write_mrc(folder / "maps" / "start.mrc", make_volume(), pixel_size_ang=PIXEL_ANG)
    roots = {"numbers": "../numbers", "maps": "../maps"}
    document = {"name": "toy", "roots": roots, "acquisition": SCOPE, "steps": STEPS}
    return create_session(folder / "session", SessionDocument.model_validate(document))


def maps_of(session: Session) -> list[Volume]:
    """Return the maps, oldest first."""
    records = {row["key"]: row for row in read_rows(session, schema.result)}
    mine = {number for number, one in active_steps(session).items() if one == "map"}
    rows = sorted((row for row in read_rows(session, schema.snapshot) if row["revision"] in mine), key=lambda row: row["version"])
    return [Volume.restore(records[row["key"]]["record"], version=1, block=None) for row in rows]


def turn_between_maps(bench: StepBench, one: Volume, other: Volume) -> float:
    """Return by how much the frames of two maps differ."""
    first, second = read_poses(one, bench), read_poses(other, bench)
    at, found = find_rows(first, second)
    assert found.all()
    nothing = np.zeros((len(first), 2))
    before, after = rotations_of(first), rotations_of(second[at])
    return find_frame(after, nothing, before=before, shift_before_yx_px=nothing, group=symmetry_group("C1")).turn_deg


@pytest.mark.parametrize("gaps", [(), (31, 47, 5, 23)], ids=["calm", "killed"])
def test_maps_begin_by_themselves_and_keep_their_frame(tmp_path: Path, gaps: tuple[int, ...]) -> None:
    session = make(tmp_path)
    machine = VirtualMachine(session, seed=len(gaps))
    for gap in gaps:
        machine.start()
        machine.kill_in = gap
        machine.turn(40)
    assert machine.run_out().finished
    assert machine.counts.kills == len(gaps)
    decided = {unit: row for (one, unit), row in outcomes_of(session).items() if one == "ready"}
    assert {row["status"] for row in decided.values()} <= {"item", "rejected"}
    assert "item" in {row["status"] for row in decided.values()}
    maps = maps_of(session)
    counts = [one.count for one in maps]
    assert counts == sorted(set(counts))
    assert counts[-1] == N * EACH
    assert len(maps) >= 2
    assert all(one.verdict == "map" for one in maps)
    bench = StepBench(session.folder)
    table = read_poses(maps[-1], bench)
    assert len(np.unique(table[["micrograph", "pid"]])) == N * EACH
    assert all(turn_between_maps(bench, maps[0], one) < 2.0 for one in maps[1:])
    logged = [json.loads(row["members"]) for row in read_rows(session, schema.accumulator_log)]
    taken = [unit for entry in logged for unit, _ in entry]
    assert len(taken) == len(set(taken)) == N


def test_a_volume_passes_when_classes_are_sharp_and_views_are_even() -> None:
    volume = Volume(map="session:m.mrc", count=0, box_px=8, bin=1.0)
    params = ReadyParams()
    assert pass_when_ready(volume, None, None, params).accepted
    coarse = pass_when_ready(volume, averages(15.0), None, params)
    assert not coarse.accepted
    assert coarse.reason == "the best 2D classes, with 10% of the particles, have 15.0 Å; at most 11 Å is asked for"
    assert pass_when_ready(volume, averages(10.0), None, params).accepted
    nothing = averages(10.0).model_copy(update={"classes": []})
    assert "no resolution" in str(pass_when_ready(volume, nothing, None, params).reason)
    uneven = quality_with(efficiency=0.4)
    assert "0.40" in str(pass_when_ready(volume, None, uneven, params).reason)
    assert "not known" in str(pass_when_ready(volume, None, quality_with(efficiency=None), params).reason)
    assert pass_when_ready(volume, None, quality_with(efficiency=0.7), params).accepted
    assert pass_when_ready(volume.model_copy(update={"symmetry": "D7"}), None, uneven, params).accepted
    noise = volume.model_copy(update={"verdict": "none", "reason": "it is noise"})
    assert pass_when_ready(noise, None, None, params).reason == "the volume is no map: it is noise"


class Interrupted(Exception):
    """The step was stopped here."""


class Stopping(StepBench):
    """A bench that stops the step in its fourth iteration."""

    def progress(self, fraction: float, message: str = "") -> None:
        """Stop where it is time to."""
        if message.startswith("iteration 4"):
            raise Interrupted
        super().progress(fraction, message)


def test_a_milestone_that_was_interrupted_goes_on_after_its_last_iteration(tmp_path: Path) -> None:
    whole, stopped = StepBench(tmp_path / "whole"), Stopping(tmp_path / "stopped")
    found = []
    for bench in (whole, stopped):
        bench.folder.mkdir()
        write_mrc(bench.path("session:start.mrc"), make_volume(), pixel_size_ang=PIXEL_ANG)
        start = Volume(map="session:start.mrc", count=0, box_px=BOX, bin=1.0, pixel_size_ang=PIXEL_ANG)
        names = [Exposure(f"{number:032x}", f"number_{number}") for number in range(3)]
        some = [
            draw_views(Number(value=number), DrawParams(), replace(whole, folder=bench.folder, exposure=name))
            for number, name in enumerate(names)
        ]
        bench.exposure = Exposure("map:1", "map_000001")
        given: dict[str, Any] = {
            "acquisition": [Acquisition(**SCOPE)] * 3, "params": MilestoneParams(**REFINE), "ctx": bench,
        }  # fmt: skip
        step_, state = RefineMilestones(), MilestoneState()
        if isinstance(bench, Stopping):
            with pytest.raises(Interrupted):
                step_.add(state, names, some, [start] * 3, **given)
            given["ctx"] = StepBench(bench.folder, exposure=bench.exposure)
        after = step_.add(state, names, some, [start] * 3, **given).state
        assert after.n_refined == 3 * EACH
        emitted = step_.emit(after, given["params"], given["ctx"])
        assert isinstance(emitted, Volume)
        found.append((emitted.fsc, emitted.resolution_ang, bench.path(emitted.tables[0]).read_bytes()))
    assert found[0] == found[1]


def test_a_volume_that_is_no_map_is_not_begun_with(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    some = draw_views(Number(value=0), DrawParams(), bench)
    noise = Volume(map="session:m.mrc", count=0, box_px=8, bin=1.0, verdict="none", reason="it is noise")
    with pytest.raises(ItemError, match="no map: it is noise"):
        RefineMilestones().add(
            MilestoneState(), [Exposure("0" * 32, "a")], [some], [noise], acquisition=[Acquisition(**SCOPE)],
            params=MilestoneParams(**REFINE), ctx=bench,
        )  # fmt: skip
