"""The grid in the microscope: its squares and holes as the acquisition software lists them, and the atlas.

Positions are those of the stage in µm, as the software states them, ``y`` up and ``x`` to the right: no sign is changed.
"""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.shown import Card, Number, Panel, Picture, Shown, Text
from icestream.records.vocabulary import Block, Column, FileRef, Record, Snapshot
from icestream.units import Micrometer

HOLE_COLUMNS = (
    Column("square", "i4", "", "The square that it is in: its number in the list of squares, from 0; -1: in none"),
    Column("hole", "U32", "", "Its name in the acquisition software"),
    Column("y_um", "f8", "µm", "Its position on the stage"),
    Column("x_um", "f8", "µm", "Its position on the stage"),
    Column("wanted", "i1", "", "Whether the software means to expose it: 1 yes, 0 no, -1 it does not say"),
)


class GridFiles(Snapshot):
    """The files that describe the grid, as they are at one moment."""

    stored_name: ClassVar[str] = "GridFiles"

    software: Literal["epu", "serialem", "list"] = Field(description="What wrote them; list: a table of holes in CSV or JSON")
    files: list[FileRef] = Field(description="Those that list squares and holes")
    atlas: FileRef | None = Field(None, description="What says where squares are on the atlas")
    picture: FileRef | None = Field(None, description="The image of the atlas")

    shown: ClassVar[Shown] = Shown(
        Panel("Grid", cards=(Card(numbers=(Number("Files that describe it", "files", how="length"),)),))
    )


class GridSquare(Record):
    """One grid square."""

    name: str
    y_um: Micrometer | None = Field(None, description="Its centre on the stage")
    x_um: Micrometer | None = Field(None, description="Its centre on the stage")


class AtlasPlace(Record):
    """Where the picture of the atlas is on the stage: ``stage = corner + down * row + right * column``, in parts of its sides.

    Row 0 is the top of the picture as it is shown, column 0 its left side; 1 is the other side.
    """

    corner_yx_um: tuple[Micrometer, Micrometer] = Field(description="Its top left corner")
    down_yx_um: tuple[Micrometer, Micrometer] = Field(description="From its top left corner to the bottom left one")
    right_yx_um: tuple[Micrometer, Micrometer] = Field(description="From its top left corner to the top right one")
    rms_um: Micrometer = Field(description="Root mean square distance of squares from where the picture shows them")
    n_squares: int = Field(ge=0, description="Squares that it was placed by")


class GridMap(Snapshot):
    """The squares and holes of the grid, and its atlas."""

    stored_name: ClassVar[str] = "GridMap"
    block_columns: ClassVar[tuple[Column, ...]] = HOLE_COLUMNS

    software: Literal["epu", "serialem", "list"]
    n_holes: int = Field(ge=0)
    squares: list[GridSquare]
    picture: FileRef | None = Field(None, description="Picture: the atlas")
    place: AtlasPlace | None = Field(None, description="Where the picture is on the stage; unset: nobody knows")
    missing: list[str] = Field(default_factory=list, description="What could not be found or read, as sentences")
    block: Block

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Grid",
            cards=(
                Card(
                    numbers=(Number("Squares", "squares", how="length"), Number("Holes", "n_holes")),
                    picture=Picture("picture", "Atlas"),
                    texts=(Text("{missing:list}"),),
                ),
            ),
        )
    )

    @property
    def weight(self) -> int:
        """One: holes are no particles."""
        return 1
