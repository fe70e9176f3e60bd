"""``icestream status``, ``failed``, ``retry`` and ``trace``: what became of the exposures, and trying again."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from icestream.cli.console import make_table, output, print_json, type_next
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.flow.session import Session
    from icestream.observe.answers import StepSummary

_SESSION = typer.Argument(help="Folder of the session.")
_JSON = typer.Option(False, "--json", help="Print JSON for another program.")


def status(session: Path = _SESSION, json: bool = _JSON) -> None:
    """Show where a session stands: every step with its counts and pace. Works while it runs, and after.

    ```
    icestream status lysozyme
    icestream status lysozyme --json | jq '.steps[] | {name, counts}'
    ```
    """
    from icestream.flow.session import open_session
    from icestream.observe.queries import open_view

    with open_view(open_session(session)) as view:
        overview, steps, notices = view.overview(), view.steps(), view.notices(limit=5)
    if json:
        print_json({"overview": overview, "steps": steps, "notices": notices})
        return
    console = output()
    runner = overview.runner
    where = f" by process {runner.pid} on {runner.host}" if runner.alive else f" ({runner.note})" if runner.note else ""
    console.print(f"{overview.name}: {runner.state}{where}", markup=False, style="bold", soft_wrap=True)
    console.print(f"{overview.exposures} exposures, {overview.rejected} set aside, {overview.failed} failed")
    numbers = ("done", "waiting", "running", "failed", "set aside", "skipped", "per minute", "s each")
    table = make_table("step", *numbers, "stream", right=numbers)
    for step in steps:
        table.add_row(*_status_row(step))
    console.print(table)
    for notice in reversed(notices):
        console.print(f"{notice.level}: {notice.message}", markup=False, soft_wrap=True)


def _status_row(step: "StepSummary") -> list[str]:
    counts = step.counts
    pace, wall_s = step.pace.per_minute, step.pace.median_wall_s
    whole = [counts.item, counts.waiting, counts.running, counts.failed, counts.rejected, counts.skipped]
    stream = step.stream or "not started"
    return [
        step.name,
        *(str(count) if count else "" for count in whole),
        "" if pace is None else f"{pace:.1f}",
        "" if wall_s is None else f"{wall_s:.2f}",
        f"{stream}: {step.stream_reason}" if step.stream_reason else stream,
    ]


def failed(
    session: Path = _SESSION,
    step: str | None = typer.Argument(None, help="Only this step."),
    set_aside: bool = typer.Option(False, "--set-aside", help="Also list what filters set aside."),
    tracebacks: bool = typer.Option(False, "--tracebacks", help="Show where in the program each failed."),
    json: bool = _JSON,
) -> None:
    """List the exposures that failed, with the reason. They never stop the others; `icestream retry` tries them again.

    ```
    icestream failed lysozyme
    icestream failed lysozyme --set-aside
    icestream failed lysozyme ctf --tracebacks
    ```
    """
    from icestream.flow.session import open_session
    from icestream.observe.queries import open_view

    opened = open_session(session)
    _check_step(opened, step)
    with open_view(opened) as view:
        found = view.failed(step)
        rejected = view.rejected(step) if set_aside else []
    if json:
        print_json([*found, *rejected])
        return
    console = output()
    if not found and not rejected:
        console.print("nothing failed or was set aside" if set_aside else "nothing failed")
        return
    table = make_table("step", "exposure", "attempts", "reason", right=("attempts",))
    for item in found:
        table.add_row(item.step, item.exposure, str(item.attempts), escape(item.reason))
    for aside in rejected:
        table.add_row(aside.step, aside.exposure, "set aside", escape(aside.reason or ""))
    console.print(table)
    for item in found if tracebacks else []:
        console.print(f"\n{item.step}, {item.exposure}:\n{item.traceback or 'no traceback'}", markup=False, soft_wrap=True)


def _check_step(session: "Session", step: str | None) -> None:
    names = session.document.steps
    if step is not None and step not in names:
        raise SessionError(f"{session.folder}: has no step {step!r}; it has {', '.join(names)}")


def retry(
    session: Path = _SESSION,
    step: str | None = typer.Argument(None, help="Only what failed at this step."),
    exposure: str | None = typer.Option(None, help="Only this exposure, by name or id."),
) -> None:
    """Try again what failed: at once where the session runs, else when it is run next.

    ```
    icestream retry lysozyme
    icestream retry lysozyme ctf --exposure mic_0042
    ```
    """
    from icestream.flow.session import open_session
    from icestream.flow.store import append_command
    from icestream.observe.queries import open_view

    opened = open_session(session)
    _check_step(opened, step)
    with open_view(opened) as view:
        overview, found = view.overview(), view.failed(step)
        unit = None if exposure is None else view.trace(exposure).unit
    if overview.runner.state == "not started":
        raise SessionError(f"{opened.folder}: has not been run yet, so nothing has failed")
    chosen = [item for item in found if unit in (None, item.unit)]
    console = output()
    if not chosen:
        console.print("nothing failed, so there is nothing to try again")
        return
    append_command(opened.store_at, "retry", {"step": step, "unit": unit}, author=getpass.getuser())
    when = "now" if overview.runner.alive else f"when the session is run next: {type_next('run', opened.folder)}"
    console.print(f"{len(chosen)} to be tried again {when}", soft_wrap=True, markup=False)


def trace(
    session: Path = _SESSION,
    item: str = typer.Argument(help="An exposure's name or id, or the key of a result."),
    json: bool = _JSON,
) -> None:
    """Show everything that is known about one exposure: what each step made of it, with which parameters, from what.

    ```
    icestream trace lysozyme mic_0042
    ```
    """
    from icestream.flow.session import open_session
    from icestream.observe.queries import open_view

    with open_view(open_session(session)) as view:
        found: Any = view.trace(item)
    if json:
        print_json(found)
        return
    from icestream.cli.tracing import print_trace

    print_trace(found, output())
