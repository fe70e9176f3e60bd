"""One exposure's history on the terminal."""

import json
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from icestream.counting import counted
from icestream.observe.lineage import Lineage
from icestream.observe.people import Decision
from icestream.observe.tracing import Trace, TracedResult, TracedStep
from icestream.observe.values import Told
from icestream.observe.wording import quantity

_LONGEST_VALUE = 90


_MOST_MEMBERS = 20


def print_lineage(lineage: Lineage, console: Console) -> None:
    """Print what one version of a whole was made from."""
    head = f"{lineage.step} version {lineage.version} ({lineage.record_type or 'not kept'}, revision {lineage.revision})"
    lines = [f"published {_time(lineage.at)}, {lineage.software}" + (f" on {lineage.host}" if lineage.host else "")]
    lines += ["its files were removed; newer versions have replaced it"] if lineage.pruned else []
    values = {name: value for name, value in lineage.record.items() if not isinstance(value, list | dict)}
    lines += [_fields(values)] if values else []
    lines += _shown_lines(lineage.shown, lineage.pictures)
    lines += [f"parameters {_fields(lineage.params)}"] if lineage.params else []
    if lineage.members:
        shown = ", ".join(lineage.members[-_MOST_MEMBERS:])
        more = "… " if len(lineage.members) > _MOST_MEMBERS else ""
        lines.append(
            f"made from {counted(len(lineage.members), 'exposure')} in {counted(lineage.portions, 'portion')}: {more}{shown}"
        )
    lines += [f"from {port}: {', '.join(key[:12] for key in keys)}" for port, keys in lineage.inputs.items() if keys]
    lines += [f"used by {counted(lineage.used_by, 'exposure')}"] if lineage.used_by else []
    console.print(f"{head}  {lineage.key}", style="bold", markup=False, soft_wrap=True)
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)


def print_trace(trace: Trace, console: Console, decisions: Sequence[Decision] = ()) -> None:
    """Print a trace, step by step, with what was decided by hand."""

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, soft_wrap=True)

    say(f"{trace.name}  {trace.unit}", "bold")
    for file in trace.files:
        say(f"  file {file}")
    if trace.arrived_at is not None:
        say(f"  arrived {_time(trace.arrived_at)} through {trace.source}")
    if trace.acquisition:
        say(f"  the file says {_fields(trace.acquisition)}")
    for decision in decisions:
        say(f"  {decision.sentence}, at {decision.step}", "yellow")
    told: set[str] = set()
    for step in trace.steps:
        say("")
        say(_head(step), "bold")
        for line in _lines(step, told):
            say(f"  {line}")


def _head(step: TracedStep) -> str:
    state = step.status or "not decided yet"
    at = "" if step.at is None else f" at {_time(step.at)}"
    return f"{step.step} ({step.use} version {step.type_version}, revision {step.revision}): {state}{at}"


def _lines(step: TracedStep, told: set[str]) -> list[str]:
    lines = [f"because {step.reason}"] if step.reason else []
    lines += [f"because of {step.root}"] if step.root else []
    lines += [f"parameters {_fields(step.params)}"] if step.params else []
    lines += [step.own.sentence] if step.own is not None else []
    lines += [f"used version {bound.version} of {bound.port} ({bound.key[:12]})" for bound in step.bindings]
    lines += [f"missing: {', '.join(step.missing)}"] if step.missing else []
    for key in dict.fromkeys(result.key for result in step.results):
        same = [result for result in step.results if result.key == key]
        outputs = ", ".join(result.output for result in same)
        lines += [f"{outputs} = {same[0].record_type} {key[:12]}, as above"] if key in told else _result_lines(same[0], outputs)
        told.add(key)
    return lines


def _result_lines(result: TracedResult, outputs: str) -> list[str]:
    took = f"  {result.wall_s:.2f} s" if result.wall_s else ""  # what was made along with another result took nothing by itself
    head = f"{outputs} = {result.record_type} {result.key[:12]}{took} on {result.host}, {result.software}"
    values = {name: value for name, value in result.record.items() if not isinstance(value, list | dict) and value is not None}
    inputs = [f"  from {port}: {', '.join(key[:12] for key in keys)}" for port, keys in result.inputs.items() if keys]
    shown = [f"  {line}" for line in _shown_lines(result.shown, result.pictures)]
    shown += [f"  note: {note}" for note in result.notes]
    return [head, f"  {_fields(values)}", *shown, *inputs, *(f"  file {file}" for file in result.files)]


def _shown_lines(numbers: Sequence[Told], pictures: Sequence[tuple[str, str]]) -> list[str]:
    told = ", ".join(f"{label} {quantity(value, unit)}" for label, value, unit in numbers)
    return ([f"shows {told}"] if told else []) + [f"picture {title}: {file}" for title, file in pictures]


def _fields(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items() if value is not None)


def _value(value: Any) -> str:
    text = (
        f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    )
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
