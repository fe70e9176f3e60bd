"""``icestream clean``: free the disk of what nothing refers to."""

from pathlib import Path

import typer

from icestream.cli.asking import DRY_RUN, JSON, SESSION, YES, ask_for, confirm


def clean(
    session: Path = SESSION,
    old_revisions: bool = typer.Option(False, "--old-revisions", help="Also what only old revisions of steps refer to."),
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
    json: bool = JSON,
) -> None:
    """Delete the results and files that nothing refers to: after a reset, of killed attempts, of finished checkpoints.

    Nothing that the present workflow uses is deleted, and nothing is computed again afterwards. It is refused while a step is at
    work: pause the session, or stop it. Results of old revisions stay unless you say `--old-revisions`. A dry run while the
    session runs also counts files that are being made. You are asked first at a terminal only: a script, or whatever else calls
    without one, is taken at its word, with or without `--yes`.

    ```
    icestream clean lysozyme --dry-run
    icestream clean lysozyme --old-revisions --yes
    ```
    """
    from icestream.cli.planned import print_garbage
    from icestream.flow.commands.garbage import plan_cleaning
    from icestream.flow.commands.requests import Clean
    from icestream.flow.storage.session import open_session

    if dry_run:
        print_garbage(plan_cleaning(open_session(session), old_revisions=old_revisions), json=json)
        return
    confirm("Delete what nothing refers to" + (", old revisions too?" if old_revisions else "?"), yes=yes)
    ask_for(session, Clean(old_revisions=old_revisions), json=json)
