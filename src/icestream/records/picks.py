"""Positions of particles on a micrograph, what was removed from them, and which pickers they come from."""

import hashlib
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from icestream.records.shown import Card, Headline, Measure, Number, Overlay, Panel, Shown, Tally, Text
from icestream.records.vocabulary import Block, Column, FileRef, FurtherBlock, Record, Snapshot
from icestream.units import Angstrom, Pixel

PID = Column("pid", "i4", "", "Number of the particle on its micrograph, given at picking and never changed")
POSITION = (
    Column("y_px", "f4", "px", "Centre, in pixels of the micrograph"),
    Column("x_px", "f4", "px", "Centre, in pixels of the micrograph"),
    Column("score", "f4", "", "How much it looks like a particle; the scale is that of the picking step"),
)


class Removed(BaseModel):
    """How many picks a step removed for one reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str = Field(min_length=1, description="In the words of the step, as: at the border")
    count: int = Field(ge=0)
    no_particle: bool = Field(
        False, description="The reason says that there is no particle; others leave it open, as a border or a neighbour does"
    )


class PickerFigures(BaseModel):
    """What is known of one picker from how far it agrees with the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="The step, as the workflow calls it")
    n_picks: int = Field(ge=0)
    recall: float | None = Field(None, description="Estimated part of the particles that it finds")
    precision: float | None = Field(None, description="Estimated part of its picks that are particles")


