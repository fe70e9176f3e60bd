"""What became of a particle, told from the tables of a session on paper; and how many are left after each step."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from paper_session import PaperSession, new_session
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import SessionError
from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.io.blocks import dtype_of, to_block
from icestream.io.particles import remove_particles
from icestream.observe.funnel import read_funnel
from icestream.observe.particle_history import ParticleHistory, read_particle
from icestream.observe.queries import open_view
from icestream.records import ClassAssignments, Particles, Picks, Removed, Volume
from icestream.records.vocabulary import Record, pack_tables

STEPS = {
    "movies": {"use": "import_movies"},
    "blobs": {"use": "pick_blob", "in": {"micrograph": "movies"}},
    "both": {"use": "pick_consensus", "in": {"picks": ["blobs"]}},
    "cut": {"use": "extract", "in": {"picks": "both"}},
    "classes": {"use": "classify2d", "in": {"particles": "cut"}},
    "good": {"use": "good_classes", "in": {"particles": "cut", "assignments": "classes.assignments"}},
    "map": {"use": "refine3d", "in": {"particles": "good"}},
}
KINDS = ("source", "map", "map", "map", "accumulate", "map", "map")
INDEX = [("micrograph", "S32"), ("start", "<i8"), ("count", "<i8")]
POSES = [("micrograph", "S32"), ("pid", "<i8"), ("rot_deg", "<f4"), ("tilt_deg", "<f4")]


def rows_of(record: type[Record], field: str, *rows: Mapping[str, float]) -> bytes:
    columns = record.block_columns if field == "block" else record.further_columns[field]
    table = np.zeros(len(rows), dtype_of(columns))
    for place, row in enumerate(rows):
        for name, value in row.items():
            table[name][place] = value
    return to_block(table)


def make(paper: PaperSession, step: str, unit: str, record: Record, *, output: str = "out") -> None:
    key = paper.store_result(step, unit, record, block=pack_tables(record))
    paper.settle(step, unit, "item", {output: key}, weight=record.weight)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> PaperSession:
    """An exposure with picks 0 to 4: 1 is removed by the consensus, 2 has no image, 3 is in a bad class, 4 not in the map."""
    folder = tmp_path_factory.mktemp("particles")
    written = PaperSession(new_session(folder, STEPS))
    for (step, spec), kind in zip(STEPS.items(), KINDS, strict=True):
        ports = dict(spec.get("in", {}))  # type: ignore[attr-defined]
        written.revise(step, kind, links={port: [to] if isinstance(to, str) else to for port, to in ports.items()})
    unit = written.expose("mic_1", 1)
    found = Picks(count=2, diameter_ang=100, block=rows_of(Picks, "block", {"pid": 0, "score": 9}, {"pid": 7, "score": 8}))
    make(written, "blobs", unit, found)
    picks = Picks(
        count=4,
        diameter_ang=100,
        pickers=("blobs",),
        block=rows_of(Picks, "block", *({"pid": pid, "y_px": 10 * pid, "score": 0.5} for pid in (0, 2, 3, 4))),
        removed=(Removed(reason="too few pickers see it", count=1),),
        n_removed=1,
        rejected=rows_of(Picks, "rejected", {"pid": 1}),
        parents=rows_of(Picks, "parents", {"pid": 3, "picker": 0, "parent_pid": 7, "score": 8}),
    )
    make(written, "both", unit, picks)
    cut = Particles(
        stack="session:steps/cut.mrcs",
        count=3,
        n_left_out=1,
        box_px=64,
        bin=1,
        inverted=True,
        phase_flipped=False,
        micrograph="session:steps/mic.mrc",
        origin=unit,
        picks_key=picks.numbered_by,
        block=rows_of(Particles, "block", *({"pid": pid, "slice": pid} for pid in (0, 3, 4))),
    )
    make(written, "cut", unit, cut)
    given = [{"pid": 0, "class_id": 2}, {"pid": 3, "class_id": 5}, {"pid": 4, "class_id": 2}]
    assigned = ClassAssignments(count=3, version=6, picks_key=picks.numbered_by, block=rows_of(ClassAssignments, "block", *given))
    make(written, "classes", unit, assigned, output="assignments")
    bad = np.array([False, True, False])
    make(written, "good", unit, remove_particles(cut, {"class 5 was set aside by hand": bad}))
    for version, tilt in ((1, 10.0), (2, 20.0)):
        written.publish("map", version, write_map(folder, version, cut.table_key, tilt))
    written.store.close("done")
    (folder / DOCUMENT).write_text(dump_document(written.session.document), encoding="utf-8")
    return written


def write_map(folder: Path, version: int, micrograph: bytes, tilt: float) -> Volume:
    (folder / "steps").mkdir(exist_ok=True)
    poses = np.array([(b"0", 0, 1, 1), (micrograph, 0, 5, tilt)], POSES)
    np.save(folder / f"steps/poses_{version}.npy", poses)
    np.save(folder / f"steps/index_{version}.npy", np.array([(b"0", 0, 1), (micrograph, 1, 1)], INDEX))
    return Volume(
        map="session:steps/map.mrc",
        count=1,
        box_px=64,
        bin=1,
        tables=[f"session:steps/poses_{version}.npy"],
        index=f"session:steps/index_{version}.npy",
    )


def history(paper: PaperSession, pid: int, **more: str) -> ParticleHistory:
    with open_view(paper.session) as view:
        return read_particle(view, "mic_1", pid, **more)


def fates(found: ParticleHistory) -> list[tuple[str, str, str | None]]:
    return [(one.step, one.fate, one.reason) for one in found.events]


def test_a_particle_of_the_map_is_followed_from_its_pick_to_its_poses(paper: PaperSession) -> None:
    found = history(paper, 0)
    steps = ["both", "cut", "classes", "good", "map", "map"]
    assert fates(found) == [(step, "in", None) for step in steps]
    assert (found.numbered_by, found.other_numberings) == ("both", ("blobs",))
    values = [one.values or {} for one in found.events]
    assert values[0]["score"] == 0.5
    assert (found.events[2].version, values[2]["class_id"]) == (6, 2)
    assert [(one.version, one.values) for one in found.events[4:]] == [
        (1, {"rot_deg": 5.0, "tilt_deg": 10.0}),
        (2, {"rot_deg": 5.0, "tilt_deg": 20.0}),
    ]


def test_what_set_a_particle_aside_is_told_with_its_reason(paper: PaperSession) -> None:
    assert fates(history(paper, 1)) == [("both", "removed", "too few pickers see it")]
    without = "1 without an image, because their box leaves the micrograph"
    assert fates(history(paper, 2)) == [("both", "in", None), ("cut", "not in", without)]
    assert fates(history(paper, 3))[-1] == ("good", "removed", "class 5 was set aside by hand")
    assert [one[0] for one in fates(history(paper, 4))] == ["both", "cut", "classes", "good"]


def test_a_particle_of_a_consensus_names_the_pick_that_it_was_made_of(paper: PaperSession) -> None:
    assert [asdict(one) for one in history(paper, 3).parents] == [{"step": "blobs", "pid": 7, "score": 8.0}]
    picked = history(paper, 7)
    assert (picked.numbered_by, fates(picked)) == ("blobs", [("blobs", "in", None)])


def test_the_numbers_of_a_step_can_be_asked_for(paper: PaperSession) -> None:
    found = history(paper, 0, step="blobs")
    assert (found.numbered_by, found.other_numberings) == ("blobs", ("both", "cut", "classes", "good"))
    assert [one.values and one.values["score"] for one in found.events] == [9.0]
    with pytest.raises(SessionError, match="blobs knows no particle 3"):
        history(paper, 3, step="blobs")
    with pytest.raises(SessionError, match="no step knows a particle 99"):
        history(paper, 99)


def test_a_table_that_cannot_be_read_is_told(paper: PaperSession) -> None:
    folder = paper.session.folder / "steps"
    (folder / "index_1.npy").rename(folder / "away.npy")
    try:
        first, second = history(paper, 0).events[4:]
    finally:
        (folder / "away.npy").rename(folder / "index_1.npy")
    assert first.fate == "unknown"
    assert "its table cannot be read" in (first.reason or "")
    assert second.fate == "in"


def test_the_funnel_says_what_is_left_after_each_step(paper: PaperSession) -> None:
    with open_view(paper.session) as view:
        rows = {row.step: (row.exposures, row.particles, row.version) for row in read_funnel(view)}
    assert rows == {
        "blobs": (1, 2, None),
        "both": (1, 4, None),
        "cut": (1, 3, None),
        "good": (1, 2, None),
        "classes": (1, None, None),
        "map": (0, 1, 2),
    }


def test_both_are_printed(paper: PaperSession) -> None:
    told = CliRunner().invoke(app, ["particle", str(paper.session.folder), "mic_1", "3"])
    assert told.exit_code == 0, told.output
    assert "mic_1, particle 3, numbered by both\n  made of pick 7 of blobs, score 8\n" in told.output
    assert "good: removed it because: class 5 was set aside by hand" in told.output
    assert "classes.assignments version 6: has it; class_id=5" in told.output
    as_json = CliRunner().invoke(app, ["particle", str(paper.session.folder), "mic_1", "3", "--json"])
    assert [one["fate"] for one in json.loads(as_json.output)["events"]] == ["in", "in", "in", "removed"]
    table = CliRunner().invoke(app, ["funnel", str(paper.session.folder)])
    assert table.exit_code == 0, table.output
    assert [line.split() for line in table.output.splitlines() if line.strip().startswith("both")] == [
        ["both", "1", "0", "0", "4"]
    ]
