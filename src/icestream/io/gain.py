"""The camera's gain reference, from any of the files it comes in."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError
from icestream.io import ifd
from icestream.io.dm import read_dm_image
from icestream.io.image import read_image
from icestream.io.raw import open_source
from icestream.io.tiff import read_tiff_page

Operation = Literal["multiply", "divide"]


def read_gain(
    path: Path, *, movie_format: str | None = None, operation: Operation | None = None
) -> tuple[NDArray[np.float32], Operation]:
    """Return the gain ``(h, w)``, read-only, and what to do with it to each frame.

    MRC, TIFF, ``.gain`` (TIFF), Digital Micrograph (``.dm4``, ``.dm3``). Frames are multiplied, with one exception that RELION
    documents: for an EER movie any gain other than a ``.gain`` file divides. A zero marks a dead pixel. The rows of a
    ``.gain`` file are taken as stored, like those of EER (not verified on camera data). A gain that divides is scaled to a mean
    of 1 over its living pixels, so that frames keep counting electrons (RELION scales it too); one that multiplies is not.

    Parameters
    ----------
    path
        The gain reference.
    movie_format
        The format of the movies (`MovieReader.format`) that the gain is for; only ``"eer"`` makes a difference.
    operation
        What to do with it, where somebody knows better than this rule.

    Raises
    ------
    FileFormatError
        The file cannot be read, is no single image, or has a value that is negative, infinite or no number.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".gain":
        gain = _read_event_gain(path)
    elif suffix in (".dm4", ".dm3"):
        gain = read_dm_image(path).astype(np.float32)
    else:
        gain = read_image(path)
    if not np.isfinite(gain).all():
        raise FileFormatError(path, f"the gain has {int((~np.isfinite(gain)).sum())} values that are not finite")
    if gain.min() < 0 or not gain.any():
        raise FileFormatError(
            path, f"the gain has values from {gain.min():g} to {gain.max():g} (none may be negative, some not 0)"
        )
    chosen = operation or ("divide" if movie_format == "eer" and suffix != ".gain" else "multiply")
    if chosen == "divide":
        gain = gain / gain[gain > 0].mean(dtype=np.float64).astype(np.float32)
    gain.flags.writeable = False
    return gain, chosen


def _read_event_gain(path: Path) -> NDArray[np.float32]:
    source = open_source(path)
    try:
        page = next(ifd.walk_directories(source))
        stored = read_tiff_page(source, page)[::-1]  # (h, w): back to the stored order of rows
    finally:
        source.close()
    return np.ascontiguousarray(stored, dtype=np.float32)
