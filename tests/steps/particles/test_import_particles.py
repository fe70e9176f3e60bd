"""Particles from lists of other programs: as records, as the list grows, and what is wrong with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from icestream.flow import Arrival, Pulse, Troubles
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import SessionDocument, create_session
from icestream.io.image import write_mrc
from icestream.io.particles import particles_table
from icestream.observe.queries import open_view
from icestream.records import Particles
from icestream.settings import Settings
from icestream.steps.particles.import_particles import ImportParticlesParams, ParticleList, import_particles
from icestream.steps.particles.reading import read_particles
from icestream.testing.context import StepBench

HEAD = """data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnMicrographOriginalPixelSize #7
4 one 300 2.7 0.1 3.2 0.8

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnOpticsGroup #3
_rlnCoordinateX #4
_rlnCoordinateY #5
_rlnDefocusU #6
_rlnDefocusV #7
_rlnDefocusAngle #8
"""


def row(number: int, micrograph: str, *, stack: str | None = None, group: int = 4) -> str:
    name = stack or f"Extract/job003/Movies/{micrograph}.mrcs"
    place = f"{10 * number} {20 * number}"
    return f"{number:06d}@{name} Movies/{micrograph}.mrc {group} {place} 15000 14000 30\n"


def stack_of(folder: Path, name: str, n: int = 5, box: int = 8) -> np.ndarray:
    images = np.random.default_rng(len(name)).normal(size=(n, box, box)).astype(np.float32)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, images, pixel_size_ang=9.0)
    return images


def looks(folder: Path, text: str, *, whole: bool = True, **params) -> tuple[list[Arrival], ParticleList]:
    (folder / "particles.star").write_text(HEAD + text, encoding="utf-8")
    chosen = ParticleList(ImportParticlesParams(file="particles.star", **params), folder)
    return list(chosen.look(whole=whole)), chosen


def test_each_micrograph_is_an_exposure_with_its_images(tmp_path: Path) -> None:
    first = stack_of(tmp_path, "Movies/m1.mrcs")
    second = stack_of(tmp_path, "m22.mrc")
    arrivals, _ = looks(tmp_path, row(3, "m1") + row(1, "m22") + row(1, "m1"))
    assert [(one.name, one.record.count) for one in arrivals] == [("m1", 2), ("m22", 1)]
    particles, others = (one.record for one in arrivals)
    assert isinstance(particles, Particles) and isinstance(others, Particles)
    bench = StepBench(tmp_path / "session", roots={"particles": tmp_path})
    assert np.array_equal(read_particles(particles, bench), first[[2, 0]])
    assert np.array_equal(read_particles(others, bench), second[[0]])
    table = particles_table(particles)
    assert (table["x_px"].tolist(), table["y_px"].tolist(), table["pid"].tolist()) == ([30, 10], [60, 20], [0, 1])
    assert (particles.box_px, particles.bin, particles.inverted) == (8, pytest.approx(4.0), True)
    assert arrivals[0].acquisition.pixel_size_ang == 0.8
    assert (arrivals[0].acquisition.voltage_kv, arrivals[0].acquisition.cs_mm) == (300, 2.7)


def test_the_same_particles_are_the_same_exposure_and_others_are_not(tmp_path: Path) -> None:
    stack_of(tmp_path, "Movies/m1.mrcs")
    (one,), _ = looks(tmp_path, row(1, "m1"))
    (again,), _ = looks(tmp_path, row(1, "m1"))
    (other,), _ = looks(tmp_path, row(2, "m1"))
    assert (one.identity, one.record) == (again.identity, again.record)
    assert one.identity != other.identity
    assert one.record.table_key != other.record.table_key


def test_the_last_micrograph_of_a_growing_list_waits(tmp_path: Path) -> None:
    for name in ("m1", "m2"):
        stack_of(tmp_path, f"Movies/{name}.mrcs")
    arrivals, growing = looks(tmp_path, row(1, "m1"), whole=False)
    assert arrivals == []
    text = HEAD + row(1, "m1") + row(2, "m1") + row(1, "m2")
    (tmp_path / "particles.star").write_text(text, encoding="utf-8")
    assert [(one.name, one.record.count) for one in growing.look(whole=False)] == [("m1", 2)]
    assert [one.name for one in growing.look(whole=True)] == ["m2"]
    (tmp_path / "particles.star").write_text(text + "000003@Extr", encoding="utf-8")
    assert list(growing.look(whole=False)) == []
    assert "not a STAR file" in growing.troubles["particles:particles.star"]


def test_dark_particles_and_scales_of_ones_own_are_said(tmp_path: Path) -> None:
    stack_of(tmp_path, "Movies/m1.mrcs")
    (one,), _ = looks(tmp_path, row(1, "m1"), bright=False, pixel_size_ang=2.0, raw_pixel_ang=0.5, diameter_ang=90)
    assert (one.record.inverted, one.record.bin, one.record.diameter_ang) == (False, 4.0, 90)
    assert one.acquisition.pixel_size_ang == 0.5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (row(1, "m9"), "there is no such stack below"),
        (row(6, "m1"), "has 5 images, the list names number 6"),
        (row(1, "wide"), "images of particles are square; these are 4 x 6 px"),
    ],
)
def test_a_micrograph_that_cannot_be_taken_is_told_and_the_others_are_taken(tmp_path: Path, text: str, told: str) -> None:
    stack_of(tmp_path, "Movies/m1.mrcs")
    stack_of(tmp_path, "Movies/m2.mrcs")
    write_mrc(tmp_path / "wide.mrcs", np.zeros((5, 4, 6), np.float32), pixel_size_ang=1)
    arrivals, found = looks(tmp_path, text + row(1, "m2"))
    assert [one.name for one in arrivals] == ["m2"]
    (trouble,) = found.troubles.values()
    assert told in trouble


class Looking:
    """The engine's side of a source that is never asked to stop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, ref: str) -> Path:
        return self.folder / ref.partition(":")[2]

    def seen(self, file) -> bool:
        return False

    def took_any(self) -> bool:
        return False

    @contextmanager
    def reading(self, file) -> Iterator[None]:
        yield

    def wait(self, seconds: float) -> None:
        return

    def stopping(self) -> bool:
        return False


