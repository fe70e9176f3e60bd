"""A RELION project that is kept up to date while data come."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from icestream.errors import ItemError
from icestream.files import publish, publish_text
from icestream.flow import Accumulator, Context, Exposure, Field, Params, Update, step
from icestream.io.blocks import from_block
from icestream.io.star import Table, append_star_rows, write_star
from icestream.records import Acquisition, CtfFit, Micrograph, Particles, Record, RelionProject
from icestream.steps import relion_layout as layout
from icestream.steps.relion_layout import CTF, EXTRACT, MOTION, Job, Optics

_CTF_COLUMNS = ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg", "phase_shift_deg")


class ExportRelionParams(Params):
    """What the project contains."""

    copy_images: bool = Field(False, description="Copy micrographs and particles into the project; unset: relative links")


class ExportState(Record):
    """How far the project has come: the length of each table, and the values that all its rows share."""

    micrographs_bytes: int = 0
    ctf_bytes: int = 0
    particles_bytes: int = 0
    n_micrographs: int = 0
    n_particles: int = 0
    acquisition: Acquisition | None = None
    bin: float | None = None
    box_px: int | None = None
    particle_bin: float | None = None
    with_ctf: bool = False


@step.accumulate("export_relion", version=1, reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"))
class ExportRelion(Accumulator[ExportState, RelionProject]):
    """Keep a RELION project of micrographs, CTFs and particles that can be opened at any moment.

    Tables only grow. The state has their lengths, so a table is first cut to where the state says it ends: rows of an attempt
    that was interrupted vanish, and doing it again gives the same bytes. All exposures share one optics group. In a project
    whose first particles have a CTF, particles without one are left out, for RELION would take their defocus as zero.
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
        params: ExportRelionParams,
        ctx: Context,
    ) -> Update[ExportState]:
        """Append the exposures to the tables of the project.

        Raises
        ------
        ItemError
            If an acquisition value is unset or differs from the first exposure's, the box or binning differs, the particles are
            phase-flipped, or a table of the project was cut or removed by somebody else.
        """
        project = ctx.export_folder()
        for index, exposure in enumerate(exposures):
            state = _share(state, exposure, micrograph[index], particles[index], acquisition[index])
            optics = _optics(state)
            name = f"{exposure.name}_{exposure.id[:8]}"  # two folders of a session may hold movies of one name
            image = _place(ctx.path(micrograph[index].image), project, MOTION, f"{name}.mrc", params)
            state = _add_micrograph(state, project, image, micrograph[index], optics)
            fit = ctf[index]
            if fit is not None:
                state = _add_ctf(state, project, layout.ctf_row(image, fit), optics)
            extracted = particles[index]
            if extracted is not None and extracted.stack is not None:
                stack = _place(ctx.path(extracted.stack), project, EXTRACT, f"{name}.mrcs", params)
                state = _add_particles(state, project, (image, stack), extracted, fit)
        _write_pipeline(state, project)
        return Update(state)

    def emit(self, state: ExportState, params: ExportRelionParams, ctx: Context) -> RelionProject:
        """Return where the project is and how much is in it."""
        session = ctx.path("session:exports").parent
        folder = ctx.export_folder().relative_to(session)
        return RelionProject(folder=f"session:{folder}", n_micrographs=state.n_micrographs, n_particles=state.n_particles)


