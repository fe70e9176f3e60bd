"""Images of an acquisition folder that are neither movies nor micrographs, told by the names that the software gives them."""

import re
from pathlib import Path

_KINDS = (
    (re.compile(r"(?:^|[^a-z])(?:gain|dark|hardwaredark)(?:[ _-]?ref(?:erence)?)?(?:[^a-z]|$)|countref|superref", re.IGNORECASE),
     "a gain or dark reference"),
    (re.compile(r"^(?:GridSquare_\d+|FoilHole_\d+_\d{8}|Atlas|StitchedAtlas|Tile_\d+)(?:[_.]|$)"), "an overview image"),
)  # fmt: skip


def name_of_other(path: Path) -> str | None:
    """Return what a file is by its name, in words, if it is neither a movie nor a micrograph; else None.

    Gain and dark references (``…_gain.tiff``, SerialEM's ``CountRef_…`` and ``SuperRef_…``), and EPU's overviews:
    ``Atlas_1.mrc``, ``Tile_…``, ``GridSquare_….mrc`` and ``FoilHole_…`` without ``_Data_``.
    """
    return next((what for pattern, what in _KINDS if pattern.search(path.name)), None)
