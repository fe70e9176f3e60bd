"""A RELION project that is kept up to date while data come."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from icestream.files import publish, publish_text
from icestream.flow import Accumulator, Context, Exposure, Field, FileFormatError, ItemError, Params, Update, step
from icestream.io.blocks import from_block
from icestream.io.star import Table, append_star_rows, format_star_head, write_star
from icestream.io.star_grow import settle_star_table
from icestream.records import CTF_COLUMNS, Acquisition, CtfFit, Micrograph, Particles, Picks, Record, RelionProject
from icestream.steps.export import relion_layout as layout
from icestream.steps.export.placing import place_file, place_particles
from icestream.steps.export.relion_jobs import touch_nodes, write_job
from icestream.steps.export.relion_layout import (
    COORDINATES_SUFFIX,
    CTF,
    EXTRACT,
    MOTION,
    NEXT_NUMBER,
    PARTICLE_IDS,
    PICK_NUMBER,
    OpticsGroup,
    pick_job,
)
from icestream.steps.export.relion_motion import motion_tables, place_movie
from icestream.steps.export.relion_pipeline import Job, choose_number, list_jobs, lists_jobs

_CTF_NAMES = tuple(column.name for column in CTF_COLUMNS)


class ExportRelionParams(Params):
    """What the project contains."""

    copy_images: bool = Field(False, description="Copy micrographs and particles into the project; unset: relative links")


_TABLES: dict[str, tuple[str, str]] = {
    MOTION.kind: ("micrographs", "micrographs_bytes"),
    CTF.kind: ("micrographs", "ctf_bytes"),
    EXTRACT.kind: ("particles", "particles_bytes"),
    pick_job(PICK_NUMBER).kind: ("coordinate_files", "picks_bytes"),
    PARTICLE_IDS.kind: ("particle_ids", "ids_bytes"),
}
_NOTE = "Written by icestream export_relion while data were collected.\n"


class ExportState(Record):
    """How far the project has come: the length of each table, and the values that rows share."""

    schema_version: ClassVar[int] = 4

    micrographs_bytes: int = 0
    ctf_bytes: int = 0
    particles_bytes: int = 0
    picks_bytes: int = 0
    ids_bytes: int = 0
    pick_number: int | None = None
    n_micrographs: int = 0
    n_particles: int = 0
    n_picks: int = 0
    groups: list[OpticsGroup] = Field(default_factory=list)
    with_ctf: bool = False
    motion_error_px: float | None = None

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        """Read a project without ids of its particles (version 3), without picks (2), with one group of values (1)."""
        if version in (2, 3):
            return stored
        if version != 1:
            return super().upcast(stored, version)
        kept = {name: value for name, value in stored.items() if name not in ("acquisition", "bin", "box_px", "particle_bin")}
        acquisition = stored.get("acquisition")
        if not isinstance(acquisition, dict):
            return kept
        group = {name: acquisition.get(name) for name in ("voltage_kv", "cs_mm", "amplitude_contrast")}
        group |= {"raw_pixel_size_ang": acquisition.get("pixel_size_ang")}
        group |= {name: stored.get(name) for name in ("bin", "box_px", "particle_bin")}
        return {**kept, "groups": [group]}


@step.accumulate(
    "export_relion",
    version=2,
    reads=(
        "pixel_size_ang",
        "voltage_kv",
        "cs_mm",
        "amplitude_contrast",
        "dose_per_frame_e_per_ang2",
        "pre_exposure_e_per_ang2",
    ),
)
class ExportRelion(Accumulator[ExportState, RelionProject]):
    """Keep a RELION project of micrographs, CTFs and particles that can be opened at any moment.

    Tables only grow. The state has their lengths, so a table is first cut to where the state says it ends: rows of an attempt
    that was interrupted vanish, and doing it again gives the same bytes. Exposures whose pixel size, voltage or other optics
    differ are optics groups of their own. In a project whose first particles have a CTF, particles without one are left out,
    for RELION would take their defocus as zero. Movies are linked, so that RELION can polish particles from their frames. Jobs
    that people run in the project stay in its list, to which ours are only added.
    """

    def start(self, params: ExportRelionParams, ctx: Context) -> ExportState:
        """Return the state of an empty project."""
        return ExportState()

    def add(  # noqa: PLR0917 - the engine passes its ports by name
        self,
        state: ExportState,
        exposures: Sequence[Exposure],
        micrograph: Sequence[Micrograph],
        ctf: Sequence[CtfFit | None],
        particles: Sequence[Particles | None],
        acquisition: Sequence[Acquisition],
        picks: Sequence[Picks | None],
        params: ExportRelionParams,
        ctx: Context,
    ) -> Update[ExportState]:
        """Append the exposures to the tables of the project.

        Raises
        ------
        ItemError
            If an acquisition value is unset, the box or binning differs from that of exposures with the same optics, the
            particles are phase-flipped, or a table of the project was cut or removed by somebody else.
        """
        project = ctx.export_folder()
        for index, exposure in enumerate(exposures):
            state, number = _join_group(state, exposure, micrograph[index], particles[index], acquisition[index])
            name = f"{exposure.name}_{exposure.id[:8]}"  # two folders of a session may hold movies of one name
            image = _place(ctx.path(micrograph[index].image), project, MOTION, f"{name}.mrc", params)
            error = _write_motion(project, image, micrograph[index], state.groups[number - 1], acquisition[index], ctx)
            if error is not None:
                state = state.model_copy(update={"motion_error_px": max(error, state.motion_error_px or 0.0)})
            state = _add_micrograph(state, project, image, micrograph[index], number)
            fit = ctf[index]
            if fit is not None:
                state = _append(state, project, CTF, [layout.ctf_row(image, fit, group=number)])
            found = picks[index]
            if found is not None:
                state = _add_picks(state, project, image, found)
            extracted = particles[index]
            if extracted is not None and extracted.count:
                stack, table = _place_particles(
                    extracted,
                    project,
                    f"{name}.mrcs",
                    params,
                    ctx,
                    pixel_size_ang=acquisition[index].need("pixel_size_ang") * extracted.bin,
                )
                names = (image, stack, extracted.table_key.decode())
                state = _add_particles(state, project, names, table, fit, number)
        _write_pipeline(state, project)
        return Update(state)

    def emit(self, state: ExportState, params: ExportRelionParams, ctx: Context) -> RelionProject:
        """Return where the project is and how much is in it."""
        session = ctx.path("session:exports").parent
        folder = ctx.export_folder().relative_to(session)
        return RelionProject(
            folder=f"session:{folder}",
            n_micrographs=state.n_micrographs,
            n_particles=state.n_particles,
            n_picks=None if state.pick_number is None else state.n_picks,
            n_optics_groups=max(1, len(state.groups)),
            list_locked=None if lists_jobs(ctx.export_folder(), _jobs(state)) else True,
            motion_error_px=state.motion_error_px,
        )


def _join_group(
    state: ExportState, exposure: Exposure, micrograph: Micrograph, particles: Particles | None, acquisition: Acquisition
) -> tuple[ExportState, int]:
    """Return the number of the exposure's optics group, begun if need be; refuse what a RELION project cannot say."""
    names = ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast")
    unset = [name for name in names if getattr(acquisition, name) is None]
    if unset:
        raise ItemError(
            f"{exposure.name}: {', '.join(unset)} is unset; a RELION project needs it: set it in the acquisition values"
        )
    if particles is not None and particles.phase_flipped:
        # a RELION project has no place to say so; RELION would apply the signs of the CTF once more
        raise ItemError(f"{exposure.name}: its particles are phase-flipped; RELION needs them extracted without phase_flip")
    wanted = OpticsGroup(
        voltage_kv=acquisition.need("voltage_kv"),
        cs_mm=acquisition.need("cs_mm"),
        amplitude_contrast=acquisition.need("amplitude_contrast"),
        raw_pixel_size_ang=acquisition.need("pixel_size_ang"),
        bin=micrograph.bin,
        finer=(micrograph.frames.eer_upsampling if micrograph.frames else None) or 1,
    )
    number = next((index for index, group in enumerate(state.groups, 1) if _same_optics(group, wanted)), len(state.groups) + 1)
    known = state.groups[number - 1] if number <= len(state.groups) else wanted
    new: dict[str, object] = {"bin": micrograph.bin, "finer": wanted.finer}
    if particles is not None:
        new |= {"box_px": particles.box_px, "particle_bin": particles.bin, "premultiplied": particles.ctf_premultiplied}
    for name, value in new.items():
        first = None if name == "premultiplied" and known.box_px is None else getattr(known, name)  # no particles so far
        if first is not None and first != value:
            raise ItemError(
                f"{exposure.name}: {name} is {value}, the project has {first}; restart export_relion to begin a new one"
            )
    groups = [*state.groups[: number - 1], known.model_copy(update=new), *state.groups[number:]]
    return _regroup(state, groups), number


