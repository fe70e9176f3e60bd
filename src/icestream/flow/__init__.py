"""The engine; this is what a step author imports."""

from pydantic import Field

from icestream.flow.declaration.context import (
    Context,
    Exposure,
    InputNames,
    Params,
    Progress,
    Published,
    Verdict,
    keep,
    reject,
    wait,
)
from icestream.flow.declaration.declare import step
from icestream.flow.declaration.program import FoundProgram, Program, ProgramSettings
from icestream.flow.declaration.source import Arrival, Foreseen, Pulse, SeenFile, SourceContext, Troubles, Watch
from icestream.flow.declaration.step import Accumulator, Update
from icestream.flow.workflow.pinned import before

__all__ = [
    "Accumulator",
    "Arrival",
    "Context",
    "Exposure",
    "Field",
    "Foreseen",
    "FoundProgram",
    "InputNames",
    "Params",
    "Program",
    "ProgramSettings",
    "Progress",
    "Published",
    "Pulse",
    "SeenFile",
    "SourceContext",
    "Troubles",
    "Update",
    "Verdict",
    "Watch",
    "before",
    "keep",
    "reject",
    "step",
    "wait",
]
