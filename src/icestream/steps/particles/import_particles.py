"""Particles that another program has cut, from its files, micrograph by micrograph, also while the file grows."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.counting import counted
from icestream.flow import (
    Angstrom,
    Arrival,
    Field,
    FileFormatError,
    ItemError,
    Params,
    Pulse,
    Second,
    SourceContext,
    Troubles,
    Watch,
    step,
)
from icestream.flow.workflow import origin_of
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import image_header
from icestream.io.particle_files import Optics, ParticleFile, find_stack, read_particle_file
from icestream.io.pick_files import stem_of
from icestream.records import Acquisition, Particles
from icestream.steps.movies.file_arrival import safe_name

_NEVER_S = 43200.0
"""How long a list is waited for that is not there."""

_UNSET = ("y_px", "x_px", "defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")


class ImportParticlesParams(Params):
    """Which file lists the particles, and what it does not say."""

    root: str = Field(
        "particles", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session with the file and the stacks"
    )
    file: str = Field(
        min_length=1,
        description="The list: STAR (RELION 3.0 to 5), .cs, .csg or .sqlite (Scipion), relative to the root. Stacks are looked "
        "for below the root, by the path in the list or its last parts",
    )
    pixel_size_ang: Angstrom | None = Field(None, gt=0, description="Of the images; unset: what the list, else the stack, says")
    raw_pixel_ang: Angstrom | None = Field(
        None,
        gt=0,
        description="Of the movies or micrographs that they were cut from; unset: what the list says, else as the images",
    )
    diameter_ang: Angstrom | None = Field(None, gt=0, description="Diameter of the particle; unset: not known")
    bright: bool | None = Field(
        None, description="Protein is bright in the images; unset: what the list says, else that it is, as RELION has it"
    )
    phase_flipped: bool = Field(False, description="The phases of the images were flipped")
    idle_s: Second = Field(
        60.0,
        gt=0,
        description="Close the stream when the list has not changed for this long; the last micrograph in it is taken then",
        json_schema_extra={"operational": True, "unit": "s"},
    )
    rescan_s: Second = Field(
        2.0, gt=0, description="Look for changes this often", json_schema_extra={"operational": True, "unit": "s"}
    )


@dataclass
class ParticleList:
    """A list that may be growing, and what has been taken of it."""

    params: ImportParticlesParams
    folder: Path
    taken: set[str] = field(default_factory=set)
    troubles: dict[str, str] = field(default_factory=dict)

    def look(self, *, whole: bool) -> Iterator[Arrival]:
        """Yield what is new; the last micrograph of a list that is not ``whole`` may get more particles."""
        self.troubles = {}
        list_ref = f"{self.params.root}:{self.params.file}"
        try:
            found = read_particle_file(self.folder / self.params.file)
        except ItemError as error:
            self.troubles = {list_ref: getattr(error, "reason", str(error))}
            return
        parts = divide(found)
        for number, ((micrograph, stack), rows) in enumerate(parts):
            if not whole and number == len(parts) - 1:
                return
            identity = _identity(found, rows, micrograph, stack)
            if identity in self.taken:
                continue
            try:
                record, acquisition = make_particles(found, rows, self.folder, params=self.params, origin=origin_of(identity))
            except ItemError as error:
                self.troubles[f"{list_ref}/{micrograph or stack}"] = str(error)
                continue
            self.taken.add(identity)
            name = safe_name(Path(f"{stem_of(micrograph or stack)}.mrc"))
            yield Arrival(identity, name, record, acquisition=acquisition)


@step.source("import_particles", version=1, output=Particles)
def import_particles(params: ImportParticlesParams, ctx: SourceContext) -> Watch:
    """Take particles from the list of another program, micrograph by micrograph, as the list grows.

    Each micrograph becomes an exposure, with its acquisition values; where one has particles in several stacks, each of these
    does. Images stay where they are. Positions are as the list has them, in pixels of the micrograph, and are not a number where
    it has none. Shifts, angles, classes and half sets of the list are not taken.
    """
    taking = ParticleList(params, ctx.path(f"{params.root}:."))
    path, known, changed_at = taking.folder / params.file, "", time.monotonic()
    told: dict[str, str] = {}
    looked_at = float("-inf")
    while not ctx.stopping():
        now = time.monotonic()
        if now - looked_at >= params.rescan_s:
            looked_at = now
            stamp = _stamp(path)
            changed_at = now if stamp != known else changed_at
            closing = now - changed_at >= (params.idle_s if stamp else _NEVER_S)
            if (stamp != known or closing) and stamp:
                yield from taking.look(whole=closing)
            known = stamp
            if taking.troubles != told:
                told = dict(taking.troubles)
                yield Troubles(told)
            if closing:
                if not stamp:
                    yield Troubles({f"{params.root}:{params.file}": "never arrived"})
                return f"the list has not changed for {params.idle_s:g} s"
        yield Pulse(f"{counted(len(taking.taken), 'micrograph')} with particles" if known else f"{params.file} is not there yet")
        ctx.wait(0.1)
    return "stopping"


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def divide(found: ParticleFile) -> list[tuple[tuple[str, str], NDArray[np.int64]]]:
    """Return which rows are of which micrograph and stack, in the order in which these first occur."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(found.micrographs, found.stacks, strict=True)):
        rows.setdefault(key, []).append(row)
    return [(key, np.array(some, dtype=np.int64)) for key, some in rows.items()]


