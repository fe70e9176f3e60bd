"""The files below a folder of raw data: which of them may be taken, through links and around what icestream itself has written.

Folders that are links are followed. What is left out is named with the reason: a link to something that is found anyway, a link
that leads back, the folder of a session and links into one (a session never feeds itself), a name that cannot be printed. What
the operating system refuses is the trouble of that one path.
"""

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from icestream.files import SESSION_DOCUMENT, SESSION_FOLDERS
from icestream.io.raw import COMPRESSED_SUFFIXES

TEMPORARY_SUFFIXES = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".swp", "~")
_WILDCARDS = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"\[([*?[])\]")


def kind_of(path: Path) -> str:
    """Return the ending of a file that says what it is, without that of a compression."""
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED_SUFFIXES else path
    return plain.suffix.lower()


def plain_text(path: Path) -> str:
    """Return a path as text that can be stored: bytes that are no UTF-8 are written out."""
    return path.as_posix().encode(errors="backslashreplace").decode()


def session_around(path: Path) -> Path | None:
    """Return the folder of the session that ``path`` is in, or is; None if it is in none."""
    return next((folder for folder in (path, *path.parents) if _is_file(folder / SESSION_DOCUMENT)), None)


def is_link(path: Path) -> bool:
    """Tell whether a path is a link; where that cannot be seen, it is none (`Path.is_symlink` raises)."""
    return os.path.islink(path)  # noqa: PTH114


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113


@dataclass
class Scan:
    """What one look at a folder found."""

    files: list[Path] = field(default_factory=list)
    others: int = 0
    """How many files do not fit the pattern, or are of another format."""
    example: Path | None = None
    """One of these."""
    troubles: dict[Path, OSError] = field(default_factory=dict)
    """What the operating system refused."""
    left_out: dict[Path, str] = field(default_factory=dict)
    """Folders and links that are not followed, with the reason."""
    linked: list[Path] = field(default_factory=list)
    """Folders that are links and are followed."""


