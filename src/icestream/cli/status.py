"""``icestream status``, ``failed`` and ``trace``: what became of the exposures."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from icestream.cli.console import FittingTable, columns_with_something, make_table, output, print_json
from icestream.counting import counted
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.flow.storage import Session
    from icestream.observe.queries import StepSummary

_SESSION = typer.Argument(help="Folder of the session.")
_JSON = typer.Option(False, "--json", help="Print JSON for another program.")


def status(session: Path = _SESSION, json: bool = _JSON) -> None:
    """Show the state of a session: every step with its counts and pace. Works during a run and afterwards.

    ```
    icestream status lysozyme
    icestream status lysozyme --json | jq '.steps[] | {name, counts}'
    ```
    """
    from icestream.flow.storage import open_session
    from icestream.observe.medians import read_medians
    from icestream.observe.queries import open_view
    from icestream.observe.report import read_publication
    from icestream.observe.session_alarms import read_alarms
    from icestream.observe.wording import quantity

    opened = open_session(session)
    published, alarms = read_publication(opened), read_alarms(opened, now=time.time())
    with open_view(opened) as view:
        overview, steps, notices = view.overview(), view.steps(), view.notices(limit=5)
        medians = read_medians(view, steps)
    if json:
        shown = {"overview": overview, "steps": steps, "measures": medians, "notices": notices, "alarms": alarms}
        print_json({**shown, "report": published.model_dump()})
        return
    console = output()
    runner = overview.runner
    where = f" by process {runner.pid} on {runner.host}" if runner.alive else f" ({runner.note})" if runner.note else ""
    console.print(f"{overview.name}: {runner.state}{where}", markup=False, style="bold", soft_wrap=True)
    if runner.silence is not None:
        console.print(f"its runner {runner.silence}", markup=False, style="bold red", soft_wrap=True)
    if overview.pause is not None:
        console.print(overview.pause.sentence, markup=False, style="bold yellow", soft_wrap=True)
    if alarms.sentence is not None:
        console.print(alarms.sentence, markup=False, style="bold red", soft_wrap=True)
    console.print(f"{counted(overview.exposures, 'exposure')}, {overview.rejected} set aside, {overview.failed} failed")
    console.print(_draw_steps(steps))
    for name, measured in medians.items():
        told = ", ".join(f"{one.label} {quantity(one.median, one.unit)}" for one in measured)
        of = f" (median of the newest {most})" if (most := max(one.n for one in measured)) > 1 else ""
        console.print(f"{name}: {told}{of}", markup=False, soft_wrap=True)
    for step in steps:
        if step.marks.sentences:
            console.print(f"{step.name}: {', '.join(step.marks.sentences)}", markup=False, soft_wrap=True)
    for notice in reversed(notices):
        level = f"{notice.level} (over)" if notice.over else notice.level
        console.print(f"{level}: {notice.message}", markup=False, soft_wrap=True)
    if published.trouble is not None:
        console.print(published.trouble, markup=False, style="yellow", soft_wrap=True)


def _draw_steps(steps: "Sequence[StepSummary]") -> FittingTable:
    rows = [_numbers(step) for step in steps]
    names = columns_with_something(rows, always=("done",))
    table = make_table("step", *names, "stream", right=tuple(names), whole=True)
    table.columns[-1].no_wrap = False
    lines = []
    for step, row in zip(steps, rows, strict=True):
        stream = step.stream or "not started"
        reason = None if stream == "open" else step.stream_reason  # why it was opened tells nobody anything
        table.add_row(step.name, *(row[name] for name in names), f"{stream}: {reason}" if reason else stream)
        lines.append(", ".join([f"{step.name}: {stream}", *(f"{row[name]} {name}" for name in names if row[name])]))
    return FittingTable(table, lines)


def _numbers(step: "StepSummary") -> dict[str, str]:
    """Return what is counted and measured of a step, by the head of its column."""
    counts, pace, wall_s = step.counts, step.pace.per_minute, step.pace.median_wall_s
    whole = {
        "done": counts.item,
        "waiting": counts.waiting,
        "running": counts.running,
        "failed": counts.failed,
        "set aside": counts.rejected,
        "skipped": counts.skipped,
        "absent": counts.absent,
    }
    return {
        **{name: str(count) if count else "" for name, count in whole.items()},
        "per minute": "" if pace is None else f"{pace:.1f}",
        "s each": "" if wall_s is None else f"{wall_s:.2f}",
    }


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
    from icestream.flow.storage import open_session
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
    from icestream.flow.storage import open_session
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
