"""``icestream why``: what a session, a step or an exposure is waiting for."""

from pathlib import Path

import typer

from icestream.cli.asking import JSON, SESSION
from icestream.cli.console import output, print_json


def why(
    session: Path = SESSION,
    what: str | None = typer.Argument(None, metavar="[STEP|EXPOSURE]", help="A step, or an exposure by name or id."),
    json: bool = JSON,
) -> None:
    """Say what a session, a step or an exposure is waiting for, in one sentence each.

    ```
    icestream why lysozyme
    icestream why lysozyme classes
    icestream why lysozyme mic_0042
    ```
    """
    from icestream.flow.storage import open_session
    from icestream.observe.queries import open_view
    from icestream.observe.why import why_exposure, why_session, why_step

    with open_view(open_session(session)) as view:
        if what is None:
            found = why_session(view)
        elif what in view.order:
            found = why_step(view, what)
        else:
            found = why_exposure(view, what)
    if json:
        print_json(found)
        return
    for because in found:
        text = because.sentence if because.step is None else f"{because.step}: {because.sentence}"
        output().print(text, markup=False, soft_wrap=True)
