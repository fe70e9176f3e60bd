"""All types of step, read by a process of its own: importing them takes seconds, in which this one would answer nobody."""

import logging
import subprocess
import sys
import threading

from pydantic import TypeAdapter

from icestream.flow.declaration import find_step
from icestream.logs import log_event
from icestream.workflows.palette import PaletteStep, list_palette

LONGEST_S = 300.0
_READ = (
    "import json, os; from dataclasses import asdict; os.nice(10); from icestream.workflows.palette import list_palette; "
    "print(); print(json.dumps([asdict(one) for one in list_palette()]))"
)
_STEPS: TypeAdapter[tuple[PaletteStep, ...]] = TypeAdapter(tuple[PaletteStep, ...])
_LOG = logging.getLogger(__name__)


class Catalogue:
    """The types of step that were installed when the server started; until they have been read, who asks reads them."""

    def __init__(self) -> None:
        self._read: tuple[PaletteStep, ...] | None = None

    def begin(self) -> None:
        """Read all types of step beside everything else."""
        threading.Thread(target=self.read, name="catalogue", daemon=True).start()

    def read(self) -> None:
        """Read all types of step; what goes wrong is logged."""
        command = [sys.executable, "-c", _READ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LONGEST_S, check=True, stdin=subprocess.DEVNULL
            )
            self._read = _STEPS.validate_json(done.stdout.splitlines()[-1])
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
            log_event(_LOG, logging.WARNING, "types of step not read beforehand", reason=str(error)[:500])

    def steps(self) -> tuple[PaletteStep, ...]:
        """Return all types of step."""
        return tuple(list_palette()) if self._read is None else self._read

    def summary(self, use: str) -> str:
        """Return what a type of step does, in a sentence."""
        known = next((one.summary for one in self._read or () if one.use == use and one.problem is None), None)
        return find_step(use).summary if known is None else known
