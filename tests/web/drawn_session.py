"""A session on paper with files behind it: micrographs, stacks of particles, a virtual one, and who is in which class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paper_session import PaperSession, new_session, picks_block

from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import write_mrc
from icestream.io.preview import write_preview
from icestream.records import ClassAssignments, Cutting, Micrograph, Movie, Particles, Picks
from web.paper_classes import ASSIGNMENT, KINDS, STEPS, averages

HEIGHT, WIDTH = 700, 1101
"""Of the micrographs: neither is a multiple of a tile, and one is odd."""
BOX = 24
N_PARTICLES = 12
PLACES = [(60.0 + 50 * n, 80.0 + 80 * n) for n in range(N_PARTICLES)]
SPOT = (600, 1000)
"""Where the micrograph has one bright square of 40 px: row and column of its centre."""


@dataclass
class Drawn:
    """The session, and the keys of what it has; of the third exposure the particles are a virtual stack."""

    paper: PaperSession
    units: list[str]
    micrographs: list[str]
    particles: list[str]

    @property
    def folder(self) -> Path:
        return self.paper.session.folder


def write_drawn(folder: Path) -> Drawn:
    """Store three exposures with images, picks, particles and classes."""
    paper = PaperSession(new_session(folder, STEPS, name="drawn", acquisition={"pixel_size_ang": 1.0, "voltage_kv": 300.0}))
    for (step, spec), kind in zip(STEPS.items(), KINDS, strict=True):
        links = {port: [target] for port, target in spec.get("in", {}).items()}  # type: ignore[attr-defined]
        paper.revise(step, kind, links=links)
    drawn = Drawn(paper, [], [], [])
    for number in (1, 2, 3):
        _expose(drawn, number)
    paper.publish("classes", 1, averages(folder, 1))
    paper.store.close("every stream closed")
    (folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    return drawn


def micrograph_image(number: int) -> np.ndarray:
    """Return the image of an exposure: noise, and a bright square."""
    image = np.random.default_rng(number).normal(size=(HEIGHT, WIDTH)).astype(np.float32)
    y, x = SPOT
    image[y - 20 : y + 20, x - 20 : x + 20] += 50
    return image


def _expose(drawn: Drawn, number: int) -> None:
    paper, folder = drawn.paper, drawn.folder / "steps"
    for step in ("align", "cut"):
        (folder / step).mkdir(parents=True, exist_ok=True)
    unit = paper.expose(f"mic_{number}", number)
    image = micrograph_image(number)
    write_mrc(folder / "align" / f"{number}.mrc", image, pixel_size_ang=1.0, remember=False)
    write_preview(folder / "align" / f"{number}.png", image)
    movie = Movie(file=f"raw:m{number}.tif", n_frames=4, height_px=HEIGHT, width_px=WIDTH, format="tiff", size_bytes=9)
    paper.make("movies", unit, movie)
    micrograph = Micrograph(
        image=f"session:steps/align/{number}.mrc", thumbnail=f"session:steps/align/{number}.png",
        height_px=HEIGHT, width_px=WIDTH, bin=1.0,
    )  # fmt: skip
    picks = Picks(count=N_PARTICLES, diameter_ang=20.0, block=picks_block(PLACES))
    drawn.micrographs.append(paper.make("align", unit, micrograph))
    paper.make("find", unit, picks, block=picks.block)
    particles = _particles(folder, number, micrograph)
    drawn.particles.append(paper.make("cut", unit, particles, block=particles.block))
    classes = [2] * number + [5] * (N_PARTICLES - number)
    table = np.array([(pid, one, 0, 0, 0, 1) for pid, one in enumerate(classes)], dtype=ASSIGNMENT)
    assigned = ClassAssignments(count=len(table), version=1, block=to_block(table))
    key = paper.store_result("classes", unit, assigned, block=assigned.block)
    paper.settle("classes", unit, "item", {"assignments": key}, weight=len(table))
    drawn.units.append(unit)


def _particles(folder: Path, number: int, micrograph: Micrograph) -> Particles:
    table = np.zeros(N_PARTICLES, dtype_of(Particles.block_columns))
    table["pid"] = table["slice"] = np.arange(N_PARTICLES)
    table["y_px"], table["x_px"] = np.array(PLACES).T
    images = np.random.default_rng(10 + number).normal(size=(N_PARTICLES, BOX, BOX)).astype(np.float32)
    virtual = number == 3
    if not virtual:
        write_mrc(folder / "cut" / f"{number}.mrcs", images, pixel_size_ang=1.0, remember=False)
    cutting = Cutting(
        area=micrograph.raw_area, box_px=BOX, scaled_box_px=BOX, pad=False, dust_level=None, ctf_correction="none", invert=False,
        normalise="ramp", background_radius_px=10.0, stored_as="float32", pixel_size_ang=1.0,
    )  # fmt: skip
    return Particles(
        stack=None if virtual else f"session:steps/cut/{number}.mrcs", count=N_PARTICLES, box_px=BOX, bin=1.0, inverted=False,
        phase_flipped=False, cutting=cutting, micrograph=micrograph.image, block=to_block(table),
    )  # fmt: skip