@dataclass(frozen=True)
class RawFolder:
    """A folder of raw data and what is wanted of it.

    Parameters
    ----------
    root
        The folder.
    pattern
        A glob relative to it; ``**/`` matches any depth, and ``*`` also matches ``/``.
    suffixes
        Only files with these endings, possibly followed by that of a compression; all if unset.
    """

    root: Path
    pattern: str = "**/*"
    suffixes: frozenset[str] | None = None
    _links: dict[Path, tuple[str, str | None]] = field(default_factory=dict, compare=False, repr=False)
    """What was found of links to files: where they lead, and why they are left out."""

    @property
    def single_file(self) -> Path | None:
        """The one file that a pattern without wildcards means; None where it has some."""
        plain = _ESCAPED.sub(lambda found: found[1], self.pattern)
        return self.root / plain if not _WILDCARDS.search(_ESCAPED.sub("", self.pattern)) else None

    @property
    def base(self) -> Path:
        """The folder below which everything is that the pattern can find."""
        if self.single_file is not None:
            return self.single_file.parent
        plain: list[str] = []
        for part in PurePosixPath(self.pattern).parts[:-1]:
            if _WILDCARDS.search(part):
                break
            plain.append(part)
        return self.root.joinpath(*plain)

    def matches(self, path: Path) -> bool:
        """Tell whether a path is one that is wanted; hidden files and those of copying programs are not."""
        try:
            relative = path.relative_to(self.root)
        except ValueError:
            return False
        if _is_hidden(relative) or path.name.lower().endswith(TEMPORARY_SUFFIXES):
            return False
        if self.suffixes is not None and kind_of(path) not in self.suffixes:
            return False
        name = relative.as_posix()
        flat = self.pattern.removeprefix("**/")
        return fnmatch.fnmatch(name, self.pattern) or (flat != self.pattern and fnmatch.fnmatch(path.name, flat))

    def scan(self) -> Scan:
        """Return what is there now, in the order of the names.

        A missing root stands in ``troubles``; what the pattern needs below it and is missing does not.
        """
        scan, real_root = Scan(), Path(os.path.realpath(self.root))
        around = session_around(Path(os.path.realpath(self.base)))
        if around is not None and not real_root.is_relative_to(around):
            scan.left_out[self.base] = f"it is in the session {around}"
        elif self.single_file is not None:
            self._scan_one(scan, self.single_file, real_root)
        else:
            for folder, names in self._folders(scan, real_root):
                self._sort_in(scan, folder, names, real_root)
        return scan

    def _scan_one(self, scan: Scan, path: Path, real_root: Path) -> None:
        try:
            self.root.stat()
        except OSError as error:
            scan.troubles[self.root] = error
            return
        if os.path.lexists(path):
            self._sort_in(scan, path.parent, [path.name], real_root)

    def _folders(self, scan: Scan, real_root: Path) -> Iterator[tuple[Path, list[str]]]:
        """Yield folders with the names of their files: real ones first, then those that are links."""
        seen: set[tuple[int, int]] = set()
        waiting, links = [self.base], list[Path]()
        while waiting or links:
            folder = waiting.pop() if waiting else links.pop()
            try:
                found = folder.stat()
                if (found.st_dev, found.st_ino) in seen:
                    scan.left_out[folder] = "another link leads to the same folder"
                    continue
                seen.add((found.st_dev, found.st_ino))
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                if folder == self.root or not isinstance(error, FileNotFoundError):
                    scan.troubles[folder] = error
                elif not os.path.lexists(self.root):
                    scan.troubles[self.root] = error
                continue
            names, below, linked = _sort_entries(entries)
            if SESSION_DOCUMENT in names:
                if not real_root.is_relative_to(os.path.realpath(folder)):
                    scan.left_out[folder] = "it is the folder of a session"
                    continue
                below = [name for name in below if name not in SESSION_FOLDERS]
                linked = [name for name in linked if name not in SESSION_FOLDERS]
            followed = [folder / name for name in linked if not self._leaves_out_folder(scan, folder / name, real_root)]
            scan.linked += followed
            links += reversed(followed)
            waiting += [folder / name for name in reversed(below)]
            yield folder, names

    def _sort_in(self, scan: Scan, folder: Path, names: list[str], real_root: Path) -> None:
        for name in names:
            path = folder / name
            if not self.matches(path):
                scan.others += 1
                if scan.example is None or (self.suffixes is not None and kind_of(scan.example) not in self.suffixes):
                    scan.example = path
            elif not is_link(path) or not self._leaves_out_file(scan, path, real_root):
                scan.files.append(path)

    def _leaves_out_file(self, scan: Scan, path: Path, real_root: Path) -> bool:
        """Tell whether a link to a file is left out; a folder may hold thousands, so each is followed once."""
        try:
            target = str(path.readlink())
        except OSError:  # it is gone
            return True
        if not _exists(path):  # whoever looks at it is told so; it may lead somewhere later
            return False
        if self._links.get(path, ("", None))[0] != target:
            self._links[path] = target, self._why_left_out(path, real_root, is_folder=False)
        reason = self._links[path][1]
        if reason is not None:
            scan.left_out[path] = reason
        return reason is not None

    def _leaves_out_folder(self, scan: Scan, path: Path, real_root: Path) -> bool:
        reason = self._why_left_out(path, real_root, is_folder=True)
        if reason is not None:
            scan.left_out[path] = reason
        return reason is not None

    def _why_left_out(self, path: Path, real_root: Path, *, is_folder: bool) -> str | None:
        """Return why a link is not followed, or None if it is."""
        real = Path(os.path.realpath(path))
        session = session_around(real)
        if session is not None:
            written = SESSION_FOLDERS.intersection(real.relative_to(session).parts[:1])
            if written or not real_root.is_relative_to(session):
                return f"it is a link into the session {session}"
        if is_folder and real_root.is_relative_to(real):
            return "it is a link that leads back"
        if real.is_relative_to(real_root) and self._finds(real, real_root, is_folder=is_folder):
            return f"it is a link to {real.relative_to(real_root).as_posix()}, which is found itself"
        return None

    def _finds(self, real: Path, real_root: Path, *, is_folder: bool) -> bool:
        """Tell whether what a link inside the root leads to is found without the link."""
        relative = real.relative_to(real_root)
        there = self.root / relative
        if is_folder:
            return not _is_hidden(relative) and there.is_relative_to(self.base)
        return there.is_relative_to(self.base) and self.matches(there)


def _sort_entries(entries: "list[os.DirEntry[str]]") -> tuple[list[str], list[str], list[str]]:
    """Return the names of files, of folders, and of links to folders; hidden ones are left out."""
    names, below, linked = list[str](), list[str](), list[str]()
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link in a circle: whoever looks at it as a file is told so
            is_folder = False
        if not is_folder:
            names.append(entry.name)
        elif entry.is_symlink():
            linked.append(entry.name)
        else:
            below.append(entry.name)
    return names, below, linked


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)
