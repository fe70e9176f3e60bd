"""A real `icestream serve` for a benchmark: its address, its process, and tokens of several people."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from icestream.web.access import AccessFile
from icestream.web.server import ACCESS_FILE


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int
    process: psutil.Process
    tokens: tuple[str, ...]

    def rss_mb(self) -> float:
        """Return the memory that it has."""
        return round(self.process.memory_info().rss / 1e6, 1)


@contextmanager
def serve(folder: Path, state: Path, *, people: int = 1) -> Iterator[Server]:
    """Serve a folder on a free port of this machine, for as many people with a token each."""
    access = AccessFile(state / ACCESS_FILE)
    tokens = tuple(access.add_token(f"person {number}", "operate") for number in range(people))
    command = [sys.executable, "-m", "icestream", "serve", str(folder), "--port", "0", "--no-monitor"]
    environment = os.environ | {"ICESTREAM_STATE": str(state), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None  # noqa: S101 - asked for above
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:(\d+)/", line) for line in process.stdout)), None)
        if found is None:
            raise SystemExit(f"icestream serve ended with {process.wait()}")
        yield Server(int(found.group(1)), psutil.Process(process.pid), tokens)
    finally:
        process.terminate()
        process.wait(timeout=60)
