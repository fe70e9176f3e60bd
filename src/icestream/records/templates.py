"""What pickers know of the particles: templates, and what was learned in the session."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.shown import Card, Gallery, Number, Panel, Picture, RowColumn, Shown
from icestream.records.vocabulary import FileRef, Record, Snapshot
from icestream.units import Angstrom, WholePixels


class TemplateFile(Snapshot):
    """A map or a stack of images from which templates for picking are made."""

    stored_name: ClassVar[str] = "TemplateFile"

    file: FileRef
    kind: Literal["map", "images"]
    count: int = Field(ge=1, description="Images, or sections of the map")
    box_px: WholePixels
    pixel_size_ang: Angstrom = Field(gt=0)


class TemplateInfo(Record):
    """One template."""

    number: int = Field(description="Slice of the stack, from 0")
    source: int = Field(description="Class id, image or view from which it was made")
    count: int | None = Field(None, description="Particles in that class")


class PickTemplates(Snapshot):
    """Templates for picking: bright, without the contrast transfer of any exposure, each unlike the others in any turn."""

    stored_name: ClassVar[str] = "PickTemplates"

    stack: FileRef
    picture: FileRef
    count: int = Field(ge=1)
    box_px: WholePixels
    pixel_size_ang: Angstrom = Field(gt=0, description="Of the templates; micrographs are reduced to it")
    diameter_ang: Angstrom = Field(gt=0)
    made_from: str = Field(description="As: 12 of 16 2D classes of 5120 particles")
    templates: list[TemplateInfo]

    shown: ClassVar[Shown] = Shown(
        gallery=Gallery(
            "Templates",
            picture=Picture("picture", "Templates for picking"),
            count="count",
            word="template",
            rows="templates",
            columns=(RowColumn("Template", "number"), RowColumn("Made from", "source"), RowColumn("Particles", "count")),
            order="number",
        )
    )


class PickerTrial(Record):
    """A new model tried on micrographs that it was not trained on, beside the picks that the old one makes of them."""

    number: int = Field(description="Number of the new model, from 1")
    model: FileRef
    rival: int = Field(description="Number of the old model; 0: the picks that the step is given")
    n_trained: int = Field(description="Particles it was trained on")
    n_micrographs: int = Field(description="Micrographs of the trial")
    f1: float = Field(description="Expected F1 of the new model")
    rival_f1: float = Field(description="Expected F1 of the old one")
    gain_error: float | None = Field(None, description="Standard error of the difference, over micrographs; unset: too few")
    verdict: Literal["better", "not better", "undecided"] | None = Field(
        None, description="Of the new model; what is undecided is tried again with more micrographs; unset: not told by then"
    )
    adopted: bool


class PickerModel(Snapshot):
    """A picker trained in the session, and all models before it."""

    stored_name: ClassVar[str] = "PickerModel"

    adopted: int = Field(description="Number of the model in use; 0: none is better than the picks that were given")
    diameter_ang: Angstrom | None = None
    count: int = Field(ge=0, description="Particles held for training")
    picture: FileRef
    trials: list[PickerTrial] = Field(default_factory=list)

    shown: ClassVar[Shown] = Shown(
        gallery=Gallery(
            "Trained picker",
            picture=Picture("picture", "Filters of the model in use"),
            count="count",
            word="particle",
            rows="trials",
            columns=(
                RowColumn("Model", "number"),
                RowColumn("Against", "rival"),
                RowColumn("Particles", "n_trained"),
                RowColumn("F1", "f1"),
                RowColumn("F1 of the other", "rival_f1"),
                RowColumn("Error of the difference", "gain_error"),
                RowColumn("Adopted", "adopted"),
            ),
            order="number",
        )
    )


class TopazModel(Snapshot):
    """A model that Topaz was trained to in the session."""

    stored_name: ClassVar[str] = "TopazModel"

    file: FileRef = Field(description="The model of the last epoch, as Topaz writes it")
    pixel_size_ang: Angstrom = Field(gt=0, description="Of the micrographs that it was trained on, after they were reduced")
    diameter_ang: Angstrom = Field(gt=0)
    n_micrographs: int = Field(ge=1, description="Micrographs that it was trained on")
    count: int = Field(ge=1, description="Particles that it was trained on")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Topaz",
            cards=(
                Card(
                    "Trained model",
                    numbers=(
                        Number("Particles", "count"),
                        Number("Micrographs", "n_micrographs"),
                        Number("Pixel size", "pixel_size_ang"),
                        Number("Diameter", "diameter_ang"),
                    ),
                ),
            ),
        )
    )
