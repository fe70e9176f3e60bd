"""``icestream table``: the results of a step for other programs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.cli.asking import SESSION
from icestream.cli.console import errors
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.io.columns import TableFormat


def table(
    session: Path = SESSION,
    step: str = typer.Argument(help="The step whose results are wanted."),
    target: Path | None = typer.Option(None, "--output", "-o", help="File to write; by default the table is printed."),
    form: str | None = typer.Option(
        None, "--format", help="csv, json or parquet; by default what the name of the file says, else csv."
    ),
    particles: bool = typer.Option(
        False, "--particles", help="A row for each particle (or pick) instead of a row for each exposure."
    ),
    stream: str = typer.Option("out", "--stream", help="The output of the step, such as rejected for what a filter set aside."),
) -> None:
    """Write the results of a step as a table: CSV, JSON or Parquet. Works during a run and afterwards.

    Each row is the result of an exposure, with every value of its record; with `--particles`, a pick or a particle with its
    position. A step that publishes versions, such as 2D classes, has a row for each version.

    ```
    icestream table lysozyme ctf > ctf.csv
    icestream table lysozyme picks --particles -o picks.csv
    icestream table lysozyme particles --particles -o particles.parquet
    ```
    """
    from icestream.flow.storage import open_session
    from icestream.io.columns import print_columns, write_columns
    from icestream.observe.queries import open_view
    from icestream.observe.tables import particle_columns, result_columns

    chosen = _choose(form, target)
    with open_view(open_session(session)) as view:
        columns = (particle_columns if particles else result_columns)(view, step, output=stream)
    if not columns:
        errors().print(f"{step} has no results in {stream!r} yet", markup=False, soft_wrap=True)
    if target is None:
        print_columns(columns, sys.stdout, form=chosen)
        return
    try:
        write_columns(columns, target, form=chosen)
    except OSError as error:
        raise SessionError(f"{target}: cannot be written: {error.strerror}") from error
    n_rows = len(next(iter(columns.values()), []))
    errors().print(f"{target}: {n_rows} rows, {len(columns)} columns", markup=False, soft_wrap=True)


def _choose(form: str | None, target: Path | None) -> "TableFormat":
    from icestream.io.columns import FORMATS

    wanted = form or (target.suffix.removeprefix(".").lower() if target is not None and target.suffix else "csv")
    if wanted not in FORMATS:
        raise SessionError(f"the format is {wanted!r}; it must be {', '.join(FORMATS)}: give --format or another file name")
    if wanted == "parquet" and target is None:
        raise SessionError("a Parquet table is not text; give a file name with --output")
    return next(known for known in FORMATS if known == wanted)
