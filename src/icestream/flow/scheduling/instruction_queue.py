"""The order in which instructions are carried out."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from icestream.flow.scheduling.instruction_types import Instruction


@dataclass
class InstructionQueue:
    """Instructions in the order in which the scheduler gave them.

    Carrying one out may tell the scheduler something (a result is there already), and the scheduler answers with more: these come
    after all that was given before. Else an outcome would be stored before the one it replaces was taken back.
    """

    _waiting: deque[Instruction] = field(default_factory=deque)
    _busy: bool = False

    def take(self, instructions: Iterable[Instruction]) -> Iterator[Instruction]:
        """Yield instructions, and those given meanwhile; nothing to whoever gives them meanwhile."""
        self._waiting.extend(instructions)
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting:
                yield self._waiting.popleft()
        finally:
            self._busy = False
            self._waiting.clear()