def _identity(found: ParticleFile, rows: NDArray[np.int64], micrograph: str, stack: str) -> str:
    """Return what differs where the particles of a micrograph do."""
    hashed = hashlib.sha256(found.slices[rows].tobytes())
    for name in sorted(found.numbers):
        hashed.update(name.encode() + found.numbers[name][rows].tobytes())
    return f"particles|{micrograph}|{stack}|{len(rows)}|{hashed.hexdigest()}"


def make_particles(
    found: ParticleFile, rows: NDArray[np.int64], folder: Path, *, params: ImportParticlesParams, origin: str
) -> tuple[Particles, Acquisition]:
    """Return the record of particles of one micrograph that share a stack, and what their list says of the acquisition.

    Raises
    ------
    ItemError
        The stack is not there or has too few images, or they are of several optics groups, or nobody says their pixel size.
    """
    name = found.stacks[rows[0]]
    stack = find_stack(folder, name)
    if stack is None:
        raise ItemError(f"{name}: there is no such stack below {folder}, nor one that is called as its last parts")
    header = image_header(stack)
    if header.height_px != header.width_px:
        raise FileFormatError(stack, f"images of particles are square; these are {header.height_px} x {header.width_px} px")
    last = int(found.slices[rows].max())
    if last >= header.n_images:
        raise FileFormatError(stack, f"has {header.n_images} images, the list names number {last + 1}")
    if len(set(found.groups[rows].tolist())) > 1:
        raise ItemError(f"{found.micrographs[rows[0]]}: its particles are of several optics groups")
    optics = found.optics[int(found.groups[rows[0]])]
    pixel_ang = params.pixel_size_ang or optics.pixel_size_ang or header.pixel_size_ang
    if not pixel_ang:
        raise ItemError(f"neither {params.file} nor {stack.name} says the pixel size of the images; set pixel_size_ang")
    raw_ang = params.raw_pixel_ang or optics.raw_pixel_ang or pixel_ang
    table = _table(found, rows)
    bright = params.bright if params.bright is not None else found.bright
    record = Particles(
        stack=f"{params.root}:{stack.relative_to(folder).as_posix()}",
        count=len(rows),
        box_px=header.width_px,
        bin=pixel_ang / raw_ang,
        inverted=True if bright is None else bright,
        phase_flipped=params.phase_flipped,
        ctf_premultiplied=optics.premultiplied,
        diameter_ang=params.diameter_ang,
        micrograph=f"{params.root}:{(found.micrographs[rows[0]] or name).lstrip('/') or 'unknown'}",
        origin=origin,
        picks_key=hashlib.blake2b(to_block(table), digest_size=16).hexdigest(),
        block=to_block(table),
    )
    return record, _acquisition(optics, raw_ang)


def _table(found: ParticleFile, rows: NDArray[np.int64]) -> NDArray[np.void]:
    table = np.zeros(len(rows), dtype=dtype_of(Particles.block_columns))
    table["pid"] = np.arange(len(rows))
    table["slice"] = found.slices[rows]
    for name in _UNSET:
        table[name] = found.numbers[name][rows] if name in found.numbers else np.nan
    if np.isnan(table["phase_shift_deg"]).all() and not np.isnan(table["defocus_u_ang"]).all():
        table["phase_shift_deg"] = 0.0
    if "score" in found.numbers:
        table["score"] = found.numbers["score"][rows]
    return table


def _acquisition(optics: Optics, raw_ang: float) -> Acquisition:
    return Acquisition(
        voltage_kv=optics.voltage_kv,
        cs_mm=optics.cs_mm,
        amplitude_contrast=optics.amplitude_contrast,
        pixel_size_ang=raw_ang,
    )
