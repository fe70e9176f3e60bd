"""A worker process: ``python -m icestream.flow.execution.worker PARENT FD [NOTEPAD]``.

It knows no store; it dies with its runner.
"""

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Generator
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from icestream.flow.declaration.guard import CallFailure, call_step
from icestream.flow.declaration.registry import find_step, plugin_of
from icestream.flow.declaration.source import Arrival, SeenFile
from icestream.flow.execution.calls import run_task, store_record
from icestream.flow.execution.watching import WorkerSourceContext
from icestream.flow.execution.wire import Message, receive, send

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
    tasks: queue.Queue[Message] = queue.Queue()
    stop = threading.Event()
    cancels: dict[str, threading.Event] = {}
    threading.Thread(target=_listen, args=(connection, tasks, stop, cancels), daemon=True).start()
    lock = threading.Lock()
    try:
        while True:
            task = tasks.get()
            if task.body["kind"] == "watch":
                _watch(connection, lock, task, stop, notepad[0] if notepad else None)
            else:
                _serve(connection, lock, task, cancels)
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
    tasks: "queue.Queue[Message]",
    stop: threading.Event,
    cancels: dict[str, threading.Event],
) -> None:
    try:
        while True:
            message = receive(connection)
            if message.body["kind"] == "stop":
                stop.set()
            elif message.body["kind"] == "cancel":  # it may come before its task was begun
                cancels.setdefault(message.body["attempt"], threading.Event()).set()
            else:
                tasks.put(message)
    except (EOFError, OSError):
        os._exit(1)


def _serve(connection: "Connection[Any, Any]", lock: threading.Lock, task: Message, cancels: dict[str, threading.Event]) -> None:
    attempt = task.body["attempt"]

    def report(fraction: float, text: str) -> None:
        with lock:
            send(connection, Message({"status": "progress", "attempt": attempt, "fraction": fraction, "text": text}))

    answer = run_task(task, report=report, stop=cancels.setdefault(attempt, threading.Event()))
    cancels.pop(attempt, None)
    with lock:
        send(connection, answer)


def _watch(
    connection: "Connection[Any, Any]", lock: threading.Lock, task: Message, stop: threading.Event, notepad: int | None
) -> None:
    seen = {SeenFile(*entry) for entry in task.body["seen"]}
    set_aside = {SeenFile(*entry): int(deaths) for entry, deaths in task.body["set_aside"]}
    context = WorkerSourceContext(task.body["roots"], seen, stop, set_aside, notepad)

    def watch() -> str:
        step = find_step(task.body["use"])
        params = step.params.model_validate(task.body["params"])
        generator: Generator[Any, None, str] = step.call(params=params, ctx=context)
        said: object = None
        while True:
            try:
                found = next(generator)
            except StopIteration as ended:
                return str(ended.value or "the source ended")
            if found != said:  # a pulse that says nothing new is not sent
                message = describe_found(found)
                message.body["plugin"] = plugin_of(task.body["use"])
                with lock:
                    send(connection, message)
            said = found

    reason = call_step(watch)
    if isinstance(reason, CallFailure):
        ended = Message({"status": "source_failed", "message": reason.message, "traceback": reason.traceback})
    else:
        ended = Message({"status": "source_stopped" if stop.is_set() else "source_closed", "reason": reason})
    with lock:
        send(connection, ended)


def describe_found(found: object) -> Message:
    """Return the message about what a source found."""
    if not isinstance(found, Arrival):
        return Message({"status": "pulse", "note": getattr(found, "note", "")})
    message = Message({"status": "arrival", "identity": _printable(found.identity), "name": _printable(found.name)})
    stored = None if found.record is None else call_step(store_record, message, found.record)
    broken = stored.message if isinstance(stored, CallFailure) else found.error
    message.body["record"] = None if isinstance(stored, CallFailure) else stored
    message.body["error"] = None if broken is None else _printable(broken)
    message.body["acquisition"] = None if found.acquisition is None else found.acquisition.model_dump(exclude_none=True)
    file = found.file
    message.body["file"] = None if file is None else [_printable(file.ref), file.size_bytes, file.modified_ns]
    return message


def _printable(text: str) -> str:
    """Return a file's name as text that can be stored: bytes that are no UTF-8 are written out."""
    return text.encode(errors="backslashreplace").decode()


if __name__ == "__main__":
    main()