class PickConsensus(BaseModel):
    """How far the pickers of a consensus agree on one micrograph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    radius_px: Pixel = Field(description="Picks nearer than this are of one particle")
    jaccard: float = Field(ge=0, le=1, description="Part of all places with a pick on which all pickers agree")
    n_places: int = Field(ge=0, description="Places at which at least one picker sees a particle")
    pickers: tuple[PickerFigures, ...] = Field(description="In the order of the inputs, those without an item left out")
    missing: tuple[str, ...] = Field((), description="Pickers that had no item for this exposure")
    disregarded: tuple[str, ...] = Field(
        (), description="Pickers that agree here far less than in the session: what they see, or do not see, did not count"
    )
    n_learnt: int | None = Field(None, description="From how many micrographs the quality of the pickers was known")


class Picks(Record):
    """Positions of particles on one micrograph.

    What the step removed from its input is kept beside them (``rejected``), and, of a consensus, the picks of each picker from
    which each particle was made (``parents``).
    """

    stored_name: ClassVar[str] = "Picks"
    schema_version: ClassVar[int] = 2
    block_columns: ClassVar[tuple[Column, ...]] = (PID, *POSITION)
    further_columns: ClassVar[Mapping[str, tuple[Column, ...]]] = {
        "rejected": (PID, *POSITION, Column("reason", "i2", "", "Why it was removed: the number of a row of `removed`, from 0")),
        "parents": (
            PID,
            Column("picker", "i2", "", "Number of the picker, from 0: a row of `pickers`"),
            Column("parent_pid", "i4", "", "Number of the pick among those of that picker"),
            Column("score", "f4", "", "Score that this picker gave it"),
        ),
    }

    count: int = Field(ge=0)
    diameter_ang: Angstrom
    picks_key: str | None = Field(None, description="Of the picks that gave them their numbers; unset: these gave them")
    n_removed: int = Field(0, ge=0, description="Picks that the step removed; they are the rows of `rejected`")
    removed: tuple[Removed, ...] = Field((), description="Why picks were removed, and how many for each reason")
    pickers: tuple[str, ...] = Field((), description="The pickers that a consensus is of, in the order of its inputs")
    consensus: PickConsensus | None = Field(None, description="Of a consensus: how far the pickers agree")
    reference: FileRef | None = Field(None, description="The version of the templates, or the trained model, that was used")
    block: Block
    threshold: float | None = Field(None, description="The lowest response of a pick, in standard deviations of the noise")
    expected_false: float | None = Field(None, ge=0, le=1, description="Share of the picks that is expected to be false")
    found_diameter_ang: Angstrom | None = Field(None, description="Diameter that the particles of this micrograph have")
    no_picks: Literal["drift", "noise", "crystalline ice", "not in the file"] | None = Field(
        None, description="Why no particle can be told from the rest; set only if there is no pick"
    )
    rejected: FurtherBlock = None
    parents: FurtherBlock = None

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Picking",
            measures=(
                Measure("Particles per micrograph", unit="particles", how="weight", metric="picks_per_micrograph"),
                Measure(
                    "Picks removed per micrograph",
                    "n_removed",
                    "picks",
                    metric="picks_removed_per_micrograph",
                    hidden_at_zero=True,
                ),
                Measure("Agreement of all pickers (Jaccard)", "consensus.jaccard", metric="picking_jaccard", better="high"),
                Measure("Diameter of the particles", "found_diameter_ang", metric="picks_diameter_angstroms"),
                Measure("Threshold", "threshold", "σ", metric="picks_threshold_sigmas"),
                Measure("Expected to be false", "expected_false", "%", factor=100.0, metric="picks_expected_false_percent"),
            ),
            cards=(
                Card(
                    "Agreement of the pickers",
                    numbers=(
                        Number("Jaccard index", "consensus.jaccard"),
                        Number("Places with a pick", "consensus.n_places", "places"),
                    ),
                    texts=(Text("{consensus.pickers:rates}"), Text("Missing: {consensus.missing:list}")),
                ),
            ),
            tallies=(Tally("Picks removed", "removed", "picks"),),
        ),
        overlay=Overlay("y_px", "x_px", diameter_ang="diameter_ang", count="count", word="pick"),
        headlines=(Headline("Particles", "particles so far", of="weight", place=2, rank=1),),
        notes=(
            Text("no picks: {no_picks}"),
            Text("picks removed: {removed:counts}"),
            Text("{consensus.pickers:rates}"),
            Text("pickers that were missing: {consensus.missing:list}"),
            Text("pickers that were disregarded, as they agree far less than elsewhere: {consensus.disregarded:list}"),
        ),
    )

    @property
    def numbered_by(self) -> str:
        """The key of the picks that gave these their numbers: within an exposure, it and a ``pid`` are one particle for good.

        It is a digest of the numbers, positions and scores that were found. What keeps the numbers keeps it too.
        """
        return self.picks_key or hashlib.blake2b(self.block, digest_size=16).hexdigest()

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        """Read version 1, which kept nothing beside the positions."""
        return stored if version == 1 else super().upcast(stored, version)


def same_picks(one: str | None, other: str | None) -> bool:
    """Tell whether numbers mean the same particles in two records of an exposure, by their ``picks_key``; old ones have none."""
    return one is None or other is None or one == other


class LearntPicker(PickerFigures):
    """What is known of one picker in a session, with what its scores say."""

    false_rate: float = Field(gt=0, lt=1, description="Probability that it sees a place that another picker sees falsely")
    score_edges: tuple[float, ...] = Field(description="Borders between the classes of its scores, rising")
    score_ratio: tuple[float, ...] = Field(description="How many times likelier a particle gets a score of each class")


class PickerQuality(Snapshot):
    """How good each picker of a session is, from how far they agree."""

    stored_name: ClassVar[str] = "PickerQuality"

    n_micrographs: int = Field(ge=0)
    particles: float = Field(gt=0, description="Estimated particles on a micrograph, those that no picker finds with them")
    false_places: float = Field(gt=0, description="Estimated places on a micrograph that a picker may take for a particle")
    jaccard: float = Field(ge=0, le=1, description="Part of all places with a pick on which all pickers agree")
    pickers: tuple[LearntPicker, ...]

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Quality of the pickers",
            measures=(
                Measure("Particles per micrograph, estimated", "particles", "particles", metric="picker_quality_particles"),
                Measure("Agreement of all pickers (Jaccard)", "jaccard", metric="picker_quality_jaccard", better="high"),
            ),
            cards=(
                Card(
                    "Estimated from agreement",
                    numbers=(Number("Micrographs", "n_micrographs"), Number("Particles per micrograph", "particles")),
                    texts=(Text("{pickers:rates}"),),
                ),
            ),
        ),
    )
