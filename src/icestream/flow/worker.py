"""A worker process: ``python -m icestream.flow.worker FD PARENT``. It never opens the store and dies with its runner."""

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Generator
from multiprocessing.connection import Connection
from typing import Any

from icestream.flow.calls import run_task, store_record
from icestream.flow.guard import CallFailure, call_step
from icestream.flow.registry import find_step
from icestream.flow.source import Arrival, SeenFile
from icestream.flow.watching import WorkerSourceContext
from icestream.flow.wire import Message, receive, send

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve tasks until the runner is gone."""
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    _die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the runner decides what it means
    tasks: queue.Queue[Message] = queue.Queue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(connection, tasks, stop), daemon=True).start()
    lock = threading.Lock()
    while True:
        task = tasks.get()
        if task.body["kind"] == "watch":
            _watch(connection, lock, task, stop)
        else:
            _serve(connection, lock, task)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _listen(connection: "Connection[Any, Any]", tasks: "queue.Queue[Message]", stop: threading.Event) -> None:
    try:
        while True:
            message = receive(connection)
            if message.body["kind"] == "stop":
                stop.set()
            else:
                tasks.put(message)
    except (EOFError, OSError):
        os._exit(1)


def _serve(connection: "Connection[Any, Any]", lock: threading.Lock, task: Message) -> None:
    def report(fraction: float, text: str) -> None:
        with lock:
            send(connection, Message({"status": "progress", "attempt": task.body["attempt"], "fraction": fraction, "text": text}))

    answer = run_task(task, report=report)
    with lock:
        send(connection, answer)


def _watch(connection: "Connection[Any, Any]", lock: threading.Lock, task: Message, stop: threading.Event) -> None:
    step = find_step(task.body["use"])
    seen = {SeenFile(*entry) for entry in task.body["seen"]}
    context = WorkerSourceContext(task.body["roots"], seen, stop)
    params = step.params.model_validate(task.body["params"])

    def watch() -> str | None:
        generator: Generator[Any, None, str] = step.call(params=params, ctx=context)
        said: object = None
        while True:
            try:
                found = next(generator)
            except StopIteration as ended:
                return str(ended.value or "the source ended")
            if found != said:  # a pulse that says nothing new is not sent
                with lock:
                    send(connection, _describe(found))
            said = found

    reason = call_step(watch)
    if isinstance(reason, CallFailure):
        ended = Message({"status": "source_failed", "message": reason.message, "traceback": reason.traceback})
    else:
        ended = Message({"status": "source_stopped" if stop.is_set() else "source_closed", "reason": reason})
    with lock:
        send(connection, ended)


def _describe(found: object) -> Message:
    if not isinstance(found, Arrival):
        return Message({"status": "pulse", "note": getattr(found, "note", "")})
    message = Message({"status": "arrival", "identity": found.identity, "name": found.name, "error": found.error})
    message.body["record"] = None if found.record is None else store_record(message, found.record)
    message.body["acquisition"] = None if found.acquisition is None else found.acquisition.model_dump(exclude_none=True)
    file = found.file
    message.body["file"] = None if file is None else [file.ref, file.size_bytes, file.modified_ns]
    return message


if __name__ == "__main__":
    main()
