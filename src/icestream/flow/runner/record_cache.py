"""Records that were made or read a moment ago, so that the steps that follow need not read them again."""

from cachetools import LRUCache

from icestream.flow.execution.messages import StoredRecord

_OVERHEAD_BYTES = 600
"""What Python needs for an entry beside its text and block."""


class RecordCache:
    """Keeps the records that were used last, up to a number of bytes."""

    def __init__(self, limit_bytes: int = 256 * 2**20) -> None:
        self.limit_bytes = limit_bytes
        self._records: LRUCache[str, StoredRecord] = LRUCache(limit_bytes, getsizeof=size_of)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def size_bytes(self) -> int:
        """About how many bytes the records take that are kept."""
        return int(self._records.currsize)

    def get(self, key: str) -> StoredRecord | None:
        """Return a record, or None if it is not here any more."""
        return self._records.get(key)

    def drop(self, key: str) -> None:
        """Forget a record."""
        self._records.pop(key, None)

    def put(self, key: str, stored: StoredRecord) -> None:
        """Keep a record; those that were not used for the longest time make room. One larger than the limit is not kept."""
        self.drop(key)
        if size_of(stored) <= self.limit_bytes:
            self._records[key] = stored


def size_of(stored: StoredRecord) -> int:
    """Return about how many bytes a record takes."""
    return _OVERHEAD_BYTES + len(stored.json) + (0 if stored.block is None else len(stored.block))
