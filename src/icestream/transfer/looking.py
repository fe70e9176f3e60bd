"""Looking at a folder for files that are complete, without disturbing who writes them.

The rules are those of sources (decision 0008), without file events, which a mounted disk does not give: a file is complete
when its size and time have not changed for a stability time, and it has all the bytes that its header declares. One that stays
shorter is transferred as it is when it has not grown for long. All is measured by this machine's clock: the microscope's may
differ.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from icestream.errors import ItemError, TruncatedFile
from icestream.io.raw_folder import RawFolder, kind_of, plain_text
from icestream.io.ready import check_complete
from icestream.transfer.anchored import FileRefused, FileStamp, kind_refused, parts_of, stamp_of

_WITH_HEADER = frozenset({".mrc", ".mrcs", ".st", ".map", ".tif", ".tiff", ".eer", ".png"})
"""Endings of files whose header declares their size."""


@dataclass(frozen=True)
class ReadyFile:
    """A file that is complete, or has not grown for so long that it will not be; ``note`` says so then."""

    name: str
    stamp: FileStamp
    note: str | None = None


@dataclass
class Look:
    """What one look found; files are named relative to the folder."""

    ready: list[ReadyFile] = field(default_factory=list)
    """The oldest first, without those that are settled."""
    growing: int = 0
    """Files that are being written, or have not been still for long enough."""
    undecided: int = 0
    """Those of them that have not changed so far."""
    refused: dict[str, str] = field(default_factory=dict)
    """Files and folders that are never transferred, with the reason."""
    troubles: dict[str, str] = field(default_factory=dict)
    """What the operating system refuses at present."""
    unreadable: str | None = None
    """Why the folder itself cannot be read."""


@dataclass
class _Seen:
    stamp: FileStamp
    since_s: float
    changed: bool = False


@dataclass
class SourceFolder:
    """A folder that is looked at again and again.

    ``settled`` tells of a version of a file that there is nothing more to do about it.
    """

    root: Path
    pattern: str
    stable_s: float
    give_up_s: float
    settled: Callable[[str, FileStamp], bool]
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def look(self) -> Look:
        """Look at all files once."""
        look, before = Look(), self._seen
        scan = RawFolder(self.root, self.pattern).scan()
        for path, error in scan.troubles.items():
            if path == self.root:
                return Look(unreadable=error.strerror or str(error))
            look.troubles[self._shown(path)] = error.strerror or str(error)
        look.refused |= {self._shown(path): reason for path, reason in scan.left_out.items()}
        look.refused |= {self._shown(path): "it is a link to a folder, and links are not followed" for path in scan.linked}
        self._seen = {}
        for path in scan.files:
            if not any(path.is_relative_to(link) for link in scan.linked):
                self._look_at(path, look, before)
        look.ready.sort(key=lambda one: (one.stamp.modified_ns, one.name))
        return look

    def _look_at(self, path: Path, look: Look, before: dict[str, _Seen]) -> None:
        name = path.relative_to(self.root).as_posix()
        try:
            parts_of(name)
            status = path.lstat()
        except FileRefused as refusal:
            look.refused[self._shown(path)] = str(refusal)
            return
        except FileNotFoundError:  # it was renamed or removed since the folder was read
            return
        except OSError as error:
            look.troubles[self._shown(path)] = error.strerror or str(error)
            return
        reason, stamp = kind_refused(status), stamp_of(status)
        if reason is not None:
            look.refused[self._shown(path)] = reason
        elif not self.settled(name, stamp):
            seen = before.get(name)
            if seen is None or seen.stamp != stamp:
                seen = _Seen(stamp, self.clock(), changed=seen is not None)
            self._seen[name] = seen
            self._judge(path, name, seen, look)

    def _judge(self, path: Path, name: str, seen: _Seen, look: Look) -> None:
        """Decide whether a file is complete."""
        still_s = self.clock() - seen.since_s
        if still_s < self.stable_s:
            look.growing += 1
            look.undecided += not seen.changed
            return
        note = None
        try:
            if kind_of(path) in _WITH_HEADER:
                check_complete(path)
        except TruncatedFile as error:
            if still_s < self.give_up_s:
                look.growing += 1
                return
            note = error.reason
        except ItemError as error:  # damaged or foreign: whoever reads it at the target says so, too
            note = str(error)
        except OSError as error:  # copying it fails, too, and is accounted for
            note = f"its header could not be read: {error.strerror}"
        look.ready.append(ReadyFile(name, seen.stamp, note))

    def _shown(self, path: Path) -> str:
        return plain_text(path.relative_to(self.root))
