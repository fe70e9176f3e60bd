"""Records that were made or read a moment ago, so that the steps that follow need not read them again."""

from collections import OrderedDict
from dataclasses import dataclass, field

from icestream.flow.execution.messages import StoredRecord

_OVERHEAD_BYTES = 600
"""What Python needs for an entry beside its text and block."""


@dataclass
class RecordCache:
    """Keeps the records that were used last, up to a number of bytes."""

    limit_bytes: int = 256 * 2**20
    size_bytes: int = 0
    _records: "OrderedDict[str, StoredRecord]" = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> StoredRecord | None:
        """Return a record, or None if it is not here any more."""
        stored = self._records.get(key)
        if stored is not None:
            self._records.move_to_end(key)
        return stored

    def drop(self, key: str) -> None:
        """Forget a record."""
        known = self._records.pop(key, None)
        if known is not None:
            self.size_bytes -= size_of(known)

    def put(self, key: str, stored: StoredRecord) -> None:
        """Keep a record; those that were not used for the longest time make room."""
        self.drop(key)
        self._records[key] = stored
        self.size_bytes += size_of(stored)
        while self.size_bytes > self.limit_bytes and self._records:
            _, oldest = self._records.popitem(last=False)
            self.size_bytes -= size_of(oldest)


def size_of(stored: StoredRecord) -> int:
    """Return about how many bytes a record takes."""
    return _OVERHEAD_BYTES + len(stored.json) + (0 if stored.block is None else len(stored.block))
