"""What the death of a worker says about the task it worked on."""

from icestream.flow.exhaustion import OomWatch
from icestream.flow.guard import CallFailure
from icestream.flow.moves import FailureKind
from icestream.flow.pool import Worker


def worker_death(worker: Worker, oom: OomWatch) -> CallFailure:
    """Return the failure of the task that ``worker`` died with: out of memory if the kernel killed it for that."""
    code = worker.process.returncode
    if not oom.explains(code):
        return CallFailure(FailureKind.WORKER_DIED, "WorkerDied", f"its worker died (exit status {code})", "")
    had = "" if worker.peak_gb is None else f"; it had had up to {worker.peak_gb:.1f} GB"
    return CallFailure(FailureKind.OUT_OF_MEMORY, "OutOfMemory", f"ran out of memory: the system killed its worker{had}", "")
