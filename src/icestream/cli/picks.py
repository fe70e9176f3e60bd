"""``icestream picks``: picks added and removed by hand on one micrograph."""

from pathlib import Path

import typer

from icestream.account import user_name
from icestream.cli.asking import JSON, REASON, SESSION, finish
from icestream.errors import SessionError


def picks(
    session: Path = SESSION,
    step: str = typer.Argument(help="Name of a step of type `edit_picks` in the workflow."),
    exposure: str = typer.Argument(help="Name or id of the exposure."),
    add: list[str] = typer.Option([], "--add", metavar="Y,X", help="Position of a pick to add, in pixels of the micrograph."),
    remove: list[int] = typer.Option([], "--remove", metavar="PID", help="Number of a pick to remove."),
    reason: str = REASON,
    json: bool = JSON,
) -> None:
    """Add and remove picks of a micrograph by hand.

    The decision is kept beside those that were made before, persists when the micrograph is picked again (a pick is removed by
    its place), and is noted in the history. `icestream withdraw` takes all of them back. Only what depends on the picks of this
    micrograph is computed again.

    ```
    icestream table lysozyme edited --particles
    icestream picks lysozyme edited mic_0042 --add 1203,855 --add 340,1711 --remove 17 --reason "missed at the hole's edge"
    icestream withdraw lysozyme mic_0042 --step edited
    ```
    """
    from icestream.cli.run import make_settings
    from icestream.flow.runner.answering import recompute_exposures
    from icestream.flow.storage import open_session
    from icestream.observe.hand_picks import plan_pick_edits
    from icestream.observe.queries import open_view

    opened = open_session(session)
    positions = [_position(text) for text in add]
    with open_view(opened) as view:
        unit, params = plan_pick_edits(view, step, exposure, add=positions, remove=remove)
    if not add and not remove:
        raise SessionError("nothing to add or remove; give --add Y,X or --remove PID")
    settings = make_settings(cores=None, newest_first=False)
    finish(recompute_exposures(opened, step, [unit], params, author=user_name(), settings=settings, reason=reason), json=json)


def _position(text: str) -> tuple[float, float]:
    parts = text.split(",")
    try:
        y_px, x_px = (float(part) for part in parts)
    except ValueError as error:
        raise SessionError(f"--add {text}: must be two numbers, y and x, with a comma between") from error
    return y_px, x_px
