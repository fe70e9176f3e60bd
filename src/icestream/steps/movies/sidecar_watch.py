"""Sidecars that come after their exposure, or change: waiting a little for what is usual, and reading again what came late.

Acquisition software and copying programs write sidecars before, with or (up to hours) after the image. While the images of a
folder have sidecars, a new image waits for its own for a short time. Whatever comes later is read when it comes.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from icestream.flow import Arrival, Second, SeenFile, SourceContext
from icestream.io.metadata import SIDECAR_SUFFIXES, exposure_stem, find_sidecar, is_well_formed
from icestream.steps.movies.folder_watch import Found, Stamp

_SETTLED_S = 2.0
"""A sidecar that is not seen to be whole is read when it has not changed for this long."""


@dataclass
class SidecarWatch:
    """Knows the sidecars of the files that a source has taken.

    Parameters
    ----------
    ref_of
        Returns how a file is named in the session.
    wait_s
        How long a file waits for its sidecar, where those before it had one.
    """

    ctx: SourceContext
    ref_of: Callable[[Path], str]
    wait_s: Second
    rescan_s: Second
    clock: Callable[[], float] = time.monotonic
    usual: bool = False
    """The files of this folder have sidecars."""
    pending: bool = False
    """A sidecar is there that may still be written."""
    _taken: dict[tuple[Path, str], dict[Path, Stamp]] = field(default_factory=dict)
    """Folder and stem → the files that were taken."""
    _read: set[SeenFile] = field(default_factory=set)
    _waiting: dict[Path, tuple[Found, float]] = field(default_factory=dict)
    _scanned_at_s: float = float("-inf")

    def note(self, path: Path, stamp: Stamp) -> None:
        """Note a file that was taken, now or in an earlier run."""
        self._taken.setdefault((path.parent, exposure_stem(path.name)), {})[path] = stamp

    def remembering(self, taken: Callable[[Path, Stamp], bool]) -> Callable[[Path, Stamp], bool]:
        """Return ``taken``, which tells whether a file was taken before, so that those are noted."""

        def tell(path: Path, stamp: Stamp) -> bool:
            known = taken(path, stamp)
            if known:
                self.note(path, stamp)
            return known

        return tell

    def release(self, found: list[Found], *, closing: bool = False) -> list[Found]:
        """Return which files are to be taken now: they have their sidecar, or have waited for it long enough."""
        now_s = self.clock()
        for one in found:
            self._waiting[one.path] = one, now_s
        ready = [
            one
            for one, since_s in self._waiting.values()
            if closing or one.error is not None or now_s - since_s >= self.wait_s or self._has_what_is_usual(one.path)
        ]
        for one in ready:
            del self._waiting[one.path]
        return ready

    @property
    def n_waiting(self) -> int:
        """How many files wait for their sidecars."""
        return len(self._waiting)

    def _has_what_is_usual(self, path: Path) -> bool:
        sidecar = find_sidecar(path)
        return not self.usual if sidecar is None else self._is_settled(sidecar)

    def _is_settled(self, sidecar: Path) -> bool:
        """Tell whether a sidecar is whole, or will not become so soon."""
        try:
            quiet_s = time.time() - sidecar.stat().st_mtime
        except OSError:
            return True
        return not 0 <= quiet_s < _SETTLED_S or is_well_formed(sidecar)

    def stamp(self, path: Path) -> tuple[SeenFile, ...]:
        """Return the sidecar of a file as it is now, before it is read; empty without one."""
        sidecar = find_sidecar(path)
        seen = None if sidecar is None else self._seen(sidecar)
        return () if seen is None else (seen,)

    def complete(self, arrival: Arrival, found: Found, beside: tuple[SeenFile, ...]) -> Arrival:
        """Note a file that arrives; return its arrival with the sidecars that were read with it."""
        self.note(found.path, found.stamp)
        self._read.update(beside)
        self.usual = self.usual or bool(beside)
        return replace(arrival, beside=beside, warnings=() if arrival.record is None else arrival.record.warnings)

    def changed(self) -> Iterator[Found]:
        """Yield files that were taken and whose sidecars came or changed since, as often as folders are scanned."""
        now_s = self.clock()
        if now_s - self._scanned_at_s < self.rescan_s:
            return
        self._scanned_at_s, self.pending = now_s, False
        for folder in {folder for folder, _ in self._taken}:
            for sidecar in _sidecars_in(folder):
                files = self._taken.get((folder, exposure_stem(sidecar.name)), {})
                seen = self._seen(sidecar) if files else None
                if seen is None:
                    continue
                self.usual = True
                if seen in self._read or self.ctx.seen(seen):
                    continue
                if not self._is_settled(sidecar):
                    self.pending = True
                    continue
                self._read.add(seen)
                yield from (Found(path, stamp) for path, stamp in list(files.items()))

    def _seen(self, sidecar: Path) -> SeenFile | None:
        try:
            status = sidecar.stat()
        except OSError:
            return None
        return SeenFile(self.ref_of(sidecar), status.st_size, status.st_mtime_ns)


def _sidecars_in(folder: Path) -> list[Path]:
    """Return what may be sidecars in a folder; none where it cannot be read, which the source itself tells."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return []
    return [folder / name for name in names if name.lower().endswith(SIDECAR_SUFFIXES) and not name.startswith(".")]
