"""``icestream deposit``: packages for the EMDB and for EMPIAR."""

from enum import StrEnum
from pathlib import Path

import typer

from icestream.cli.asking import SESSION
from icestream.cli.console import errors, output
from icestream.errors import SessionError


class Archive(StrEnum):
    """Where to."""

    EMDB = "emdb"
    EMPIAR = "empiar"


def deposit(
    session: Path = SESSION,
    archive: Archive = typer.Argument(help="`emdb` for a map, `empiar` for the raw data."),
    target: Path = typer.Option(..., "--output", "-o", help="Folder to write; it must be new or empty."),
    step: str | None = typer.Option(None, "--step", help="For `emdb`: the step that made the map, such as refine3d."),
    version: int | None = typer.Option(None, "--version", help="For `emdb`: which version of the map; by default the newest."),
    about: Path | None = typer.Option(None, "--about", help="For `empiar`: a YAML file that says who deposits what."),
    checksums: bool = typer.Option(True, "--checksums/--no-checksums", help="For `empiar`: read all files for their checksums."),
) -> None:
    """Write a package for an archive: a map for the EMDB, or raw data for EMPIAR. The session stays as it is.

    For the EMDB: map, half maps, mask, shell correlation as XML, and the values that are asked for. For EMPIAR: links to movies
    and micrographs, and their description by EMPIAR's schema; `--about` names authors, title and whom to write to.

    ```
    icestream deposit lysozyme emdb --step refine -o for-emdb
    icestream deposit lysozyme empiar --about about.yaml -o for-empiar
    ```
    """
    from icestream.flow.storage import open_session
    from icestream.observe.deposition import read_about, write_emdb_package, write_empiar_package
    from icestream.observe.queries import open_view

    with open_view(open_session(session)) as view:
        if archive == Archive.EMDB:
            if step is None:
                raise SessionError("a map for the EMDB needs --step, the step that made it")
            notes = write_emdb_package(view, step, target, version=version)
        else:
            if about is None:
                raise SessionError("raw data for EMPIAR need --about, a file that says who deposits what")
            notes = write_empiar_package(view, read_about(about), target, checksums=checksums)
    output().print(str(target), markup=False, soft_wrap=True)
    for note in notes:
        errors().print(f"note: {note}", markup=False, soft_wrap=True)
