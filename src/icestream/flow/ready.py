"""What is ready to run, best first; cores and memory are handed out as tokens."""

import heapq
import itertools
from dataclasses import dataclass, field

from icestream.flow.tasks import Task


@dataclass
class ReadyQueue:
    """Closest to the screen first; within a step the oldest (or newest) exposure first."""

    cores: int
    memory_gb: float
    newest_first: bool = False
    running_cores: int = 0
    running_memory_gb: float = 0.0
    _heaps: dict[tuple[int, float], list[tuple[int, int, int, Task]]] = field(default_factory=dict)  # by what tasks ask for
    _overtaken: int = 0
    _order: "itertools.count[int]" = field(default_factory=itertools.count)

    def __len__(self) -> int:
        return sum(len(heap) for heap in self._heaps.values())

    def put(self, task: Task, *, depth: int) -> None:
        """Add a task of a step at ``depth`` in the workflow."""
        order = next(self._order)
        heap = self._heaps.setdefault((self.tokens(task), task.memory_gb), [])
        heapq.heappush(heap, (-depth, -order if self.newest_first else order, order, task))

    def clear(self) -> None:
        """Forget what waits; what runs keeps its tokens."""
        self._heaps.clear()

    def take(self) -> Task | None:
        """Return the best task that the free tokens allow, and hold its tokens; None if there is none.

        A task that needs more than is free is overtaken a few times, then room is kept for it.
        """
        waiting = sorted((heap for heap in self._heaps.values() if heap), key=lambda heap: heap[0][:3])
        fitting = [heap for heap in waiting if self._fits(heap[0][3])]
        overtakes = bool(fitting) and fitting[0] is not waiting[0]
        if not fitting or (overtakes and self._overtaken >= self.cores):
            return None
        self._overtaken = self._overtaken + 1 if overtakes else 0
        chosen = heapq.heappop(fitting[0])[3]
        self.running_cores += self.tokens(chosen)
        self.running_memory_gb += chosen.memory_gb
        return chosen

    def withdraw(self, attempts: set[str]) -> None:
        """Take back tasks that nobody waits for any more."""
        for heap in self._heaps.values():
            heap[:] = [entry for entry in heap if entry[3].attempt not in attempts]
            heapq.heapify(heap)

    def tokens(self, task: Task) -> int:
        """Return the cores that ``task`` holds: never more than there are."""
        return min(task.cores, self.cores)

    def _fits(self, task: Task) -> bool:
        if self.running_cores == 0:
            return True
        memory_fits = self.running_memory_gb + task.memory_gb <= self.memory_gb
        return self.running_cores + self.tokens(task) <= self.cores and memory_fits

    def give_back(self, task: Task) -> None:
        """Free the tokens of a task that ended."""
        self.running_cores -= self.tokens(task)
        self.running_memory_gb -= task.memory_gb
