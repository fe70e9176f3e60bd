"""A declared step in words: for the command line and the generated reference."""

from typing import Any

from icestream.cli.fields import describe_fields
from icestream.flow.declaration import Port, StepType


def describe_step(step_type: StepType) -> dict[str, Any]:
    """Return everything that people ask about a step type."""
    return {
        "name": step_type.name,
        "kind": step_type.kind.value,
        "version": step_type.version,
        "summary": step_type.summary,
        "inputs": [{"name": port.name, "record": _record(port), "note": _note(port)} for port in step_type.ports],
        "outputs": [{"name": name, "record": record} for name, record in _outputs(step_type).items()],
        "parameters": describe_fields(step_type.params),
        "reads": sorted(step_type.reads),
        "cores": step_type.cores,
        "memory_gb": step_type.memory_gb,
        "gpu_gb": step_type.gpu_gb,
        "gpu": step_type.gpu if step_type.gpu_gb else "none",
        "programs": [{"name": one.name, "versions": one.supported, "note": one.note} for one in step_type.programs],
    }


def _record(port: Port) -> str:
    return "any record" if port.generic else port.record.__name__


def _note(port: Port) -> str:
    notes = [
        "optional" if port.optional else "",
        "any number of streams" if port.many else "",
        "a snapshot; each exposure keeps the version it used first" if port.bound else "",
    ]
    return ", ".join(filter(None, notes))


def _passed(port: Port) -> str:
    return "same as the input" if port.generic else port.record.__name__


def _outputs(step_type: StepType) -> dict[str, str]:
    if step_type.is_filter:
        passed = {port.name: _passed(port) for port in step_type.ports if not port.many}
        rejected = {f"rejected.{name}": record for name, record in passed.items()}
        return {**passed, **rejected} or {"out": "same as the input"}
    if step_type.output is None:
        return {"out": "same as the input"} | ({} if step_type.admit is None else {"rejected": "same as the input"})
    outputs = {"out": step_type.output.__name__}
    return outputs if step_type.assigns is None else {**outputs, "assignments": step_type.assigns.__name__}
