"""Having things drawn: each order once, however many ask for it, by one process that is replaced when it hangs or dies."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cachetools import TTLCache

from icestream.flow.execution.pool import THREAD_VARIABLES
from icestream.observe.drawing.cache import DrawingCache
from icestream.observe.drawing.order import Answer, AnyOrder, NotDrawn, NothingToDraw, Task
from icestream.settings import Settings

LIMIT_S = 60.0
PATIENCE_S = 20.0
MOST_WAITING = 8
"""So many may wait for drawings at a time; each holds a thread of the server, of which there are 40."""
MOST_UNDERWAY = 8
FORGOTTEN_S = 30.0
"""What could not be drawn is not tried again for so long."""
_MOST_STUCK = 2
_ENDINGS = {"micrograph": "tiles", "density": "density"}
_ENDING_S = 5.0

DRAWINGS = "drawings"
"""The folder, in that of the account's state, with what was drawn for who asked."""

WORKER = (sys.executable, "-P", "-m", "icestream.observe.drawing.worker")


@dataclass
class DrawingProcess:
    """The process that draws, one order at a time; it is started when it is needed."""

    command: Sequence[str] = WORKER
    _process: "subprocess.Popen[bytes] | None" = None
    _connection: "Connection[Any, Any] | None" = None
    _stuck: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    """Killed, and not gone yet: they hang in a file system."""
    _closed: bool = False

    @property
    def pid(self) -> int | None:
        """The process that is there now."""
        return None if self._process is None else self._process.pid

    def ask(self, task: Task, limit_s: float) -> Answer:
        """Have something drawn.

        Raises
        ------
        NotDrawn
            It took longer than it may, or the process has died of it.
        """
        for _ in range(2):
            connection = self._start()
            with suppress(ConnectionError):  # it has just gone because nobody asked; what it said before is read below
                connection.send_bytes(task.model_dump_json().encode())
            if not connection.poll(limit_s):
                self.end()
                raise NotDrawn(f"drawing took longer than {limit_s:g} s and was given up")
            try:
                return Answer.model_validate_json(connection.recv_bytes())
            except (EOFError, ConnectionError):
                if self.end(_ENDING_S) != 0:
                    break
        raise NotDrawn("the process that draws has died of this")

    def close(self) -> None:
        """Kill the process, and start none any more; may be called while something is drawn."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING_S)

    def end(self, patience_s: float = 0.0) -> int | None:
        """Kill the process, unless it ends by itself soon, and return with what it ended; None where it hangs even then."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is None or connection is None:
            return 0
        connection.close()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(patience_s)
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_ENDING_S)
        self._stuck.append(process)
        return None

    def _start(self) -> "Connection[Any, Any]":
        if self._process is not None and self._connection is not None and self._process.poll() is None:
            return self._connection
        self.end()
        if self._closed:
            raise NotDrawn("the server is ending")
        self._stuck = [one for one in self._stuck if one.poll() is None]
        if len(self._stuck) >= _MOST_STUCK:
            raise NotDrawn("nothing is drawn at this moment: processes hang in a file system that does not answer")
        ours, theirs = socket.socketpair()
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1") | {"ICESTREAM_IMAGE_MEMORY_MB": "0"}
        handle = theirs.fileno()
        try:
            self._process = subprocess.Popen(
                [*self.command, str(handle)],
                pass_fds=[handle],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            ours.close()
            raise NotDrawn(f"the process that draws cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._connection = Connection(ours.detach())
        return self._connection


class Studio:
    """Draws what is ordered, unless it was drawn before.

    Parameters
    ----------
    cache
        Where drawings are kept.
    limit_s
        After so long a drawing is given up.
    patience_s
        So long one who asks waits; the drawing goes on for whoever asks again.
    """

    def __init__(
        self,
        cache: DrawingCache,
        *,
        process: DrawingProcess | None = None,
        limit_s: float = LIMIT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.cache, self.process = cache, process or DrawingProcess()
        self.limit_s, self.patience_s = limit_s, patience_s
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._underway: dict[str, Future[Path]] = {}
        self._failed: TTLCache[str, NothingToDraw | NotDrawn] = TTLCache(1000, FORGOTTEN_S)
        self.waiting = 0
        """So many wait now."""

    def draw(self, order: AnyOrder) -> Path:
        """Return the file with the drawing, which is that of the same order for good.

        Raises
        ------
        NothingToDraw
            It cannot be drawn: a file is missing, damaged or too large.
        NotDrawn
            Too much is asked for at this moment, or it is still being drawn, or that has failed; it may be asked for again.
        """
        name = file_name(order)
        if (known := self.cache.find(name)) is not None:
            return known
        with self._lock:
            if name in self._failed:
                raise type(self._failed[name])(str(self._failed[name]))
            if self.waiting >= MOST_WAITING:
                raise NotDrawn("too much is being drawn at this moment; try again")
            future = self._underway.get(name) or self._begin(name, order)
            self.waiting += 1
        try:
            return future.result(self.patience_s)
        except TimeoutError:
            raise NotDrawn("it is being drawn; ask again") from None
        finally:
            with self._lock:
                self.waiting -= 1

    def close(self) -> None:
        """End the process that draws; nothing is drawn any more."""
        self.process.close()

    def _begin(self, name: str, order: AnyOrder) -> "Future[Path]":
        if len(self._underway) >= MOST_UNDERWAY:
            raise NotDrawn("too much is being drawn at this moment; try again")
        future: Future[Path] = Future()
        self._underway[name] = future
        threading.Thread(target=self._work, args=(name, order, future), name="icestream-drawing", daemon=True).start()
        return future

    def _work(self, name: str, order: AnyOrder, future: "Future[Path]") -> None:
        failure: NothingToDraw | NotDrawn | None = NotDrawn("drawing has failed")
        try:
            with self._turn:
                self._have_drawn(name, order)
            failure = None
        except (NothingToDraw, NotDrawn) as error:
            failure = error
        except OSError as error:
            failure = NotDrawn(f"the drawing cannot be kept: {error.strerror}")
        finally:
            with self._lock:
                del self._underway[name]
                if failure is not None:
                    self._failed[name] = failure
            if failure is None:
                future.set_result(self.cache.folder / name)
            else:
                future.set_exception(failure)

    def _have_drawn(self, name: str, order: AnyOrder) -> None:
        with self.cache.keep(name) as target:
            task = Task(order=order, to=str(target), limit_s=round(self.limit_s) + 10)
            said = self.process.ask(task, self.limit_s)
            if said.trouble is not None:
                raise (NotDrawn if said.passing else NothingToDraw)(said.trouble)


def open_studio(settings: Settings) -> Studio:
    """Return who has things drawn for an account, with what was drawn for it before."""
    return Studio(DrawingCache(settings.state / DRAWINGS, round(settings.drawings_gb * 1e9)))


def file_name(order: AnyOrder) -> str:
    """Return what the file of a drawing is called."""
    return f"{order.name}.{_ENDINGS.get(order.kind, 'jpg')}"