def _same_optics(one: OpticsGroup, other: OpticsGroup) -> bool:
    names = ("voltage_kv", "cs_mm", "amplitude_contrast", "raw_pixel_size_ang")
    return all(layout.number(getattr(one, name)) == layout.number(getattr(other, name)) for name in names)


def _before(groups: list[OpticsGroup], kind: str) -> dict[str, Table]:
    """Return the tables above the growing one of a job."""
    if kind not in (MOTION.kind, CTF.kind, EXTRACT.kind):
        return {}
    return {"optics": layout.optics_table(groups, particles=kind == EXTRACT.kind)}


def _regroup(state: ExportState, groups: list[OpticsGroup]) -> ExportState:
    """Take new optics groups, and the lengths that the tables have with the new group in their heads."""
    changes: dict[str, object] = {"groups": groups}
    for kind, (_, length) in _TABLES.items():
        if groups != state.groups and getattr(state, length):
            old, new = (format_star_head("", [], before=_before(some, kind)) for some in (state.groups, groups))
            changes[length] = getattr(state, length) + len(new) - len(old)
    return state.model_copy(update=changes)


def _place(source: Path, project: Path, job: Job, name: str, params: ExportRelionParams) -> str:
    """Bring an image into the project; return its name there."""
    place_file(source, project / job.folder / "Movies" / name, copy=params.copy_images)
    return f"{job.folder}/Movies/{name}"


