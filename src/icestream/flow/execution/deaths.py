"""What the death of a worker says about the task it worked on."""

from icestream.flow.declaration.exhaustion import OomWatch
from icestream.flow.declaration.outcomes import FailureKind


def explain_death(code: int | None, peak_gb: float | None, oom: OomWatch) -> tuple[FailureKind, str]:
    """Return how a task ended whose worker died with exit status ``code``: out of memory if the kernel killed it for that.

    ``peak_gb`` is the most memory that the worker had had, if the kernel told.
    """
    if not oom.explains(code):
        return FailureKind.WORKER_DIED, f"its worker died (exit status {code})"
    had = "" if peak_gb is None else f"; it had had up to {peak_gb:.1f} GB"
    return FailureKind.OUT_OF_MEMORY, f"ran out of memory: the system killed its worker{had}"
