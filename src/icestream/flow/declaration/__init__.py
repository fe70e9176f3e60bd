"""What a step is: its declaration, what it is given, what it says, and the one guard around its call."""

from icestream.flow.declaration.context import (
    Context,
    Exposure,
    InputNames,
    Params,
    Progress,
    Published,
    Verdict,
    keep,
    limit_of,
    limits,
    reject,
    wait,
)
from icestream.flow.declaration.declare import step
from icestream.flow.declaration.exhaustion import OomWatch, reap
from icestream.flow.declaration.file_refs import RESULTS, files_named_in, resolve_ref
from icestream.flow.declaration.guard import CallFailure, call_step, import_plugin
from icestream.flow.declaration.outcomes import UNCOUNTED, FailureKind, Keys, Member, Outcome, Outcomes, Status
from icestream.flow.declaration.program import FoundProgram, Program, ProgramSettings
from icestream.flow.declaration.registry import (
    PLUGIN_API,
    STEPS_GROUP,
    check_plugin_api,
    find_record,
    find_step,
    plugin_api_of,
    plugin_of,
    step_names,
)
from icestream.flow.declaration.source import Arrival, Foreseen, Pulse, SeenFile, SourceContext, Troubles, Watch
from icestream.flow.declaration.step_type import Accumulator, Kind, Port, StepType, Update

__all__ = [
    "PLUGIN_API",
    "RESULTS",
    "STEPS_GROUP",
    "UNCOUNTED",
    "Accumulator",
    "Arrival",
    "CallFailure",
    "Context",
    "Exposure",
    "FailureKind",
    "Foreseen",
    "FoundProgram",
    "InputNames",
    "Keys",
    "Kind",
    "Member",
    "OomWatch",
    "Outcome",
    "Outcomes",
    "Params",
    "Port",
    "Program",
    "ProgramSettings",
    "Progress",
    "Published",
    "Pulse",
    "SeenFile",
    "SourceContext",
    "Status",
    "StepType",
    "Troubles",
    "Update",
    "Verdict",
    "Watch",
    "call_step",
    "check_plugin_api",
    "files_named_in",
    "find_record",
    "find_step",
    "import_plugin",
    "keep",
    "limit_of",
    "limits",
    "plugin_api_of",
    "plugin_of",
    "reap",
    "reject",
    "resolve_ref",
    "step",
    "step_names",
    "wait",
]
