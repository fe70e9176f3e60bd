"""``icestream pause``, ``resume``, ``stop``, ``close``, ``reopen``, ``release``, ``continue`` and ``retry``."""

from dataclasses import replace
from pathlib import Path

import typer

from icestream.cli.asking import JSON, REASON, SESSION, ask_for, finish, submit_here
from icestream.cli.console import output, type_next
from icestream.errors import SessionError

_STEP = typer.Argument(help="Name of the step in the workflow (`icestream status` lists them).")


def pause(session: Path = SESSION, reason: str = REASON, json: bool = JSON) -> None:
    """Pause a session: running work finishes, nothing new starts, and the idle clock stops.

    The pause lasts until `icestream resume`, also through restarts. To stop a single step, use `icestream close`.

    ```
    icestream pause lysozyme --reason "changing the gain reference"
    icestream resume lysozyme
    ```
    """
    from icestream.flow.commands.requests import Pause

    ask_for(session, Pause(reason=reason), json=json)


def resume(session: Path = SESSION, json: bool = JSON) -> None:
    """Resume a paused session.

    ```
    icestream resume lysozyme
    ```
    """
    from icestream.flow.commands.requests import Resume

    ask_for(session, Resume(), json=json)


def stop(
    session: Path = SESSION,
    now: bool = typer.Option(False, "--now", help="Cancel running work instead of waiting for it; it is redone later."),
    from_: str | None = typer.Option(None, "--from", metavar="STEP", help="Stop only this step and the steps downstream of it."),
    json: bool = JSON,
) -> None:
    """Stop a session once running work has finished. Nothing is lost: `icestream run` continues from there.

    With `--from STEP` the session keeps running; only that step and the steps downstream of it take nothing new, until
    `icestream reopen` or `icestream continue`.

    ```
    icestream stop lysozyme
    icestream stop lysozyme --from classes
    ```
    """
    from icestream.flow.commands.client import runner_lives
    from icestream.flow.commands.requests import Close, Stop
    from icestream.flow.storage import open_session

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
    now: bool = typer.Option(False, "--now", help="Also cancel what is running in this step."),
    json: bool = JSON,
) -> None:
    """Drain a step: it takes nothing new, running work finishes, then its stream and those downstream close.

    `icestream reopen` undoes this.

    ```
    icestream close lysozyme picks
    icestream reopen lysozyme picks
    ```
    """
    from icestream.flow.commands.requests import Close

    ask_for(session, Close(step=step, now=now), json=json)


def reopen(session: Path = SESSION, step: str = _STEP, json: bool = JSON) -> None:
    """Reopen a step that was closed by hand. What arrived in the meantime is processed too.

    ```
    icestream reopen lysozyme picks
    ```
    """
    from icestream.flow.commands.requests import Reopen

    ask_for(session, Reopen(step=step), json=json)


def release(session: Path = SESSION, step: str = _STEP, json: bool = JSON) -> None:
    """Open a gate that is waiting for a person (a `trigger` step with `manual: true`).

    ```
    icestream release lysozyme checkpoint
    ```
    """
    from icestream.flow.commands.requests import Release

    ask_for(session, Release(step=step), json=json)


def continue_(session: Path = SESSION, json: bool = JSON) -> None:
    """Continue with everything: end a pause, reopen what was closed by hand or reset, and retry what failed.

    If the session is not running, start it afterwards with `icestream run`.

    ```
    icestream continue lysozyme
    ```
    """
    from icestream.flow.commands.requests import Continue

    ask_for(session, Continue(), json=json)


def retry(
    session: Path = SESSION,
    step: str | None = typer.Argument(None, help="Retry only what failed at this step; all steps by default."),
    exposure: str | None = typer.Option(None, help="Retry only this exposure, given by name or id."),
    json: bool = JSON,
) -> None:
    """Retry what failed: at once if the session is running, otherwise at its next run.

    ```
    icestream retry lysozyme
    icestream retry lysozyme ctf --exposure mic_0042
    ```
    """
    from icestream.flow.commands.requests import Retry
    from icestream.flow.storage import open_session
    from icestream.observe.queries import open_view

    opened = open_session(session)
    with open_view(opened) as view:
        _known(view.order, step)
        if view.overview().runner.state == "not started":
            raise SessionError(f"{opened.folder}: has not been run yet, so nothing has failed")
        unit = None if exposure is None else view.trace(exposure).unit
        if not json and not [item for item in view.failed(_known(view.order, step)) if unit in (None, item.unit)]:
            output().print("nothing failed, so there is nothing to retry")
            return
        alive = view.overview().runner.alive
    (answer,) = submit_here(session, [Retry(step=step, unit=unit)])
    if answer.state == "done" and not alive:
        answer = replace(answer, text=f"{answer.text}; this happens at the next run: {type_next('run', opened.folder)}")
    finish([answer], json=json)


def _known(order: list[str], step: str | None) -> str | None:
    if step is not None and step not in order:
        raise SessionError(f"there is no step {step!r}; the steps are {', '.join(order)}")
    return step
