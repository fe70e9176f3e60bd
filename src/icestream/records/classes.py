"""2D classes: their averages and history, which particle is in which, which of them are good, and what several runs agree on."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.picks import PID
from icestream.records.shown import Gallery, Headline, Picture, RowColumn, Shown
from icestream.records.vocabulary import Block, Column, FileRef, Record, Snapshot
from icestream.units import Angstrom

POSE = (
    Column("class_id", "i4", "", "Number of the class"),
    Column("psi_deg", "f4", "°", "Turn in the plane, counter-clockwise from x"),
    Column("shift_y_px", "f4", "px", "Shift, in pixels of the stack"),
    Column("shift_x_px", "f4", "px", "Shift, in pixels of the stack"),
    Column("score", "f4", "", "How well the particle fits its class"),
)
"""What a classification says of one particle."""


class ClassInfo(Record):
    """One 2D class; its place in the stack and in the picture is its place in the list."""

    id: int = Field(description="Stays with the class for good, and is never given to another one")
    count: int = Field(ge=0, description="Particles assigned so far")
    resolution_ang: Angstrom | None = None
    effective_count: float | None = Field(None, ge=0, description="Particles that its average amounts to")
    score: float | None = Field(None, ge=0, le=1, description="How likely the class shows whole, single particles")
    fit_median: float | None = Field(None, description="How well its particles fit it: their median score")
    fit_spread: float | None = Field(None, ge=0, description="Robust standard deviation of their scores")
    residual_median: float | None = Field(None, description="What its particles have beside it, median, in units of noise")
    residual_spread: float | None = Field(None, ge=0, description="Robust standard deviation of that")
    born: int | None = Field(None, description="Version that showed the class first")
    parents: list[int] = Field(default_factory=list, description="Classes that it came from")


class ClassEvent(Record):
    """What happened to a class at a version: it split off from its parents, died, or went into others."""

    version: int
    kind: Literal["born", "split", "merged", "died"]
    class_id: int
    others: list[int] = Field(
        default_factory=list, description="Where a new class came from, or where the particles of an old one went"
    )
    share: float | None = Field(
        None, ge=0, le=1, description="Share of its particles that came from, or went to, the first of these"
    )


class ClassAverages(Snapshot):
    """2D class averages of all particles so far."""

    stored_name: ClassVar[str] = "ClassAverages"

    stack: FileRef
    picture: FileRef | None = Field(description="Unset where the averages were imported")
    count: int = Field(ge=0)
    box_px: int
    bin: float = Field(gt=0)
    pixel_size_ang: Angstrom | None = Field(None, description="Of averages that were imported; it counts instead of ``bin``")
    classes: list[ClassInfo]
    version: int | None = Field(None, description="Of these averages; unset: imported, or made by an early version of icestream")
    diameter_ang: Angstrom | None = Field(None, description="Of the mask on the classes")
    noise: FileRef | None = Field(None, description="Power of the noise per ring of the averages, ``.npy``")
    tables: list[FileRef] = Field(default_factory=list, description="Newest assignment of every particle, ``.npy``")
    index: FileRef | None = Field(None, description="Where the particles of each micrograph are in the tables, ``.npy``")
    events: list[ClassEvent] = Field(default_factory=list, description="What happened to classes, oldest first")

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
                RowColumn("Score", "score"),
                RowColumn("Effective size", "effective_count"),
                RowColumn("Since version", "born"),
            ),
            order="count",
            identity="id",
        ),
        headlines=(Headline("Best resolution", "of a 2D class", of="lowest", place=5, column="resolution_ang"),),
    )


class ClassAssignments(Record):
    """The class and in-plane pose of the particles of one exposure."""

    stored_name: ClassVar[str] = "ClassAssignments"
    block_columns: ClassVar[tuple[Column, ...]] = (PID, *POSE)

    count: int = Field(ge=0)
    version: int = Field(description="Snapshot version that made the assignment")
    picks_key: str | None = Field(None, description="Of the picks that gave the particles their numbers; unset: not known")
    block: Block


class SelectedClass(Record):
    """Whether one class was selected, and why."""

    id: int
    count: int = Field(ge=0)
    selected: bool
    by: Literal["score", "hand", "size", "resolution"] = Field(description="What decided it")
    score: float | None = Field(None, ge=0, le=1)
    resolution_ang: Angstrom | None = None

    @property
    def reason(self) -> str:
        """Why its particles are set aside, for people."""
        return {
            "hand": f"class {self.id} was set aside by hand",
            "size": f"class {self.id} has only {self.count} particles",
            "resolution": f"class {self.id} is too coarse",
            "score": f"class {self.id} has a low score",
        }[self.by]


class ClassSelection(Snapshot):
    """Which 2D classes are good."""

    stored_name: ClassVar[str] = "ClassSelection"

    version: int | None = Field(None, description="Of the averages that were looked at")
    picture: FileRef
    n_selected: int = Field(ge=0, description="Particles in the selected classes")
    n_particles: int = Field(ge=0)
    classes: list[SelectedClass]

    shown: ClassVar[Shown] = Shown(
        gallery=Gallery(
            "Selected 2D classes",
            picture=Picture("picture", "Class averages that were selected"),
            count="n_selected",
            word="particle",
            rows="classes",
            columns=(
                RowColumn("Class", "id"),
                RowColumn("Selected", "selected"),
                RowColumn("Particles", "count"),
                RowColumn("Score", "score"),
                RowColumn("Resolution", "resolution_ang", "Å"),
            ),
            order="count",
        )
    )


class StableSet(Record):
    """Particles that several classifications keep together."""

    id: int
    count: int = Field(ge=1)
    agreement: float = Field(
        ge=0, le=1, description="Mean share of its classes' particles that it holds, over the classifications"
    )
    classes: list[int] = Field(description="Its class in each classification")


class ClassConsensus(Snapshot):
    """What several 2D classifications of the same particles agree on."""

    stored_name: ClassVar[str] = "ClassConsensus"

    count: int = Field(ge=0, description="Particles that all classifications have")
    n_stable: int = Field(ge=0, description="Particles in stable sets")
    rand_index: float = Field(ge=-1, le=1, description="Adjusted Rand index, mean over pairs of classifications")
    picture: FileRef
    table: FileRef = Field(description="Stable set and agreement of every particle, ``.npy``")
    sets: list[StableSet]

    shown: ClassVar[Shown] = Shown(
        gallery=Gallery(
            "Agreement of 2D classifications",
            picture=Picture("picture", "Averages of the stable sets, as each classification shows them"),
            count="n_stable",
            word="particle",
            rows="sets",
            columns=(
                RowColumn("Set", "id"),
                RowColumn("Particles", "count"),
                RowColumn("Agreement", "agreement"),
            ),
            order="count",
        )
    )
