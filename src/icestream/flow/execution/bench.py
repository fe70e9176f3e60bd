"""The engine's side of one call, as a worker gives it to a step."""

import errno
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from icestream.errors import FileRemoved, WorkflowError
from icestream.files import publish
from icestream.flow.declaration import RESULTS, Exposure, FoundProgram, Program, ProgramSettings, Published, resolve_ref
from icestream.flow.execution.work_folder import WorkFolder
from icestream.flow.workflow import find_program

_NO_SESSION = "the folder of the session is missing"


@dataclass(frozen=True)
class WorkerContext:
    """Implements `icestream.flow.declaration.context.Context`."""

    exposure: Exposure
    cores: int
    seed: int
    attempt: str
    key: str
    roots: dict[str, str]
    folder: str  # of this revision's results, relative to the session
    step: str
    closing: bool = False
    version: int = 0
    gpu: int | None = None
    reduced: bool = False
    removed: frozenset[str] = frozenset()
    """Files that were removed to free the disk."""
    programs: Mapping[str, ProgramSettings] = field(default_factory=dict)
    used_programs: list[str] = field(default_factory=list)
    """The programs that the call has asked for, in words."""
    report: Callable[[float, str], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def checkpoint_dir(self) -> Path:
        """A folder that survives attempts at the same item."""
        return self._make(Path(self.roots["session"]) / "checkpoints" / self.key)

    @cached_property
    def work(self) -> WorkFolder:
        """The private folder of this attempt; whoever calls the step removes it."""
        return WorkFolder(Path(self.roots["session"]), self.attempt, f"{self.step}_{self.exposure.name}", self.cancelled)

    @property
    def work_folder(self) -> Path:
        """A private folder of this call."""
        home = Path(self.roots["session"])
        if not home.is_dir():
            raise OSError(errno.ENODEV, _NO_SESSION, str(home))
        return self.work.path

    def program(self, program: Program) -> FoundProgram:
        """Return where a program is and how the facility wants it run."""
        try:
            found = find_program(program, self.programs.get(program.name, ProgramSettings()))
        except WorkflowError as error:
            raise OSError(errno.ENOENT, f"{socket.gethostname()}: {error}") from error
        if str(found) not in self.used_programs:
            self.used_programs.append(str(found))
        return found

    def keep_log(self, log: Path) -> str:
        """Keep a log under ``logs/programs``, one for each attempt."""
        ref = f"session:logs/programs/{self.step}/{self.exposure.name}_{self.attempt[:8]}.log"
        target = self.path(ref)
        self._make(target.parent)
        shutil.copyfile(log, target)
        return ref

    def _make(self, folder: Path) -> Path:
        """Make a folder of the session, but never the session's own or that of all results: those were moved, or a disk is away.

        Raises
        ------
        OSError
            The session's folder, or that of its results, is not there (``ENODEV``).
        """
        home = Path(self.roots["session"])
        if not home.is_dir():
            raise OSError(errno.ENODEV, _NO_SESSION, str(home))
        results = home / RESULTS
        if not folder.is_relative_to(results):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        try:
            for part in reversed([folder, *folder.parents]):
                if part.is_relative_to(results) and part != results:
                    part.mkdir(exist_ok=True)
        except FileNotFoundError:
            raise OSError(errno.ENODEV, "the folder of results is missing", str(results)) from None
        return folder

    def path(self, ref: str) -> Path:
        """Return the absolute path of ``root:relative``.

        Raises
        ------
        FileRemoved
            It was removed; the engine computes it again and calls the step once more.
        """
        if ref in self.removed:
            raise FileRemoved(ref)
        return resolve_ref(self.roots, ref)

    @contextmanager
    def publish(self, suffix: str) -> Iterator[Published]:
        """Write a result file atomically; its name carries the result's key, so no other result can have it."""
        relative = f"{self.folder}/{self.exposure.name}_{self.key[:8]}{suffix}"
        target = self.path(f"session:{relative}")
        self._make(target.parent)
        with publish(target, attempt=self.attempt) as temporary:
            yield Published(temporary, f"session:{relative}")

    def export_folder(self) -> Path:
        """Return this step's folder under ``exports/``."""
        return self._make(self.path(f"session:exports/{self.step}"))

    def progress(self, fraction: float, message: str = "") -> None:
        """Report how far the call has come."""
        if self.report is not None:
            self.report(float(fraction), str(message))

    def cancelled(self) -> bool:
        """Tell whether the call should end early."""
        return self.stop.is_set()
