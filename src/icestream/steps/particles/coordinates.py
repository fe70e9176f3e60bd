"""Known particles on any micrograph of their exposure: as picks, or cut again, where they were or about their true centres."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.particles.centre import centre_of_mass_2d, turn_yx
from icestream.flow import Context, Field, ItemError, Params, step
from icestream.io.image import read_stack
from icestream.io.particles import particles_table
from icestream.io.picks import make_picks
from icestream.records import Acquisition, ClassAssignments, ClassAverages, CtfFit, CtfLocal, Micrograph, Particles, Picks
from icestream.steps.particles.assigned import newest_rows
from icestream.steps.particles.extract import READS, SHIFT_MARGIN_PX, Cut, ExtractParams, Source, cut_from, make_particles
from icestream.steps.particles.places import places_on


class ExtractCoordinatesParams(Params):
    """Which particles are wanted, and what their place is."""

    apply_shifts: bool = Field(True, description="Move the places by the shifts of the assignments, where these are connected")
    class_ids: list[int] = Field(default_factory=list, description="Only particles of these classes; empty: of all")
    diameter_ang: float | None = Field(
        None,
        gt=0,
        description="Diameter of the particle; unset: that which the particles were extracted with",
        json_schema_extra={"unit": "Å"},
    )


@step.map("extract_coordinates", version=1, memory_gb=0.5)
def extract_coordinates(
    micrograph: Micrograph,
    particles: Particles,
    assignments: ClassAssignments | None,
    classes: ClassAverages | None,
    params: ExtractCoordinatesParams,
    ctx: Context,
) -> Picks:
    """Turn particles into picks on a micrograph of the same exposure, which may have other pixels or another motion correction.

    With `assignments`, places are moved by the shifts that the classification found as the particles came; with `classes`, by the
    newest ones and to the centre of mass of each class average. Nothing is rounded. Particles that it assigned to no class are
    left out. All keep their ``pid``.

    Raises
    ------
    ItemError
        If classes are chosen without assignments, or the diameter is not known.
    """
    diameter_ang = params.diameter_ang or particles.diameter_ang
    if diameter_ang is None:
        raise ItemError("the diameter of the particles is not known: set diameter_ang")
    rows = newest_rows(particles, assignments, classes, ctx)
    if params.class_ids and rows is None:
        raise ItemError("class_ids are chosen, but no assignments are connected")
    table = particles_table(particles).copy()
    places = places_on(micrograph, particles, table)  # (n, 2)
    removed: dict[str, NDArray[np.bool_]] = {}
    if rows is not None:
        removed["not assigned to a class"] = rows["class_id"] < 0
        if params.class_ids:
            removed["of another class"] = ~np.isin(rows["class_id"], params.class_ids)
        if params.apply_shifts:
            places += shifts_on(micrograph, particles, rows, classes, ctx)
    size = (micrograph.height_px, micrograph.width_px)
    removed["outside of the micrograph"] = ~np.all((places >= -0.5) & (places < np.array(size) - 0.5), axis=1)
    table["y_px"], table["x_px"] = places.T
    found = make_picks(table, diameter_ang=diameter_ang, removed=removed)
    return found.model_copy(update={"picks_key": particles.picks_key})


@step.map("extract_again", version=1, reads=READS, memory_gb=2.0)
def extract_again(
    micrograph: Micrograph,
    particles: Particles,
    ctf: CtfFit | None,
    params: ExtractParams,
    acquisition: Acquisition,
    ctx: Context,
    *,
    local: CtfLocal | None = None,
) -> Particles:
    """Cut known particles again: with another box, or from another micrograph of the same exposure.

    The micrograph may have other pixels, show another part of the camera, or come from another motion correction. Particles keep
    their ``pid``, and their CTF where none is connected.

    Raises
    ------
    ItemError
        As for `extract`; or the particles do not say which pixels their places are in.
    """
    table = particles_table(particles).copy()
    table["y_px"], table["x_px"] = places_on(micrograph, particles, table).T
    source = Source(particles.picks_key, particles.diameter_ang)
    return cut_from(micrograph, table, (ctf, local), params, acquisition, ctx, source=source)


class CentreParams(Params):
    """How particles are cut about their centres; everything else is as it was."""

    subpixel: bool = Field(
        True,
        description="Centre the images exactly, by a Fourier shift; off: boxes are on whole pixels and nothing is interpolated",
    )
    virtual: bool | None = Field(
        None, description="Write no stack: images are cut whenever a step reads them; unset: as the particles were"
    )


@step.map("centre_particles", version=1, memory_gb=2.0)
def centre_particles(
    micrograph: Micrograph,
    particles: Particles,
    assignments: ClassAssignments,
    classes: ClassAverages | None,
    params: CentreParams,
    ctx: Context,
) -> Particles:
    """Cut particles again, as they were cut before, but about the centres that a classification found.

    Each particle is moved by the shift of its assignment; with `classes` of its newest one, and to the centre of mass of its
    class average. A particle without an assignment stays where it is; all keep their ``pid`` and their CTF.

    Raises
    ------
    ItemError
        The particles do not say how they were cut, or the micrograph has other pixels.
    """
    cutting = particles.cutting
    if cutting is None or cutting.area.bin_yx != micrograph.raw_area.bin_yx:
        raise ItemError(
            "these particles do not say how they were cut, or they were cut from a micrograph with other pixels: "
            "extract_coordinates gives their centres as picks, which can be extracted"
        )
    table = particles_table(particles).copy()
    rows = newest_rows(particles, assignments, classes, ctx)
    shifts = np.zeros((len(table), 2)) if rows is None else shifts_on(micrograph, particles, rows, classes, ctx)
    table["y_px"], table["x_px"] = (places_on(micrograph, particles, table) + shifts).T
    margin_px = max(cutting.margin_px, SHIFT_MARGIN_PX) if params.subpixel else cutting.margin_px
    how = Cut(
        cutting.model_copy(update={"area": micrograph.raw_area, "margin_px": margin_px}),
        subpixel=params.subpixel,
        virtual=particles.stack is None if params.virtual is None else params.virtual,
        source=Source(particles.picks_key, particles.diameter_ang),
    )
    moved_px = float(np.median(np.hypot(*(shifts * cutting.area.bin_yx).T))) if len(table) else None
    return make_particles(micrograph, table, how, ctx).model_copy(update={"moved_px": moved_px})


def shifts_on(
    micrograph: Micrograph, particles: Particles, rows: NDArray[Any], classes: ClassAverages | None, ctx: Context
) -> NDArray[np.float64]:
    """Return by how much each particle's centre is off the middle of its image: ``(n, 2)``, yx, in pixels of the micrograph.

    An assignment says that the average, turned and then moved by the shift, looks like the particle, so the centre of the class
    is turned with it. A class that the averages do not have, as it has died since, has its centre in the middle.
    """
    shift = np.stack([rows["shift_y_px"], rows["shift_x_px"]], axis=1).astype(np.float64)  # (n, 2)
    if classes is not None:
        averages = read_stack(ctx.path(classes.stack))  # (k, b, b)
        centres = np.zeros((len(rows), 2))
        for info, average in zip(classes.classes, averages, strict=True):
            centres[rows["class_id"] == info.id] = centre_of_mass_2d(average) * (classes.bin / particles.bin)
        shift += turn_yx(centres, angle_deg=rows["psi_deg"].astype(np.float64))
    on_micrograph: NDArray[np.float64] = shift * particles.bin / np.array(micrograph.raw_area.bin_yx)
    return on_micrograph
