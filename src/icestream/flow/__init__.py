"""The engine; this is what a step author imports."""

from pydantic import Field

from icestream.flow.context import Context, Exposure, Params, Progress, Published, Verdict, keep, reject, wait
from icestream.flow.declare import step
from icestream.flow.pinned import before
from icestream.flow.source import Arrival, Pulse, SeenFile, SourceContext, Watch
from icestream.flow.step import Accumulator, Update

__all__ = [
    "Accumulator",
    "Arrival",
    "Context",
    "Exposure",
    "Field",
    "Params",
    "Progress",
    "Published",
    "Pulse",
    "SeenFile",
    "SourceContext",
    "Update",
    "Verdict",
    "Watch",
    "before",
    "keep",
    "reject",
    "step",
    "wait",
]
