"""``icestream history`` and ``revisions``: what people did, and what became of steps that were changed."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from icestream.cli.asking import JSON, SESSION
from icestream.cli.console import make_table, output, print_json
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.observe.revisions import Comparison, RevisionRow

_STATUS = {"item": "done", "rejected": "set aside"}
_MOST_DIFFERENCES = 20


def history(
    session: Path = SESSION,
    last: int | None = typer.Option(None, min=1, help="Only this many of the newest lines."),
    json: bool = JSON,
) -> None:
    """Show the requests made of a session, by whom and when, with the answers, and the overrides now in force.

    ```
    icestream history lysozyme
    icestream history lysozyme --last 5
    ```
    """
    from icestream.flow.storage import open_session
    from icestream.observe.queries import open_view

    with open_view(open_session(session)) as view:
        entries, decisions = view.history(limit=last), view.decisions()
    if json:
        print_json({"history": entries, "decisions": decisions})
        return
    console = output()
    if not entries:
        console.print("no requests have been made of this session")
    else:
        table = make_table("when", "who", "what", "answer")
        for entry in entries:
            answer = entry.answer if entry.state in ("done", "active") else f"{entry.state}: {entry.answer}".rstrip(": ")
            table.add_row(_time(entry.at), escape(entry.author or ""), escape(entry.what), escape(answer))
        console.print(table)
    for one in decisions:
        console.print(f"{one.exposure} at {one.step}: {one.sentence}", markup=False, soft_wrap=True)


def revisions(
    session: Path = SESSION,
    step: str | None = typer.Argument(None, help="Only this step; by default, all steps that have more than one revision."),
    compare: tuple[int, int] | None = typer.Option(None, metavar="A B", help="Compare the results of two revisions of the step."),
    json: bool = JSON,
) -> None:
    """List the revisions of steps and what differs between them, or compare two of one step.

    Results of an old revision stay until `icestream clean --old-revisions`.

    ```
    icestream revisions lysozyme
    icestream revisions lysozyme ctf --compare 1 2
    ```
    """
    from icestream.flow.storage import open_session
    from icestream.observe.queries import open_view

    if compare is not None and step is None:
        raise SessionError("--compare: name the step whose revisions are compared")
    with open_view(open_session(session)) as view:
        if compare is not None and step is not None:
            compared = view.compare(step, *compare)
            print_json(compared) if json else _print_comparison(compared)
            return
        found = view.step_revisions(step)
        if step is not None and not found:
            raise SessionError(f"{step!r}: no step of this session has been run under this name; it has {', '.join(view.order)}")
    many = {row.step for row in found if row.number > 1}
    shown = found if step is not None or json else [row for row in found if row.step in many]
    if json:
        print_json(shown)
    elif not shown:
        output().print("every step still has its initial parameters")
    else:
        _print_revisions(shown)


def _print_revisions(rows: "list[RevisionRow]") -> None:
    table = make_table("step", "revision", "since", "state", "changes from the previous revision", "results")
    for row in rows:
        changed = ", ".join(f"{name}: {_value(there)} → {_value(here)}" for name, (there, here) in row.changed.items())
        counts = ", ".join(f"{count} {_STATUS.get(status, status)}" for status, count in sorted(row.counts.items()))
        counts += f"; {row.own_params} with parameters of their own" if row.own_params else ""
        differs = changed or ("" if row.number == 1 else "changed upstream")
        table.add_row(row.step, str(row.number), _time(row.created_at), row.state, escape(differs), counts)
    output().print(table)


def _print_comparison(compared: "Comparison") -> None:
    console = output()
    first, second = (f"revision {row.number}" for row in (compared.first, compared.second))
    console.print(
        f"{compared.same} have the same outcome, {len(compared.differing)} a different one; "
        f"{compared.only_first} are only in {first}, {compared.only_second} only in {second}"
    )
    table = make_table("exposure", first, second, "reason")
    for one in compared.differing[:_MOST_DIFFERENCES]:
        table.add_row(escape(one.exposure), one.first, one.second, escape(one.reason))
    if table.row_count:
        console.print(table)
    if len(compared.differing) > _MOST_DIFFERENCES:
        console.print(f"and {len(compared.differing) - _MOST_DIFFERENCES} more (--json lists all)")
    medians = make_table("median of", first, second, right=(first, second))
    for median in compared.medians:
        medians.add_row(median.field, _number(median.first), _number(median.second))
    if medians.row_count:
        console.print(medians)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _value(value: Any) -> str:
    return "default" if value is None else str(value)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
