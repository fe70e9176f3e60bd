"""Looking at acquisition folders: which there are, whether data have come, and what they say about the microscope."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from icestream.documents import read_document
from icestream.errors import ItemError, WorkflowError
from icestream.io.metadata import read_beside
from icestream.io.movie import movie_header
from icestream.io.other_images import name_of_other
from icestream.io.raw_folder import RawFolder, session_around
from icestream.records import Acquisition
from icestream.workflows import ACQUISITION_NAMES, MOST_MEMBERS, Template

VALUES_FILE = "icestream.yaml"
LARGEST_VALUES_BYTES = 1 << 16
IMAGE_SUFFIXES = frozenset({".mrc", ".mrcs", ".st", ".tif", ".tiff", ".eer"})
METADATA_SUFFIXES = frozenset({".mdoc", ".xml"})
_MOST_LOOKED_AT = 50
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


@dataclass(frozen=True)
class FoundFolders:
    """The acquisition folders below a root, relative to it, and what is left out, with the reason."""

    names: list[str]
    left_out: dict[str, str] = field(default_factory=dict)


def find_folders(root: Path, pattern: str, *, sessions: Path) -> FoundFolders:
    """Return the acquisition folders below ``root``; links are followed, unless they lead back, or to what is found anyway.

    Raises
    ------
    OSError
        The root cannot be read.
    """
    with os.scandir(root):  # a root that is gone must not look like an empty one
        pass
    inside, home = Path(os.path.realpath(root)), Path(os.path.realpath(sessions))
    targets: dict[Path, str] = {}
    left_out: dict[str, str] = {}
    paths = [(path.relative_to(root), Path(os.path.realpath(path))) for path in root.glob(pattern.rstrip("/"))]
    for relative, real in sorted(paths, key=lambda pair: (inside / pair[0] != pair[1], pair[0])):  # those that are no links first
        if any(part.startswith(".") for part in relative.parts) or not os.path.isdir(real):  # noqa: PTH112 - may not be allowed
            continue
        around = session_around(real)
        if around is not None and around != inside and around.is_relative_to(inside):
            continue
        name = relative.as_posix()
        reason = _why_left_out(name, real, inside, targets)
        if reason is not None:
            left_out[_printable(name)] = reason
        elif not home.is_relative_to(real):
            targets[real] = name
    return FoundFolders(sorted(targets.values()), left_out)


def _why_left_out(name: str, real: Path, inside: Path, targets: Mapping[Path, str]) -> str | None:
    if _printable(name) != name:
        return "its name has characters that cannot be printed; rename it"
    if inside.is_relative_to(real):
        return "is a link that leads back to the watched folder"
    around = session_around(real)
    if around is not None and not inside.is_relative_to(around):
        return f"is a link into the session {around}"
    found = next((known for folder, known in targets.items() if real.is_relative_to(folder)), None)
    return None if found is None else f"is a link to {found}, which is watched itself"


def _printable(name: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in name)


def look_for_data(folder: Path) -> bool:
    """Tell whether a first movie or metadata file is there.

    Raises
    ------
    OSError
        Nothing is found, and something in the folder cannot be read.
    """
    scan = RawFolder(folder, suffixes=IMAGE_SUFFIXES | METADATA_SUFFIXES).scan()
    for error in scan.troubles.values() if not scan.files else ():
        raise error
    return bool(scan.files)


def first_image(folder: Path) -> Path | None:
    """Return the first movie by name, or where there is none the first micrograph: no sum, overview or reference."""
    images = [path for path in RawFolder(folder, suffixes=IMAGE_SUFFIXES).scan().files if name_of_other(path) is None]
    return next(filter(_is_movie, images[:_MOST_LOOKED_AT]), images[0] if images else None)


def _is_movie(path: Path) -> bool:
    try:
        return movie_header(path).n_frames > 1
    except (ItemError, OSError):  # it is being written still
        return False


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
    try:
        header = movie_header(image)
    except (ItemError, OSError):
        return read_beside(image, None, None)[1]  # it is being written still
    return read_beside(image, header.said, header.frames)[1]


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


def collect_values(
    folder: Path, template: Template, *, folder_as: str, given: dict[str, Any], said: dict[str, Any]
) -> dict[str, Any]:
    """Return the values for the session of an acquisition folder.

    The folder itself comes first; then what ``icestream.yaml`` in it ``said``; then what was ``given`` to the watch. What is
    asked of the microscope and has no value and no default is taken from the first movie and the file beside it.
    """
    values = {**given, **said, folder_as: str(folder)}
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
