"""``icestream status``, ``failed`` and ``trace``: what became of the exposures."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from icestream.cli.console import make_table, output, print_json
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.flow.storage.session import Session
    from icestream.observe.answers import StepSummary

_SESSION = typer.Argument(help="Folder of the session.")
_JSON = typer.Option(False, "--json", help="Print JSON for another program.")


def status(session: Path = _SESSION, json: bool = _JSON) -> None:
    """Show the state of a session: every step with its counts and pace. Works during a run and afterwards.

    ```
    icestream status lysozyme
    icestream status lysozyme --json | jq '.steps[] | {name, counts}'
    ```
    """
    from icestream.flow.storage.session import open_session
    from icestream.observe.medians import read_medians
    from icestream.observe.queries import open_view
    from icestream.observe.wording import quantity

    with open_view(open_session(session)) as view:
        overview, steps, notices = view.overview(), view.steps(), view.notices(limit=5)
        medians = read_medians(view, steps)
    if json:
        print_json({"overview": overview, "steps": steps, "measures": medians, "notices": notices})
        return
    console = output()
    runner = overview.runner
    where = f" by process {runner.pid} on {runner.host}" if runner.alive else f" ({runner.note})" if runner.note else ""
    console.print(f"{overview.name}: {runner.state}{where}", markup=False, style="bold", soft_wrap=True)
    if runner.silence is not None:
        console.print(f"its runner {runner.silence}", markup=False, style="bold red", soft_wrap=True)
    if overview.hold is not None:
        console.print(overview.hold.sentence, markup=False, style="bold yellow", soft_wrap=True)
    console.print(f"{overview.exposures} exposures, {overview.rejected} set aside, {overview.failed} failed")
    numbers = ("done", "waiting", "running", "failed", "set aside", "skipped", "per minute", "s each")
    table = make_table("step", *numbers, "stream", right=numbers)
    for step in steps:
        table.add_row(*_status_row(step))
    console.print(table)
    for name, measured in medians.items():
        told = ", ".join(f"{one.label} {quantity(one.median, one.unit)}" for one in measured)
        of = f" (median of the newest {most})" if (most := max(one.n for one in measured)) > 1 else ""
        console.print(f"{name}: {told}{of}", markup=False, soft_wrap=True)
    for step in steps:
        if step.marks.sentences:
            console.print(f"{step.name}: {', '.join(step.marks.sentences)}", markup=False, soft_wrap=True)
    for notice in reversed(notices):
        console.print(f"{notice.level}: {notice.message}", markup=False, soft_wrap=True)


def _status_row(step: "StepSummary") -> list[str]:
    counts = step.counts
    pace, wall_s = step.pace.per_minute, step.pace.median_wall_s
    whole = [counts.item, counts.waiting, counts.running, counts.failed, counts.rejected, counts.skipped]
    stream, reason = step.stream or "not started", step.stream_reason
    if stream == "open":  # why it was opened tells nobody anything
        reason = None
    return [
        step.name,
        *(str(count) if count else "" for count in whole),
        "" if pace is None else f"{pace:.1f}",
        "" if wall_s is None else f"{wall_s:.2f}",
        f"{stream}: {reason}" if reason else stream,
    ]


def failed(
    session: Path = _SESSION,
    step: str | None = typer.Argument(None, help="Only this step."),
    set_aside: bool = typer.Option(False, "--set-aside", help="Also list what filters set aside."),
    tracebacks: bool = typer.Option(False, "--tracebacks", help="Show the traceback of each failure."),
    json: bool = _JSON,
) -> None:
    """List the exposures that failed, with the reason. They never stop the others; `icestream retry` retries them.

    ```
    icestream failed lysozyme
    icestream failed lysozyme --set-aside
    icestream failed lysozyme ctf --tracebacks
    ```
    """
    from icestream.flow.storage.session import open_session
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
        notes = "".join(f"\nnote: {note}" for note in item.notes)
        table.add_row(item.step, item.exposure, str(item.attempts), escape(item.reason + notes))
    for aside in rejected:
        table.add_row(aside.step, aside.exposure, "set aside", escape(aside.reason or ""))
    console.print(table)
    for item in found if tracebacks else []:
        console.print(f"\n{item.step}, {item.exposure}:\n{item.traceback or 'no traceback'}", markup=False, soft_wrap=True)


def _check_step(session: "Session", step: str | None) -> None:
    names = session.document.steps
    if step is not None and step not in names:
        raise SessionError(f"{session.folder}: has no step {step!r}; it has {', '.join(names)}")


def trace(
    session: Path = _SESSION,
    item: str = typer.Argument(help="An exposure's name or id, the key of a result, or a version of a whole: STEP or STEP:3."),
    json: bool = _JSON,
) -> None:
    """Show everything that is known about one exposure: the result of each step, with which parameters, and from which inputs.

    For a version of a whole (class averages, a gain reference), show what went into it.

    ```
    icestream trace lysozyme mic_0042
    icestream trace lysozyme classes:12
    ```
    """
    from icestream.flow.storage.session import open_session
    from icestream.observe.queries import open_view

    with open_view(open_session(session)) as view:
        lineage = view.lineage(item)
        found: Any = view.trace(item) if lineage is None else lineage
        decisions = [] if lineage is not None else view.decisions([found.unit])
    if json:
        print_json(found if lineage is not None else {**dataclasses.asdict(found), "decisions": decisions})
        return
    from icestream.cli.tracing import print_lineage, print_trace

    if lineage is not None:
        print_lineage(lineage, output())
    else:
        print_trace(found, output(), decisions)
