"""2D classes as a Class2D job of the RELION project that is kept up to date."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError, ItemError
from icestream.files import publish
from icestream.flow import Context, step
from icestream.io.star import Table, read_star, write_star
from icestream.records import ClassAverages, RelionClasses, RelionProject
from icestream.steps.classify2d.averages import all_assignments
from icestream.steps.export.relion_jobs import ROOT_NAME, class2d_job, class_rows, model_tables, touch_nodes, write_job
from icestream.steps.export.relion_layout import EXTRACT, NEXT_NUMBER
from icestream.steps.export.relion_pipeline import choose_number, list_jobs


@step.map("export_relion_classes", version=1)
def export_classes(classes: ClassAverages, project: RelionProject, ctx: Context) -> RelionClasses:
    """Keep a Class2D job in a RELION project: class averages, and class and pose of every particle.

    It is written again for each version of the classes. Class ``k`` in RELION is place ``k`` of the averages, from 1. A place
    stays with its class, but is given to another one when that is gone; the ids are in `class_ids.txt` of the job. RELION selects
    classes in it with a job of kind Subset selection.

    Raises
    ------
    ItemError
        The project has no particles, its list cannot be read, or these classes do not know the exposures of their particles.
    """
    folder = ctx.path(project.folder)
    if not classes.tables:
        raise ItemError("the class averages do not say which particles are in which class")
    try:
        tables = read_star(folder / EXTRACT.path)
        particles, optics = tables["particles"], tables["optics"]
    except (FileFormatError, OSError, KeyError) as error:
        raise ItemError(f"{folder / EXTRACT.path}: has no particles to classify ({error})") from error
    rows = all_assignments(classes, ctx, places=True)
    if (rows["exposure"] == b"").all():
        raise ItemError("a closed set does not know its exposures; export a classification of a stream")
    at, mine = _join(particles, rows)
    note = f"Written by icestream export_relion_classes of {ctx.export_folder().name}.\n"
    job = class2d_job(choose_number(folder, "Class2D", note=note, first=NEXT_NUMBER))
    write_job(folder, job, note=note)
    place = folder / job.folder
    with publish(place / f"{ROOT_NAME}_classes.mrcs") as temporary:
        shutil.copyfile(ctx.path(classes.stack), temporary)
    counts = np.bincount(mine["class_id"], minlength=len(classes.classes))
    _write_tables(place, job.folder, classes, counts, (optics, _pose_table(particles, optics, mine, at)))
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


def _join(particles: Table, rows: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Return which rows of RELION's particles have a class, and those rows of the assignments, in RELION's order."""
    known = {(row["exposure"][:8].decode(), int(row["slice"])): i for i, row in enumerate(rows)}
    at, mine = [], []
    for i, name in enumerate(particles.texts("rlnImageName")):
        index, _, stack = name.partition("@")
        found = known.get((Path(stack).stem[-8:], int(index) - 1))
        if found is not None:
            at.append(i)
            mine.append(found)
    return np.array(at, dtype=np.int64), rows[np.array(mine, dtype=np.int64)]


def _pose_table(particles: Table, optics: Table, mine: NDArray[np.void], at: NDArray[np.int64]) -> Table:
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
