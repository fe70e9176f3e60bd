"""The log of a session: one JSON line for each event, with its time, its level, its name, and what it is about.

Modules log with the loggers of Python (`logging.getLogger(__name__)`) and `log_event`. While `session_log` is open, the lines go
to ``logs/icestream.jsonl`` in the session's folder. A log never stops a session: a line that cannot be written is lost.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

LogLevel = Literal["debug", "info", "warning", "error"]

LOG_FILE = "icestream.jsonl"
MAX_BYTES = 10 << 20
N_OLD = 4
"""When the file has grown to `MAX_BYTES` it is put aside, and so many old ones are kept: 50 MiB in all."""

_ROOT = logging.getLogger("icestream")
_ROOT.addHandler(logging.NullHandler())  # where no log is open, nothing is printed instead
_MOST_CHARS = 4000


def log_event(logger: logging.Logger, level: int, event: str, /, **fields: object) -> None:
    """Log that ``event`` happened; a field that is None says nothing. A field may have any name: see `JsonLines`."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"fields": {name: value for name, value in fields.items() if value is not None}})


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what an event is about."""
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


class JsonLines(logging.Formatter):
    """Writes an event as one line of JSON; a field with a name that every line has is written with ``_`` behind it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a long text is cut."""
        own: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            own["traceback"] = self.formatException(record.exc_info)[-_MOST_CHARS:]
        line = own | {f"{name}_" if name in own else name: value for name, value in fields_of(record).items()}
        cut = {name: value[:_MOST_CHARS] if isinstance(value, str) else value for name, value in line.items()}
        return json.dumps(cut, default=str)


class _LogFile(RotatingFileHandler):
    """A file that is opened at the first line, and put aside when it is full; a link is not followed, for sessions are copied."""

    def _open(self) -> TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        return os.fdopen(handle, self.mode, encoding=self.encoding)  # type: ignore[return-value]

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - as the library calls it
        """Lose the line: the disk is full or away, which the runner notices by itself."""


@contextmanager
def session_log(folder: Path, level: LogLevel) -> Iterator[None]:
    """Write what is logged to the log of the session in ``folder``, from ``level`` on."""
    logs = folder / "logs"
    if folder.is_dir() and not logs.exists():
        logs.mkdir(exist_ok=True)
    handler = _LogFile(logs / LOG_FILE, maxBytes=MAX_BYTES, backupCount=N_OLD, encoding="utf-8", delay=True)
    handler.setFormatter(JsonLines())
    earlier = _ROOT.level
    _ROOT.setLevel(level.upper())
    _ROOT.addHandler(handler)
    try:
        yield
    finally:
        _ROOT.removeHandler(handler)
        _ROOT.setLevel(earlier)
        handler.close()
