"""Streaming 3D classification in a session: names last, nothing counts twice, and a kill anywhere changes nothing."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_views import BOX, PIXEL_ANG, SCOPE, DrawParams, particles_of
from numpy.typing import NDArray

from icestream.algorithms.refine3d import Frame, into_frame
from icestream.algorithms.volumes import (
    angles_from_rotations,
    project_volume_2d,
    random_rotations,
    rotation_distance_deg,
    rotations_about,
    transform_volume,
)
from icestream.flow import Context, Exposure, step
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.flow.workflow import seed_of
from icestream.io.image import write_mrc
from icestream.records import Acquisition, Particles, Volume, VolumeClasses
from icestream.steps.classify2d.segments import pieces, read_table
from icestream.steps.volumes.class_segments import Classify3DState, add_particles, load_model, table_of
from icestream.steps.volumes.growing import whole_table
from icestream.steps.volumes.poses import rotations_of
from icestream.steps.volumes.published import POSES
from icestream.steps.volumes.streaming import Classify3DStream, Classify3DStreamParams, begin_call
from icestream.testing.context import StepBench
from toys.session import TOYS, active_steps, arrive, outcomes_of, read_rows
from toys.steps import Number
from virtual.machine import VirtualMachine

HERE = __name__
N, EACH = 8, 30
ACQUISITION = Acquisition(**SCOPE)
PARAMS = {
    "limit_ang": 16.0, "start_ang": 40.0, "diameter_ang": 100.0, "passes": 6, "starts": 2, "first_particles": 3 * EACH,
    "batch_particles": 2 * EACH, "batch_share": 0.0, "reservoir_particles": 150,
}  # fmt: skip


def _conformations() -> NDArray[np.float32]:
    along = np.arange(BOX) - BOX // 2
    body = [[0, 0, 0], [3, 1, -2], [-3, 2, 1], [-1, -4, 2]]

    def blobs(arm: list[int]) -> NDArray[np.float32]:
        lines = np.exp(-((along[None, :, None] - np.array([*body, arm, arm])[:, None]) ** 2) / 3)
        return np.einsum("sz,sy,sx->zyx", *lines.transpose(2, 0, 1)).astype(np.float32)

    return np.stack([blobs([6, 0, 0]), blobs([0, 6, 0])])


VOLUMES = _conformations()


def truth_of(number: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return which conformation each particle of an exposure is, and its pose."""
    rng = np.random.default_rng([5, number])
    return (rng.random(EACH) > 0.6).astype(np.int64), random_rotations(EACH, generator=rng), rng.normal(scale=0.6, size=(EACH, 2))


@step.map("toy_mixture", version=1)
def draw_mixture(number: Number, params: DrawParams, ctx: Context) -> Particles:
    """Draw views of two conformations in noise."""
    kind, rotations, shift = truth_of(number.value)
    clean = np.empty((EACH, BOX, BOX), np.float32)
    for k in (0, 1):
        clean[kind == k] = project_volume_2d(transform_volume(VOLUMES[k]), rotations[kind == k], shift_yx_px=shift[kind == k])
    images = clean / clean.std() + 1.2 * np.random.default_rng([6, number.value]).normal(size=clean.shape)
    return particles_of(images, number.value, ctx)


@step.map("toy_refined", version=1)
def draw_poses(particles: list[Particles], params: DrawParams, ctx: Context) -> Volume:
    """Say the true poses of a set, in a frame that is another one for each size of the set."""
    table = np.zeros(EACH * len(particles), dtype=POSES)
    frame = Frame(rotations_about(np.array([[0.02 * len(particles), 0.0, 0.3]]))[0], np.array([0.2, 0.0, 0.1]), 0.0)
    for i, some in enumerate(particles):
        rows = slice(i * EACH, (i + 1) * EACH)
        _, rotations, shift = truth_of(number_of(some))
        rotations, shift = into_frame(rotations, shift, frame)
        table["micrograph"][rows], table["pid"][rows] = some.table_key, np.arange(EACH)
        for name, values in zip(("rot_deg", "tilt_deg", "psi_deg"), angles_from_rotations(rotations).T, strict=True):
            table[name][rows] = values
        table["shift_y_px"][rows], table["shift_x_px"][rows] = shift.T
    with ctx.publish("_poses.npy") as out, out.path.open("wb") as handle:
        np.save(handle, table, allow_pickle=False)
    with ctx.publish("_map.mrc") as image:
        write_mrc(image.path, VOLUMES[0], pixel_size_ang=PIXEL_ANG)
    return Volume(map=image.ref, count=len(table), box_px=BOX, bin=1.0, tables=[out.ref], version=len(particles))


