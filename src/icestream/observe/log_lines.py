"""The newest lines of a session's log."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from icestream.logs import LOG_FILE

LARGEST_TAIL_BYTES = 1 << 20
"""So much of the end of the file is looked at."""

Level = Literal["debug", "info", "warning", "error"]

_LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error")
_OWN = ("time", "level", "event", "logger")


@dataclass(frozen=True)
class LogLine:
    """One event: when, how grave, what happened, and what it is about."""

    time: str
    level: str
    event: str
    about: Mapping[str, str]


def read_log(folder: Path, *, level: Level = "info", limit: int = 200) -> list[LogLine]:
    """Return the newest lines of a level and above, of the session in a folder, newest first; nothing where there is no log."""
    path = folder / "logs" / LOG_FILE
    wanted = _LEVELS[_LEVELS.index(level) :]
    lines: list[LogLine] = []
    for text in reversed(_tail(path)):
        lines += [line for line in _parse(text) if line.level in wanted or line.level not in _LEVELS]
        if len(lines) == limit:
            break
    return lines


def _tail(path: Path) -> list[bytes]:
    if path.is_symlink() or not path.is_file():
        return []
    with path.open("rb") as handle:
        size = handle.seek(0, 2)
        handle.seek(max(0, size - LARGEST_TAIL_BYTES))
        lines = handle.read().splitlines()
    return lines[1:] if size > LARGEST_TAIL_BYTES else lines


def _parse(text: bytes) -> Iterator[LogLine]:
    """Give the line that a text is; one that is being written, or is none of ours, is left out."""
    try:
        found = json.loads(text)
    except ValueError:
        return
    if isinstance(found, dict):
        about = {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
        own = {name: about.pop(name, "") for name in _OWN}
        yield LogLine(own["time"], own["level"], own["event"], about)
