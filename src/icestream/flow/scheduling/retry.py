"""When a failure is retried by rule, and when many in a row are worth an alert."""

from icestream.flow.declaration import UNCOUNTED, FailureKind

ALERT_AFTER_FAILURES = 5

_DELAYS_S: dict[FailureKind, tuple[float, ...]] = {
    FailureKind.ITEM: (),  # the item itself is bad: trying again changes nothing
    FailureKind.ERROR: (1.0,),
    FailureKind.TRANSIENT: (1.0, 4.0, 16.0),
    FailureKind.GONE: (1.0,),  # a file is not there: tried once more, as its folder may have been away for a moment
    FailureKind.NOT_YET: (1.0, 4.0, 10.0, 15.0, 30.0) + 9 * (60.0,),  # another program is still at it
    FailureKind.WORKER_DIED: (0.0, 0.5),  # the third death sets the item aside
    FailureKind.ENVIRONMENT: (2.0, 5.0, 10.0, 20.0) + 20 * (60.0,),  # a full disk is not the item's fault
    FailureKind.OUT_OF_MEMORY: (1.0,),  # tried once more, with fewer resources
}


def retry_delay_s(kind: FailureKind, count: int) -> float | None:
    """Return how long to wait after the ``count``-th failure of this kind, or None to give up."""
    if kind in UNCOUNTED:
        return 0.0
    delays = _DELAYS_S[kind]
    return delays[count - 1] if count <= len(delays) else None
