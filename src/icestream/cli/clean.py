"""``icestream clean``: free the disk of what nothing refers to."""

from pathlib import Path

import typer

from icestream.cli.asking import DRY_RUN, JSON, SESSION, YES, ask_for, confirm


def clean(
    session: Path = SESSION,
    old_revisions: bool = typer.Option(False, "--old-revisions", help="Also delete what only old revisions of steps use."),
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
    json: bool = JSON,
) -> None:
    """Delete results and files that nothing refers to, to free disk space.

    These are results dropped by `reset`, files of killed attempts, and checkpoints of finished results. Nothing that the current
    workflow uses is deleted, so nothing needs to be recomputed afterwards. Results of old revisions are kept unless you add
    `--old-revisions`. The command is refused while a step is working: pause or stop the session first. A dry run while the
    session is running also counts files that are just being made.

    You are asked for confirmation only at a terminal: in a script, the command goes ahead with or without `--yes`.

    ```
    icestream clean lysozyme --dry-run
    icestream clean lysozyme --old-revisions --yes
    ```
    """
    from icestream.cli.planned import print_garbage
    from icestream.flow.commands.garbage import plan_cleaning
    from icestream.flow.commands.requests import Clean
    from icestream.flow.storage import open_session

    if dry_run:
        print_garbage(plan_cleaning(open_session(session), old_revisions=old_revisions), json=json)
        return
    confirm("Delete what nothing refers to" + (", and what only old revisions use?" if old_revisions else "?"), yes=yes)
    ask_for(session, Clean(old_revisions=old_revisions), json=json)
