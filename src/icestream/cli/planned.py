"""What a command would do, on the terminal: dry runs of edits and of cleaning."""

import dataclasses
from typing import TYPE_CHECKING

from icestream.cli.console import make_table, output, print_json
from icestream.counting import counted

if TYPE_CHECKING:
    from icestream.flow.commands.garbage import Garbage
    from icestream.flow.planning.plans import Plan, StepPlan

_NUMBERS = ("computed", "decided again", "reused", "time", "new files", "old files kept")


def print_plan(plan: "Plan", *, json: bool) -> None:
    """Print what an edit would do, step by step."""
    if json:
        steps = [dataclasses.asdict(step) for step in plan.steps]
        print_json({"steps": steps, "computed": plan.computed, "at_most": plan.at_most, "seconds": plan.seconds})
        return
    console = output()
    if not plan.steps:
        console.print("nothing would be recomputed")
        return
    table = make_table("step", "", *_NUMBERS, right=_NUMBERS)
    for step in plan.steps:
        table.add_row(*_row(step))
    console.print(table)
    more = f" and up to {plan.at_most} more" if plan.at_most else ""
    taken = span(plan.seconds)
    time = f", {'' if taken.startswith('<') else 'about '}{taken} with {counted(plan.cores, 'core')}" if taken else ""
    console.print(f"{counted(plan.computed, 'result')} to compute{more}{time}", markup=False, soft_wrap=True)


def _row(step: "StepPlan") -> list[str]:
    if step.change == "gone":
        return [step.step, "removed", "", "", "", "", "", size(step.old_bytes)]
    about = "" if step.exact else "about "
    computed = f"{about}{step.computed}" if step.computed else ""
    up_to = f"up to {step.computed + step.at_most}" if step.at_most else ""
    return [
        step.step,
        {"new": "new", "rebuilt": "rebuilt"}.get(step.change, ""),
        up_to or computed or "0",
        str(step.decided or ""),
        str(step.reused or ""),
        span(step.seconds),
        size(step.new_bytes),
        size(step.old_bytes),
    ]


def print_garbage(garbage: "Garbage", *, json: bool) -> None:
    """Print what cleaning would delete, step by step."""
    steps = garbage.by_step()
    total = sum(step.bytes for step in steps)
    if json:
        print_json({"steps": steps, "bytes": total})
        return
    console = output()
    if not steps:
        console.print("nothing to clean up")
        return
    table = make_table("step", "results", "files", "size", right=("results", "files", "size"))
    for step in steps:
        table.add_row(step.step, str(step.results or ""), str(step.files or ""), size(step.bytes))
    console.print(table)
    console.print(f"{size(total)} in total", markup=False)


def span(seconds: float | None) -> str:
    """Write a length of time, or that it is not known."""
    if seconds is None:
        return "unknown"
    if seconds == 0:
        return ""
    if seconds < 60:
        return "< 1 s" if seconds < 1 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def size(count: int | None) -> str:
    """Write a number of bytes, or that it is not known."""
    if count is None:
        return "unknown"
    if count == 0:
        return ""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
