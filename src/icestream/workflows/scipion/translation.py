"""What a translation of a workflow of Scipion says: its steps, what became of each protocol, and what keeps it from running."""

import re
from dataclasses import dataclass, field
from typing import Any

from icestream.alarms.document import AlarmsDocument
from icestream.errors import WorkflowError
from icestream.flow.declaration import find_step
from icestream.flow.workflow import StepSpec, Workflow, build_graph
from icestream.workflows.implied import needs_diameters
from icestream.workflows.scipion.parse import Document, DynamicField, Protocol
from icestream.workflows.template import DisabledStep

MAPPED_SAME, CHANGED, LEFT_OUT, DISABLED, UNKNOWN = "mapped", "changed meaning", "left out", "disabled", "unknown"


@dataclass(frozen=True)
class Row:
    """What became of one protocol; ``kept`` are parameters without a counterpart, as they were written."""

    protocol: Protocol
    step: str | None
    outcome: str
    notes: tuple[str, ...]
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AskedField:
    """A field of a template, and where its value goes now: an option of ``icestream new``, or nowhere."""

    protocol: str
    parameter: str
    asked: DynamicField
    target: str | None


@dataclass
class Translation:
    """A workflow made from Scipion's, and everything a person has to know about it.

    ``disabled`` are protocols that became no step, with their original parameters. ``options`` are those of ``icestream new``; a
    value of None is to be filled in. ``problems`` are what still keeps the workflow
    from running. ``alarms`` are the rules that its monitors became.
    """

    document: Document
    steps: dict[str, StepSpec] = field(default_factory=dict)
    disabled: dict[str, DisabledStep] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    fields: list[AskedField] = field(default_factory=list)
    options: dict[str, str | None] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    alarms: AlarmsDocument | None = None


_TOMOGRAPHY = re.compile(r"[Tt]omo|Tilt[A-Z]?[Ss]er|T[Ss](?=[A-Z]|$)|Dynamo|Imod|AreTomo")


def is_tomography(protocol: Protocol) -> bool:
    """Tell whether an unknown protocol belongs to tomography, by its name."""
    return _TOMOGRAPHY.search(protocol.class_name) is not None


def _nothing_to_run(result: Translation) -> str:
    """Return in one line why there is no step at all."""
    unknown = [row.protocol for row in result.rows if row.outcome == UNKNOWN]
    tomography = list(dict.fromkeys(one.class_name for one in unknown if is_tomography(one)))
    if tomography:
        return f"it is tomography ({', '.join(tomography[:3])}); icestream processes single particles"
    return "none of its protocols has an equivalent, so there is nothing to run"


def find_problems(result: Translation) -> tuple[str, ...]:
    """Check the workflow as ``icestream new`` will complete it; picks without a size get one there."""
    if not result.steps:
        return (_nothing_to_run(result),)
    steps = dict(result.steps)
    picking = [name for name, spec in steps.items() if needs_diameters(find_step(spec.use))]
    unsized = [name for name in picking if "diameter_ang" not in steps[name].params]
    for name in unsized:
        steps[name] = steps[name].model_copy(update={"params": {**steps[name].params, "diameter_ang": [100, 120]}})
        result.options["--diameter" if unsized == picking else f"--set {name}.diameter_ang"] = None
    for name, spec in steps.items():
        if spec.use == "import_picks" and "diameter_ang" not in spec.params:
            steps[name] = spec.model_copy(update={"params": {**spec.params, "diameter_ang": 110}})
            result.options[f"--set {name}.diameter_ang"] = None
    try:
        build_graph(Workflow(steps=steps))
    except WorkflowError as error:
        return tuple(str(error).split("\n"))
    return ()
