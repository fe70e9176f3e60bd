"""What people see of a record, as data: its author declares it once, and every view draws it.

A class of records says it in ``shown``. Fields of the record are named by their path (``motion.total_px``); a path that does not
exist is refused when the class is declared. The session stores what was declared, so that records show without the software
that made them.
"""

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, fields, is_dataclass
from typing import Literal

Pixels = Literal["raw", "own"]
"""Which pixels a length is in: those of the raw movie, or those of the record, which are ``bin`` raw ones."""


@dataclass(frozen=True)
class When:
    """A condition on one field of a record: that it is set, and, where they are given, what it equals or begins with."""

    field: str
    _: KW_ONLY
    equals: str | float | bool | None = None
    begins: str | None = None


@dataclass(frozen=True)
class Text:
    """A sentence with fields of the record in braces, shown where all of them are set.

    ``{kind:words}`` writes an underscore as a space, ``{note:sentence}`` begins with a capital letter, ``{missing:list}`` writes
    a list with commas, ``{removed:counts}`` reasons with their counts, those that are zero left out, and ``{pickers:rates}``
    names with what is known of their recall and precision.
    """

    template: str
    when: When | None = None


@dataclass(frozen=True)
class Number:
    """A number of a record: a field, or what is made of one or two of them.

    Attributes
    ----------
    unit
        That of the field, unless it is said here.
    second
        The other field of a ``mean`` or of a ``distance`` (the absolute difference).
    how
        ``length`` is that of a list; ``weight`` needs no field: it is the number of particles.
    pixels
        The number is a length in these pixels, and is shown in Å where the session knows the pixel size.
    """

    label: str
    field: str = ""
    unit: str | None = None
    _: KW_ONLY
    second: str = ""
    how: Literal["value", "mean", "distance", "length", "weight"] = "value"
    factor: float = 1.0
    pixels: Pixels | None = None


@dataclass(frozen=True)
class Measure(Number):
    """A number that is followed along the session.

    Attributes
    ----------
    metric
        What monitoring calls it, in the manner of Prometheus: words, the unit last.
    better
        Which direction is good, if one is.
    origin
        What it is measured from and what more of it means, where another measure could be taken for it.
    hidden_at_zero
        It is not shown while it is zero for every exposure.
    hidden_when
        It is not shown where this holds for the newest record.
    """

    _: KW_ONLY
    metric: str
    better: Literal["low", "high"] | None = None
    origin: str = ""
    hidden_at_zero: bool = False
    hidden_when: When | None = None


@dataclass(frozen=True)
class Picture:
    """A picture that a step has published."""

    field: str
    title: str
    caption: str = ""


@dataclass(frozen=True)
class Density:
    """A map in three dimensions, which people turn; ``field`` names its file, a cube in MRC format."""

    field: str
    title: str


@dataclass(frozen=True)
class Curve:
    """A measured curve with its fit; ``mark`` is a field with a resolution, which is marked on an axis of frequency.

    ``error`` is a field with the standard deviations of ``fitted``, drawn as bars.
    """

    x: str
    measured: str
    fitted: str
    _: KW_ONLY
    title: str
    x_unit: str
    mark: str | None = None
    error: str | None = None
    caption: str = ""


@dataclass(frozen=True)
class Path:
    """A path of points ``(y, x)``."""

    field: str
    _: KW_ONLY
    title: str
    pixels: Pixels = "raw"
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """What is shown of the newest record of a step; without a title it is headed by the name of its exposure."""

    title: str | None = None
    _: KW_ONLY
    subtitle: Text | None = None
    numbers: tuple[Number, ...] = ()
    picture: Picture | None = None
    density: Density | None = None
    curve: Curve | None = None
    path: Path | None = None
    texts: tuple[Text, ...] = ()
    warnings: tuple[Text, ...] = ()


@dataclass(frozen=True)
class Tally:
    """Counts by reason, added up over the session: a field that is a list of parts with ``reason`` and ``count``."""

    title: str
    field: str
    unit: str


@dataclass(frozen=True)
class Panel:
    """A part of the report: measures along the session, tallies, cards; ``within`` names the panel that takes the cards in."""

    title: str
    _: KW_ONLY
    measures: tuple[Measure, ...] = ()
    cards: tuple[Card, ...] = ()
    tallies: tuple[Tally, ...] = ()
    within: str | None = None


