"""What is known of verified copies: whoever wants to delete a file asks here, and the source's own removal does, too."""

import os
from dataclasses import dataclass
from pathlib import Path

from icestream.flow.runner.fault_points import fault_point
from icestream.transfer.anchored import AnchoredFolder, FileRefused, open_regular, parts_of, stamp_of, status_in, sync_entries
from icestream.transfer.copying import SourceChanged, read_digest
from icestream.transfer.ledger import FileRow, Ledger, TransferRow
from icestream.transfer.throttle import Throttle
from icestream.transfer.two_places import is_same_file, is_same_folder


@dataclass(frozen=True)
class VerifiedCopy:
    """A copy of a file at another place: checked byte for byte when it was made, and its size and time again now."""

    path: Path
    """Where the copy is."""
    size_bytes: int
    digest: str
    """BLAKE2b of 256 bits, as `b2sum -l 256` prints it."""
    verified_at: float
    """When it was last read and compared, in seconds since 1970."""
    same_disk: bool
    """It is on the same file system as the file itself, and is lost with it."""


def verified_copy(ledger: Ledger, path: Path, *, reread: bool = False) -> VerifiedCopy | None:
    """Return a verified copy of a file elsewhere, or None if none is known to be there now.

    The file must be what it was when it was copied, and the copy what it was when it was verified, both by size and time.
    ``reread`` reads both whole and compares them with each other and with the ledger: do so before deleting anything.
    """
    absolute = path.parent.resolve() / path.name  # a link that is the file itself is not followed
    for transfer in ledger.transfers():
        root = Path(transfer.source)
        if not absolute.is_relative_to(root):
            continue
        name = absolute.relative_to(root).as_posix()
        for row in ledger.versions(transfer.id, name):
            if row.state in ("verified", "removing"):
                found = _check(transfer, row, reread=reread)
                if found is not None:
                    return found
    return None


def _check(transfer: TransferRow, row: FileRow, *, reread: bool) -> VerifiedCopy | None:
    source, target = AnchoredFolder(Path(transfer.source)), AnchoredFolder(Path(transfer.target))
    try:
        status = source.status(row.name)
        copied = target.status(row.target_name or row.name)
        if status is None or copied is None or stamp_of(status) != row.stamp or not is_copy_there(row, copied):
            return None
        if is_same_file(status, copied):
            return None
        if reread and {digest_of(source, row.name), digest_of(target, row.target_name or row.name)} != {row.digest}:
            return None
    except (OSError, FileRefused):  # what cannot be looked at is no copy to rely on
        return None
    return VerifiedCopy(
        path=target.root / (row.target_name or row.name),
        size_bytes=row.size_bytes,
        digest=row.digest or "",
        verified_at=row.verified_at or 0.0,
        same_disk=status.st_dev == copied.st_dev,
    )


def is_copy_there(row: FileRow, status: os.stat_result) -> bool:
    """Tell whether what is at the target looks as the copy did when it was verified."""
    return (status.st_size, status.st_mtime_ns) == (row.size_bytes, row.target_modified_ns)


def digest_of(folder: AnchoredFolder, name: str, throttle: Throttle | None = None) -> str:
    """Return the digest of a file below a folder, read from its disk.

    Raises
    ------
    FileRefused
        It is a link or no file.
    OSError
        It cannot be read.
    Interrupted
        Somebody asked to stop.
    """
    parts = parts_of(name)
    with folder.folder(parts[:-1]) as there, open_regular(there, parts[-1]) as handle:
        return read_digest(handle, throttle or Throttle())


_CHANGED = "it has changed at the source since it was copied, so it is kept"


def remove_source(source: AnchoredFolder, target: AnchoredFolder, row: FileRow, throttle: Throttle) -> bool:
    """Remove a file at the source after its copy at the target was read again whole and is what was copied.

    Returns
    -------
    bool
        False where it was gone already: we removed it before we died, or somebody else did.

    Raises
    ------
    SourceChanged
        The file is not what it was when it was copied.
    FileRefused
        The copy is not there, or not what it was.
    Interrupted
        Somebody asked to stop; nothing was removed.
    OSError
        Of the source or the target.
    """
    parts = parts_of(row.name)
    try:
        with source.folder(parts[:-1]) as there:
            if status_in(there, parts[-1]) is None:
                return False
            if stamp_of(os.stat(parts[-1], dir_fd=there, follow_symlinks=False)) != row.stamp:
                raise SourceChanged(_CHANGED)
            _check_copy(target, row, throttle)
            _refuse_itself(target, row, there, parts[-1])
            with open_regular(there, parts[-1]) as handle:  # again, and the very file whose name is removed
                opened = os.fstat(handle)
                named = os.stat(parts[-1], dir_fd=there, follow_symlinks=False)
                if stamp_of(opened) != row.stamp or (opened.st_dev, opened.st_ino) != (named.st_dev, named.st_ino):
                    raise SourceChanged(_CHANGED)
                fault_point("before_unlink")
                os.unlink(parts[-1], dir_fd=there)
                fault_point("after_unlink")
            sync_entries(there)
    except FileNotFoundError:
        return False
    return True


def _refuse_itself(target: AnchoredFolder, row: FileRow, there: int, last: str) -> None:
    """Refuse a copy that is the file itself, reached by another path."""
    copy = parts_of(row.target_name or row.name)
    with target.folder(copy[:-1]) as here:
        found = os.stat(copy[-1], dir_fd=here, follow_symlinks=False)
        if is_same_file(found, os.stat(last, dir_fd=there, follow_symlinks=False)) or is_same_folder(here, there):
            raise FileRefused("its copy is the file itself, reached by another path, so it is kept")


def _check_copy(target: AnchoredFolder, row: FileRow, throttle: Throttle) -> None:
    name = row.target_name or row.name
    try:
        found = digest_of(target, name, throttle)
    except FileNotFoundError:
        raise FileRefused(f"its copy {name} is not at the target any more, so it is kept") from None
    if found != row.digest:
        raise FileRefused(f"its copy {name} at the target is not what was copied, so it is kept")
