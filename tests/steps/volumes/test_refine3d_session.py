"""A refinement in a session: from particles and a map in a folder to the report, also if everything is killed on the way."""

import json
from pathlib import Path
from typing import Any

from drawn_views import DRAWN, EACH, PIXEL_ANG, SCOPE, make_volume

from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.io.image import write_mrc
from icestream.observe.report import write_report
from icestream.records import Volume
from toys.session import TOYS, arrive, read_rows
from virtual.machine import VirtualMachine

HERE = __name__
N = 3


REFINE = {"limit_ang": 16.0, "max_shift_ang": 6.0, "diameter_ang": 84.0, "max_iterations": 3}
STEPS: dict[str, Any] = {
    "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": N}},
    "particles": {"use": f"{DRAWN}:draw_views", "in": {"number": "numbers"}},
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
