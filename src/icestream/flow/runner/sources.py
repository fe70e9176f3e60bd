"""Sources at the runner's side: one process each, restarted when it falls."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from icestream.flow.execution.wire import Message
from icestream.flow.scheduling import events, instructions
from icestream.flow.storage import schema
from icestream.flow.storage.writing import Writing
from icestream.flow.workflow.graph import Node

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner

_ALERT_AFTER_FALLS = 3
_SET_ASIDE_AFTER_DEATHS = 3
_LONGEST_PAUSE_S = 30.0


@dataclass
class Sources:
    """The sources of a run."""

    runner: "Runner"
    falls: dict[str, int] = field(default_factory=dict)
    restart_at: dict[str, float] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)  # sources that have closed in this run, with the reason
    wanted: bool = False  # after the commit, start those that neither run nor have ended
    _started: dict[str, tuple[int, dict[str, object]]] = field(default_factory=dict)
    deaths: "Counter[tuple[str, tuple[str, int, int]]]" = field(default_factory=Counter)  # by step and the file it was reading

    def start_all(self) -> None:
        """Start every source that neither runs, nor has ended, nor is drained, unless a person has paused the session."""
        if "person" in self.runner.holds.by_kind:
            return
        watched = {worker.source for worker in self.runner.pool.workers}
        for node in self._nodes():
            known = node.name in watched or node.name in self.ended or node.name in self.restart_at
            if not known and not self.runner.scheduler.stages[node.name].drained:
                self._start(node)

    def drain(self, step: str) -> None:
        """Stop one source; what it still said is not heard."""
        self.restart_at.pop(step, None)
        for worker in [worker for worker in self.runner.pool.workers if worker.source == step]:
            self.runner.pool.dismiss(worker)

    def go_on(self, step: str) -> None:
        """Start a source again that was drained, after the commit; it finds what came meanwhile."""
        self.ended.pop(step, None)
        self.wanted = True

    def rest(self) -> None:
        """Stop watching; nothing closes by that."""
        for worker in [worker for worker in self.runner.pool.workers if worker.source is not None]:
            self.runner.pool.dismiss(worker)
        self.restart_at.clear()

    def reconcile(self) -> None:
        """After an edit: stop the sources that changed or are gone, start the new ones, and close those again that had ended."""
        present = {node.name: self._signature(node) for node in self._nodes()}
        changed = {step for step, signature in self._started.items() if present.get(step) != signature}
        for worker in [worker for worker in self.runner.pool.workers if worker.source in changed]:
            self.runner.pool.dismiss(worker)
        for step in changed:
            self._started.pop(step)
            self.ended.pop(step, None)
            self.restart_at.pop(step, None)
        with self.runner.store.transaction() as connection:
            writing = self.runner.writing(connection)
            for step, reason in self.ended.items():
                self.runner.handle(writing, events.SourceClosed(step, reason))
            writing.flush()
        self.start_all()

    def _nodes(self) -> list[Node]:
        return [node for node in self.runner.graph.nodes.values() if node.type.is_source]

    def _signature(self, node: Node) -> tuple[int, dict[str, object]]:
        return self.runner.revisions[node.name].id, {"params": node.params, "roots": self.runner.session.roots}

    def close(self, writing: Writing, step: str, reason: str) -> None:
        """Note that a source has ended."""
        self.ended[step] = reason
        self.runner.handle(writing, events.SourceClosed(step, reason))

    def _start(self, node: Node) -> None:
        self._started[node.name] = self._signature(node)
        table = schema.source_file
        with self.runner.store.transaction() as connection:
            rows = connection.execute(
                select(table.c.ref, table.c.size_bytes, table.c.modified_ns).where(table.c.step == node.name)
            )
            seen = [list(row) for row in rows]
        counted = ((file, n) for (step, file), n in self.deaths.items() if step == node.name)
        set_aside = [[list(file), n] for file, n in counted if n >= _SET_ASIDE_AFTER_DEATHS]
        body = {"kind": "watch", "use": node.use, "params": node.params, "roots": self.runner.session.roots, "seen": seen}
        self.runner.pool.watch(node.name, Message({**body, "set_aside": set_aside}))

    def fell(self, writing: Writing, step: str, message: str, *, reading: list[Any] | None = None) -> None:
        """Note that a source failed or died (while it was reading a file); it is started again after a pause that grows."""
        if self.runner.stop_signals or self.runner.scheduler.stages[step].drained:
            return
        if reading is not None:
            ref, size_bytes, modified_ns = reading
            self.deaths[step, (str(ref), int(size_bytes), int(modified_ns))] += 1
            message = f"{message} while it was reading {ref}"
        self.falls[step] = falls = self.falls.get(step, 0) + 1
        self.restart_at[step] = time.monotonic() + min(_LONGEST_PAUSE_S, 2.0 ** (falls - 1))
        level = "alert" if falls == _ALERT_AFTER_FALLS else "warning"
        writing.notify(instructions.Notify(level, f"the source {step} fell ({falls}×) and is started again: {message}", step))

    def recovered(self, step: str) -> None:
        """Note that a source works."""
        self.falls.pop(step, None)

    def restart_in_s(self, longest_s: float) -> float:
        """Return how long the runner may wait for news."""
        due = [at - time.monotonic() for at in self.restart_at.values()]
        return max(0.0, min([longest_s, *due]))

    def restart_fallen(self) -> None:
        """Start the sources whose pause is over, and all after a person's pause."""
        if self.wanted:
            self.wanted = False
            self.start_all()
        for step, at in list(self.restart_at.items()):
            if at <= time.monotonic() and not self.runner.stop_signals:
                del self.restart_at[step]
                self._start(self.runner.graph.nodes[step])