def _place_particles(
    particles: Particles, project: Path, name: str, params: ExportRelionParams, ctx: Context, *, pixel_size_ang: float
) -> tuple[str, NDArray[Any]]:
    """Bring the images of particles into the project; return the name of their stack there, and their table."""
    place = f"{EXTRACT.folder}/Movies/{name}"
    return place, place_particles(particles, project / place, ctx, copy=params.copy_images, pixel_size_ang=pixel_size_ang)


def _append(state: ExportState, project: Path, job: Job, rows: list[dict[str, str]]) -> ExportState:
    """Append ``rows`` to the table of ``job``, after cutting it to what the state says it holds."""
    name, length = _TABLES[job.kind]
    table, before, path = layout.to_table(rows), _before(state.groups, job.kind), project / job.path
    head = len(format_star_head(name, list(table.columns), before=before))
    known = getattr(state, length)
    try:
        settle_star_table(path, name, labels=list(table.columns), before=before, rows_bytes=max(0, known - head))
    except FileFormatError as error:
        raise ItemError(f"{error}; something else changed it: restart export_relion") from error
    return state.model_copy(update={length: append_star_rows(path, name, table, before=before)})


def _write_motion(
    project: Path, image: str, micrograph: Micrograph, group: OpticsGroup, acquisition: Acquisition, ctx: Context
) -> float | None:
    """Write the STAR file of one movie; return by how much its local model misses ours, or None without one."""
    if micrograph.motion is None or not _covers_movie(micrograph):
        return None
    names: dict[str, str] = {}
    if micrograph.frames is not None:
        names = place_movie(project, Path(image).stem, micrograph.frames, find=ctx.path)
    tables, error = motion_tables(micrograph, micrograph.motion, group, acquisition=acquisition, names=names, find=ctx.path)
    with publish(project / (image.removesuffix(".mrc") + ".star")) as temporary:
        write_star(temporary, tables)
    return error


