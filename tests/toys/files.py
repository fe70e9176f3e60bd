"""A source of files, some of which kill the process that reads them; a step that takes a file as a parameter."""

import os
import signal
from pathlib import Path

from icestream.flow import Context, Field, Params, SourceContext, Watch, step
from icestream.records import Acquisition, FileRef
from icestream.steps.movies.file_source import FileSourceParams, watch_files
from toys.steps import Number

YAML_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join(10 * [f'*a{n - 1}'])}]\n" for n in range(1, 12)
)
"""A small text that stands for a hundred thousand million values."""


def _read(path: Path, _ref: str) -> tuple[Number, Acquisition | None]:
    if path.name.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return Number(value=int(path.stem)), None


@step.source("toy_fragile_files", version=1, output=Number)
def read_fragile_files(params: FileSourceParams, ctx: SourceContext) -> Watch:
    """Take a number from the name of each file; reading some kills the process."""
    return watch_files(params, ctx, _read, suffixes=frozenset({".mrc"}))


class AddFileParams(Params):
    """What is added."""

    file: FileRef | None = Field(None, description="A file with a number")


@step.map("toy_add_file", version=1, memory_gb=0.1)
def add_file(number: Number, params: AddFileParams, ctx: Context) -> Number:
    """Add the number in a file."""
    added = 0 if params.file is None else int(ctx.path(params.file).read_text())
    return Number(value=number.value + added)
