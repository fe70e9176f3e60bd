"""Files of another program that have rows for each exposure: found, waited for, and joined to the exposure by its name."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from icestream.flow import Context, Field, FileFormatError, ItemError, NotYet, Params
from icestream.io.pick_files import is_of, stem_of
from icestream.records import FileRef

_REST_S = 3.0
"""How long a growing file must have rested before the last exposure in it is taken to be complete."""


class ForeignFilesParams(Params):
    """Where the files are."""

    root: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session with the files")
    file: FileRef | None = Field(
        None,
        description="One file with the rows of all micrographs that is complete, as root:path; a micrograph that it does not "
        "name has none. It counts by its content: another content gives other results for all. Unset: see `growing_file`",
    )
    growing_file: str | None = Field(
        None,
        min_length=1,
        description="One file with the rows of all micrographs to which a program still appends, relative to the root; unset: a "
        "file for each micrograph, called as the exposure, or as that with something after it, such as _autopick.star",
    )
    wait: bool = Field(
        True,
        description="What is not there yet is looked for again for ten minutes; off: the exposure fails at once here",
        json_schema_extra={"operational": True},
    )

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if self.file is not None and self.growing_file is not None:
            raise ValueError("file is complete and growing_file is not; give one of them")
        return self


class RowsByName(Protocol):
    """What a file has: rows of one micrograph, or of several by name."""

    @property
    def rows(self) -> Mapping[str, NDArray[np.int64]] | None:
        """Which rows are of which micrograph; unset in files of one."""

    @property
    def count(self) -> int:
        """How many rows there are."""


Found = TypeVar("Found", bound=RowsByName)


def find_rows(
    params: ForeignFilesParams,
    ctx: Context,
    read: Callable[[Path], Found],
    *,
    suffixes: Sequence[str],
    what: str,
    not_named: Collection[str] = (),
) -> tuple[Found, NDArray[np.int64] | None]:
    """Return a file, and which of its rows are of the exposure; None where a complete file does not name it.

    Parameters
    ----------
    what
        What the file is of, in words.
    not_named
        Words after the name of the exposure that name other files, such as ``_avrot``.

    Raises
    ------
    ItemError
        The file cannot be read, or several may be meant; or it is not there yet, and is not waited for.
    NotYet
        There is no file yet, or a growing file does not have the rows of this exposure yet.
    """
    try:
        return _find(params, ctx, read, suffixes, what, not_named)
    except NotYet as error:
        if params.wait:
            raise
        raise ItemError(str(error)) from error


def _find(
    params: ForeignFilesParams,
    ctx: Context,
    read: Callable[[Path], Found],
    suffixes: Sequence[str],
    what: str,
    not_named: Collection[str],
) -> tuple[Found, NDArray[np.int64] | None]:
    path, exposure = _the_file(params, ctx, suffixes, what, not_named), ctx.exposure.name
    try:
        found = read(path)
    except FileFormatError as error:
        if params.growing_file is None:
            raise
        raise NotYet(f"{error} (yet)") from error
    chosen = _rows_of(found, exposure, path)
    if params.growing_file is not None:
        if chosen is None:
            raise NotYet(f"{path}: has no {what} of {exposure} (yet); {_names_in(found)}")
        if len(chosen) and int(chosen.max()) == found.count - 1 and time.time() - path.stat().st_mtime < _REST_S:
            raise NotYet(f"{path}: is still being written, and may have more {what} of {exposure}")
    return found, chosen


def _names_in(found: RowsByName) -> str:
    """Say which micrographs a file names: a name that is spelt otherwise never comes."""
    names = list(found.rows or ())
    if not names:
        return "it names no micrograph so far"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"it names {', '.join(names[:3])}{more}. If this micrograph has another name there, it will never come"


def _the_file(params: ForeignFilesParams, ctx: Context, suffixes: Sequence[str], what: str, not_named: Collection[str]) -> Path:
    folder, exposure = ctx.path(f"{params.root}:."), ctx.exposure.name
    if params.file is not None:
        return ctx.path(params.file)
    if params.growing_file is not None:
        path = ctx.path(f"{params.root}:{params.growing_file}")
        if not path.is_file():
            raise NotYet(f"{path}: there is no such file (yet)")
        return path
    found = list(_files_of(folder, exposure, suffixes, not_named))
    if not found:
        raise NotYet(f"{folder}: no file of {what} is called {exposure}{suffixes[0]} (or {', '.join(suffixes[1:])}) (yet)")
    if len(found) > 1:
        raise ItemError(f"{folder}: several files may have the {what} of {exposure}: {', '.join(path.name for path in found)}")
    return found[0]


def _files_of(folder: Path, exposure: str, suffixes: Sequence[str], not_named: Collection[str]) -> Iterator[Path]:
    """Give the files of an exposure; those that are called exactly so, if there are any."""
    exact = [path for suffix in suffixes if (path := folder / f"{exposure}{suffix}").is_file()]
    if exact or not folder.is_dir():
        yield from exact
        return
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.stem.endswith(tuple(not_named)):
            continue
        if is_of(stem_of(path.name), exposure):
            yield path


def _rows_of(found: RowsByName, exposure: str, path: Path) -> NDArray[np.int64] | None:
    """Return which rows of a file are of an exposure, None where it names only others.

    A file without names has those of one micrograph only.
    """
    if found.rows is None:
        if not is_of(stem_of(path.name), exposure):
            raise ItemError(f"{path}: it does not name the micrograph of each row, so it cannot be a file for all of them")
        return np.arange(found.count)
    if exposure in found.rows:
        return found.rows[exposure]
    names = [name for name in found.rows if is_of(name, exposure)]
    if len(names) > 1:
        raise ItemError(f"{path}: several micrographs may be {exposure}: {', '.join(names[:5])}")
    return found.rows[names[0]] if names else None
