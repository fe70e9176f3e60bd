"""Exposures and particles as groups that cryoSPARC imports, kept up to date while data come."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.grid.beam_shifts import group_beam_shifts_2d
from icestream.flow import Accumulator, Context, Exposure, Field, FileFormatError, ItemError, Params, Update, step
from icestream.io.cs_grow import append_cs_rows, open_cs, rows_of_columns
from icestream.io.particle_files import Optics, ParticleFile
from icestream.io.particle_lists import Boxes, cs_exposure_columns, cs_particle_columns, publish_cs_group
from icestream.records import (
    CTF_COLUMNS,
    Acquisition,
    CryosparcGroups,
    CtfFit,
    ExposureMetadata,
    Micrograph,
    Particles,
    Record,
)
from icestream.steps.export.placing import place_file, place_particles

_EXPOSURES, _PARTICLES = "exposures", "particles"
_CTF_NAMES = tuple(column.name for column in CTF_COLUMNS)
_GROUPS = ("mscope_params/exp_group_id", "location/exp_group_id", "ctf/exp_group_id")


class ExportCryosparcParams(Params):
    """What the groups contain."""

    copy_images: bool = Field(False, description="Copy micrographs and particles beside the groups; unset: relative links")


class CryosparcState(Record):
    """How far the files have come."""

    schema_version: ClassVar[int] = 1

    n_exposures: int = 0
    n_particles: int = 0
    n_left_out: int = 0
    with_ctf: bool | None = None
    box_px: int | None = None
    n_groups: int = 1


@step.accumulate(
    "export_cryosparc",
    version=1,
    reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast", "dose_per_frame_e_per_ang2"),
)
class ExportCryosparc(Accumulator[CryosparcState, CryosparcGroups]):
    """Keep groups of exposures and of particles that cryoSPARC imports, with exposure groups by beam shift.

    `exposures.csg` and `particles.csg` are for *Import Result Group*. Files only grow, and are cut to what the state says before
    rows are added, so that an attempt that was interrupted leaves nothing. Exposures whose beam shift is nearly the same are one
    exposure group; when a new shift divides a group, or joins two, all rows get their new numbers. Where the first exposure has a
    CTF, those without one are left out.
    """

    def start(self, params: ExportCryosparcParams, ctx: Context) -> CryosparcState:
        """Return the state of empty files."""
        return CryosparcState()

    def add(  # noqa: PLR0917 - the engine passes its ports by name
        self,
        state: CryosparcState,
        exposures: Sequence[Exposure],
        micrograph: Sequence[Micrograph],
        ctf: Sequence[CtfFit | None],
        particles: Sequence[Particles | None],
        acquisition: Sequence[Acquisition],
        params: ExportCryosparcParams,
        ctx: Context,
    ) -> Update[CryosparcState]:
        """Append the exposures and their particles.

        Raises
        ------
        ItemError
            An acquisition value is unset, the particles are phase-flipped or in another box than those before, or something else
            changed the files.
        """
        folder = ctx.export_folder()
        for index, exposure in enumerate(exposures):
            given = (micrograph[index], ctf[index], particles[index], acquisition[index])
            state = _add(state, folder, exposure, given, ctx, copy=params.copy_images)
        return Update(_regroup(state, folder))

    def emit(self, state: CryosparcState, params: ExportCryosparcParams, ctx: Context) -> CryosparcGroups:
        """Write the groups, and return where they are and how much is in them."""
        folder = ctx.export_folder()
        for name, kind, count in ((_EXPOSURES, "exposure", state.n_exposures), (_PARTICLES, "particle", state.n_particles)):
            if count:
                publish_cs_group(folder, name, kind, open_cs(folder / f"{name}.cs").dtype.names or (), count=count)
        return CryosparcGroups(
            folder=f"session:{folder.relative_to(ctx.path('session:exports').parent)}",
            n_exposures=state.n_exposures,
            n_particles=state.n_particles,
            n_left_out=state.n_left_out,
            n_exposure_groups=state.n_groups,
        )


Given = tuple[Micrograph, CtfFit | None, Particles | None, Acquisition]
"""What is known of one exposure."""


def _add(state: CryosparcState, folder: Path, exposure: Exposure, given: Given, ctx: Context, *, copy: bool) -> CryosparcState:
    micrograph, ctf, particles, acquisition = given
    with_ctf = state.with_ctf if state.with_ctf is not None else ctf is not None
    if with_ctf and ctf is None:
        return state.model_copy(update={"n_left_out": state.n_left_out + 1})
    ctf = ctf if with_ctf else None
    if particles is not None and particles.count:
        _check_particles(state, exposure, particles)
    optics = Optics(
        "",
        acquisition.need("voltage_kv"),
        acquisition.need("cs_mm"),
        acquisition.need("amplitude_contrast"),
        raw_pixel_ang=acquisition.need("pixel_size_ang") * micrograph.bin,
    )
    name = f"{exposure.name}_{exposure.id[:8]}"
    image = f"micrographs/{name}.mrc"
    place_file(ctx.path(micrograph.image), folder / image, copy=copy)
    columns = cs_exposure_columns(
        image,
        shape=(micrograph.height_px, micrograph.width_px),
        optics=optics,
        numbers={} if ctf is None else {key: np.array([getattr(ctf, key)]) for key in (*_CTF_NAMES, "resolution_ang")},
        dose_e_per_ang2=micrograph.dose_e_per_ang2(acquisition),
        beam_shift_yx=_shift_of(micrograph),
    )
    changes = {"with_ctf": with_ctf, "n_exposures": _append(folder / f"{_EXPOSURES}.cs", columns, state.n_exposures)}
    if particles is not None and particles.count:
        pixel_ang = acquisition.need("pixel_size_ang") * particles.bin
        stack = f"particles/{name}.mrc"
        table = place_particles(particles, folder / stack, ctx, copy=copy, pixel_size_ang=pixel_ang)
        found = _particle_file(table, (stack, image), replace(optics, pixel_size_ang=pixel_ang), ctf, bright=particles.inverted)
        shapes = np.tile(np.array([[micrograph.height_px, micrograph.width_px]]), (len(table), 1))
        columns = cs_particle_columns(found, boxes=Boxes(particles.box_px, shapes))
        changes["n_particles"] = _append(folder / f"{_PARTICLES}.cs", columns, state.n_particles)
        changes["box_px"] = particles.box_px
    return state.model_copy(update=changes)


def _check_particles(state: CryosparcState, exposure: Exposure, particles: Particles) -> None:
    """Refuse particles that cryoSPARC would take for others than they are."""
    if particles.phase_flipped:
        raise ItemError(f"{exposure.name}: its particles are phase-flipped; cryoSPARC needs them extracted without phase_flip")
    if state.box_px not in (None, particles.box_px):
        raise ItemError(
            f"{exposure.name}: its particles have a box of {particles.box_px} px, those before {state.box_px}; "
            "restart export_cryosparc to begin new files"
        )


def _shift_of(micrograph: Micrograph) -> tuple[float, float]:
    """Return the beam shift, else the image shift, which comes with one; not a number where the software states neither."""
    metadata = micrograph.metadata or ExposureMetadata()
    for y, x in (("beam_shift_y", "beam_shift_x"), ("image_shift_y_um", "image_shift_x_um")):
        pair = getattr(metadata, y), getattr(metadata, x)
        if None not in pair:
            return float(pair[0]), float(pair[1])
    return np.nan, np.nan


def _particle_file(
    table: NDArray[Any], names: tuple[str, str], optics: Optics, ctf: CtfFit | None, *, bright: bool
) -> ParticleFile:
    numbers = {name: table[name].astype(np.float64) for name in ("y_px", "x_px")}
    if ctf is not None:
        for name in _CTF_NAMES:
            values = table[name].astype(np.float64)
            numbers[name] = np.where(np.isfinite(values), values, getattr(ctf, name))
    stack, image = names
    return ParticleFile(
        stacks=[stack] * len(table),
        slices=table["slice"].astype(np.int64),
        micrographs=[image] * len(table),
        groups=np.zeros(len(table), dtype=np.int64),
        optics=(optics,),
        numbers=numbers,
        bright=bright,
    )


def _append(path: Path, columns: list[tuple[str, NDArray[Any]]], before: int) -> int:
    try:
        return append_cs_rows(path, rows_of_columns(columns), before=before)
    except (FileFormatError, ValueError) as error:
        raise ItemError(f"{error}; restart export_cryosparc to begin new files") from error


def _regroup(state: CryosparcState, folder: Path) -> CryosparcState:
    """Give all rows the number of their exposure group, which a new beam shift may have changed."""
    if not state.n_exposures:
        return state
    exposures = open_cs(folder / f"{_EXPOSURES}.cs")
    groups = group_beam_shifts_2d(exposures["mscope_params/beam_shift"][:, ::-1])
    _number(exposures, groups)
    exposures.flush()
    if state.n_particles:
        particles = open_cs(folder / f"{_PARTICLES}.cs")
        order = np.argsort(exposures["uid"])
        places = np.searchsorted(exposures["uid"], particles["location/micrograph_uid"], sorter=order)
        _number(particles, groups[order[places]])
        particles.flush()
    return state.model_copy(update={"n_groups": int(groups.max()) + 1})


def _number(rows: NDArray[Any], groups: NDArray[np.int64]) -> None:
    """Write the numbers of groups where they have changed."""
    for name in _GROUPS:
        if name in (rows.dtype.names or ()):
            changed = rows[name] != groups
            if changed.any():
                rows[name][changed] = groups[changed]
