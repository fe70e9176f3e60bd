"""Choosing folders of raw data in a browser: only below folders that the facility allows, wherever links lead.

The folder of a session, and what is below it, is no raw data: who may see a session is decided by its name, not by its path.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from icestream.errors import WorkflowError
from icestream.flow.storage import DOCUMENT
from icestream.io.raw_folder import session_around
from icestream.web.places import NotThere

MOST_ENTRIES = 500
MOST_LOOKED_AT = 5000
LONGEST_PATH = 1000


class NotAllowed(WorkflowError):
    """A folder is outside of those that may be chosen."""


@dataclass(frozen=True)
class FolderEntry:
    """A folder that can be chosen or looked into."""

    name: str
    path: str


@dataclass(frozen=True)
class FolderListing:
    """What is in a folder; ``path`` is empty for the list of all folders that are allowed."""

    path: str
    above: str | None
    """The folder around it; empty for the list of all, unset where there is nothing above."""
    folders: tuple[FolderEntry, ...]
    n_files: int
    files: tuple[str, ...]
    """Names of the first files."""
    more: bool
    """There is more than is told."""


@dataclass(frozen=True)
class RawFolders:
    """The folders below which raw data may be chosen."""

    roots: tuple[Path, ...] = ()

    def also(self, folder: Path) -> "RawFolders":
        """Return these folders and one more, if it is not below one of them."""
        return self if any(folder.is_relative_to(root) for root in self.roots) else RawFolders((*self.roots, folder))

    def check(self, path: str) -> Path:
        """Return a path with links resolved, if it is below one of the folders; it need not exist yet.

        Raises
        ------
        NotAllowed
            It is somewhere else, in the folder of a session, or no absolute path.
        """
        if not path.isprintable() or len(path) > LONGEST_PATH or not path.startswith("/"):
            raise NotAllowed("must be an absolute path, of characters that can be printed")
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(os.path.realpath(root)) for root in self.roots):
            allowed = ", ".join(map(str, self.roots)) or "no folder"
            raise NotAllowed(
                f"{path}: must be in {allowed}; who runs the server allows others with `icestream serve --data FOLDER` "
                "or ICESTREAM_RAW_FOLDERS"
            )
        if session_around(real) is not None:
            raise NotAllowed(f"{path}: is in the folder of a session, which is no raw data")
        return real

    def look(self, path: str) -> FolderListing:
        """Return what is in a folder; without a path, the folders that are allowed.

        Raises
        ------
        NotAllowed
            It is outside of them.
        NotThere
            It is no folder, or cannot be read.
        """
        if not path:
            there = [root for root in self.roots if root.is_dir()]
            return FolderListing("", None, tuple(FolderEntry(str(root), str(root)) for root in there), 0, (), more=False)
        self.check(path)
        at_root = any(Path(path) == root for root in self.roots)
        folders, files, more = self._read(Path(path))
        entries = tuple(FolderEntry(name, f"{path.rstrip('/')}/{name}") for name in sorted(folders)[:MOST_ENTRIES])
        more = more or len(folders) > MOST_ENTRIES
        return FolderListing(
            path, "" if at_root else str(Path(path).parent), entries, len(files), tuple(sorted(files)[:10]), more
        )

    def _read(self, folder: Path) -> tuple[list[str], list[str], bool]:
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for number, entry in enumerate(entries):
                    if number >= MOST_LOOKED_AT:
                        return folders, files, True
                    if entry.name.startswith(".") or not entry.name.isprintable():
                        continue
                    if not entry.is_dir():
                        files.append(entry.name)
                    elif self._may_enter(entry):
                        folders.append(entry.name)
        except OSError as error:
            raise NotThere(f"{folder}: {error.strerror}") from None
        return folders, files, False

    def _may_enter(self, entry: "os.DirEntry[str]") -> bool:
        """Tell whether a folder is to be offered: no session, and no link that leads out or into one."""
        if os.path.lexists(os.path.join(entry.path, DOCUMENT)):  # noqa: PTH118 - of thousands of entries
            return False
        if not entry.is_symlink():
            return True
        real = Path(os.path.realpath(entry.path))
        return session_around(real) is None and any(real.is_relative_to(os.path.realpath(root)) for root in self.roots)
