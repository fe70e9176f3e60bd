"""The ledger of a machine: one small file that says which runner holds what.

Every runner has a slot: a record it writes, and a lock of one byte that it keeps. The kernel drops the lock when the process
ends, however it ends; a record without its lock counts for nothing. So there is nothing to expire and no clock to trust. A change
is made under a lock for the whole file that is held for a fraction of a millisecond and never waited for long.
"""

import fcntl
import os
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icestream.errors import LedgerBusy, LedgerError

SLOTS = 128
_SLOT_BYTES = 4096
_MUTEX_TRIES = 200
_MUTEX_PAUSE_S = 0.0002
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False, le=1e9)]


class Entry(BaseModel):
    """What one runner writes into its slot."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    user: str = ""
    session: str = ""
    steps: dict[str, int] = Field(default_factory=dict)
    held: dict[str, Amount] = Field(default_factory=dict)
    wanted: dict[str, Amount] = Field(default_factory=dict)
    need: dict[str, Amount] = Field(default_factory=dict)
    served_s: float = Field(0.0, allow_inf_nan=False)


Slots = dict[int, Entry]


def default_ledger() -> Path:
    """Return the path of this user's ledger: the same for every way of logging in, and not removed when the user logs out."""
    return Path(f"/tmp/icestream-{os.getuid()}/ledger")  # noqa: S108 - its folder must be the user's own, see `_check_folder`


class Ledger:
    """One runner's place in the ledger.

    Raises
    ------
    LedgerError
        The file cannot be used: it is not a regular file, belongs into a folder of somebody else, is full, or is locked for long.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.own_folder = path is None
        self.path = path or default_ledger()
        self.slot = -1
        self.damaged: list[int] = []
        self._handle = -1

    def exchange(self, change: Callable[[int, Slots], Entry]) -> None:
        """Let ``change`` see the slots of all other runners that live, and write what it returns into our own."""
        self._keep_open()
        with self._mutex():
            if self.slot < 0:
                self.slot = self._take_slot()
            others = self._read_others()
            entry = change(self.slot, others)
            try:
                os.pwrite(self._handle, encode_entry(entry), _SLOT_BYTES * (self.slot + 1))
            except OSError as error:
                raise LedgerError(f"{self.path}: cannot be written: {error}") from error

    def close(self) -> None:
        """Give the slot and everything in it back."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = self.slot = -1

    def _keep_open(self) -> None:
        """Open the file, or another one if it was removed or replaced meanwhile (a cleaner of temporary files may do that)."""
        if self._handle >= 0:
            try:
                known, now = os.fstat(self._handle), self.path.stat()
            except OSError:
                now = None
            if now is not None and (known.st_dev, known.st_ino) == (now.st_dev, now.st_ino):
                return
            self.close()
        if not hasattr(fcntl, "F_OFD_SETLK") or struct.calcsize("P") != 8:
            raise LedgerError(f"{self.path}: this system has no locks that belong to an open file; only 64-bit Linux has them")
        if self.own_folder:
            _check_folder(self.path.parent)
        self._handle = _open_regular(self.path, os.O_RDWR | os.O_CREAT)

    @contextmanager
    def _mutex(self) -> Iterator[None]:
        for _ in range(_MUTEX_TRIES):
            if _lock(self._handle, 0, fcntl.F_WRLCK):
                break
            time.sleep(_MUTEX_PAUSE_S)
        else:
            raise LedgerBusy(f"{self.path}: another process has kept it locked for {_MUTEX_TRIES * _MUTEX_PAUSE_S:g} s")
        try:
            yield
        finally:
            _lock(self._handle, 0, fcntl.F_UNLCK)

    def _take_slot(self) -> int:
        for slot in range(SLOTS):
            if _lock(self._handle, slot + 1, fcntl.F_WRLCK):
                return slot
        raise LedgerError(f"{self.path}: all {SLOTS} slots are taken")

    def _read_others(self) -> Slots:
        found, self.damaged = _read_slots(self._handle, but=self.slot)
        return found


def read_ledger(path: Path | None = None) -> tuple[Slots, list[int]]:
    """Return the records of all runners that live, and the slots whose record is damaged; nothing if there is no ledger.

    Raises
    ------
    LedgerError
        The file cannot be read.
    """
    where = path or default_ledger()
    if not where.exists():
        return {}, []
    handle = _open_regular(where, os.O_RDONLY)
    try:
        found, damaged = _read_slots(handle, but=-1)
        for _ in range(3):  # a record may be in the middle of being written
            if not damaged:
                break
            found, damaged = _read_slots(handle, but=-1)
        return found, damaged
    finally:
        os.close(handle)


def encode_entry(entry: Entry) -> bytes:
    """Return the content of a slot: a checksum, the record, and zeros; what is for people only is left out if it is too long."""
    for candidate in (entry, entry.model_copy(update={"steps": {}, "session": entry.session[-200:]})):
        text = candidate.model_dump_json().encode()
        if len(text) <= _SLOT_BYTES - 9:
            return (b"%08x" % zlib.crc32(text) + text + b"\n").ljust(_SLOT_BYTES, b"\0")
    raise LedgerError(f"a record of {len(text)} bytes does not fit into a slot of {_SLOT_BYTES}")


def decode_entry(content: bytes) -> Entry | None:
    """Return the record in a slot, or None if it is damaged."""
    text = content[8:].partition(b"\n")[0]
    if content[:8] != b"%08x" % zlib.crc32(text):
        return None
    try:
        return Entry.model_validate_json(text)
    except ValidationError:
        return None


def _read_slots(handle: int, *, but: int) -> tuple[Slots, list[int]]:
    found, damaged = {}, []
    for slot in _locked_slots(handle):
        if slot == but:
            continue
        entry = decode_entry(os.pread(handle, _SLOT_BYTES, _SLOT_BYTES * (slot + 1)))
        if entry is None:
            damaged.append(slot)
        else:
            found[slot] = entry
    return found, damaged


def _lock(handle: int, byte: int, kind: int) -> bool:
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))
    except BlockingIOError:
        return False
    except OSError as error:
        raise LedgerError(f"the ledger cannot be locked: {error}") from error
    return True


def _locked_slots(handle: int) -> list[int]:
    """Return the slots that others hold: the kernel names some lock in a range, so what lies beside it is asked for again."""
    found: set[int] = set()
    ranges = [(1, SLOTS + 1)]
    while ranges:
        begin, end = ranges.pop()
        if begin >= end:
            continue
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, begin, end - begin, 0)
        kind, _, start, length, _ = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_OFD_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            continue
        stop = end if length == 0 else min(end, start + length)  # a length of 0 means: to the end of the file
        found.update(range(max(begin, start) - 1, stop - 1))
        ranges += [(begin, start), (stop, end)]
    return sorted(found)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise LedgerError(f"{folder}: cannot be used: {error}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise LedgerError(f"{folder}: is not a folder that belongs to this user alone; remove it, or set ICESTREAM_LEDGER")


def _open_regular(path: Path, flags: int) -> int:
    """Open a file that must not be a link, a pipe or a device, without waiting for anything; nobody else may read a new one."""
    try:
        handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise LedgerError(f"{path}: cannot be opened: {error}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise LedgerError(f"{path}: is not a regular file")
    return handle
