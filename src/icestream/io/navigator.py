"""SerialEM's Navigator file: items with stage positions, of which points are holes and maps are what they were marked on."""

import re
from pathlib import Path

from icestream.errors import FileFormatError
from icestream.io.holes import ListedHole, ListedSquare
from icestream.io.xmltree import finite, read_small

_HEADING = re.compile(r"\[\s*Item\s*=\s*(.*?)\s*\]$")
_POINT, _MAP = "0", "2"


def parse_navigator(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Return the label and the values of each item.

    Raises
    ------
    FileFormatError
        It is no text of SerialEM's own format (one in XML must be saved as text), or has no item.
    """
    text = read_small(path).decode("utf-8", errors="replace")
    items: list[tuple[str, dict[str, str]]] = []
    for line in text[: text.rfind("\n") + 1].splitlines():  # a last line without an end may be half a number
        heading = _HEADING.match(line.strip())
        if heading is not None:
            items.append((heading[1], {}))
        elif "=" in line and items:
            key, _, value = line.partition("=")
            items[-1][1].setdefault(key.strip(), value.strip())
    if not items:
        raise FileFormatError(path, "not a Navigator file of SerialEM: there is no [Item = label] heading")
    return items


def read_navigator(path: Path) -> list[ListedSquare]:
    """Return the points as holes, those that were marked on one map in the square that the map is called by.

    A hole is wanted where the item is to be acquired (``Acquire = 1``). A point on no map is in a square without a name. Holes
    that one item stands for together (``HoleArray``) are that one hole.

    Raises
    ------
    FileFormatError
        It is no Navigator file.
    """
    items = parse_navigator(path)
    maps = {values["MapID"]: (label, values) for label, values in items if values.get("Type") == _MAP and values.get("MapID")}
    found: dict[str, list[ListedHole]] = {}
    together, nowhere = 0, 0
    for label, values in items:
        if values.get("Type", _POINT) != _POINT:
            continue
        x_um, y_um = _stage(values)
        if x_um is None or y_um is None:
            nowhere += 1
            continue
        together += "HoleArray" in values
        drawn_on = values.get("DrawnID", "")
        found.setdefault(drawn_on if drawn_on in maps else "", []).append(
            ListedHole(label, y_um, x_um, values.get("Acquire", "0") == "1")
        )
    notes = [f"{path.name}: {nowhere} points have no position"] if nowhere else []
    notes += [f"{path.name}: {together} points stand for several holes each, which it does not list"] if together else []
    squares = [_square(drawn_on, maps, holes) for drawn_on, holes in found.items()]
    return [*squares, ListedSquare("", notes=tuple(notes))] if notes else squares


def _square(drawn_on: str, maps: dict[str, tuple[str, dict[str, str]]], holes: list[ListedHole]) -> ListedSquare:
    if drawn_on not in maps:
        return ListedSquare("", holes=tuple(holes))
    label, values = maps[drawn_on]
    x_um, y_um = _stage(values)
    return ListedSquare(label, y_um, x_um, tuple(holes))


def _stage(values: dict[str, str]) -> tuple[float | None, float | None]:
    """Return the stage position ``(x, y)`` in µm."""
    parts = [finite(part) for part in values.get("StageXYZ", "").split()]
    return (parts[0], parts[1]) if len(parts) >= 2 else (None, None)