def test_the_stream_closes_when_the_list_has_rested(tmp_path: Path) -> None:
    stack_of(tmp_path, "Movies/m1.mrcs")
    (tmp_path / "particles.star").write_text(HEAD + row(1, "m1") + row(1, "gone"), encoding="utf-8")
    params = ImportParticlesParams(file="particles.star", idle_s=1e-3, rescan_s=1e-6)
    watch, seen = import_particles(params, Looking(tmp_path)), []
    with pytest.raises(StopIteration) as ended:
        while True:
            seen.append(next(watch))
    assert ended.value.value == "the list has not changed for 0.001 s"
    assert [one.name for one in seen if isinstance(one, Arrival)] == ["m1"]
    troubles = [one.reasons for one in seen if isinstance(one, Troubles)]
    assert list(troubles[-1]) == ["particles:particles.star/Movies/gone.mrc"]
    assert any(isinstance(one, Pulse) for one in seen)


def test_a_session_of_imported_particles_runs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    images = stack_of(data, "Movies/m1.mrcs", n=12, box=16)
    assert images.shape == (12, 16, 16)
    rows = "".join(row(number, "m1") for number in range(1, 13))
    (data / "particles.star").write_text(HEAD + rows, encoding="utf-8")
    steps = {
        "given": {"use": "import_particles", "params": {"file": "particles.star", "idle_s": 0.2, "rescan_s": 0.1}},
        "screened": {"use": "screen_particles", "in": {"particles": "given"}},
    }
    document = {"name": "given", "roots": {"particles": str(data)}, "steps": steps}
    session = create_session(tmp_path / "session", SessionDocument.model_validate(document))
    assert run_session(session, Settings(cores=1, min_free_gb=0)).finished
    with open_view(session) as view:
        (stored,) = view.records("screened")
    assert stored.record["stack"] == "particles:Movies/m1.mrcs"
    assert stored.record["origin"] == stored.unit
