"""The tasks that wait or run: whoever asks for the same result shares one computation."""

from collections import Counter
from dataclasses import dataclass, field

from icestream.flow.runner.ready_queue import ReadyQueue
from icestream.flow.runner.tasks import Task


@dataclass
class Work:
    """What is queued or running, by the key of its result."""

    ready: ReadyQueue
    running: dict[str, Task] = field(default_factory=dict)  # by attempt
    _by_key: dict[str, Task] = field(default_factory=dict)
    _postponed: list[Task] = field(default_factory=list)  # wait for an entry of an edited accumulator to end

    def running_of(self, step: str) -> list[str]:
        """Return the attempts that run at a step."""
        return [attempt for attempt, task in self.running.items() if task.step == step]

    def count_running(self) -> Counter[str]:
        """Return how many calls of each step run."""
        return Counter(task.step for task in self.running.values())

    def join(self, task: Task) -> bool:
        """Let ``task`` wait for what is being computed already; False if nothing computes it, and it is to be queued."""
        known = self._by_key.setdefault(task.key, task)
        waiter = (task.step, task.unit)
        if task.folder is None and waiter not in known.waiters:
            known.waiters.append(waiter)
        return known is not task

    def postpone(self, task: Task) -> bool:
        """Let an entry wait while another entry of its step runs: both might write to the same export. False if none does."""
        postponed = task.entry is not None and any(other.step == task.step and other.entry for other in self.running.values())
        if postponed:
            self._postponed.append(task)
        return postponed

    def start(self, task: Task) -> None:
        """Note that a task was given to a worker."""
        self.running[task.attempt] = task

    def end(self, attempt: str) -> tuple[Task, list[Task]] | None:
        """Forget an attempt that ended; return its task, and those that waited for it to end; None if it is not known."""
        task = self.running.pop(attempt, None)
        if task is None:
            return None
        self.ready.give_back(task)
        self.forget(task)
        freed = [other for other in self._postponed if other.step == task.step]
        self._postponed = [other for other in self._postponed if other.step != task.step]
        return task, freed

    def forget(self, task: Task) -> None:
        """Forget a task that ended; one that nobody waits for any more may share its key with another."""
        if self._by_key.get(task.key) is task:
            del self._by_key[task.key]

    def let_go(self) -> None:
        """Forget who waits, and all that does not run yet: the workflow was edited, and what is wanted is asked for again.

        What runs goes on; it is found by its key if the edited workflow wants it too.
        """
        for key, task in list(self._by_key.items()):
            task.waiters.clear()
            if task.attempt not in self.running:
                del self._by_key[key]
        self.ready.clear()
        self._postponed.clear()

    def withdraw(self, step: str) -> list[str]:
        """Let ``step``, which takes nothing new, wait no more for what does not run yet; return the units that waited.

        A task goes on for others who wait for it. What an accumulator has consumed stays.
        """
        waited: list[str] = []
        unwanted: set[str] = set()
        for task in [task for task in self._by_key.values() if task.attempt not in self.running and task.entry is None]:
            units = [unit for waiting, unit in task.waiters if waiting == step]
            if units:
                waited += units
                task.waiters[:] = [waiter for waiter in task.waiters if waiter[0] != step]
                if not task.waiters:
                    self.forget(task)
                    unwanted.add(task.attempt)
        self.ready.withdraw(unwanted)
        return waited
