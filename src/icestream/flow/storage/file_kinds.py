"""The kinds of file that a session holds: told by what they are, so that a plugin's files have a kind as well."""

from pathlib import PurePosixPath
from typing import Literal, get_args

FileKind = Literal["raw", "micrographs", "particles", "thumbnails", "averages", "metadata"]
"""Raw data; images of single exposures; stacks of particles; pictures for people; class averages, maps, gains and their tables;
everything else that a step has written."""

FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)

IMAGES = {".mrc", ".mrcs", ".tif", ".tiff", ".eer", ".dm4"}
_STACKS = {".mrcs"}
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".svg", ".gif"}


def kind_of_file(ref: str, *, whole: bool) -> FileKind:
    """Return the kind of a file that a step has written; ``whole``: it belongs to a version, not to one exposure."""
    suffix = PurePosixPath(ref).suffix.lower()
    if whole:
        return "averages"
    if suffix in _PICTURES:
        return "thumbnails"
    if suffix in _STACKS:
        return "particles"
    return "micrographs" if suffix in IMAGES else "metadata"
