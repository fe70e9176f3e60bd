"""Tasks that wait or run, by the key of their result: whoever asks for the same result shares one computation."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from icestream.flow.runner.tasks import Task


@dataclass
class Inflight:
    """What is queued or running."""

    _tasks: dict[str, Task] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def join(self, task: Task) -> bool:
        """Let ``task`` wait for what is being computed already; False if nothing computes it, and it is to be queued."""
        known = self._tasks.setdefault(task.key, task)
        waiter = (task.step, task.unit)
        if waiter not in known.waiters:
            known.waiters.append(waiter)
        return known is not task

    def end(self, task: Task) -> None:
        """Forget a task that ended; one that nobody waits for any more may share its key with another."""
        if self._tasks.get(task.key) is task:
            del self._tasks[task.key]

    def let_go(self, *, running: set[str]) -> None:
        """Forget who waits, and all that does not run yet: the workflow was edited, and what is wanted is asked for anew.

        What runs goes on; it is found by its key if the edited workflow wants it too.
        """
        for key, task in list(self._tasks.items()):
            task.waiters.clear()
            if task.attempt not in running:
                del self._tasks[key]

    def withdraw(self, step: str, *, running: set[str]) -> list[tuple[Task, list[str]]]:
        """Let ``step``, which is drained, wait no more for what does not run yet; return these tasks and the units that waited.

        A task goes on for others who wait for it. What an accumulator has consumed stays.
        """
        withdrawn = []
        for task in [task for task in self._tasks.values() if task.attempt not in running and task.entry is None]:
            units = [unit for waiting, unit in task.waiters if waiting == step]
            if units:
                task.waiters[:] = [waiter for waiter in task.waiters if waiter[0] != step]
                withdrawn.append((task, units))
                if not task.waiters:
                    self.end(task)
        return withdrawn
