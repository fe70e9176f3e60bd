"""Recent records are bounded by their bytes, not by their number."""

from icestream.flow.execution.messages import StoredRecord
from icestream.flow.runner.record_cache import RecordCache, size_of


def record(size: int) -> StoredRecord:
    return StoredRecord("Number", 1, "x" * 10, b"b" * size, 1)


def test_the_least_recently_used_make_room() -> None:
    recent = RecordCache(limit_bytes=3 * size_of(record(1000)))
    for name in "abc":
        recent.put(name, record(1000))
    assert recent.get("a") is not None
    recent.put("d", record(1000))
    assert [name for name in "abcd" if recent.get(name) is not None] == ["a", "c", "d"]
    assert recent.size_bytes <= recent.limit_bytes


def test_one_big_record_never_exceeds_the_limit() -> None:
    recent = RecordCache(limit_bytes=10_000)
    recent.put("small", record(10))
    recent.put("big", record(1_000_000))
    assert (len(recent), recent.size_bytes) == (1, size_of(record(10)))
    recent.put("small", record(1_000_000))
    assert (len(recent), recent.size_bytes) == (0, 0)


def test_a_record_that_is_put_again_counts_once() -> None:
    recent = RecordCache()
    for _ in range(5):
        recent.put("a", record(100))
    assert recent.size_bytes == size_of(record(100))
    assert recent.get("b") is None
