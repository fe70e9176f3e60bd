"""What EPU writes of a grid: ``Metadata/GridSquare_….dm`` with the holes of a square, ``Atlas.dm`` with the squares of an atlas.

Both are XML with positions in metres on the stage, and in pixels of the atlas. EPU's files are not documented by their maker;
the names here are those that open programs read (murfey, smartem-decisions).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from icestream.counting import counted
from icestream.errors import FileFormatError
from icestream.io.holes import ListedHole, ListedSquare
from icestream.io.xmltree import finite, parse_xml, read_small

_HOLE = "KeyValuePairOfintTargetLocation"
_NODE = "KeyValuePairOfintNodeXml"
_UM_PER_M = 1e6


@dataclass(frozen=True)
class AtlasSquares:
    """Where squares are on the image of the atlas, by name, in pixels: ``(y, x)``, row 0 at the top.

    ``size_px`` is height and width of the image in these pixels, where the file says it.
    """

    centres_yx_px: dict[str, tuple[float, float]]
    size_px: tuple[float, float] | None


def read_epu_square(path: Path) -> ListedSquare:
    """Return a square and its holes from ``GridSquare_….dm``.

    A hole has the position that EPU corrected, where it did. Whether a hole is wanted is what ``Selected`` says.

    Raises
    ------
    FileFormatError
        It is no such file.
    """
    root = parse_xml(path, read_small(path))
    if root.tag != "GridSquareXml":
        raise FileFormatError(path, f"not EPU's description of a square: its root is <{root.tag}>, not <GridSquareXml>")
    named = re.search(r"GridSquare_(\d+)", path.name)
    if named is None:
        raise FileFormatError(path, "does not have the number of its square in its name, as GridSquare_123.dm")
    own = root.find("Position")
    own = root.find(".//Position") if own is None else own
    y_um, x_um = _stage(own)
    holes, nowhere = [], 0
    for key, value in _pairs(root, _HOLE):
        y, x = _stage(value.find("CorrectedStagePosition")) if _says(value, "IsPositionCorrected") else (None, None)
        if y is None or x is None:
            y, x = _stage(value.find("StagePosition"))
        if y is None or x is None:
            nowhere += 1
            continue
        holes.append(ListedHole(key, y, x, _says(value, "Selected")))
    notes = (f"{path.name}: {counted(nowhere, 'hole', 'has/have')} no position",) if nowhere else ()
    return ListedSquare(named[1], y_um, x_um, tuple(holes), notes)


def read_atlas_squares(path: Path) -> AtlasSquares:
    """Return where squares are on the atlas, from ``Atlas.dm``.

    Raises
    ------
    FileFormatError
        It is no such file.
    """
    root = parse_xml(path, read_small(path))
    if root.find(".//TilesEfficient") is None and not any(True for _ in _pairs(root, _NODE)):
        raise FileFormatError(path, f"not EPU's description of an atlas: there are no tiles below <{root.tag}>")
    found = {}
    for key, value in _pairs(root, _NODE):
        centre = value.find(".//PositionOnTheAtlas/Center")
        y, x = (None, None) if centre is None else (finite(centre.findtext(axis)) for axis in "yx")
        if y is not None and x is not None:
            found[key] = (y, x)
    corners = [_bottom_right(place) for place in root.iter("AtlasPixelPosition")]
    known = [one for one in corners if one is not None]
    size = (max(y for y, _ in known), max(x for _, x in known)) if known else None
    return AtlasSquares(found, size)


def _pairs(root: Element, beginning: str) -> Iterator[tuple[str, Element]]:
    for element in root.iter():
        if element.tag.startswith(beginning):
            key, value = element.findtext("key"), element.find("value")
            if key and key.strip() and value is not None:
                yield key.strip(), value


def _stage(position: Element | None) -> tuple[float | None, float | None]:
    if position is None:
        return None, None
    y, x = (finite(position.findtext(axis) or position.findtext(axis.lower())) for axis in "YX")
    return (None, None) if y is None or x is None else (y * _UM_PER_M, x * _UM_PER_M)


def _says(value: Element, name: str) -> bool | None:
    text = (value.findtext(name) or "").strip().lower()
    return None if text not in ("true", "false") else text == "true"


def _bottom_right(place: Element) -> tuple[float, float] | None:
    y, x, height, width = (finite(place.findtext(name)) for name in ("y", "x", "height", "width"))
    return None if y is None or x is None or height is None or width is None else (y + height, x + width)
