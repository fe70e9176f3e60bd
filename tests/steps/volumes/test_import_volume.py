"""Importing a map with its half maps, which may come later."""

from pathlib import Path

import numpy as np
import pytest

from icestream.errors import FileFormatError, OtherKind, SourceGone
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.io.image import write_mrc
from icestream.records import MapQuality, Volume
from icestream.steps.volumes.imported import find_half_maps
from toys.session import outcomes_of, read_rows
from toys.volumes import PIXEL_ANG, blobs, noisy
from virtual.machine import VirtualMachine

PATTERN = "*_half?.mrc"


def write(path: Path, size: int = 8) -> Path:
    write_mrc(path, np.zeros((size, size, size), np.float32), pixel_size_ang=2.0)
    return path


def test_half_maps_are_the_two_files_that_fit(tmp_path: Path) -> None:
    whole = write(tmp_path / "run.mrc")
    with pytest.raises(SourceGone, match="0 of its two half maps"):
        find_half_maps(whole, tmp_path, pattern=PATTERN)
    halves = [write(tmp_path / f"run_half{number}.mrc") for number in (2, 1)]
    assert find_half_maps(whole, tmp_path, pattern=PATTERN) == halves[::-1]
    with pytest.raises(OtherKind):
        find_half_maps(halves[0], tmp_path, pattern=PATTERN)
    write(tmp_path / "other_half1.mrc")
    with pytest.raises(FileFormatError, match="narrower"):
        find_half_maps(whole, tmp_path, pattern=PATTERN)


def test_a_half_map_that_is_being_written_is_waited_for_and_one_of_another_box_refused(tmp_path: Path) -> None:
    whole, first = write(tmp_path / "run.mrc"), write(tmp_path / "run_half1.mrc")
    whole_bytes = first.read_bytes()
    (tmp_path / "run_half2.mrc").write_bytes(whole_bytes[:-100])
    with pytest.raises(SourceGone, match="not complete"):
        find_half_maps(whole, tmp_path, pattern=PATTERN)
    write(tmp_path / "run_half2.mrc", size=10)
    with pytest.raises(FileFormatError, match="8 px; this one is 10 px"):
        find_half_maps(whole, tmp_path, pattern=PATTERN)


def session_of(folder: Path) -> Session:
    steps = {
        "known": {"use": "import_volume", "params": {"root": "maps", "half_maps": PATTERN, "stable_s": 0.0}},
        "quality": {"use": "map_quality", "in": {"volume": "known"}, "params": {"local_resolution": False, "most_order": 2}},
    }
    document = {"name": "known", "roots": {"maps": str(folder / "maps")}, "steps": steps}
    return create_session(folder / "session", SessionDocument.model_validate(document))


def test_an_imported_map_is_judged_by_its_half_maps_however_late_they_come(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    halves = noisy(blobs(1, count=8), limit=11, seed=2)
    whole = 0.5 * (halves[0] + halves[1])
    write_mrc(maps / "run.mrc", whole.astype(np.float32), pixel_size_ang=PIXEL_ANG, remember=False)
    session = session_of(tmp_path)
    machine = VirtualMachine(session)
    machine.start()
    machine.turn(30)
    assert not read_rows(session, schema.result)
    for number, half in enumerate(halves, 1):
        write_mrc(maps / f"run_half{number}.mrc", half.astype(np.float32), pixel_size_ang=PIXEL_ANG, remember=False)
    assert machine.run_out().finished
    stored = {row["record_type"]: row for row in read_rows(session, schema.result)}
    row = stored[Volume.stored_name]
    volume = Volume.restore(row["record"], version=row["record_version"], block=None)
    assert volume.half_maps == ["maps:run_half1.mrc", "maps:run_half2.mrc"]
    row = stored[MapQuality.stored_name]
    quality = MapQuality.restore(row["record"], version=row["record_version"], block=None)
    assert quality.verdict in ("map", "pixel_limit")
    assert {row["status"] for row in outcomes_of(session).values()} == {"item"}
