"""What can go wrong, as one tree.

::

    IcestreamError
    ├── DeclarationError       a step or record was declared wrongly (its author mends it)
    ├── WorkflowError          a workflow, template or parameter that cannot run (its user mends it)
    ├── SessionError           a session folder, store or setting that cannot be used
    │   ├── SessionBusy        another runner holds the session
    │   ├── StoreUnavailable   the store cannot be reached or written now; it may heal, so a runner may wait and come back
    │   ├── StaleRunner        this runner was replaced; it must not commit
    │   └── LedgerError        the ledger of the machine's resources cannot be used; a runner goes on without it
    │       └── LedgerBusy     another process has kept it locked for long
    └── ItemError              one item cannot be processed; the stream goes on
        ├── FileFormatError    a file that cannot be read, with the file and the reason
        │   ├── TruncatedFile  a file that is shorter than its header declares
        │   └── OtherKind      a good file of another kind than the one that is wanted
        ├── SourceGone         a raw file that was there and is there no more
        ├── FileRemoved        a file of the session that somebody has removed to free the disk; it can be computed again
        └── NotYet             something that another program makes is not there yet; it is looked for again for ten minutes

A message names the thing, the value got and what was allowed.
"""

from enum import IntEnum
from pathlib import Path


class IcestreamError(Exception):
    """The root of all errors raised on purpose."""


class DeclarationError(IcestreamError):
    """A step or record was declared wrongly."""


class WorkflowError(IcestreamError):
    """A workflow, template or parameter cannot run as written."""


class SessionError(IcestreamError):
    """A session folder, its store or a setting cannot be used."""


class SessionBusy(SessionError):
    """Another runner holds the session."""


class StoreUnavailable(SessionError):
    """The store cannot be reached or written at this moment; unlike its siblings, this may pass."""


class StaleRunner(SessionError):
    """The runner was replaced by a newer one and must not commit."""


class LedgerError(SessionError):
    """The ledger of the machine's resources cannot be used."""


class LedgerBusy(LedgerError):
    """Another process has kept the ledger locked for long."""


class ItemError(IcestreamError):
    """One item cannot be processed; it is marked failed and the stream goes on."""


class FileFormatError(ItemError):
    """A file cannot be read.

    Parameters
    ----------
    path
        The file.
    reason
        What is wrong with it, in words an operator understands.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


class TruncatedFile(FileFormatError):
    """A file is shorter than its header declares."""


class OtherKind(FileFormatError):
    """A good file of another kind than the one that is wanted: a single image among movies."""


class SourceGone(ItemError):
    """A raw file that was there and is there no more."""


class FileRemoved(ItemError):
    """A file of the session was removed to free the disk. Its text is the reference to the file, and nothing else."""


class NotYet(ItemError):
    """Something that another program makes for an item is not there yet."""


class ExitStatus(IntEnum):
    """With which status a command ends; a program that started it reads it."""

    ERROR = 1
    USAGE = 2
    SOME_FAILED = 3
    """It did what it was asked, but some exposures or files failed."""
    UNANSWERED = 4
    INTERRUPTED = 130
    """It was stopped before the end, as it was asked."""
