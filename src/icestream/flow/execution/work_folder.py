"""A private folder for one attempt: made when it is asked for, removed when the attempt ends, swept after a crash.

A lock file beside each folder is held by the process that works in it, and the kernel lets go of it however that process ends:
a folder whose lock is free belongs to nobody.
"""

import fcntl
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

WORK = "work"
_KEPT = "kept_"
_LOCK = ".lock"


def work_root(session: Path, scratch: Path | None) -> Path:
    """Return where private folders are made: in the session, or on a local disk."""
    return session / WORK if scratch is None else scratch / f"icestream-{os.getuid()}"


@dataclass
class WorkFolder:
    """The private folder of one attempt; ``label`` names it if it is kept after a failure.

    Where it is and whether it is kept say the settings of the machine, which are read when it is first asked for.
    """

    session: Path
    attempt: str
    label: str
    cancelled: Callable[[], bool] = lambda: False
    _root: Path = field(default=Path(), init=False)
    _keep_failed: bool = field(default=False, init=False)
    _lock: int | None = field(default=None, init=False)

    @property
    def path(self) -> Path:
        """The folder, made and locked at the first call.

        Raises
        ------
        OSError
            It cannot be made.
        """
        if self._lock is None:
            from icestream.settings import Settings  # noqa: PLC0415 - workers start sooner without it, and few steps need it

            settings = Settings()
            self._root, self._keep_failed = work_root(self.session, settings.scratch), settings.keep_failed_work
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            sweep_work_folders(self._root)
            folder = self._root / self.attempt
            self._lock = _lock(folder.with_name(folder.name + _LOCK))
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        return self._root / self.attempt

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock is None:
            return
        folder = self._root / self.attempt
        if kind is not None and self._keep_failed and not self.cancelled() and folder.is_dir():
            folder.rename(self._root / f"{_KEPT}{self.label}_{self.attempt[:8]}")
        _remove(folder, self._lock)
        self._lock = None


def sweep_work_folders(root: Path) -> int:
    """Remove the folders below ``root`` whose processes are gone; return how many. Those that were kept stay."""
    swept = 0
    for lock in root.glob(f"*{_LOCK}"):
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # it was removed just now, or belongs to somebody else
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
        else:
            _remove(lock.with_name(lock.name.removesuffix(_LOCK)), handle)
            swept += 1
    return swept


def _lock(path: Path) -> int:
    """Make and lock a lock file; once more if a sweep took it away between the two."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(path.stat(), os.fstat(handle)):
            return handle
        os.close(handle)


def _remove(folder: Path, lock: int) -> None:
    """Remove a folder, then its lock file, which ``lock`` holds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(folder.name + _LOCK).unlink(missing_ok=True)
    os.close(lock)
