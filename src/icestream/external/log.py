"""What a program prints: written to a file of bounded size, line by line to whoever listens, with its tail at hand."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HEAD_BYTES = 256 * 1024
TAIL_BYTES = 256 * 1024
_TOLD_LINES = 15
_TOLD_CHARACTERS = 1500
_LONGEST_LINE = 4096


@dataclass
class Log:
    """The beginning of what a program prints goes to ``path`` at once, the end when it is closed; what is between is left out."""

    path: Path
    on_line: Callable[[str], None] | None = None
    _file: IO[bytes] | None = None
    _written: int = 0
    _tail: "deque[bytes]" = field(default_factory=deque)
    _tail_bytes: int = 0
    _left_out: int = 0
    _line: bytes = b""

    def take(self, chunk: bytes) -> None:
        """Take what was printed next."""
        if self._file is None:
            self._file = self.path.open("wb")
        room = max(0, HEAD_BYTES - self._written)
        if room:
            self._file.write(chunk[:room])
            self._file.flush()
            self._written += len(chunk[:room])
        self._keep(chunk[room:])
        *lines, rest = (self._line + chunk).replace(b"\r", b"\n").split(b"\n")
        self._line = rest[-_LONGEST_LINE:]
        for line in lines:
            self._tell(line)

    def _keep(self, chunk: bytes) -> None:
        if chunk:
            self._tail.append(chunk)
            self._tail_bytes += len(chunk)
        while self._tail_bytes - len(self._tail[0] if self._tail else b"") >= TAIL_BYTES:
            dropped = len(self._tail.popleft())
            self._tail_bytes -= dropped
            self._left_out += dropped

    def _tell(self, line: bytes) -> None:
        if self.on_line is not None:
            self.on_line(line[-_LONGEST_LINE:].decode(errors="replace"))

    def close(self) -> None:
        """Write the end."""
        if self._line:
            self._tell(self._line)
        if self._file is None:
            self.path.touch()
            return
        if self._left_out:
            self._file.write(f"\n[… {self._left_out} bytes are left out …]\n".encode())
        self._file.writelines(self._tail)
        self._file.close()

    def tail(self) -> str:
        """Return the last lines, for a person."""
        with self.path.open("rb") as handle:
            handle.seek(max(0, self.path.stat().st_size - 4 * _TOLD_CHARACTERS))
            text = handle.read().decode(errors="replace").replace("\r", "\n")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "\n".join(lines[-_TOLD_LINES:])[-_TOLD_CHARACTERS:]
