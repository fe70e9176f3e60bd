"""A refinement in a session: from particles and a map in a folder to the report, also if everything is killed on the way."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from icestream.algorithms.volumes import project_volume_2d, random_rotations, transform_volume
from icestream.flow import Context, Params, step
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import write_mrc
from icestream.observe.report import write_report
from icestream.records import Particles, Volume
from toys.session import TOYS, arrive, read_rows
from toys.steps import Number
from virtual.machine import VirtualMachine

HERE = __name__
N, EACH, BOX, PIXEL_ANG = 3, 24, 24, 6.0
SCOPE = {"pixel_size_ang": PIXEL_ANG, "voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}


def make_volume() -> Any:
    along = np.arange(BOX) - BOX // 2
    points = np.array([[0, 0, 4], [3, 0, -3], [-3, 3, 0], [-2, -4, -1], [4, 3, 2]])
    lines = np.exp(-((along[None, :, None] - points[:, None]) ** 2) / 2)
    return np.einsum("sz,sy,sx->zyx", *lines.transpose(2, 0, 1)).astype(np.float32)


class DrawParams(Params):
    """Nothing."""


@step.map("toy_views", version=1)
def draw_views(number: Number, params: DrawParams, ctx: Context) -> Particles:
    """Draw views of a volume in noise."""
    rng = np.random.default_rng(number.value)
    clean = project_volume_2d(transform_volume(make_volume()), random_rotations(EACH, generator=rng))
    images = clean / clean.std() + rng.normal(size=clean.shape)
    table = np.zeros(EACH, dtype=dtype_of(Particles.block_columns))
    table["pid"], table["slice"], table["defocus_u_ang"] = np.arange(EACH), np.arange(EACH), np.nan
    with ctx.publish("_p.mrcs") as out:
        write_mrc(out.path, images.astype(np.float32), pixel_size_ang=PIXEL_ANG)
    return Particles(
        stack=out.ref, count=EACH, box_px=BOX, bin=1.0, inverted=True, phase_flipped=False, origin=ctx.exposure.id, picks_key="p",
        micrograph=f"session:m{number.value}.mrc", block=to_block(table),
    )  # fmt: skip


REFINE = {"limit_ang": 16.0, "max_shift_ang": 6.0, "diameter_ang": 84.0, "max_iterations": 3}
STEPS: dict[str, Any] = {
    "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": N}},
    "particles": {"use": f"{HERE}:draw_views", "in": {"number": "numbers"}},
    "sets": {"use": "batches", "in": {"items": "particles"}, "params": {"count": N * EACH, "counted": "particles"}},
    "start": {"use": "import_volume", "params": {"root": "maps", "stable_s": 0.0}},
    "map": {"use": "refine3d", "in": {"particles": "sets", "volume": "start"}, "params": REFINE},
}


def make(folder: Path) -> Session:
    arrive(folder, range(N))
    (folder / "maps").mkdir()
    write_mrc(folder / "maps" / "start.mrc", make_volume(), pixel_size_ang=PIXEL_ANG)
    roots = {"numbers": "../numbers", "maps": "../maps"}
    document = {"name": "toy", "roots": roots, "acquisition": SCOPE, "steps": STEPS}
    return create_session(folder / "session", SessionDocument.model_validate(document))


def refined(session: Session) -> Volume:
    rows = [row for row in read_rows(session, schema.result) if row["record_type"] == Volume.stored_name]
    volumes = [Volume.restore(row["record"], version=row["record_version"], block=None) for row in rows]
    (found,) = [one for one in volumes if one.count]
    return found


def told(session: Session, volume: Volume) -> dict[str, Any]:
    """Return the record without the names of its files, and the bytes of its poses."""
    numbers = json.loads(volume.model_dump_json(exclude={"map", "half_maps", "picture", "tables", "index", "noise"}))
    poses = (session.folder / volume.tables[0].removeprefix("session:")).read_bytes()
    return {**numbers, "poses": poses}


def test_a_session_refines_to_a_map_and_shows_it(tmp_path: Path) -> None:
    (tmp_path / "calm").mkdir()
    session = make(tmp_path / "calm")
    VirtualMachine(session, seed=0).run_out()
    volume = refined(session)
    assert volume.count == N * EACH
    assert volume.verdict == "map"
    page = write_report(session).read_text(encoding="utf-8")
    assert "symmetry C1" in page
    assert "Above sections through the middle, below projections" in page
    assert "Fourier shell correlation" in page
    assert "data:image/png" in page

    (tmp_path / "killed").mkdir()
    other = make(tmp_path / "killed")
    machine = VirtualMachine(other, seed=3)
    for gap in (9, 17, 5, 23):
        machine.start()
        machine.kill_in = gap
        machine.turn(40)
    machine.run_out()
    assert machine.counts.kills > 0
    assert told(other, refined(other)) == told(session, volume)