def number_of(particles: Particles) -> int:
    """Return the number that particles were drawn from."""
    return int(str(particles.micrograph).removeprefix("session:m").removesuffix(".mrc"))


STEPS: dict[str, Any] = {
    "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": N}},
    "particles": {"use": f"{HERE}:draw_mixture", "in": {"number": "numbers"}},
    "sets": {"use": "milestones", "in": {"items": "particles"}, "params": {"at": [3 * EACH, 6 * EACH], "then": "end"}},
    "map": {"use": f"{HERE}:draw_poses", "in": {"particles": "sets"}},
    "classes": {"use": "classify3d_stream", "in": {"particles": "particles", "volume": "map"}, "params": PARAMS},
}


def make(folder: Path) -> Session:
    arrive(folder, range(N))
    document = {"name": "toy", "roots": {"numbers": "../numbers"}, "acquisition": SCOPE, "steps": STEPS}
    return create_session(folder / "session", SessionDocument.model_validate(document))


def published(session: Session) -> list[VolumeClasses]:
    """Return all versions of the classes, oldest first."""
    records = {row["key"]: row for row in read_rows(session, schema.result)}
    mine = {number for number, one in active_steps(session).items() if one == "classes"}
    rows = sorted((row for row in read_rows(session, schema.snapshot) if row["revision"] in mine), key=lambda row: row["version"])
    return [VolumeClasses.restore(records[row["key"]]["record"], version=1, block=None) for row in rows]


def members_of(session: Session) -> list[list[tuple[str, dict[str, str]]]]:
    rows = sorted(read_rows(session, schema.accumulator_log), key=lambda row: int(row["position"]))
    return [json.loads(row["members"]) for row in rows]


def replay(session: Session, folder: Path) -> Sequence[VolumeClasses]:
    """Compute all versions again from the log, without any interruption."""
    records = {row["key"]: row for row in read_rows(session, schema.result)}
    bench, accumulator = StepBench(folder), Classify3DStream()
    (folder / "steps").mkdir(parents=True)
    for name in ("particles", "map"):
        (folder / "steps" / name).symlink_to(session.folder / "steps" / name)
    rows = sorted(read_rows(session, schema.accumulator_log), key=lambda row: int(row["position"]))
    seeds = seeds_of(session)
    params = Classify3DStreamParams(**PARAMS)
    state, versions = accumulator.start(params, bench), list[VolumeClasses]()
    names = {row["unit"]: str(row["name"]) for row in read_rows(session, schema.exposure)}

    def stored(keys: dict[str, str], port: str, record: Any) -> Any:
        row = records[keys[port]]
        return record.restore(row["record"], version=row["record_version"], block=row["block"])

    for row in rows:
        position, entry = int(row["position"]), json.loads(row["members"])
        bench.exposure = Exposure(f"classes:{position}", f"classes_{position:06d}")
        bench.version, bench.closing, bench.seed = position, bool(row["closing"]), seeds[position]
        state = accumulator.add(
            state,
            [Exposure(unit, names[unit]) for unit, _ in entry],
            [stored(keys, "particles", Particles) for _, keys in entry],
            [stored(keys, "volume", Volume) for _, keys in entry],
            acquisition=[ACQUISITION] * len(entry), params=params, ctx=bench,
        ).state  # fmt: skip
        emitted = accumulator.emit(state, params, bench)
        versions += [emitted] if isinstance(emitted, VolumeClasses) else []
    return versions


