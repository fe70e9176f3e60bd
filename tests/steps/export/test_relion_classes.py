"""2D classes as a Class2D job of the RELION project, and RELION itself as the judge of their angles and origins."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.errors import ItemError
from icestream.flow import Exposure
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import read_stack, write_mrc
from icestream.io.star import Table, read_star
from icestream.records import ClassAverages, ClassInfo, Particles, RelionProject
from icestream.steps.classify2d.segments import TABLE
from icestream.steps.export.relion import ExportState
from icestream.steps.export.relion_classes import export_classes
from icestream.steps.particles.assigned import particles_key
from icestream.testing.context import StepBench
from services.relion import relion
from toys.relion_project import ACQUISITION, add, make_exposure

BOX, BINNED = 32, 4.0
BLOBS = np.array([[-6.0, -3, 1.5], [-2, -4, 1.0], [3, -3, 0.7], [6, 2, 1.6], [2, 5, 0.5]])


def draw(psi_deg: float, shift_yx_px: tuple[float, float]) -> NDArray[np.float64]:
    x, y, weight = BLOBS.T
    psi = np.deg2rad(psi_deg)
    x, y = x * np.cos(psi) - y * np.sin(psi) + shift_yx_px[1], x * np.sin(psi) + y * np.cos(psi) + shift_yx_px[0]
    grid = np.arange(BOX) - BOX // 2
    return np.exp(-((grid[:, None, None] - y) ** 2 + (grid[None, :, None] - x) ** 2) / 5) @ weight


@dataclass
class Exported:
    """A project with two exposures of four particles, and classes of which the first has them all but two."""

    bench: StepBench
    project: RelionProject
    classes: ClassAverages
    folder: Path
    state: ExportState

    def export(self) -> Path:
        made = export_classes(self.classes, self.project, self.bench)
        return self.bench.path(made.folder)


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    bench = StepBench(tmp_path)
    rng = np.random.default_rng(3)
    state, rows = ExportState(), []
    for number in (1, 2):
        exposure, micrograph, _, _ = make_exposure(bench, number, ctf=None, n_particles=None)
        psi, shift = rng.uniform(0, 360, 4), rng.uniform(-2, 2, (4, 2))
        images = np.stack([draw(a, tuple(s)) for a, s in zip(psi, shift, strict=True)])
        write_mrc(bench.path(f"session:p{number}.mrcs"), images.astype(np.float32), pixel_size_ang=BINNED)
        table = np.zeros(4, dtype=dtype_of(Particles.block_columns))
        table["pid"], table["slice"], table["x_px"] = np.arange(4), np.arange(4), 30 + np.arange(4)
        for name in ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg"):
            table[name] = np.nan
        particles = Particles(
            stack=f"session:p{number}.mrcs", count=4, box_px=BOX, bin=BINNED, inverted=True, phase_flipped=False,
            micrograph=micrograph.image, origin=exposure.id, picks_key=f"{number}" * 32, block=to_block(table),
        )  # fmt: skip
        state = add(bench, state, [(exposure, micrograph, None, particles)])
        rows.append(_rows(exposure, particles, psi, shift))
    np.save(bench.path("session:table.npy"), np.concatenate(rows))
    write_mrc(
        bench.path("session:c.mrcs"), np.stack([draw(0, (0, 0)), -draw(0, (0, 0))]).astype(np.float32), pixel_size_ang=BINNED
    )
    classes = ClassAverages(
        stack="session:c.mrcs", picture=None, count=8, box_px=BOX, bin=BINNED, version=5, tables=["session:table.npy"],
        classes=[ClassInfo(id=3, count=6, resolution_ang=11.0), ClassInfo(id=8, count=2)],
    )  # fmt: skip
    project = RelionProject(folder="session:exports/bench", n_micrographs=2, n_particles=8)
    return Exported(bench, project, classes, bench.export_folder(), state)


def _rows(exposure: Exposure, particles: Particles, psi: NDArray[Any], shift: NDArray[Any]) -> NDArray[Any]:
    rows = np.zeros(4, dtype=TABLE)
    rows["micrograph"] = particles_key(particles)
    rows["exposure"], rows["pid"], rows["slice"] = exposure.id.encode(), np.arange(4), np.arange(4)
    rows["class_id"] = [0, 0, 0, 1]
    rows["psi_deg"], rows["shift_y_px"], rows["shift_x_px"] = psi, shift[:, 0], shift[:, 1]
    return rows


def test_every_particle_has_its_class_and_pose(exported: Exported) -> None:
    job = exported.export()
    tables = read_star(job / "run_it025_data.star")
    particles = tables["particles"]
    assert particles.ints("rlnClassNumber").tolist() == [1, 1, 1, 2] * 2
    rows = np.load(exported.bench.path("session:table.npy"))
    np.testing.assert_allclose(particles.floats("rlnAnglePsi"), -rows["psi_deg"], atol=1e-4)
    np.testing.assert_allclose(particles.floats("rlnOriginXAngst"), -rows["shift_x_px"] * BINNED, atol=1e-4)
    extracted = read_star(exported.folder / "Extract/job003/particles.star")["particles"]
    assert particles.texts("rlnImageName") == extracted.texts("rlnImageName")
    model = read_star(job / "run_it025_model.star")
    classes = model["model_classes"]
    assert classes.texts("rlnReferenceImage")[1] == f"000002@{job.relative_to(exported.folder)}/run_it025_classes.mrcs"
    assert classes.floats("rlnClassDistribution").tolist() == [0.75, 0.25]
    assert model["model_general"].ints("rlnNrClasses").tolist() == [2]
    assert (job / "class_ids.txt").read_text().splitlines()[1:] == ["1 3", "2 8"]


def test_the_job_is_listed_once_and_keeps_its_number(exported: Exported) -> None:
    first, again = exported.export(), exported.export()
    assert first == again == exported.folder / "Class2D/job005"
    pipeline = read_star(exported.folder / "default_pipeline.star")
    names = pipeline["pipeline_processes"].texts("rlnPipeLineProcessName")
    assert names.count("Class2D/job005/") == 1
    nodes = pipeline["pipeline_nodes"]
    kinds = dict(zip(nodes.texts("rlnPipeLineNodeName"), nodes.texts("rlnPipeLineNodeType"), strict=True))
    assert kinds["Class2D/job005/run_it025_data.star"] == "3"
    assert kinds["Class2D/job005/run_it025_model.star"] == "8"
    edges = pipeline["pipeline_input_edges"]
    assert ("Extract/job003/particles.star", "Class2D/job005/") in set(zip(*edges.columns.values(), strict=True))
    assert (exported.folder / ".Nodes/8/Class2D/job005/run_it025_model.star").exists()


def test_particles_that_the_project_does_not_have_yet_are_counted(exported: Exported) -> None:
    path = exported.bench.path("session:table.npy")
    rows = np.load(path)
    later = rows[:2].copy()
    later["micrograph"] = b"f" * 32
    np.save(path, np.concatenate([rows, later]))
    found = export_classes(exported.classes, exported.project, exported.bench)
    assert (found.n_particles, found.n_unknown, found.version) == (8, 2, 5)


def test_rows_that_are_appended_meanwhile_are_of_a_later_version(exported: Exported) -> None:
    job = exported.export()
    wanted = (job / "run_it025_data.star").read_bytes()
    other = ACQUISITION.model_copy(update={"voltage_kv": 200.0})  # another optics group: the head is written again
    add(exported.bench, exported.state, [make_exposure(exported.bench, 3)], acquisition=other)
    for name in ("Extract/job003/particles.star", ".icestream/particle_ids.star"):
        with (exported.folder / name).open("ab") as handle:
            handle.write(b"0.5 ")  # a row that is just being written
    assert (exported.export() / "run_it025_data.star").read_bytes() == wanted
    for name in ("Extract/job003/particles.star", ".icestream/particle_ids.star"):
        rows = (exported.folder / name).read_bytes().splitlines(keepends=True)
        (exported.folder / name).write_bytes(b"".join(rows[:-10]))
        with pytest.raises(ItemError, match="fewer than the 8 rows"):
            exported.export()
        (exported.folder / name).write_bytes(b"".join(rows))


def test_particles_of_other_picks_and_other_boxes_are_told_apart_by_their_numbers(exported: Exported) -> None:
    path = exported.bench.path("session:table.npy")
    rows = np.load(path)
    rows["slice"] = rows["slice"][::-1]  # extracted again: their images are in another order
    rows["micrograph"][4:] = b"of other picks"
    np.save(path, rows)
    found = export_classes(exported.classes, exported.project, exported.bench)
    assert (found.n_particles, found.n_unknown) == (4, 4)
    particles = read_star(exported.bench.path(found.folder) / "run_it025_data.star")["particles"]
    np.testing.assert_allclose(particles.floats("rlnAnglePsi"), -rows["psi_deg"][:4], atol=1e-4)


def test_particles_that_an_early_version_exported_go_by_their_stack(exported: Exported) -> None:
    wanted = (exported.export() / "run_it025_data.star").read_bytes()
    (exported.folder / ".icestream/particle_ids.star").unlink()
    rows = np.load(exported.bench.path("session:table.npy"))
    rows["micrograph"] = b"its path"
    np.save(exported.bench.path("session:table.npy"), rows)
    assert (exported.export() / "run_it025_data.star").read_bytes() == wanted


def test_what_cannot_be_exported_is_said(exported: Exported) -> None:
    with pytest.raises(ItemError, match="which particles"):
        export_classes(exported.classes.model_copy(update={"tables": []}), exported.project, exported.bench)
    rows = np.load(exported.bench.path("session:table.npy"))
    rows["micrograph"] = b"of other picks"
    np.save(exported.bench.path("session:table.npy"), rows)
    with pytest.raises(ItemError, match="none of the 8 particles"):
        exported.export()
    (exported.folder / "Extract/job003/particles.star").unlink()
    with pytest.raises(ItemError, match="is not there"):
        exported.export()


@pytest.mark.services
def test_relion_turns_particles_onto_their_class_average(exported: Exported) -> None:
    job = exported.export()
    data = f"{job.relative_to(exported.folder)}/run_it025_data.star"
    relion("relion_stack_create", "--i", data, "--o", "turned", "--apply_transformation", cwd=exported.folder)
    turned = read_stack(exported.folder / "turned.mrcs")
    particles: Table = read_star(job / "run_it025_data.star")["particles"]
    average = read_stack(job / "run_it025_classes.mrcs")[0]
    inside = np.hypot(*np.meshgrid(*[np.arange(BOX) - BOX // 2] * 2)) < 11
    for image, one in zip(turned, particles.ints("rlnClassNumber"), strict=True):
        if one == 1:
            assert np.corrcoef(image[inside], average[inside])[0, 1] > 0.97
