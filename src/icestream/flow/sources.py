"""Sources at the runner's side: one process each, restarted when it falls."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import select

from icestream.flow import moves, schema
from icestream.flow.graph import Node
from icestream.flow.step import Kind
from icestream.flow.wire import Message
from icestream.flow.writing import Writing

if TYPE_CHECKING:
    from icestream.flow.runner import Runner

_ALERT_AFTER_FALLS = 3
_LONGEST_PAUSE_S = 30.0


@dataclass
class Sources:
    """The sources of a run."""

    runner: "Runner"
    falls: dict[str, int] = field(default_factory=dict)
    restart_at: dict[str, float] = field(default_factory=dict)

    def start_all(self) -> None:
        """Start every source of the workflow that is not halted."""
        for node in self.runner.graph.nodes.values():
            if node.type.kind is Kind.SOURCE and not self._is_halted(node.name):
                self._start(node)

    def _is_halted(self, step: str) -> bool:
        return bool(self.runner.scheduler.stages[step].halted)

    def halt(self, step: str) -> None:
        """Tell a source to stop; what it still says is not heard."""
        self.restart_at.pop(step, None)
        for worker in self.runner.pool.workers:
            if worker.source == step:
                self.runner.pool.give(worker, Message({"kind": "stop"}))

    def go_on(self, step: str) -> None:
        """Start a source again that was halted, after the transaction at hand; it finds what came meanwhile."""
        self.restart_at[step] = time.monotonic()

    def _start(self, node: Node) -> None:
        pool = self.runner.pool
        worker = pool.start(1)
        worker.source = node.name
        table = schema.source_file
        with self.runner.store.transaction() as connection:
            rows = connection.execute(
                select(table.c.ref, table.c.size_bytes, table.c.modified_ns).where(table.c.step == node.name)
            )
            seen = [list(row) for row in rows]
        body = {"kind": "watch", "use": node.use, "params": node.params, "roots": self.runner.session.roots, "seen": seen}
        pool.give(worker, Message(body))

    def fell(self, writing: Writing, step: str, message: str) -> None:
        """Note that a source failed or died; it is started again after a pause that grows."""
        if self.runner.stop_signals or self._is_halted(step):
            return
        self.falls[step] = falls = self.falls.get(step, 0) + 1
        self.restart_at[step] = time.monotonic() + min(_LONGEST_PAUSE_S, 2.0 ** (falls - 1))
        level = "alert" if falls == _ALERT_AFTER_FALLS else "warning"
        writing.notify(moves.Notify(level, f"the source {step} fell ({falls}×) and is started again: {message}", step))

    def recovered(self, step: str) -> None:
        """Note that a source works."""
        self.falls.pop(step, None)

    def restart_in_s(self, longest_s: float) -> float:
        """Return how long the runner may wait for news."""
        due = [at - time.monotonic() for at in self.restart_at.values()]
        return max(0.0, min([longest_s, *due]))

    def restart_fallen(self) -> None:
        """Start the sources whose pause is over."""
        for step, at in list(self.restart_at.items()):
            if at <= time.monotonic() and not self.runner.stop_signals:
                del self.restart_at[step]
                self._start(self.runner.graph.nodes[step])
