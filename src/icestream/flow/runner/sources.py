"""Sources at the runner's side: one process each, restarted when it fails."""

import logging
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import select

from icestream.flow.declaration import SeenFile
from icestream.flow.execution.messages import WatchOrder
from icestream.flow.execution.pool import Pool
from icestream.flow.runner.build import ActiveWorkflow
from icestream.flow.scheduling import NoticeCause, Notify, events
from icestream.flow.storage import Pauses, Store, schema
from icestream.flow.workflow import Node
from icestream.logs import log_event

_LOG = logging.getLogger(__name__)

_ALERT_AFTER_FAILURES = 3
_SET_ASIDE_AFTER_DEATHS = 3
_LONGEST_PAUSE_S = 30.0


@dataclass
class Sources:
    """The sources of a run."""

    pool: Pool
    store: Store
    pauses: Pauses
    wanted: bool = False
    """After the commit, those are started that neither run nor have ended."""
    _failures: Counter[str] = field(default_factory=Counter)  # in a row
    _restart_at: dict[str, float] = field(default_factory=dict)
    _ended: dict[str, str] = field(default_factory=dict)  # sources that have closed in this run, with the reason
    _started: dict[str, tuple[int, dict[str, object]]] = field(default_factory=dict)
    _deaths: "Counter[tuple[str, SeenFile]]" = field(default_factory=Counter)  # by step and the file it was reading

    def start_all(self, workflow: ActiveWorkflow) -> None:
        """Start every source that neither runs, nor has ended, nor is drained, unless a person has paused the session."""
        if "person" in self.pauses:
            return
        watched = {worker.source for worker in self.pool.workers}
        for node in _nodes(workflow):
            known = node.name in watched or node.name in self._ended or node.name in self._restart_at
            if not known and not workflow.scheduler.stages[node.name].drained:
                self._start(workflow, node)

    def stop(self, step: str) -> None:
        """Stop one source; what it still said is not heard."""
        self._restart_at.pop(step, None)
        self._dismiss({step})

    def go_on(self, step: str) -> None:
        """Start a source again that was stopped, after the commit; it finds what came meanwhile."""
        self._ended.pop(step, None)
        self.wanted = True

    def rest(self) -> None:
        """Stop watching; nothing closes by that."""
        self._dismiss({worker.source for worker in self.pool.workers if worker.source is not None})
        self._restart_at.clear()

    def _dismiss(self, steps: Collection[str]) -> None:
        for worker in [worker for worker in self.pool.workers if worker.source is not None and worker.source in steps]:
            self.pool.dismiss(worker)

    def reconcile(self, workflow: ActiveWorkflow) -> list[events.SourceClosed]:
        """After an edit: stop the sources that changed or are gone; return that those have closed which ended in this run."""
        present = {node.name: _signature(workflow, node) for node in _nodes(workflow)}
        changed = {step for step, signature in self._started.items() if present.get(step) != signature}
        self._dismiss(changed)
        for step in changed:
            self._started.pop(step)
            self._ended.pop(step, None)
            self._restart_at.pop(step, None)
        return [events.SourceClosed(step, reason) for step, reason in self._ended.items()]

    def close(self, step: str, reason: str) -> events.SourceClosed:
        """Note that a source has ended."""
        self._ended[step] = reason
        return events.SourceClosed(step, reason)

    def _start(self, workflow: ActiveWorkflow, node: Node) -> None:
        self._started[node.name] = _signature(workflow, node)
        table = schema.source_file
        with self.store.transaction() as connection:
            rows = connection.execute(
                select(table.c.ref, table.c.size_bytes, table.c.modified_ns).where(table.c.step == node.name)
            )
            seen = tuple(SeenFile(*row) for row in rows)
        counted = ((file, n) for (step, file), n in self._deaths.items() if step == node.name)
        set_aside = tuple((file, n) for file, n in counted if n >= _SET_ASIDE_AFTER_DEATHS)
        log_event(_LOG, logging.INFO, "source started", step=node.name, known_files=len(seen))
        self.pool.watch(node.name, WatchOrder(node.use, node.params, workflow.session.roots, seen, set_aside))

    def failed(self, step: str, message: str, *, reading: SeenFile | None = None) -> Notify:
        """Note that a source failed or died (while it was reading a file); it is started again after a pause that grows."""
        if reading is not None:
            self._deaths[step, reading] += 1
            message = f"{message} while it was reading {reading.ref}"
        self._failures[step] += 1
        count = self._failures[step]
        self._restart_at[step] = time.monotonic() + min(_LONGEST_PAUSE_S, 2.0 ** (count - 1))
        level = "alert" if count == _ALERT_AFTER_FAILURES else "warning"
        text = f"the source {step} failed ({count}×) and is restarted: {message}"
        return Notify(level, text, step, cause=NoticeCause.SOURCE, subject=None if reading is None else reading.ref)

    def keeps_failing(self, step: str) -> bool:
        """Tell whether a source has failed so often in a row that people should see it."""
        return self._failures[step] >= _ALERT_AFTER_FAILURES

    def recovered(self, step: str) -> None:
        """Note that a source works."""
        self._failures.pop(step, None)

    def restart_in_s(self, longest_s: float) -> float:
        """Return how long the runner may wait for news."""
        due = [at - time.monotonic() for at in self._restart_at.values()]
        return max(0.0, min([longest_s, *due]))

    def restart_due(self, workflow: ActiveWorkflow) -> None:
        """Start the sources whose pause is over, and all after a person's pause."""
        if self.wanted:
            self.wanted = False
            self.start_all(workflow)
        for step, at in list(self._restart_at.items()):
            if at <= time.monotonic():
                del self._restart_at[step]
                self._start(workflow, workflow.graph.nodes[step])


def _nodes(workflow: ActiveWorkflow) -> list[Node]:
    return [node for node in workflow.graph.nodes.values() if node.type.is_source]


def _signature(workflow: ActiveWorkflow, node: Node) -> tuple[int, dict[str, object]]:
    return workflow.revisions[node.name].id, {"params": node.params, "roots": workflow.session.roots}
