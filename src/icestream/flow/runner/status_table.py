"""What the runner tells readers of each step at this moment: numbers and a sentence, at most once a second."""

import time
from collections import deque
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert

from icestream.flow.runner.status import Board
from icestream.flow.storage import schema

_INTERVAL_S = 1.0
_KEPT_NOTICES = 100


@dataclass
class StatusTable:
    """The rows of the table ``board``, and the newest notices."""

    notices: "deque[str]" = field(default_factory=lambda: deque(maxlen=_KEPT_NOTICES))
    _rows: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    _published_at: float = 0.0

    def publish(self, connection: Connection, board: Board, *, final: bool = False) -> None:
        """Write the rows that changed, if the last time is long enough ago or the run has come to its end."""
        now = time.monotonic()
        if now - self._published_at < _INTERVAL_S and not final:
            return
        self._published_at = now
        rows = {step.name: (step.waiting, step.running, step.note) for step in board.status().steps}
        changed = [name for name in {*rows, *self._rows} if rows.get(name) != self._rows.get(name)]
        if changed or not self._rows:
            table = schema.board
            connection.execute(delete(table) if not self._rows else delete(table).where(table.c.step.in_(changed)))
            written = [name for name in changed if name in rows]
            if written:
                at = time.time()
                values = [dict(zip(("waiting", "running", "note"), rows[name], strict=True)) for name in written]
                connection.execute(
                    insert(table), [{"step": name, "at": at, **row} for name, row in zip(written, values, strict=True)]
                )
            self._rows = rows