def seeds_of(session: Session) -> dict[int, int]:
    """Return the seed of each entry of the log, from its key."""
    return {int(row["position"]): seed_of(row["state_key"]) for row in read_rows(session, schema.accumulator_log)}


def told(versions: Sequence[VolumeClasses]) -> list[Any]:
    """Return what versions say without the names of their files."""
    files = {"map", "half_maps"}
    return [
        [one.count, one.version, one.volume_version, one.events, [row.model_dump(exclude=files) for row in one.classes]]
        for one in versions
    ]


@pytest.mark.parametrize("gaps", [(), (9, 17, 5, 31, 12), (23, 40, 3, 29)], ids=["calm", "killed", "killed elsewhere"])
def test_classes_keep_their_names_and_go_on_from_the_last_version(tmp_path: Path, gaps: tuple[int, ...]) -> None:
    session = make(tmp_path)
    machine = VirtualMachine(session, seed=len(gaps))
    for gap in gaps:
        machine.start()
        machine.kill_in = gap
        machine.turn(40)
    assert machine.run_out().finished
    assert machine.counts.kills == len(gaps)
    taken = [unit for entry in members_of(session) for unit, _ in entry]
    assert len(taken) == len(set(taken)) == N
    assert {row["status"] for (one, _), row in outcomes_of(session).items() if one == "classes"} == {"item"}
    versions = published(session)
    assert len(versions) >= 2
    newest = versions[-1]
    table = np.load(session.folder / newest.tables[0].removeprefix("session:"))
    assert newest.count == len(table) == len(np.unique(table[["micrograph", "pid"]])) == N * EACH
    assert right(session, table) > 0.8  # some poses of new particles are wrong
    assert all(one.class_ids == versions[0].class_ids for one in versions)
    assert newest.class_ids == [0, 1]
    assert sum(row.count for row in newest.classes) == N * EACH
    assert sum(row.effective_count or 0 for row in newest.classes) == pytest.approx(N * EACH, rel=0.03)
    assert [row.born for row in newest.classes] == [versions[0].version] * 2
    assert newest.volume_version in {3, 6, N}  # the newest that an exposure came with
    assert told(replay(session, tmp_path / "replay")) == told(versions)


def right(session: Session, table: NDArray[np.void]) -> float:
    """Return the share of particles that are right under the better of both namings."""
    rows = [row for row in read_rows(session, schema.result) if row["record_type"] == Particles.stored_name]
    kinds = {}
    for row in rows:
        one = Particles.restore(row["record"], version=row["record_version"], block=row["block"])
        kinds[one.table_key] = truth_of(number_of(one))[0]
    same = np.mean([kinds[row["micrograph"]][row["pid"]] == row["class_id"] for row in table])
    return float(max(same, 1 - same))


class Stream:
    """A stream that a test feeds by hand."""

    def __init__(self, folder: Path) -> None:
        self.bench, self.step, self.params = StepBench(folder), Classify3DStream(), Classify3DStreamParams(**PARAMS)
        self.state: Classify3DState = self.step.start(self.params, self.bench)
        self.particles: list[Particles] = []

    def volume(self, count: int) -> Volume:
        """Return the poses of the first particles."""
        self.bench.exposure = Exposure(f"map:{count}", f"map_{count}")
        return draw_poses(self.draw(count), DrawParams(), self.bench)

    def draw(self, count: int) -> list[Particles]:
        """Return the particles of the first exposures."""
        while len(self.particles) < count:
            number = len(self.particles)
            self.bench.exposure = Exposure(f"{number:032x}", f"number_{number}")
            self.particles.append(draw_mixture(Number(value=number), DrawParams(), self.bench))
        return self.particles[:count]

    def add(self, first: int, last: int, volume: Volume, *, closing: bool = False) -> None:
        """Add some exposures."""
        some = self.draw(last)[first:last]
        self.bench.version += 1
        self.bench.closing = closing
        self.bench.exposure = Exposure(f"classes:{self.bench.version}", f"classes_{self.bench.version:06d}")
        exposures = [Exposure(f"{n:032x}", f"number_{n}") for n in range(first, last)]
        self.state = self.step.add(
            self.state, exposures, some, [volume] * len(some), acquisition=[ACQUISITION] * len(some), params=self.params,
            ctx=self.bench,
        ).state  # fmt: skip

    def table(self) -> NDArray[np.void]:
        """Return what is known of all particles."""
        return whole_table(self.state.segments, self.bench, dtype=table_of(2))


