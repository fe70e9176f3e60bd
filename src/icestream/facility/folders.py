"""Looking at acquisition folders: which there are, whether data have come, and what they say about the microscope."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from icestream.documents import read_document
from icestream.errors import FileFormatError, ItemError, WorkflowError
from icestream.flow.storage.session import DOCUMENT
from icestream.io.metadata import find_sidecar, merge_acquisition, read_sidecar
from icestream.io.movie import movie_header
from icestream.io.raw import COMPRESSED_SUFFIXES
from icestream.records import Acquisition
from icestream.workflows.implied import ACQUISITION_NAMES
from icestream.workflows.placeholders import MOST_MEMBERS
from icestream.workflows.template import Template

VALUES_FILE = "icestream.yaml"
LARGEST_VALUES_BYTES = 1 << 16
IMAGE_SUFFIXES = frozenset({".mrc", ".mrcs", ".st", ".tif", ".tiff", ".eer"})
METADATA_SUFFIXES = frozenset({".mdoc", ".xml"})
_TEMPORARY = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".swp", "~")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def check_pattern(pattern: str) -> None:
    """Check that a pattern stays below its root.

    Raises
    ------
    WorkflowError
        It is absolute, empty, or leads upwards.
    """
    parts = PurePosixPath(pattern).parts
    if not parts or pattern.startswith(("/", "~")) or ".." in parts:
        raise WorkflowError(f"--pattern {pattern!r}: must be a pattern of folders below the root, such as */ or */Images-Disc1")


def find_folders(root: Path, pattern: str, *, sessions: Path) -> list[str]:
    """Return the acquisition folders below ``root``, relative to it; sessions and links that lead out are none.

    Raises
    ------
    OSError
        The root cannot be read.
    """
    with os.scandir(root):  # a root that is gone must not look like an empty one
        pass
    inside, found = root.resolve(), []
    for path in root.glob(pattern.rstrip("/")):
        real = path.resolve()
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if not path.is_dir() or hidden or not real.is_relative_to(inside) or not str(path.relative_to(root)).isprintable():
            continue
        if not (path / DOCUMENT).exists() and not sessions.resolve().is_relative_to(real):
            found.append(path.relative_to(root).as_posix())
    return sorted(found)


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that somebody may want, not hidden ones and not those of copying programs."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and not name.lower().endswith(_TEMPORARY):
                yield Path(parent, name)


def kind_of(path: Path) -> str:
    """Return the ending of a file that says what it is, without that of a compression."""
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED_SUFFIXES else path
    return plain.suffix.lower()


def has_data(folder: Path) -> bool:
    """Tell whether a first movie or metadata file is there."""
    return any(kind_of(path) in IMAGE_SUFFIXES | METADATA_SUFFIXES for path in walk_files(folder))


def first_image(folder: Path) -> Path | None:
    """Return the first movie or micrograph by name."""
    return next((path for path in walk_files(folder) if kind_of(path) in IMAGE_SUFFIXES), None)


def read_values_file(folder: Path) -> dict[str, Any]:
    """Return what ``icestream.yaml`` in an acquisition folder says: placeholder → value.

    Raises
    ------
    WorkflowError
        It is too large, not YAML, or has anything other than single values and lists of them.
    """
    path = folder / VALUES_FILE
    if not path.is_file():
        return {}
    try:
        values = read_document(path, largest_bytes=LARGEST_VALUES_BYTES)
    except ValueError as error:
        raise WorkflowError(f"{VALUES_FILE}: {str(error)[:300]}") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise WorkflowError(f"{VALUES_FILE}: must be a map of names to values")
    for name, value in values.items():
        if not _is_plain(value):
            raise WorkflowError(f"{VALUES_FILE}: {name[:80]!r} is neither a single value nor a list of them")
    return values


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MOST_MEMBERS and all(isinstance(member, str | int | float) for member in value)
    return value is None or isinstance(value, str | int | float)


def read_acquisition(image: Path) -> Acquisition:
    """Return what the header of a movie and the EPU or SerialEM file beside it say; nothing while they cannot be read."""
    header = beside = None
    try:
        header = movie_header(image).acquisition
    except (ItemError, OSError):
        header = None  # it is being written still
    sidecar = find_sidecar(image)
    if sidecar is not None:
        try:
            beside = read_sidecar(sidecar, image)[1]
        except (FileFormatError, OSError):
            beside = None
    return merge_acquisition(header, beside)


def folder_placeholder(template: Template, wanted: str | None = None) -> str:
    """Return the placeholder that takes an acquisition folder.

    Raises
    ------
    WorkflowError
        There is none, or it cannot be told which.
    """
    folders = [name for name, one in template.placeholders.items() if one.type == "folder"]
    if wanted is not None and wanted not in folders:
        raise WorkflowError(
            f"--folder-as {wanted!r}: the template asks for no such folder; it asks for {', '.join(folders) or 'none'}"
        )
    chosen = [wanted] if wanted is not None else [name for name in ("movies", "micrographs") if name in folders][:1] or folders
    if len(chosen) != 1:
        raise WorkflowError(
            f"the template asks for {len(chosen)} folders ({', '.join(chosen)}); say which one holds the data with --folder-as"
        )
    return chosen[0]


def collect_values(folder: Path, template: Template, *, folder_as: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the values for the session of an acquisition folder.

    The folder itself comes first; then what ``icestream.yaml`` in it says; then what was ``given`` to the watch. What is asked of
    the microscope and has no value and no default is taken from the first movie and the file beside it.

    Raises
    ------
    WorkflowError
        ``icestream.yaml`` cannot be used.
    """
    values = {**given, **read_values_file(folder), folder_as: str(folder)}
    names = {placeholder: field for field, placeholder in ACQUISITION_NAMES.items()}
    open_names = [
        name for name, one in template.placeholders.items() if name in names and name not in values and one.default is None
    ]
    image = first_image(folder) if open_names else None
    if image is not None:
        told = read_acquisition(image)
        found = {name: getattr(told, names[name]) for name in open_names}
        values |= {name: value for name, value in found.items() if value is not None}
    return values


def session_name(relative: str) -> str:
    """Return a harmless name for the session of an acquisition folder."""
    return _UNSAFE.sub("_", relative).strip("._-")[:120] or "session"
