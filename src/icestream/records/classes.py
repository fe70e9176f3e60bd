"""2D classes: their averages, and which particle is in which."""

from typing import ClassVar

from pydantic import Field

from icestream.records.picks import PID
from icestream.records.shown import Gallery, Picture, RowColumn, Shown
from icestream.records.vocabulary import Block, Column, FileRef, Record, Snapshot
from icestream.units import Angstrom


class ClassInfo(Record):
    """One 2D class."""

    id: int
    count: int = Field(ge=0, description="Particles assigned so far")
    resolution_ang: Angstrom | None = None


class ClassAverages(Snapshot):
    """2D class averages of all particles so far."""

    stored_name: ClassVar[str] = "ClassAverages"

    stack: FileRef
    picture: FileRef
    count: int = Field(ge=0)
    box_px: int
    bin: float = Field(gt=0)
    classes: list[ClassInfo]

    shown: ClassVar[Shown] = Shown(
        gallery=Gallery(
            "2D classes",
            picture=Picture("picture", "Class averages"),
            count="count",
            word="particle",
            rows="classes",
            columns=(
                RowColumn("Class", "id"),
                RowColumn("Particles", "count"),
                RowColumn("Share", "count", "%", share=True),
                RowColumn("Resolution", "resolution_ang", "Å"),
            ),
            order="count",
        )
    )


class ClassAssignments(Record):
    """The class and in-plane pose of the particles of one exposure."""

    stored_name: ClassVar[str] = "ClassAssignments"
    block_columns: ClassVar[tuple[Column, ...]] = (
        PID,
        Column("class_id", "i4", "", "Number of the class"),
        Column("psi_deg", "f4", "°", "Turn in the plane, counter-clockwise from x"),
        Column("shift_y_px", "f4", "px", "Shift, in pixels of the stack"),
        Column("shift_x_px", "f4", "px", "Shift, in pixels of the stack"),
        Column("score", "f4", "", "How well the particle fits its class"),
    )

    count: int = Field(ge=0)
    version: int = Field(description="Snapshot version that made the assignment")
    block: Block
