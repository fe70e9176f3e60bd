"""A session on paper with maps behind it: two versions of a refinement, its quality, and two 3D classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paper_session import PaperSession, new_session

from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.io.image import write_mrc
from icestream.io.preview import write_mosaic
from icestream.records import MapQuality, Movie, Volume, VolumeClass, VolumeClasses

KINDS = {"movies": "source", "kept": "filter"}
BOX, VOXEL_ANG = 40, 2.0
STEPS = {
    "movies": {"use": "import_movies"},
    "kept": {"use": "max_shift", "in": {"motion": "movies"}, "label": "Little motion"},
    "cut": {"use": "extract", "in": {"micrograph": "kept"}},
    "unrelated": {"use": "ctf", "in": {"micrograph": "movies"}},
    "refined": {"use": "refine3d", "in": {"particles": "cut"}, "label": "Refined map"},
    "judged": {"use": "map_quality", "in": {"volume": "refined"}},
    "sorted": {"use": "classify3d", "in": {"volume": "refined"}},
}
FREQUENCY = [0.0, 0.02, 0.05, 0.08, 0.11, 0.14, 0.17, 0.2]
FSC = [1.0, 0.99, 0.97, 0.9, 0.7, 0.35, 0.1, 0.02]
ERROR = [0.0, 0.005, 0.01, 0.02, 0.04, 0.06, 0.05, 0.05]


@dataclass
class Mapped:
    """The session, and the keys of what its steps have made."""

    paper: PaperSession
    refined: list[str]
    judged: str
    sorted: str


def corner_map(sign: int = 1) -> np.ndarray:
    """Return a body with no symmetry: a bar along x, a shorter one along y, a ball at the end of the bar; ``sign`` turns x."""
    z, y, x = np.indices((BOX, BOX, BOX)) - BOX // 2
    x = sign * x
    bar = (abs(z) <= 2) & (abs(y) <= 2) & (abs(x) <= 11)
    short = (abs(z) <= 2) & (abs(x) <= 2) & (y >= 0) & (y <= 9)
    ball = (x - 10) ** 2 + y**2 + z**2 <= 20
    return np.asarray(bar | short | ball, np.float32)


def write_mapped(folder: Path) -> Mapped:
    """Store the maps and what is said of them."""
    paper = PaperSession(new_session(folder, STEPS, name="mapped", acquisition={"pixel_size_ang": 1.0, "voltage_kv": 300.0}))
    for step, spec in STEPS.items():
        paper.revise(step, KINDS.get(step, "map"), links={port: [target] for port, target in spec.get("in", {}).items()})  # type: ignore[attr-defined]
    for number, particles in enumerate((40, 30, None), start=1):
        _expose(paper, number, particles)
    for name, sign in (("one", 1), ("two", -1)):
        _write(folder, name, corner_map(sign))
    refined = []
    for version, name in ((1, "two"), (2, "one")):
        paper.now += 60.0
        refined.append(paper.publish("refined", version, _volume(name, version)))
    mapped = Mapped(paper, refined, paper.publish("judged", 1, _quality()), paper.publish("sorted", 1, _classes()))
    paper.store.close("every stream closed")
    (folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    return mapped


def _expose(paper: PaperSession, number: int, particles: int | None) -> None:
    """Store an exposure; one that is set aside has no particles."""
    unit = paper.expose(f"mic_{number}", number)
    paper.make(
        "movies", unit, Movie(file=f"raw:m{number}.tif", n_frames=4, height_px=64, width_px=64, format="tiff", size_bytes=9)
    )
    if particles is None:
        paper.settle("kept", unit, "rejected", weight=0, reason="moved too far")
        paper.settle("cut", unit, "skipped", weight=0)
        return
    paper.settle("kept", unit, "item", {})
    paper.settle("cut", unit, "item", {}, weight=particles)


def _write(folder: Path, name: str, volume: np.ndarray) -> None:
    steps = folder / "steps"
    steps.mkdir(parents=True, exist_ok=True)
    write_mrc(steps / f"{name}.mrc", volume, pixel_size_ang=VOXEL_ANG, remember=False)
    middle = BOX // 2
    views = [volume[middle], volume[:, middle], volume[:, :, middle], *(volume.sum(axis=axis) for axis in range(3))]
    write_mosaic(steps / f"{name}.png", np.stack(views), columns=3)


def _volume(name: str, version: int) -> Volume:
    return Volume(
        map=f"session:steps/{name}.mrc", picture=f"session:steps/{name}.png", count=1000 * version, box_px=BOX, bin=2.0,
        diameter_ang=60.0, frequency_per_ang=FREQUENCY, fsc=FSC, fsc_unmasked=[0.9 * one for one in FSC],
        resolution_ang=6.1, version=version,
    )  # fmt: skip


def _quality() -> MapQuality:
    picture = "session:steps/one.png"
    return MapQuality(
        map="session:steps/one.mrc", mask="session:steps/one.mrc", picture=picture, local_picture=picture, views_picture=picture,
        count=2000, box_px=BOX, pixel_size_ang=VOXEL_ANG, symmetry="C1", diameter_ang=60.0, bar_ang=20.0, verdict="map",
        evidence=40.0, resolution_ang=6.1, b_factor_ang2=-80.0, efficiency=0.8, frequency_per_ang=FREQUENCY, fsc=FSC,
        fsc_error=ERROR, fsc_masked=FSC, fsc_unmasked=FSC, fsc_randomised=[0.0] * len(FSC), local_median_ang=6.5,
    )  # fmt: skip


def _classes() -> VolumeClasses:
    classes = [
        VolumeClass(
            id=number,
            count=600 - 200 * number,
            map=f"session:steps/{name}.mrc",
            half_maps=[],
            frequency_per_ang=FREQUENCY,
            fsc=FSC,
        )
        for number, name in enumerate(("one", "two"))
    ]
    return VolumeClasses(
        stack="session:steps/one.mrc", picture="session:steps/one.png", count=1000, box_px=BOX, bin=2.0, classes=classes
    )