def _covers_movie(micrograph: Micrograph) -> bool:
    """Tell whether micrograph and movie begin at one corner: RELION takes a place in one for that in the other."""
    return micrograph.frames is None or micrograph.frames.crop_px is None


def _add_micrograph(state: ExportState, project: Path, image: str, micrograph: Micrograph, number: int) -> ExportState:
    known = micrograph.motion is not None and _covers_movie(micrograph)
    metadata = "None" if not known else image.removesuffix(".mrc") + ".star"
    row = layout.micrograph_row(image, metadata, micrograph.motion, group=number)
    state = _append(state, project, MOTION, [row])
    return state.model_copy(update={"n_micrographs": state.n_micrographs + 1})


def _add_particles(
    state: ExportState, project: Path, names: tuple[str, str, str], table: NDArray[Any], ctf: CtfFit | None, number: int
) -> ExportState:
    if ctf is not None:
        for name in _CTF_NAMES:
            table[name] = np.where(np.isfinite(table[name]), table[name], getattr(ctf, name))
    has_ctf = bool(np.isfinite(table["defocus_u_ang"]).all())
    with_ctf = state.with_ctf if state.particles_bytes else has_ctf
    if with_ctf and not has_ctf:
        return state
    image, stack, key = names
    rows = layout.particle_rows(table, image, stack, group=number, with_ctf=with_ctf)
    state = _append(state, project, EXTRACT, rows)
    ids = layout.id_rows(key, table["pid"].tolist())
    if not state.ids_bytes:  # rows that an early version wrote have none
        ids = layout.id_rows("unknown", [-1] * state.n_particles) + ids
    state = _append(state, project, PARTICLE_IDS, ids)
    return state.model_copy(update={"with_ctf": with_ctf, "n_particles": state.n_particles + len(rows)})


def _add_picks(state: ExportState, project: Path, image: str, picks: Picks) -> ExportState:
    """Write the coordinates of one micrograph and add it to the table of the picking job, which is begun if need be."""
    number = state.pick_number or choose_number(project, "AutoPick", note=_NOTE, first=PICK_NUMBER)
    job = pick_job(number)
    write_job(project, job, note=_NOTE)
    name = f"{job.folder}/{Path(image).relative_to(MOTION.folder).with_suffix('')}{COORDINATES_SUFFIX}"
    target = project / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with publish(target) as temporary:
        write_star(temporary, {"": layout.coordinates_table(from_block(picks.block))})
    row = {"rlnMicrographName": image, "rlnMicrographCoordinates": name}
    changes = {"pick_number": number, "n_picks": state.n_picks + picks.count}
    return _append(state.model_copy(update=changes), project, job, [row])


def _jobs(state: ExportState) -> dict[Job, tuple[Job, ...]]:
    """Return the jobs that have something, each with those that it was given the output of."""
    jobs: dict[Job, tuple[Job, ...]] = {}
    if state.micrographs_bytes:
        jobs[MOTION] = ()
    if state.ctf_bytes:
        jobs[CTF] = (MOTION,)
    micrographs = tuple(jobs)[-1:]
    picking: tuple[Job, ...] = ()
    if state.pick_number is not None:
        picking = (pick_job(state.pick_number),)
        jobs[picking[0]] = micrographs
    if state.particles_bytes:
        jobs[EXTRACT] = (*micrographs, *picking)
    return jobs


def _write_pipeline(state: ExportState, project: Path) -> None:
    """Write the files by which RELION knows the jobs; they change only when a job appears."""
    jobs = _jobs(state)
    if not jobs:
        return
    for job, given in jobs.items():
        write_job(project, job, note=_NOTE)
        if job.node is not None and given:
            publish_text(project / job.folder / job.node, f"{given[0].path}\n")
        touch_nodes(project, job)
    (project / ".gui_projectdir").touch()
    list_jobs(project, jobs, next_number=NEXT_NUMBER)
