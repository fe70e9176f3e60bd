"""What is logged in a worker process: it is carried to the log of the session, with the call that it is about."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from icestream.flow.execution.messages import Call, WorkerLog
from icestream.logs import fields_of

_MOST_RECORDS = 100
"""So many records of one call are carried; a step that logs in a loop does not stop the runner."""


class CarryingHandler(logging.Handler):
    """Sends records to the runner."""

    def __init__(self, say: Callable[[WorkerLog], None]) -> None:
        super().__init__(os.environ.get("ICESTREAM_LOG_LEVEL", "info").upper())
        self._say = say
        self._about: dict[str, str] = {}
        self._n_records = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; say once that there are too many."""
        self._n_records += 1
        if self._n_records <= _MOST_RECORDS:
            text = self.format(record)  # with the traceback, if there is one
            fields = {name: str(value) for name, value in fields_of(record).items()}
            own = {f"{name}_" if name in self._about else name: value for name, value in fields.items()}
            self._say(WorkerLog(record.levelno, record.name, text, {**self._about, **own}))
        elif self._n_records == _MOST_RECORDS + 1:
            self._say(WorkerLog(logging.WARNING, __name__, "more records of this call are left out", self._about))

    @contextmanager
    def during(self, call: Call) -> Iterator[None]:
        """Say of each record that it is about ``call``."""
        self._about = {"step": call.step, "exposure": call.exposure.name, "unit": call.exposure.id, "attempt": call.attempt}
        self._n_records = 0
        try:
            yield
        finally:
            self._about, self._n_records = {}, 0


def carry_log(say: Callable[[WorkerLog], None]) -> CarryingHandler:
    """Carry everything that this process logs, from the level in ``ICESTREAM_LOG_LEVEL`` on, to the runner."""
    handler = CarryingHandler(say)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(handler.level)
    return handler
