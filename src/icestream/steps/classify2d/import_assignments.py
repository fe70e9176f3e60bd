"""Classes that another program has put our particles into, from its list of particles."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from icestream.flow import Context, Field, ItemError, Params, SourceGone, step
from icestream.io.blocks import dtype_of, to_block
from icestream.io.particle_files import ParticleFile, read_particle_file
from icestream.io.particles import particles_table
from icestream.io.pick_files import stem_of
from icestream.records import Acquisition, ClassAssignments, FileRef, Particles


class ImportAssignmentsParams(Params):
    """Which list has the classes."""

    file: FileRef = Field(
        description="The list, complete, as root:path: STAR (such as run_it025_data.star), .cs, .csg or .sqlite (Scipion). It "
        "counts by its content"
    )


@step.map("import_assignments", version=1, reads=("pixel_size_ang",), memory_gb=1)
def import_assignments(
    particles: Particles, params: ImportAssignmentsParams, acquisition: Acquisition, ctx: Context
) -> ClassAssignments:
    """Take the classes and poses in the plane that another program has given to the particles of one exposure.

    The particles are those that it was given: of `import_particles`, or of an export of ours. A particle is found by the name of
    its stack and its number there. One that the list lacks has class -1. Classes count from 1, as those of `import_averages`.

    Raises
    ------
    ItemError
        The list cannot be read, has no classes, or names none of the particles.
    """
    found = _read(ctx.path(params.file))
    if "class_id" not in found.numbers:
        raise ItemError(f"{params.file}: has no classes")
    table = particles_table(particles)
    names = (stem_of(particles.stack or ""), f"{ctx.exposure.name}_{ctx.exposure.id[:8]}")  # its own, or that of our exports
    rows = next((found.by_stack[name] for name in names if name in found.by_stack), np.zeros(0, dtype=np.int64))
    places = {int(number): row for number, row in zip(found.slices[rows].tolist(), rows.tolist(), strict=True)}
    at = np.array([places.get(int(number), -1) for number in table["slice"].tolist()], dtype=np.int64)
    if len(table) and (at < 0).all():
        raise ItemError(f"{params.file}: names none of the particles of {ctx.exposure.name}")
    made = np.zeros(len(table), dtype=dtype_of(ClassAssignments.block_columns))
    made["pid"], made["class_id"] = table["pid"], -1
    known = at >= 0
    made["class_id"][known] = np.rint(found.numbers["class_id"][at[known]])
    if "psi_deg" in found.numbers:
        made["psi_deg"][known] = -found.numbers["psi_deg"][at[known]]  # RELION's goes from y towards x
    pixel_ang = acquisition.need("pixel_size_ang") * particles.bin
    for axis in ("y", "x"):
        shifts = found.numbers.get(f"shift_{axis}_ang")
        if shifts is not None:
            made[f"shift_{axis}_px"][known] = shifts[at[known]] / pixel_ang
    return ClassAssignments(count=len(made), version=0, picks_key=particles.picks_key, block=to_block(made))


def _read(path: Path) -> ParticleFile:
    if not path.is_file():
        raise SourceGone(f"{path}: there is no such file")
    said = path.stat()
    return _read_once(path, said.st_mtime_ns, said.st_size)


@lru_cache(maxsize=1)
def _read_once(path: Path, _modified_ns: int, _size: int) -> ParticleFile:
    return read_particle_file(path)
