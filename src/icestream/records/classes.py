"""2D classes: their averages and history, which particle is in which, which of them are good, and what several runs agree on.

What classes of any number of dimensions have in common is here, too.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.picks import PID
from icestream.records.shown import Card, Gallery, Headline, Number, Panel, Picture, RowColumn, Shown, Text, When
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


class ParticleClass(Record):
    """One class of particles, of any number of dimensions; its place in the stack is its place in the list."""

    id: int = Field(description="Stays with the class for good, and is never given to another one")
    count: int = Field(ge=0, description="Particles assigned so far")
    resolution_ang: Angstrom | None = None
    effective_count: float | None = Field(None, ge=0, description="Particles that its image amounts to")
    born: int | None = Field(None, description="Version that showed the class first")
    parents: list[int] = Field(default_factory=list, description="Classes that it came from")


class ClassInfo(ParticleClass):
    """One 2D class."""

    score: float | None = Field(None, ge=0, le=1, description="How likely the class shows whole, single particles")
    fit_median: float | None = Field(None, description="How well its particles fit it: their median score")
    fit_spread: float | None = Field(None, ge=0, description="Robust standard deviation of their scores")
    residual_median: float | None = Field(None, description="What its particles have beside it, median, in units of noise")
    residual_spread: float | None = Field(None, ge=0, description="Robust standard deviation of that")


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


class Classification(Snapshot):
    """Particles in classes, of any number of dimensions: an image of each class, and which particles are in it."""

    stack: FileRef = Field(description="One image of each class, in the order of the classes")
    picture: FileRef | None = Field(description="Unset where the averages were imported")
    count: int = Field(ge=0)
    box_px: int
    tables: list[FileRef] = Field(default_factory=list, description="Newest assignment of every particle, ``.npy``")
    index: FileRef | None = Field(None, description="Where the particles of each micrograph are in the tables, ``.npy``")
    classes: Sequence[ParticleClass]
    version: int | None = Field(None, description="Of these classes; unset: imported, or of a closed set")
    events: list[ClassEvent] = Field(default_factory=list, description="What happened to classes, oldest first")

    @property
    def class_ids(self) -> list[int]:
        """The ids of the classes, in the order of the stack; tables store the place of a class in it."""
        return [info.id for info in self.classes]


def class_gallery(title: str, *columns: RowColumn, caption: str, identity: str = "", density: str = "") -> Gallery:
    """Return how classes are shown: the picture, and under it a row for each class with ``columns`` among what all have.

    ``identity`` as of `Gallery`: only where the picture shows one square for each class; ``density`` where each has a map.
    """
    return Gallery(
        title,
        picture=Picture("picture", caption),
        count="count",
        word="particle",
        rows="classes",
        columns=(
            RowColumn("Class", "id"),
            RowColumn("Particles", "count"),
            RowColumn("Share", "count", "%", share=True),
            RowColumn("Resolution", "resolution_ang", "Å"),
            *columns,
            RowColumn("Effective size", "effective_count"),
            RowColumn("Since version", "born"),
        ),
        order="count",
        identity=identity,
        density=density,
    )


class ClassAverages(Classification):
    """2D class averages of all particles so far."""

    stored_name: ClassVar[str] = "ClassAverages"

    bin: float = Field(gt=0)
    pixel_size_ang: Angstrom | None = Field(None, description="Of averages that were imported; it counts instead of ``bin``")
    classes: list[ClassInfo]
    diameter_ang: Angstrom | None = Field(None, description="Of the mask on the classes")
    noise: FileRef | None = Field(None, description="Power of the noise per ring of the averages, ``.npy``")

    shown: ClassVar[Shown] = Shown(
        gallery=class_gallery("2D classes", RowColumn("Score", "score"), caption="Class averages", identity="id"),
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


class ClassGroup(Record):
    """Particles that classifications say are alike."""

    id: int = Field(description="Stays with the group while the classes that are most like it keep theirs")
    count: int = Field(ge=0, description="Particles that are in it for certain")
    undecided: int = Field(ge=0, description="Further particles of which it is the most likely group")
    stability: float | None = Field(
        None, ge=0, le=1, description="How far it is found again on particles that are drawn again: mean Jaccard index"
    )
    probability: float | None = Field(None, ge=0, le=1, description="Of its particles, mean")
    classes: list[int | None] = Field(description="The class that is most like it in each classification")


class ComparedClassification(Record):
    """One of the classifications that were compared."""

    number: int = Field(ge=1, description="Its place among the inputs")
    n_classes: int = Field(ge=0, description="Classes with particles")
    count: int = Field(ge=0, description="Particles")
    information: list[float] = Field(description="Adjusted mutual information with each of the classifications")
    counted: bool = Field(description="It took part; one that says nothing about any other, or is the same as one, does not")
    reliability: float | None = Field(None, ge=0, le=1, description="Share of its particles whose class fits their group")


class ClassIntersection(Record):
    """Particles that are together in every classification, and whether chance would put them together."""

    classes: list[int] = Field(description="Their class in each classification")
    count: int = Field(ge=1)
    expected: float = Field(ge=0, description="How many there would be by chance, in the mean")
    chance: float = Field(ge=0, le=1, description="Probability of so many by chance, corrected for the number of intersections")
    group: int | None = Field(None, description="The group that most of them are in")


class ClassGroups(Snapshot):
    """What several classifications of the same particles say together: groups, and particles that are undecided."""

    stored_name: ClassVar[str] = "ClassGroups"

    rule: Literal["votes", "intersections"]
    count: int = Field(ge=0, description="Particles that a classification has")
    n_decided: int = Field(ge=0, description="Particles in a group for certain")
    n_undecided: int = Field(ge=0, description="The others")
    entropy: float | None = Field(None, ge=0, le=1, description="How open groups are, mean over particles; 1: nothing is known")
    picture: FileRef = Field(description="Picture: a row for each group, its class in each classification")
    agreement_picture: FileRef = Field(
        description="Picture: adjusted mutual information of each two classifications, white where they are the same"
    )
    table: FileRef = Field(description="Group, probability and entropy of every particle, ``.npy``")
    groups: list[ClassGroup]
    classifications: list[ComparedClassification]
    repeated: list[int] = Field(
        default_factory=list, description="Numbers of classifications that are the same as one before; they do not count"
    )
    n_repeated: int | None = Field(None, ge=1, description="How many these are; unset: none")
    intersections: list[ClassIntersection] = Field(description="Those of classes of all classifications, largest first")
    dropped_intersections: int = Field(0, ge=0, description="Smaller ones that are not listed")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Consensus of classifications",
            cards=(
                Card(
                    "Agreement",
                    numbers=(
                        Number("Decided", "n_decided", "particles"),
                        Number("Undecided", "n_undecided", "particles"),
                        Number("Entropy", "entropy"),
                        Number("Groups", "groups", "", how="length"),
                    ),
                    picture=Picture(
                        "agreement_picture",
                        "Agreement of each two classifications",
                        "Adjusted mutual information, black at 0 and white at 1, in the order of the inputs",
                    ),
                    warnings=(
                        Text("Classifications that are the same as one before do not count: {repeated:list}", When("n_repeated")),
                    ),
                ),
            ),
        ),
        gallery=Gallery(
            "Groups of particles",
            picture=Picture("picture", "Groups, one in a row: its class in each classification"),
            count="n_decided",
            word="particle",
            rows="groups",
            columns=(
                RowColumn("Group", "id"),
                RowColumn("Particles", "count"),
                RowColumn("Share", "count", "%", share=True),
                RowColumn("Undecided", "undecided"),
                RowColumn("Stability", "stability"),
                RowColumn("Probability", "probability"),
            ),
            order="count",
        ),
    )
