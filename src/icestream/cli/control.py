"""``icestream pause``, ``resume``, ``stop``, ``close``, ``reopen``, ``release``, ``continue`` and ``retry``."""

from dataclasses import replace
from pathlib import Path

import typer

from icestream.cli.asking import JSON, REASON, SESSION, ask_for, finish, submit_here
from icestream.cli.console import output, type_next
from icestream.errors import SessionError

_STEP = typer.Argument(help="Name of the step in the workflow.")


def pause(session: Path = SESSION, reason: str = REASON, json: bool = JSON) -> None:
    """Pause a session: what runs is finished, nothing new is started, no idle time counts. It stays paused through restarts.

    ```
    icestream pause lysozyme --reason "changing the gain reference"
    icestream resume lysozyme
    ```
    """
    from icestream.flow.commands.requests import Pause

    ask_for(session, Pause(reason=reason), json=json)


def resume(session: Path = SESSION, json: bool = JSON) -> None:
    """Go on after a pause.

    ```
    icestream resume lysozyme
    ```
    """
    from icestream.flow.commands.requests import Resume

    ask_for(session, Resume(), json=json)


def stop(
    session: Path = SESSION,
    now: bool = typer.Option(False, "--now", help="Do not wait for what is running; it is computed again later."),
    from_: str | None = typer.Option(None, "--from", metavar="STEP", help="Stop only this step and what is below it."),
    json: bool = JSON,
) -> None:
    """Stop a session after what is running; nothing is lost. `icestream run` goes on from there.

    With `--from STEP` the runner stays, and only that step and what is below it take nothing new, until `icestream reopen` or
    `icestream continue`.

    ```
    icestream stop lysozyme
    icestream stop lysozyme --from classes
    ```
    """
    from icestream.flow.commands.client import runner_lives
    from icestream.flow.commands.requests import Close, Stop
    from icestream.flow.storage.session import open_session

    if from_ is not None:
        ask_for(session, Close(step=from_, now=now), json=json)
        return
    opened = open_session(session)
    if not runner_lives(opened):
        raise SessionError(f"{opened.folder}: is not running, so there is nothing to stop")
    ask_for(session, Stop(now=now), json=json)


def close(
    session: Path = SESSION,
    step: str = _STEP,
    now: bool = typer.Option(False, "--now", help="Also cancel what runs there."),
    json: bool = JSON,
) -> None:
    """Close a stream by hand: the step takes nothing new, what runs ends, then what is below closes too.

    ```
    icestream close lysozyme picks
    icestream reopen lysozyme picks
    ```
    """
    from icestream.flow.commands.requests import Close

    ask_for(session, Close(step=step, now=now), json=json)


def reopen(session: Path = SESSION, step: str = _STEP, json: bool = JSON) -> None:
    """Open a stream again that was closed by hand; what came meanwhile is taken too.

    ```
    icestream reopen lysozyme picks
    ```
    """
    from icestream.flow.commands.requests import Reopen

    ask_for(session, Reopen(step=step), json=json)


def release(session: Path = SESSION, step: str = _STEP, json: bool = JSON) -> None:
    """Let a gate go that waits for a person.

    ```
    icestream release lysozyme checkpoint
    ```
    """
    from icestream.flow.commands.requests import Release

    ask_for(session, Release(step=step), json=json)


def continue_(session: Path = SESSION, json: bool = JSON) -> None:
    """Go on with everything: end a pause, reopen what was closed by hand or reset, try again what failed.

    Where no runner is there, start one afterwards: `icestream run`.

    ```
    icestream continue lysozyme
    ```
    """
    from icestream.flow.commands.requests import Continue

    ask_for(session, Continue(), json=json)


def retry(
    session: Path = SESSION,
    step: str | None = typer.Argument(None, help="Only what failed at this step."),
    exposure: str | None = typer.Option(None, help="Only this exposure, by name or id."),
    json: bool = JSON,
) -> None:
    """Try again what failed: at once where the session runs, else when it is run next.

    ```
    icestream retry lysozyme
    icestream retry lysozyme ctf --exposure mic_0042
    ```
    """
    from icestream.flow.commands.requests import Retry
    from icestream.flow.storage.session import open_session
    from icestream.observe.queries import open_view

    opened = open_session(session)
    with open_view(opened) as view:
        _known(view.order, step)
        if view.overview().runner.state == "not started":
            raise SessionError(f"{opened.folder}: has not been run yet, so nothing has failed")
        unit = None if exposure is None else view.trace(exposure).unit
        if not json and not [item for item in view.failed(_known(view.order, step)) if unit in (None, item.unit)]:
            output().print("nothing failed, so there is nothing to try again")
            return
        alive = view.overview().runner.alive
    (answer,) = submit_here(session, [Retry(step=step, unit=unit)])
    if answer.state == "done" and not alive:
        when = f"when the session is run next: {type_next('run', opened.folder)}"
        answer = replace(answer, text=f"{answer.text}; it goes on {when}")
    finish([answer], json=json)


def _known(order: list[str], step: str | None) -> str | None:
    if step is not None and step not in order:
        raise SessionError(f"has no step {step!r}; it has {', '.join(order)}")
    return step
