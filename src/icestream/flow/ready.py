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
    _heap: list[tuple[int, int, int, Task]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, task: Task, *, depth: int) -> None:
        """Add a task of a step at ``depth`` in the workflow."""
        order = next(self._order)
        heapq.heappush(self._heap, (-depth, -order if self.newest_first else order, order, task))

    def take(self) -> Task | None:
        """Return the best task that the free tokens allow, and hold its tokens; None if there is none."""
        passed: list[tuple[int, int, int, Task]] = []
        chosen: Task | None = None
        while self._heap and chosen is None:
            entry = heapq.heappop(self._heap)
            if self._fits(entry[3]):
                chosen = entry[3]
            else:
                passed.append(entry)
        for entry in passed:
            heapq.heappush(self._heap, entry)
        if chosen is not None:
            self.running_cores += self.tokens(chosen)
            self.running_memory_gb += chosen.memory_gb
        return chosen

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
