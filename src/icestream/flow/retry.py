"""When to try again."""

from icestream.flow.moves import FailureKind

_DELAYS_S: dict[FailureKind, tuple[float, ...]] = {
    FailureKind.ITEM: (),  # the item itself is bad: trying again changes nothing
    FailureKind.ERROR: (1.0,),
    FailureKind.TRANSIENT: (1.0, 4.0, 16.0),
    FailureKind.WORKER_DIED: (0.0, 0.5),  # the third death sets the item aside
}


def retry_delay_s(kind: FailureKind, count: int) -> float | None:
    """Return how long to wait after the ``count``-th failure of this kind, or None to give up."""
    delays = _DELAYS_S[kind]
    return delays[count - 1] if count <= len(delays) else None
