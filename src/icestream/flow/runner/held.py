"""Tasks that wait for files which were removed and are computed again, and what is computed again for them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from icestream.flow.runner.tasks import Task


@dataclass
class Held:
    """What is computed again, by the key of its result, and what waits for it."""

    more: bool = False
    """The store may have files that somebody wants back and that are not among these."""
    computing: dict[str, int] = field(default_factory=dict)
    """Key of a result → how often it was tried."""
    restored: int = 0
    """Results since somebody asked."""
    _needs: dict[str, set[str]] = field(default_factory=dict)
    _tasks: dict[str, Task] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Something is to be put back."""
        return self.more or bool(self.computing)

    def block(self, key: str, needed: Iterable[str]) -> None:
        """Let the task that makes ``key`` wait until other results have their files again."""
        needed = set(needed)
        if needed:
            self._needs.setdefault(key, set()).update(needed)

    def take(self, task: Task) -> bool:
        """Keep a task back if it has to wait."""
        waits = bool(self._needs.get(task.key))
        if waits:
            self._tasks[task.key] = task
        return waits

    def end(self, key: str) -> list[Task]:
        """Note that a result has its files again, or never will; return the tasks that waited for it alone."""
        self.computing.pop(key, None)
        freed = []
        for waiting, needed in list(self._needs.items()):
            needed.discard(key)
            if not needed:
                del self._needs[waiting]
                if waiting in self._tasks:
                    freed.append(self._tasks.pop(waiting))
        return freed

    def waiting_for(self, key: str) -> list[Task]:
        """Return the tasks that wait for a result, and keep them back no more."""
        keys = [waiting for waiting, needed in self._needs.items() if key in needed]
        for waiting in keys:
            del self._needs[waiting]
        return [self._tasks.pop(waiting) for waiting in keys if waiting in self._tasks]

    def clear(self) -> None:
        """Forget everything: the workflow was edited, and what is wanted is asked for again."""
        self.computing.clear()
        self._needs.clear()
        self._tasks.clear()
        self.more = True
