"""Particles of ours for other people's programs, as a STAR file beside plain stacks, and which row of it is which particle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.scoring.particles import half_sets_of
from icestream.external import stage_file
from icestream.flow import Context, FileFormatError, ItemError
from icestream.io.image import image_header, read_stack, write_mrc
from icestream.io.particles import optics_of_particles, particles_table
from icestream.io.star import Table, write_star
from icestream.records import CTF_COLUMNS, Acquisition, Particles

READS = ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast")
"""What a program needs to know of the microscope."""
PARTICLES = "particles.star"
NAMED = np.dtype([("micrograph", "S32"), ("exposure", "S32"), ("pid", "<i8"), ("slice", "<i4"), ("half", "i1")])
"""What names a particle in our tables."""
_CTF = dict(
    zip(("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"), (column.name for column in CTF_COLUMNS), strict=True)
)


@dataclass(frozen=True)
class StagedParticles:
    """Particles in a folder as `PARTICLES`: row by row who they are, and what all of them have in common."""

    table: NDArray[np.void]
    names: list[str]
    box_px: int
    bin: float
    pixel_size_ang: float
    diameter_ang: float | None
    has_ctf: bool
    phase_flipped: bool

    def __len__(self) -> int:
        return len(self.table)

    @property
    def box_ang(self) -> float:
        """Side of the boxes."""
        return self.box_px * self.pixel_size_ang

    def rows_of(self, names: Sequence[str], path: Path) -> NDArray[np.int64]:
        """Return in which row of `table` each image is that a program names ``number@stack`` in its answer at ``path``.

        Raises
        ------
        FileFormatError
            It left particles out, or names others.
        """
        known = {name: row for row, name in enumerate(self.names)}
        rows = [known.get(name, -1) for name in names]
        if sorted(rows) != list(range(len(self))):
            raise FileFormatError(path, f"is not of the {len(self)} particles that were given: it names {len(names)}")
        return np.array(rows, dtype=np.int64)


def stage_particles(particles: Sequence[Particles], acquisition: Acquisition, folder: Path, ctx: Context) -> StagedParticles:
    """Put particles into a folder: stacks of bright 32-bit floats, linked where they are that already, and `PARTICLES`.

    The half set of a particle (``rlnRandomSubset``) follows from what names it, as everywhere in icestream.

    Raises
    ------
    ItemError
        There are none, their boxes or treatment differ, only some have a CTF, an acquisition value is unset, or their images are
        not on disk.
    """
    some = [one for one in particles if one.count]
    alike = {(one.box_px, one.bin, one.phase_flipped, one.ctf_premultiplied) for one in some}
    if len(alike) != 1:
        raise ItemError(
            f"{ctx.exposure.name}: the particles must have one box, pixel size and correction of the CTF; "
            f"got {sorted(alike) or 'none'}"
        )
    tables, names, columns = [], list[str](), _no_columns()
    for number, one in enumerate(some):
        rows = particles_table(one)
        stack = _stage_stack(one, folder, number, acquisition, ctx)
        table = np.zeros(len(rows), dtype=NAMED)
        table["micrograph"], table["exposure"] = one.table_key, (one.origin or "").encode()
        table["pid"], table["slice"] = rows["pid"], rows["slice"]
        tables.append(table)
        names += [f"{index + 1:06d}@{stack}" for index in rows["slice"].tolist()]
        columns["rlnMicrographName"] += [f"micrograph{number:06d}.mrc"] * len(rows)
        for label, name in _CTF.items():
            columns[label] += [f"{value:.5f}" for value in rows[name].tolist()]
    whole = np.concatenate(tables)
    whole["half"] = half_sets_of(whole["micrograph"], whole["pid"])
    has_ctf = _has_ctf(columns, ctx)
    rows_of_star = {
        "rlnImageName": names,
        "rlnOpticsGroup": ["1"] * len(whole),
        "rlnRandomSubset": [str(half + 1) for half in whole["half"].tolist()],
        **{name: column for name, column in columns.items() if has_ctf or name not in _CTF},
    }
    first = some[0]
    pixel_ang = acquisition.need("pixel_size_ang") * first.bin
    optics = optics_of_particles(first, acquisition)
    write_star(folder / PARTICLES, {"optics": optics, "particles": Table(rows_of_star)})
    diameters = [one.diameter_ang for one in some if one.diameter_ang is not None]
    diameter_ang = float(np.median(diameters)) if diameters else None
    return StagedParticles(whole, names, first.box_px, first.bin, pixel_ang, diameter_ang, has_ctf, first.phase_flipped)


def _no_columns() -> dict[str, list[str]]:
    return {"rlnMicrographName": [], **{label: [] for label in _CTF}}


def _has_ctf(columns: dict[str, list[str]], ctx: Context) -> bool:
    known = [value != "nan" for value in columns["rlnDefocusU"]]
    if any(known) and not all(known):
        raise ItemError(f"{ctx.exposure.name}: {known.count(False)} of {len(known)} particles have no CTF; all or none must")
    return all(known)


def _stage_stack(one: Particles, folder: Path, number: int, acquisition: Acquisition, ctx: Context) -> str:
    """Link the stack of an exposure, or write it anew as bright floats; return its name in the folder."""
    if one.stack is None:
        raise ItemError(
            f"{ctx.exposure.name}: the particles have no images on disk, which a program could read; "
            "extract them without `virtual`"
        )
    path, name = ctx.path(one.stack), f"stack{number:06d}.mrcs"
    header = image_header(path)
    if one.inverted and header.format == "mrc" and path.suffix == ".mrcs" and header.dtype == np.dtype("<f4"):
        stage_file(path, folder, name)
    else:
        images = read_stack(path) * (1 if one.inverted else -1)
        write_mrc(folder / name, images.astype(np.float32), pixel_size_ang=acquisition.need("pixel_size_ang") * one.bin)
    return name
