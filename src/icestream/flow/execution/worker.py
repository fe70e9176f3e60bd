"""A worker process: ``python -m icestream.flow.execution.worker PARENT FD [NOTEPAD]``.

It knows no store; it dies with its runner.
"""

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from icestream.flow.declaration import Arrival, CallFailure, SeenFile, Troubles, call_step, find_step, plugin_of
from icestream.flow.execution.allocator import hand_back
from icestream.flow.execution.calls import run_task, store_record
from icestream.flow.execution.messages import (
    Call,
    CallProgress,
    CancelOrder,
    FromWorker,
    ItemArrived,
    SourceEnded,
    SourceFailed,
    SourceTroubles,
    SourceWaits,
    StopOrder,
    WatchOrder,
)
from icestream.flow.execution.watching import WorkerSourceContext
from icestream.flow.execution.wire import receive, send
from icestream.flow.execution.worker_log import carry_log

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve tasks until the runner is gone."""
    handle, *notepad = map(int, sys.argv[2:])
    for inherited in (handle, *notepad):
        os.set_inheritable(inherited, False)  # a program that a step leaves behind must not hide the worker's death
    connection: Connection[Any, Any] = Connection(handle)
    _die_with_parent(int(sys.argv[1]))
    for name in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the runner decides what they mean
        signal.signal(name, _leave_it_to_the_runner)
    orders: queue.Queue[Call | WatchOrder] = queue.Queue()
    stop = threading.Event()
    cancels: dict[str, threading.Event] = {}
    threading.Thread(target=_listen, args=(connection, orders, stop, cancels), daemon=True).start()
    lock = threading.Lock()

    def say(message: FromWorker) -> None:
        with lock:
            send(connection, message)

    log = carry_log(say)
    try:
        while True:
            order = orders.get()
            if isinstance(order, WatchOrder):
                _watch(say, order, stop, notepad[0] if notepad else None)
            else:
                with log.during(order):
                    _serve(say, order, cancels)
    except ConnectionError:  # the runner died just now; the next one gives the task again
        os._exit(1)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _leave_it_to_the_runner(_signal: int, _frame: FrameType | None) -> None:
    """Do nothing; unlike SIG_IGN this is not inherited by the programs that a step runs."""


def _listen(
    connection: "Connection[Any, Any]",
    orders: "queue.Queue[Call | WatchOrder]",
    stop: threading.Event,
    cancels: dict[str, threading.Event],
) -> None:
    try:
        while True:
            match receive(connection):
                case StopOrder():
                    stop.set()
                case CancelOrder(attempt):  # it may come before its task was begun
                    cancels.setdefault(attempt, threading.Event()).set()
                case order:
                    orders.put(order)
    except (EOFError, OSError):
        os._exit(1)


def _serve(say: Callable[[FromWorker], None], call: Call, cancels: dict[str, threading.Event]) -> None:
    def report(fraction: float, text: str) -> None:
        say(CallProgress(call.attempt, fraction, text))

    answer = run_task(call, report=report, stop=cancels.setdefault(call.attempt, threading.Event()))
    cancels.pop(call.attempt, None)
    say(answer)
    hand_back()


def _watch(say: Callable[[FromWorker], None], order: WatchOrder, stop: threading.Event, notepad: int | None) -> None:
    context = WorkerSourceContext(order.roots, set(order.seen), stop, dict(order.set_aside), notepad)

    def watch() -> str:
        step = find_step(order.use)
        generator: Generator[Any, None, str] = step.call(params=step.params.model_validate(order.params), ctx=context)
        said: object = None
        while True:
            try:
                found = next(generator)
            except StopIteration as ended:
                return str(ended.value or "the source ended")
            if found != said:  # a pulse that says nothing new is not sent
                say(describe_found(found, plugin_of(order.use)))
            said = found

    reason = call_step(watch)
    if isinstance(reason, CallFailure):
        say(SourceFailed(reason.message, reason.traceback))
    else:
        say(SourceEnded(reason, stopped=stop.is_set()))


def describe_found(found: object, plugin: str) -> ItemArrived | SourceWaits | SourceTroubles:
    """Return the message about what a source of some plugin found."""
    if isinstance(found, Troubles):
        return SourceTroubles({_printable(subject): _printable(reason) for subject, reason in found.reasons.items()})
    if not isinstance(found, Arrival):
        return SourceWaits(getattr(found, "note", ""))
    stored = None if found.record is None else call_step(store_record, found.record)
    broken = stored.message if isinstance(stored, CallFailure) else found.error
    files = [SeenFile(_printable(one.ref), one.size_bytes, one.modified_ns) for one in (found.file, *found.beside) if one]
    return ItemArrived(
        identity=_printable(found.identity),
        name=_printable(found.name),
        record=None if isinstance(stored, CallFailure) else stored,
        error=None if broken is None else _printable(broken),
        acquisition={} if found.acquisition is None else found.acquisition.model_dump(exclude_none=True),
        file=None if found.file is None else files.pop(0),
        plugin=plugin,
        beside=tuple(files),
        warnings=tuple(_printable(warning) for warning in found.warnings),
    )


def _printable(text: str) -> str:
    """Return a file's name as text that can be stored: bytes that are no UTF-8 are written out."""
    return text.encode(errors="backslashreplace").decode()


if __name__ == "__main__":
    main()
