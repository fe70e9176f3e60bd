"""A session on paper with 2D classes on a wall, a selection of them, and which particle is in which."""

from pathlib import Path

import numpy as np
from paper_session import PaperSession, new_session

from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.io.blocks import to_block
from icestream.io.preview import write_mosaic
from icestream.records import ClassAssignments, ClassAverages, ClassInfo, ClassSelection, Movie, SelectedClass
from icestream.records.shown import parts_in_a_row

STEPS = {
    "movies": {"use": "import_movies"},
    "align": {"use": "motion", "in": {"movie": "movies"}},
    "find": {"use": "pick_blob", "in": {"micrograph": "align"}, "params": {"diameter_ang": [100, 140]}},
    "cut": {"use": "extract", "in": {"micrograph": "align", "picks": "find"}},
    "classes": {"use": "classify2d", "in": {"particles": "cut"}},
    "chosen": {"use": "select_classes", "in": {"classes": "classes"}, "label": "Good classes", "params": {"drop": [6]}},
}
KINDS = ("source", "map", "map", "map", "accumulate", "map")
N_CLASSES = 8
COUNTS = [40, 10, 80, 20, 60, 30, 50, 70]
"""Of the classes with ids 1 to 8, at their places on the wall."""
_POSE = ("psi_deg", "shift_y_px", "shift_x_px", "score")
ASSIGNMENT = [("pid", "<i4"), ("class_id", "<i4"), *((name, "<f4") for name in _POSE)]


def write_classes(folder: Path) -> PaperSession:
    """Store two versions of eight classes, and three exposures whose particles are in some of them."""
    paper = PaperSession(new_session(folder, STEPS, name="classified", acquisition={"pixel_size_ang": 1.0, "voltage_kv": 300.0}))
    for (step, spec), kind in zip(STEPS.items(), KINDS, strict=True):
        links = {port: [target] for port, target in spec.get("in", {}).items()}  # type: ignore[attr-defined]
        paper.revise(step, kind, links=links)
    for number in (1, 2, 3):
        unit = paper.expose(f"mic_{number}", number)
        movie = Movie(file=f"raw:m{number}.tif", n_frames=4, height_px=64, width_px=64, format="tiff", size_bytes=9)
        paper.make("movies", unit, movie)
        _assign(paper, unit, [2] * number + [5] * 3)
    for version in (1, 2):
        paper.now += 60.0
        paper.publish("classes", version, averages(folder, version))
        paper.publish("chosen", version, _selection(version))
    paper.store.close("every stream closed")
    (folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    (folder / "raw").mkdir()
    return paper


def _assign(paper: PaperSession, unit: str, classes: list[int]) -> None:
    table = np.array([(pid, one, 0, 0, 0, 1) for pid, one in enumerate(classes)], dtype=ASSIGNMENT)
    record = ClassAssignments(count=len(table), version=1, block=to_block(table))
    key = paper.store_result("classes", unit, record, block=record.block)
    paper.settle("classes", unit, "item", {"assignments": key}, weight=len(table))


def averages(folder: Path, version: int) -> ClassAverages:
    """Return one version of the averages, with its picture."""
    images = np.zeros((N_CLASSES, 24, 24), np.float32)
    for place, image in enumerate(images):
        image[4 : 6 + 2 * place, 6:18] = 1.0
    picture = folder / "steps" / f"wall_{version}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_mosaic(picture, images, columns=parts_in_a_row(N_CLASSES))
    return ClassAverages(
        stack="session:steps/classes.mrcs",
        picture=f"session:steps/wall_{version}.png",
        count=sum(COUNTS) * version,
        box_px=24,
        bin=1.0,
        classes=[
            ClassInfo(id=place + 1, count=count * version, resolution_ang=8.0 + place, score=count / 100)
            for place, count in enumerate(COUNTS)
        ],
        version=version,
    )


def _selection(version: int) -> ClassSelection:
    decided = [
        SelectedClass(id=place + 1, count=count, selected=count >= 50, by="hand" if place == 5 else "score")
        for place, count in enumerate(COUNTS)
    ]
    kept = sum(one.count for one in decided if one.selected)
    return ClassSelection(
        version=version, picture="session:steps/wall_1.png", n_selected=kept, n_particles=sum(COUNTS), classes=decided
    )