def test_sums_hold_every_particle_once_also_after_it_was_looked_at_again(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    stream.add(0, 3, stream.volume(3))
    stream.add(3, 5, stream.volume(5))  # the first segment is looked at again, in new poses
    table = stream.table()
    assert len(table) == 5 * EACH
    assert set(table["version"]) == {stream.bench.version}
    assert set(table["posed"]) == {1, 2} or set(table["posed"]) == {2}
    model = load_model(stream.state.model or "", stream.bench)
    counted = np.where(table["share"] > 0.02, table["share"], 0).sum(axis=0)
    assert model.size == pytest.approx(counted, rel=1e-4)
    again = add_all(stream)
    for fold, own in zip(model.sums, again, strict=True):
        for one, other in zip(fold, own, strict=True):
            assert np.abs(one.signal - other.signal).max() < 1e-4 * np.abs(other.signal).max()


def add_all(stream: Stream) -> Any:
    """Return the sums of all particles, made at once from what the tables say."""
    call = begin_call(stream.state, stream.params, stream.bench, set())
    sums = None
    for segment in stream.state.segments:
        for _, piece in pieces(segment, read_table(segment, stream.bench), stream.bench):
            sums = add_particles(sums, call.posed(piece), piece.table["share"], setting=call.setting)
    return sums


def test_new_particles_are_posed_in_all_classes_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "VOLUMES", np.stack([VOLUMES[0]] * 2))  # so that poses are not in doubt
    stream = Stream(tmp_path)
    volume = stream.volume(5)
    stream.add(0, 5, volume)
    stream.add(5, 7, volume)
    table = stream.table()
    assert (table["posed"] == 1).all()
    assert (table["class_id"] >= 0).all()
    frame = Frame(rotations_about(np.array([[0.02 * 5, 0.0, 0.3]]))[0], np.array([0.2, 0.0, 0.1]), 0.0)
    true = np.concatenate([into_frame(*truth_of(number)[1:], frame)[0] for number in (5, 6)])
    assert np.median(rotation_distance_deg(rotations_of(table[5 * EACH :]), true)) < 10


def test_a_volume_that_is_no_map_or_of_the_other_hand_is_not_used(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    first = stream.volume(3)
    noise = first.model_copy(update={"verdict": "none", "reason": "it is noise"})
    stream.add(0, 3, noise)
    waiting = stream.step.emit(stream.state, stream.params, stream.bench)
    assert not isinstance(waiting, VolumeClasses)
    assert waiting.reason == "the volume is no map: it is noise"
    stream.add(3, 5, stream.volume(5))
    found = stream.step.emit(stream.state, stream.params, stream.bench)
    assert isinstance(found, VolumeClasses)
    assert (found.count, found.note) == (5 * EACH, None)
    other = stream.volume(6)
    poses = np.load(stream.bench.path(other.tables[0]))
    poses["tilt_deg"] *= -1  # those of the mirrored volume
    np.save(stream.bench.path(other.tables[0]), poses)
    stream.add(5, 6, other)
    kept = stream.step.emit(stream.state, stream.params, stream.bench)
    assert isinstance(kept, VolumeClasses)
    assert kept.note is not None and "do not agree" in kept.note
    assert kept.volume_version == 5
