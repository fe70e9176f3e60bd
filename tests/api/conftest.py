"""A session on paper with images that can be read: six exposures, one set aside, one with removed picks, class averages twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_session import PaperSession, new_session

from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.io.image import write_mrc
from icestream.io.picks import make_picks, table_of_picks
from icestream.records import ClassAverages, ClassInfo, CtfFit, Micrograph, Movie, pack_tables

STEPS: dict[str, dict[str, Any]] = {
    "movies": {"use": "import_movies"},
    "aligned": {"use": "motion", "in": {"movie": "movies"}},
    "ctf": {"use": "ctf", "in": {"micrograph": "aligned"}},
    "good": {"use": "ctf_filter", "in": {"ctf": "ctf"}},
    "picks": {"use": "pick_blob", "in": {"micrograph": "aligned", "ctf": "good"}},
    "classes": {"use": "classify2d", "in": {"picks": "picks"}},
}
KINDS = ("source", "map", "map", "filter", "map", "accumulate")
HEIGHT, WIDTH = 24, 32


def micrograph_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(HEIGHT, WIDTH)).astype(np.float32)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the session, which is called lysozyme."""
    place = tmp_path_factory.mktemp("api") / "lysozyme"
    place.mkdir()
    paper = PaperSession(new_session(place, STEPS, name="lysozyme", acquisition={"pixel_size_ang": 0.8}))
    for (step, spec), kind in zip(STEPS.items(), KINDS, strict=True):
        paper.revise(step, kind, links={port: [target] for port, target in spec.get("in", {}).items()}, params={"a": 1})
    for number in range(1, 7):
        paper.now += 60
        _expose(paper, number)
    stack = np.stack([micrograph_of(50 + k)[:16, :16] for k in range(3)])
    for version in (1, 2):
        path = place / f"steps/classes/{version}.mrcs"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mrc(path, stack * version, pixel_size_ang=1.6)
        classes = [ClassInfo(id=k, count=10 * k, resolution_ang=9.0 - version) for k in range(3)]
        ref = f"session:steps/classes/{version}.mrcs"
        paper.publish("classes", version, ClassAverages(stack=ref, picture=None, count=30, box_px=16, bin=2, classes=classes))
    paper.store.close("every stream closed")
    (place / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    return place


def _expose(paper: PaperSession, number: int) -> None:
    unit = paper.expose(f"hole_{number}", number)
    movie = Movie(file=f"raw:m{number}.tif", n_frames=4, height_px=HEIGHT, width_px=WIDTH, format="tiff", size_bytes=9)
    paper.make("movies", unit, movie)
    image = f"steps/aligned/{number}.mrc"
    path = paper.session.folder / image
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, micrograph_of(number), pixel_size_ang=0.8)
    paper.make("aligned", unit, Micrograph(image=f"session:{image}", height_px=HEIGHT, width_px=WIDTH, bin=1))
    defocus = 1e4 + 100.0 * number
    fit = CtfFit(
        defocus_u_ang=defocus,
        defocus_v_ang=defocus - 50,
        astigmatism_angle_deg=3.0,
        score=0.5,
        resolution_ang=3.0 + number / 10,
        confidence=None if number == 2 else 0.9,
    )
    key = paper.make("ctf", unit, fit)
    if number == 6:
        paper.settle("good", unit, "rejected", {"rejected": key}, reason="by hand")
        for step in ("picks", "classes"):
            paper.settle(step, unit, "skipped", weight=0, root="good", reason="by hand")
        return
    paper.settle("good", unit, "item", {"out": key})
    yx = np.stack([np.arange(number) + 1.0, np.arange(number) + 2.0], axis=1)
    edge = np.arange(number) == 3
    picks = make_picks(table_of_picks(yx, np.linspace(1, 2, number)), diameter_ang=9.0, removed={"at the border": edge})
    paper.make("picks", unit, picks, block=pack_tables(picks))
    paper.settle("classes", unit, "item", {}, weight=number)
