"""Putting the inputs of a program into its private folder, under names that are ours: a file's own name never reaches it."""

import re
import shutil
from pathlib import Path
from typing import Literal

from icestream.errors import SourceGone
from icestream.io.image import image_header, read_image, write_mrc
from icestream.io.mrc import read_mrc_header
from icestream.io.raw import open_source

_OURS = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9]+)+\Z")
_UNDERSTOOD = frozenset({"i1", "i2", "u2", "f4"})
"""The kinds of pixels that every program which reads MRC understands."""


def stage_file(source: Path, folder: Path, name: str, *, how: Literal["link", "copy"] = "link") -> Path:
    """Link or copy a file into the private folder; return where it is there.

    Raises
    ------
    SourceGone
        There is no such file.
    ValueError
        ``name`` is no plain name of ours (lower case letters, digits, ``_``, and an ending).
    """
    if not _OURS.match(name):
        raise ValueError(f"{name!r}: staged files have plain names of our own, such as micrograph.mrc")
    if not source.is_file():
        raise SourceGone(f"{source}: the file is not there")
    target = folder / name
    if how == "link":
        target.symlink_to(source.absolute())
    else:
        shutil.copyfile(source, target)
    return target


def stage_image(source: Path, folder: Path, name: str, *, pixel_size_ang: float) -> Path:
    """Put one image into the private folder as a plain MRC file: linked if it is one, else converted to 32-bit floats.

    Raises
    ------
    FileFormatError, SourceGone
        It cannot be read, or is not there.
    """
    header = image_header(source)
    if header.format == "mrc" and source.suffix == ".mrc" and header.n_images == 1 and _pixels_are_plain(source):
        return stage_file(source, folder, name)
    target = folder / name
    write_mrc(target, read_image(source), pixel_size_ang=pixel_size_ang, remember=False)
    return target


def _pixels_are_plain(path: Path) -> bool:
    source = open_source(path)
    try:
        header = read_mrc_header(source)
    finally:
        source.close()
    return not header.packed and header.dtype.str[1:] in _UNDERSTOOD
