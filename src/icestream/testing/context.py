"""A stand-in for the engine when a test calls one step function."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from icestream.files import publish
from icestream.flow import Exposure, FoundProgram, Program, ProgramSettings, Published
from icestream.flow.workflow import find_program


@dataclass
class StepBench:
    """A `Context` over a folder: ``session:`` is the folder itself, other roots are given."""

    folder: Path
    roots: dict[str, Path] = field(default_factory=dict)
    exposure: Exposure = field(default_factory=lambda: Exposure("0" * 32, "exposure"))
    cores: int = 1
    seed: int = 1
    closing: bool = False
    version: int = 1
    gpu: int | None = None
    reduced: bool = False
    programs: dict[str, ProgramSettings] = field(default_factory=dict)

    @property
    def checkpoint_dir(self) -> Path:
        """A folder that survives attempts."""
        return self.folder / "checkpoint"

    @property
    def work_folder(self) -> Path:
        """``work``, which the test removes."""
        folder = self.folder / "work"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def program(self, program: Program) -> FoundProgram:
        """Find a program, by what ``programs`` says about it."""
        return find_program(program, self.programs.get(program.name, ProgramSettings()))

    def keep_log(self, log: Path) -> str:
        """Keep a log as ``logs/<name>.log``."""
        target = self.folder / "logs" / f"{self.exposure.name}.log"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, target)
        return f"session:logs/{target.name}"

    def path(self, ref: str) -> Path:
        """Return the absolute path of ``root:relative``."""
        root, _, relative = ref.partition(":")
        return (self.folder if root == "session" else self.roots[root]) / relative

    @contextmanager
    def publish(self, suffix: str) -> Iterator[Published]:
        """Publish ``steps/bench/<name><suffix>``."""
        relative = f"steps/bench/{self.exposure.name}{suffix}"
        with publish(self.folder / relative, durable=False) as temporary:
            yield Published(temporary, f"session:{relative}")

    def export_folder(self) -> Path:
        """Return ``exports/bench``."""
        folder = self.folder / "exports" / "bench"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def progress(self, fraction: float, message: str = "") -> None:
        """Check that the fraction is one."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress {fraction} ({message}) is outside 0…1")

    def cancelled(self) -> bool:
        """Never."""
        return False
