"""What Scipion's protocols that join, subtract, thin out and import picks are in icestream, as a table."""

from icestream.workflows.scipion.convert import (
    AbsentError,
    Reader,
    UntranslatableError,
    as_flag,
    as_positive,
    times_pixel,
)
from icestream.workflows.scipion.rules import PIXEL, Lost, Mapping, Rule, Via
from icestream.workflows.scipion.sources import split_pattern


def _radius_px(reader: Reader, names: tuple[str, ...]) -> float:
    """Return a radius in our pixels; -1 means automatic."""
    return round(as_positive(reader, names) * reader.scale, 3)


def _votes(reader: Reader, names: tuple[str, ...]) -> int | None:
    """Return for how many votes the protocol asks, or None for all."""
    wanted = reader.integer(names[0])
    return None if wanted < 0 else max(1, wanted)


def _rule(reader: Reader, names: tuple[str, ...]) -> str:
    try:
        votes = _votes(reader, names)
    except AbsentError:
        votes = None
    if votes is None:
        return "all"
    if _is_exact(reader, names[1]):
        return "exactly"
    return "any" if votes == 1 else "at_least"


def _number_of_votes(reader: Reader, names: tuple[str, ...]) -> int:
    votes = _votes(reader, names)
    if votes is None or (votes == 1 and not _is_exact(reader, names[1])):
        raise AbsentError
    return votes


def _is_exact(reader: Reader, name: str) -> bool:
    """Tell whether the mode is ``=`` and not ``>=``; Scipion writes its number."""
    try:
        mode = str(reader.value(name)).strip()
    except AbsentError:
        return False
    if mode not in ("0", "1", ">=", "="):
        raise UntranslatableError(f"{name} is {mode[:40]!r}; known are 0 (>=) and 1 (=)")
    return mode in ("1", "=")


def _pixel_of_picks(reader: Reader, names: tuple[str, ...]) -> float:
    """Return the pixel size of the image that was picked, from the factor by which positions are multiplied."""
    scale = as_positive(reader, names)
    if scale == 1:
        raise AbsentError
    if reader.pixel_ang is None:
        raise UntranslatableError(f"{names[0]} is {scale:g}, and the pixel size is not known")
    return round(scale * reader.pixel_ang, 5)


def imported_folder(reader: Reader) -> str | None:
    """Return the folder of the files that are imported; None where the protocol does not name it."""
    try:
        folder, _ = split_pattern(reader.text("filesPath"), None)
    except (AbsentError, UntranslatableError):
        return None
    return folder


_MICROGRAPH: tuple[str | Via, ...] = (Via("inputCoordinates", "micrograph"),)

_CONSENSUS = Mapping(
    "pick_consensus",
    "consensus",
    {"micrograph": _MICROGRAPH, "picks": ("inputCoordinates",)},
    (
        Rule("radius_px", ("consensusRadius",), _radius_px),
        Rule("rule", ("consensus", "mode"), _rule),
        Rule("votes", ("consensus", "mode"), _number_of_votes),
    ),
    changed="every place has one vote of each picker, and the result does not depend on the order of the pickers",
)

_DUPLICATES = Mapping(
    "remove_duplicates",
    "single",
    {"micrograph": _MICROGRAPH, "picks": ("inputCoordinates",)},
    (Rule("radius_px", ("consensusRadius",), _radius_px),),
    changed="of picks that are too near the best is kept, not their mean; a radius that is not given is 0.6 diameters, not boxes",
)

_DIFFERENCE = Mapping(
    "pick_difference",
    "difference",
    {"micrograph": _MICROGRAPH, "picks": ("inputCoordinates",), "without": ("negativeCoordinates", "inputCoordinates2")},
    (Rule("radius_px", ("differenceRadius", "consensusRadius"), _radius_px),),
)

IMPORT_COORDINATES = "ProtImportCoordinates"

_IMPORT = Mapping(
    "import_picks",
    "imported",
    {"micrograph": ("inputMicrographs",)},
    (
        Rule("diameter_ang", ("boxSize",), times_pixel, f"the box, {PIXEL}"),
        Rule("flip_y", ("invertY",), as_flag),
        Rule("picked_pixel_ang", ("scale",), _pixel_of_picks, PIXEL),
    ),
    (Lost("invertX", (False,), "positions are not mirrored in x"), Lost("filesPattern", (), "files are found by their name")),
    changed="a file belongs to the micrograph whose name it has",
)

PICKING_PROTOCOLS: dict[str, Mapping] = {
    "XmippProtConsensusPicking": _CONSENSUS,
    "XmippProtPickingRemoveDuplicates": _DUPLICATES,
    **dict.fromkeys(("ProtPickingDifference", "XmippProtPickingDifference"), _DIFFERENCE),
    IMPORT_COORDINATES: _IMPORT,
}
"""Consensus, duplicates, difference and import of picks, by class name."""