def _share(
    state: ExportState, exposure: Exposure, micrograph: Micrograph, particles: Particles | None, acquisition: Acquisition
) -> ExportState:
    """Take the shared values from the first exposure that has them; refuse an exposure with others."""
    known = Acquisition(
        pixel_size_ang=acquisition.pixel_size_ang,
        voltage_kv=acquisition.voltage_kv,
        cs_mm=acquisition.cs_mm,
        amplitude_contrast=acquisition.amplitude_contrast,
    )
    unset = [name for name in ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast") if getattr(known, name) is None]
    if unset:
        raise ItemError(
            f"{exposure.name}: {', '.join(unset)} is unset; a RELION project needs it: set it in the acquisition values"
        )
    if particles is not None and particles.phase_flipped:
        # a RELION project has no place to say so; RELION would apply the signs of the CTF once more
        raise ItemError(f"{exposure.name}: its particles are phase-flipped; RELION needs them extracted without phase_flip")
    new: dict[str, object] = {"acquisition": known, "bin": micrograph.bin}
    if particles is not None:
        new |= {"box_px": particles.box_px, "particle_bin": particles.bin}
    for name, value in new.items():
        first = getattr(state, name)
        if first is not None and first != value:
            raise ItemError(
                f"{exposure.name}: {name} is {value}, the project has {first}; restart export_relion to begin a new one"
            )
    return state.model_copy(update=new)


def _optics(state: ExportState) -> Optics:
    values = state.acquisition or Acquisition()
    return Optics(
        voltage_kv=float(values.voltage_kv or 0.0),
        cs_mm=float(values.cs_mm or 0.0),
        amplitude_contrast=float(values.amplitude_contrast or 0.0),
        raw_pixel_size_ang=float(values.pixel_size_ang or 0.0),
    )


def _place(source: Path, project: Path, job: Job, name: str, params: ExportRelionParams) -> str:
    """Bring an image into the project by a relative link (or a copy); return its name there."""
    target = project / job.folder / "Movies" / name
    if params.copy_images:
        if not target.is_file() or target.stat().st_size != source.stat().st_size:
            with publish(target) as temporary:
                shutil.copyfile(source, temporary)
        return f"{job.folder}/Movies/{name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    link = os.path.relpath(source.resolve(), target.parent.resolve())
    if not (target.is_symlink() and str(target.readlink()) == link):
        target.unlink(missing_ok=True)
        target.symlink_to(link)
    return f"{job.folder}/Movies/{name}"


def _append(project: Path, job: Job, length: int, name: str, rows: Table, optics: Table) -> int:
    """Append ``rows`` to the table of ``job`` as it was when it had ``length`` bytes; return the new length."""
    path = project / job.path
    path.parent.mkdir(parents=True, exist_ok=True)
    present = path.stat().st_size if path.exists() else 0
    if present < length:
        raise ItemError(
            f"{path}: has {present} bytes, {length} were written; it was changed by somebody else: restart export_relion"
        )
    if present > length:
        os.truncate(path, length)
    return append_star_rows(path, name, rows, before={"optics": optics})


def _add_micrograph(state: ExportState, project: Path, image: str, micrograph: Micrograph, optics: Optics) -> ExportState:
    metadata = ""
    if micrograph.motion is not None:
        metadata = image.removesuffix(".mrc") + ".star"
        with publish(project / metadata) as temporary:
            write_star(temporary, layout.motion_tables(micrograph, micrograph.motion, optics))
    row = layout.micrograph_row(image, metadata or "None", micrograph.motion)
    shared = layout.optics_table(optics, pixel_size_ang=optics.raw_pixel_size_ang * micrograph.bin)
    size = _append(project, MOTION, state.micrographs_bytes, "micrographs", layout.to_table([row]), shared)
    return state.model_copy(update={"micrographs_bytes": size, "n_micrographs": state.n_micrographs + 1})


def _add_ctf(state: ExportState, project: Path, row: Mapping[str, str], optics: Optics) -> ExportState:
    shared = layout.optics_table(optics, pixel_size_ang=optics.raw_pixel_size_ang * float(state.bin or 1.0))
    size = _append(project, CTF, state.ctf_bytes, "micrographs", layout.to_table([dict(row)]), shared)
    return state.model_copy(update={"ctf_bytes": size})


def _add_particles(
    state: ExportState, project: Path, names: tuple[str, str], particles: Particles, ctf: CtfFit | None
) -> ExportState:
    table = from_block(particles.block).copy()
    if ctf is not None:
        for name in _CTF_COLUMNS:
            table[name] = np.where(np.isfinite(table[name]), table[name], getattr(ctf, name))
    has_ctf = bool(np.isfinite(table["defocus_u_ang"]).all())
    with_ctf = state.with_ctf if state.particles_bytes else has_ctf
    if with_ctf and not has_ctf:
        return state
    rows = layout.particle_rows(table, *names, with_ctf=with_ctf)
    optics = _optics(state)
    shared = layout.optics_table(optics, pixel_size_ang=optics.raw_pixel_size_ang * particles.bin, box_px=particles.box_px)
    size = _append(project, EXTRACT, state.particles_bytes, "particles", layout.to_table(rows), shared)
    return state.model_copy(update={"particles_bytes": size, "with_ctf": with_ctf, "n_particles": state.n_particles + len(rows)})


def _write_pipeline(state: ExportState, project: Path) -> None:
    """Write the files by which RELION knows the jobs; they change only when a job appears."""
    lengths = {MOTION: state.micrographs_bytes, CTF: state.ctf_bytes, EXTRACT: state.particles_bytes}
    jobs = [job for job, length in lengths.items() if length]
    if not jobs:
        return
    for job in jobs:
        folder = project / job.folder
        if not (folder / "RELION_JOB_EXIT_SUCCESS").exists():
            write_star(folder / "job.star", layout.job_tables(job))
            publish_text(folder / "note.txt", "Written by icestream export_relion while data were collected.\n")
            publish_text(folder / "RELION_JOB_EXIT_SUCCESS", "")
        node = project / ".Nodes" / str(job.node_type) / job.path
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()
    (project / ".gui_projectdir").touch()
    with publish(project / "default_pipeline.star") as temporary:
        write_star(temporary, layout.pipeline_tables(jobs))
