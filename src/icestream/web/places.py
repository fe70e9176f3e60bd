"""The sessions that are shown: one, or all in a folder. A name that a browser sends is looked up, and never becomes a path."""

from dataclasses import dataclass, field
from pathlib import Path

from icestream.errors import SessionError
from icestream.flow.storage import DOCUMENT, Session, open_session


class NotThere(SessionError):
    """What is asked for does not exist."""


class UnknownSession(NotThere):
    """No session that is shown has this name."""


@dataclass
class Places:
    """The folder that is served; ``single`` if it is a session itself."""

    folder: Path
    _opened: dict[str, tuple[tuple[int, int], Session]] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        """Tell whether one session is served."""
        return (self.folder / DOCUMENT).is_file()

    def names(self) -> list[str]:
        """Return the names of all sessions, which are those of their folders."""
        if self.single:
            return [self.folder.name]
        return sorted(path.name for path in self.folder.iterdir() if (path / DOCUMENT).is_file())

    def folder_of(self, name: str) -> Path:
        """Return the folder of a session.

        Raises
        ------
        UnknownSession
            None that is shown is called so.
        """
        single = self.single
        if not (name == self.folder.name if single else self._is_entry(name)):
            raise UnknownSession(f"{name[:200]!r}: no session of this name is served here")
        return self.folder if single else self.folder / name

    def _is_entry(self, name: str) -> bool:
        """Tell whether a name is that of a folder with a session, without looking at the others."""
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            return False
        try:
            return (self.folder / name / DOCUMENT).is_file()
        except OSError:  # longer than any name can be
            return False

    def open(self, name: str) -> Session:
        """Return a session; its document is read again where it has changed.

        Raises
        ------
        UnknownSession
            None that is shown is called so.
        SessionError
            Its document cannot be read.
        """
        folder = self.folder_of(name)
        status = (folder / DOCUMENT).stat()
        seen = (status.st_mtime_ns, status.st_size)
        known = self._opened.get(name)
        if known is None or known[0] != seen:
            known = (seen, open_session(folder))
            self._opened[name] = known
        return known[1]


def find_places(folder: Path) -> Places:
    """Return what is served for a path that a person gives: a session, or a folder with sessions in it, now or later.

    Raises
    ------
    SessionError
        It is no folder.
    """
    absolute = folder.absolute()
    if not absolute.is_dir():
        raise SessionError(f"{folder}: is no folder; give a session, or a folder that has sessions in it")
    return Places(absolute)
