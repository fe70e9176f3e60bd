"""2D classes as a Class2D job of the RELION project that is kept up to date."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.files import publish
from icestream.flow import Context, FileFormatError, ItemError, step
from icestream.io.star import Table, read_star, write_star
from icestream.records import ClassAverages, RelionClasses, RelionProject
from icestream.steps.classify2d.averages import all_assignments
from icestream.steps.export.relion_jobs import ROOT_NAME, class2d_job, class_rows, model_tables, touch_nodes, write_job
from icestream.steps.export.relion_layout import EXTRACT, NEXT_NUMBER, PARTICLE_IDS
from icestream.steps.export.relion_pipeline import choose_number, list_jobs


@step.map("export_relion_classes", version=1)
def export_classes(classes: ClassAverages, project: RelionProject, ctx: Context) -> RelionClasses:
    """Keep a Class2D job in a RELION project: class averages, and class and pose of every particle.

    It is written again for each version of the classes, with the particles that the bound version of the project has. Class
    ``k`` in RELION is place ``k`` of the averages, from 1. A place stays with its class, but is given to another one when that is
    gone; the ids are in `class_ids.txt` of the job. RELION selects classes in it with a job of kind Subset selection.

    Raises
    ------
    ItemError
        The project has no particles or none of these classes, or its lists cannot be read.
    """
    folder = ctx.path(project.folder)
    if not classes.tables:
        raise ItemError("the class averages do not say which particles are in which class")
    exported = _read_exported(folder, project)
    rows = all_assignments(classes, ctx, places=True)
    at, mine = _join(exported, rows)
    if not len(at):
        raise ItemError(f"none of the {len(rows)} particles of these classes is among the {len(exported.ids)} of the project")
    note = f"Written by icestream export_relion_classes of {ctx.export_folder().name}.\n"
    job = class2d_job(choose_number(folder, "Class2D", note=note, first=NEXT_NUMBER))
    write_job(folder, job, note=note)
    place = folder / job.folder
    with publish(place / f"{ROOT_NAME}_classes.mrcs") as temporary:
        shutil.copyfile(ctx.path(classes.stack), temporary)
    counts = np.bincount(mine["class_id"], minlength=len(classes.classes))
    _write_tables(place, job.folder, classes, counts, (exported.optics, _pose_table(exported, mine, at)))
    touch_nodes(folder, job)
    list_jobs(folder, {job: (EXTRACT,)}, next_number=int(job.folder[-3:]) + 1)
    session = ctx.path("session:exports").parent
    return RelionClasses(
        folder=f"session:{place.relative_to(session)}",
        n_classes=len(classes.classes),
        n_particles=len(at),
        n_unknown=len(rows) - len(at),
        version=classes.version,
    )


@dataclass(frozen=True)
class Exported:
    """The particles that a version of the project has: their rows, their optics, and which they are."""

    particles: Table
    optics: Table
    ids: list[tuple[bytes, int]]
    """As the tables of a classification name them, `Particles.table_key` and ``pid``."""


def _read_exported(folder: Path, project: RelionProject) -> Exported:
    """Read what the project had at its version; rows that were appended since are not of it."""
    try:
        tables = read_star(folder / EXTRACT.path, last_rows=project.n_particles)
        particles, optics = tables["particles"], tables["optics"]
        ids = [(b"", -1)] * project.n_particles
        if (folder / PARTICLE_IDS.path).exists():  # a project of an early version has none
            known = read_star(folder / PARTICLE_IDS.path, last_rows=project.n_particles)["particle_ids"]
            ids = [(key.encode(), int(pid)) for key, pid in zip(*known.columns.values(), strict=True)]
    except (FileFormatError, OSError, KeyError) as error:
        raise ItemError(f"{folder / EXTRACT.path}: has no particles to classify ({error})") from error
    used = set(particles.texts("rlnOpticsGroup"))
    kept = [number for number, group in enumerate(optics.texts("rlnOpticsGroup")) if group in used]
    return Exported(particles, Table({name: [column[i] for i in kept] for name, column in optics.columns.items()}), ids)


def _join(exported: Exported, rows: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Return which rows of RELION's particles have a class, and those rows of the assignments, in RELION's order.

    Rows that an early version exported go by the name of their stack, which has eight digits of the exposure.
    """
    numbers = {(key, pid): i for i, (key, pid) in enumerate(zip(rows["micrograph"].tolist(), rows["pid"].tolist(), strict=True))}
    old = -1 in {pid for _, pid in exported.ids}
    slices = {(row["exposure"][:8].decode(), int(row["slice"])): i for i, row in enumerate(rows)} if old else {}
    at, mine = [], []
    for i, (name, (key, pid)) in enumerate(zip(exported.particles.texts("rlnImageName"), exported.ids, strict=True)):
        index, _, stack = name.partition("@")
        found = numbers.get((key, pid)) if pid >= 0 else slices.get((Path(stack).stem[-8:], int(index) - 1))
        if found is not None:
            at.append(i)
            mine.append(found)
    return np.array(at, dtype=np.int64), rows[np.array(mine, dtype=np.int64)]


def _pose_table(exported: Exported, mine: NDArray[np.void], at: NDArray[np.int64]) -> Table:
    particles, optics = exported.particles, exported.optics
    pixel = dict(zip(optics.ints("rlnOpticsGroup").tolist(), optics.floats("rlnImagePixelSize").tolist(), strict=True))
    groups = particles.ints("rlnOpticsGroup")[at]
    return class_rows(particles, mine, at, pixel_size_ang=np.array([pixel[int(group)] for group in groups]))


def _write_tables(place: Path, folder: str, classes: ClassAverages, counts: NDArray[np.int64], data: tuple[Table, Table]) -> None:
    """Write the tables of the job: the particles last, for they are what later jobs are given."""
    optics, particles = data
    pixel_ang = float(optics.floats("rlnImagePixelSize")[0]) * int(optics.ints("rlnImageSize")[0]) / classes.box_px
    stack = f"{folder}/{ROOT_NAME}_classes.mrcs"
    model = model_tables(classes.classes, counts, stack=stack, box_px=classes.box_px, pixel_size_ang=pixel_ang)
    lines = [f"{number} {info.id}" for number, info in enumerate(classes.classes, 1)]
    tables: dict[str, Any] = {
        f"{ROOT_NAME}_model.star": model,
        f"{ROOT_NAME}_data.star": {"optics": optics, "particles": particles},
    }
    with publish(place / "class_ids.txt") as temporary:
        temporary.write_text("# class in RELION, class id\n" + "\n".join(lines) + "\n", encoding="utf-8")
    for name, content in tables.items():
        with publish(place / name) as temporary:
            write_star(temporary, content)
