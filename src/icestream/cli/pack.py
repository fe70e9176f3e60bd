"""``icestream pack`` and ``icestream relink``: take a session elsewhere."""

from pathlib import Path

import typer

from icestream.cli.console import output, type_next
from icestream.counting import counted
from icestream.errors import ExitStatus, SessionError

_SESSION = typer.Argument(help="Folder of the session.")
_SHOWN = 10


def pack(
    session: Path = _SESSION,
    to: Path = typer.Option(..., "-o", "--to", help="New folder, or new file with a name ending in .tar.zst."),
    without_images: bool = typer.Option(
        False, "--without-images", help="Leave out the images of single exposures: enough for viewing, not for more processing."
    ),
) -> None:
    """Make a portable copy of a session: the store, the document and every file that belongs to it.

    This also works while the session is running. Raw data are not included; use `icestream relink` to tell the copy where they
    are.

    ```
    icestream pack lysozyme -o /mnt/usb/lysozyme.tar.zst
    icestream pack lysozyme -o lysozyme-to-look-at --without-images
    ```
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from icestream.flow.storage import open_session, pack_session

    console = output()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("files", total=None)
        report = pack_session(
            open_session(session),
            to,
            with_images=not without_images,
            on_progress=lambda done, total: bar.update(line, completed=done, total=total),
        )
    left = f"; left out {counted(report.n_left_out, 'image')}" if report.n_left_out else ""
    said = f"packed {counted(report.n_files, 'file')}, {report.n_bytes / 2**20:.1f} MiB, into {report.target}{left}"
    console.print(said, soft_wrap=True, markup=False)
    if report.missing:
        _list(f"missing files of the session ({len(report.missing)}):", report.missing)
        raise typer.Exit(ExitStatus.SOME_FAILED)


def relink(
    session: Path = _SESSION,
    roots: list[str] = typer.Argument(
        metavar="NAME=FOLDER...", help="Name of a root under `roots:` in session.yaml, and its new folder; one or several."
    ),
    force: bool = typer.Option(False, "--force", help="Relink even if none of the known files is found there."),
) -> None:
    """Tell a session where its raw data are now, after they were moved or renamed.

    First the known files are looked up in the new folder, and you are told what is missing. Nothing is recomputed. Links to
    raw data in exported projects are changed.

    ```
    icestream relink lysozyme movies=/data/archive/grid3
    icestream relink lysozyme movies=/data/archive/grid3 gain=/data/archive/gain
    ```
    """
    from icestream.flow.storage import open_session, relink_roots

    wanted = {}
    for root in roots:
        name, equals, folder = root.partition("=")
        if not name or not equals or not folder:
            raise SessionError(f"{root!r}: write NAME=FOLDER, as in movies=/data/grid3")
        if name in wanted:
            raise SessionError(f"{name}: given twice")
        wanted[name] = Path(folder)
    relinked, reports = relink_roots(open_session(session), wanted, force=force)
    console = output()
    for name, report in reports.items():
        known = report.n_found + len(report.missing) + len(report.changed)
        console.print(f"{name} is {report.folder}: {report.n_found} of {known} known files found", soft_wrap=True, markup=False)
        if report.missing:
            _list(f"{len(report.missing)} are missing:", report.missing)
        if report.changed:
            _list(f"{len(report.changed)} have a different size and would be new exposures:", report.changed)
        if report.n_links:
            console.print(f"{report.n_links} links in exports now lead there", soft_wrap=True, markup=False)
    console.print(f"continue with: {type_next('run', relinked.folder)}", soft_wrap=True, markup=False)


def _list(title: str, refs: tuple[str, ...]) -> None:
    console = output()
    more = [f"… and {len(refs) - _SHOWN} more"] if len(refs) > _SHOWN else []
    for line in [title, *(f"  {ref}" for ref in refs[:_SHOWN]), *more]:
        console.print(line, soft_wrap=True, markup=False)
