"""What is wrong with a facility's own templates and settings of the report: told with file and line, never raised."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One mistake in a folder of report templates, and what the page does without it."""

    file: Path
    line: int | None
    message: str
    instead: str = ""

    @property
    def where(self) -> str:
        """File and line."""
        return str(self.file) if self.line is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f"; {self.instead}" if self.instead else "")


class ProblemList:
    """The mistakes found so far, each once, in the order in which they were found."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}

    def add(self, problem: Problem) -> None:
        """Note a mistake."""
        self._found.setdefault(problem)

    @property
    def found(self) -> tuple[Problem, ...]:
        """All of them."""
        return tuple(self._found)
