"""What a transfer would do, without doing any of it."""

import fnmatch
import time
from dataclasses import dataclass, field

from icestream.transfer.anchored import FileStamp
from icestream.transfer.ledger import FileRow, Ledger
from icestream.transfer.looking import ReadyFile, SourceFolder
from icestream.transfer.plan import TransferPlan
from icestream.transfer.target import LinkBroken


@dataclass
class Foreseen:
    """What would be done now."""

    copied: list[ReadyFile] = field(default_factory=list)
    growing: int = 0
    """Files that are shorter than their headers say."""
    refused: dict[str, str] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    removed: list[FileRow] = field(default_factory=list)
    """Files that are due at the source; each is removed only if its copy is still what was copied."""

    @property
    def copied_bytes(self) -> int:
        """How many bytes would be copied."""
        return sum(one.stamp.size_bytes for one in self.copied)

    @property
    def removed_bytes(self) -> int:
        """How many bytes would be freed at the source."""
        return sum(one.size_bytes for one in self.removed)


def foresee_transfer(plan: TransferPlan, ledger: Ledger) -> Foreseen:
    """Return what a transfer would do now; nothing is written, neither at the ends nor in the ledger.

    Raises
    ------
    SessionError
        One folder is in the other, or the source cannot be read.
    """
    plan.check()
    source, target = str(plan.source.resolve()), str(plan.target.resolve())
    known = next((row.id for row in ledger.transfers() if (row.source, row.target) == (source, target)), None)
    rows = [] if known is None else ledger.files(known, ["verified", "removing", "refused"])
    settled = {(row.name, row.stamp) for row in rows}
    looking = SourceFolder(plan.source.resolve(), plan.pattern, 0.0, plan.give_up_s, lambda name, stamp: (name, stamp) in settled)
    look = looking.look()
    if look.unreadable is not None:
        raise LinkBroken(f"{plan.source}: cannot be read: {look.unreadable}")
    return Foreseen(look.ready, look.growing, look.refused, look.troubles, _due(plan, ledger, known))


def _due(plan: TransferPlan, ledger: Ledger, transfer: int | None) -> list[FileRow]:
    if transfer is None or plan.remove_after_s is None:
        return []
    rows = ledger.verified_until(transfer, time.time() - plan.remove_after_s)
    return [row for row in rows if fnmatch.fnmatch(row.name, plan.remove_pattern) and _is_there(plan, row)]


def _is_there(plan: TransferPlan, row: FileRow) -> bool:
    try:
        status = (plan.source / row.name).lstat()
    except OSError:
        return False
    return FileStamp(status.st_size, status.st_mtime_ns) == row.stamp
