"""A source of files, some of which kill the process that reads them."""

import os
import signal
from pathlib import Path

from icestream.flow import SourceContext, Watch, step
from icestream.records import Acquisition
from icestream.steps.file_source import FileSourceParams, watch_files
from icestream.testing.toys import Number


def _read(path: Path, _ref: str) -> tuple[Number, Acquisition | None]:
    if path.name.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return Number(value=int(path.stem)), None


@step.source("toy_fragile_files", version=1, output=Number)
def read_fragile_files(params: FileSourceParams, ctx: SourceContext) -> Watch:
    """Take a number from the name of each file; reading some kills the process."""
    return watch_files(params, ctx, _read, suffixes=frozenset({".mrc"}))