@dataclass(frozen=True)
class MotionField:
    """Motion that differs over the field of view, by the coefficients of `algorithms.motion.model`, in raw pixels."""

    coefficients: str
    label: str


@dataclass(frozen=True)
class Image:
    """The record is an image of an exposure, on which others lie; the numbers stand below it.

    ``full`` is the field that names the file of the image itself, which is drawn in full resolution for who asks for it.
    """

    picture: str
    _: KW_ONLY
    height: str
    width: str
    full: str = ""
    numbers: tuple[Number, ...] = ()
    path: Path | None = None
    motion_field: MotionField | None = None


@dataclass(frozen=True)
class Overlay:
    """The rows of the record's table are positions on an image, drawn as circles."""

    y: str
    x: str
    _: KW_ONLY
    diameter_ang: str
    count: str
    word: str


@dataclass(frozen=True)
class Beside:
    """A number below the image that the record is of: that of the first such step, or of every one, with the step's name."""

    number: Number
    every_step: bool = False


@dataclass(frozen=True)
class RowColumn:
    """A column of a list of parts of a record; ``share`` shows each number as percent of their sum."""

    label: str
    field: str
    unit: str = ""
    share: bool = False


@dataclass(frozen=True)
class Gallery:
    """The newest version of a whole: one picture of its parts, and a table of them, largest ``order`` first.

    ``identity`` is the field that names a part for good. Where it is given, the picture shows all parts in their order, as
    squares in rows of `parts_in_a_row`. ``density`` is the field of a part that names its map in three dimensions.
    """

    title: str
    _: KW_ONLY
    picture: Picture
    count: str
    word: str
    rows: str
    columns: tuple[RowColumn, ...]
    order: str
    identity: str = ""
    density: str = ""


def parts_in_a_row(count: int) -> int:
    """Return how many parts a picture of all parts has in a row."""
    return max(1, math.ceil(math.sqrt(2 * count)))


@dataclass(frozen=True)
class Headline:
    """A figure at the top of the report; of steps that give the same label, the highest rank is shown.

    ``pace`` is that of the step in an hour, ``weight`` the sum of its particles (both of the last such step), ``median`` that of
    the first measure of the first such step, ``lowest`` the smallest value in a ``column`` of the gallery in the newest version.
    """

    label: str
    caption: str
    _: KW_ONLY
    of: Literal["pace", "weight", "median", "lowest"]
    place: int
    rank: int = 0
    column: str = ""
    """The field of the rows that `lowest` looks at."""


@dataclass(frozen=True)
class StagePlace:
    """Where on the grid the exposure was taken, for the map of the acquisition.

    ``y`` and ``x`` are the position of the stage in µm; the fields of the rest need not be there. ``beam`` and ``image`` shift
    move the exposure away from where the stage is, in units that the map finds out.
    """

    y: str
    x: str
    _: KW_ONLY
    square: str = ""
    hole: str = ""
    beam_y: str = ""
    beam_x: str = ""
    image_y: str = ""
    image_x: str = ""


@dataclass(frozen=True)
class Shown:
    """Everything that is shown of a record."""

    panel: Panel | None = None
    _: KW_ONLY
    image: Image | None = None
    overlay: Overlay | None = None
    beside: tuple[Beside, ...] = ()
    gallery: Gallery | None = None
    headlines: tuple[Headline, ...] = ()
    place: StagePlace | None = None
    notes: tuple[Text, ...] = ()
    """What stands wherever the exposure is named: as failed, in its trace, in the report."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is followed along the session."""
        return () if self.panel is None else self.panel.measures

    @property
    def cards(self) -> tuple[Card, ...]:
        """What is shown of one record."""
        return () if self.panel is None else self.panel.cards


@dataclass(frozen=True)
class Comparison:
    """What is shown of two streams that a step joins at the ports ``first`` and ``second``: one number against the other.

    Attributes
    ----------
    quantity
        What the number is, as the beginning of a sentence.
    apart
        What the difference of the two is called along the session; the factor leads from the unit of ``number`` to its own.
    """

    title: str
    _: KW_ONLY
    first: str
    second: str
    quantity: str
    number: Number
    apart: str
    apart_unit: str
    apart_factor: float = 1.0


def parts_of(part: object) -> Iterator[object]:
    """Give a part of a description and everything below it."""
    if isinstance(part, tuple):
        for inner in part:
            yield from parts_of(inner)
    elif is_dataclass(part):
        yield part
        for one in fields(part):
            yield from parts_of(getattr(part, one.name))
