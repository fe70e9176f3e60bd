"""Running one task in a worker: message in, step called, message out."""

import json
import socket
import threading
import time
import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from icestream.errors import ItemError
from icestream.flow.declaration import (
    CallFailure,
    ProgramSettings,
    StepType,
    Update,
    Verdict,
    call_step,
    find_record,
    find_step,
    plugin_of,
)
from icestream.flow.execution.bench import WorkerContext
from icestream.flow.execution.messages import (
    AbsorbCall,
    Call,
    CallAnswer,
    CallCost,
    CallFailed,
    EntryAbsorbed,
    ItemJudged,
    ItemMade,
    StepCall,
    StoredRecord,
)
from icestream.flow.execution.wire import check_sendable
from icestream.flow.workflow import check_contents, checked_acquisition
from icestream.records import Record, pack_tables, record_named, unpack_tables


def run_task(call: Call, *, report: Callable[[float, str], None], stop: threading.Event | None = None) -> CallAnswer:
    """Run the step that ``call`` names, and return what came of it. ``stop`` asks it to end early."""
    started_wall, started_cpu = time.perf_counter(), time.process_time()
    made = call_step(_run, call, report, stop or threading.Event())
    wall_s, cpu_s = time.perf_counter() - started_wall, time.process_time() - started_cpu
    cost = CallCost(wall_s, cpu_s, socket.gethostname())
    if isinstance(made, CallFailure):
        return CallFailed(call.attempt, made.kind, made.error_type, made.message, made.traceback, cost)
    answer: CallAnswer = made(replace(cost, version=find_step(call.use).version, plugin=plugin_of(call.use)))
    return answer


_Made = Callable[[CallCost], CallAnswer]


def _run(call: Call, report: Callable[[float, str], None], stop: threading.Event) -> _Made:
    """Run the step; return what makes an answer of what it took."""
    step = find_step(call.use)
    params = dict(call.params)
    check_contents(step, params, call.contents, call.roots)
    context = _context(call, report, stop)
    with context.work:
        made = _absorb(step, call, context) if isinstance(call, AbsorbCall) else _call(step, call, context)
    check_contents(step, params, call.contents, call.roots)
    check_sendable(made(CallCost()))  # what cannot be sent is the step's failure, not the worker's death
    return lambda cost: made(replace(cost, programs=tuple(context.used_programs)))


def _context(call: Call, report: Callable[[float, str], None], stop: threading.Event) -> WorkerContext:
    entry = call if isinstance(call, AbsorbCall) else None
    return WorkerContext(
        exposure=call.exposure,
        cores=call.cores,
        seed=call.seed,
        attempt=call.attempt,
        key=call.key,
        roots=call.roots,
        folder=call.folder,
        step=call.step,
        closing=entry is not None and entry.closing,
        version=0 if entry is None else entry.position,
        gpu=call.gpu,
        reduced=call.reduced,
        removed=frozenset(call.removed),
        programs={name: ProgramSettings.model_validate(said) for name, said in call.programs.items()},
        report=report,
        stop=stop,
    )


def _call(step: StepType, call: StepCall, ctx: WorkerContext) -> _Made:
    given = {port: [_restore(stored) for stored in records] for port, records in call.inputs.items()}
    ports = {port.name: port for port in step.ports}
    arguments: dict[str, Any] = {}
    for argument, role in step.arguments.items():
        if role == "port":
            linked = call.records.get(argument)
            record_type = ports[argument].record if linked is None else find_record(linked)
            records = [_as_type(record, record_type, call.types) for record in given.get(argument, [])]
            if ports[argument].many:
                arguments[argument] = records if argument in given or not ports[argument].optional else None
            else:
                arguments[argument] = records[0] if records else None
        elif role == "params":
            arguments[argument] = step.params.model_validate({**call.params, **_taken_values(given, call.values)})
        elif role == "acquisition":
            arguments[argument] = checked_acquisition(call.acquisition)
        elif role == "names":
            arguments[argument] = call.names
        elif role == "context":
            arguments[argument] = ctx
    return _describe_answer(step, call.attempt, step.call(**arguments))


def _describe_answer(step: StepType, attempt: str, answer: object) -> _Made:
    wanted = Verdict if step.is_filter else step.output or Record
    if not isinstance(answer, wanted):
        raise TypeError(
            f"step {step.name!r} returned {type(answer).__name__}; a {step.kind} like it must return {wanted.__name__}"
        )
    if isinstance(answer, Verdict):
        accepted, reason = answer.accepted, answer.reason
        return lambda cost: ItemJudged(attempt, accepted, reason, cost)
    record = store_record(answer)
    return lambda cost: ItemMade(attempt, record, cost)


def _absorb(step: StepType, call: AbsorbCall, ctx: WorkerContext) -> _Made:
    accumulator = step.call()
    params = step.params.model_validate(call.params)
    state_type = _state_type(step)
    state = (
        accumulator.start(params, ctx)
        if call.state is None
        else state_type.restore(call.state, version=call.state_version or 1, block=None)
    )
    arguments: dict[str, Any] = {"state": state}
    ports = {port.name: port for port in step.ports}
    for argument, role in step.arguments.items():
        if role == "exposures":
            arguments[argument] = list(call.exposures)
        elif role == "port":
            members = call.members.get(argument, (None,) * len(call.exposures))
            arguments[argument] = [
                None if stored is None else _as_type(_restore(stored), ports[argument].record, call.types) for stored in members
            ]
        elif role == "params":
            arguments[argument] = params
        elif role == "acquisition":
            arguments[argument] = [checked_acquisition(values) for values in call.acquisitions]
        elif role == "context":
            arguments[argument] = ctx
    update: Update[Any] = accumulator.add(**arguments)
    emitted = accumulator.emit(update.state, params, ctx)
    snapshot, reason = (None, emitted.reason) if isinstance(emitted, Verdict) else (store_record(emitted), None)
    assignments = {unit: store_record(record) for unit, record in update.assignments.items()}
    state_json, state_version = update.state.model_dump_json(), type(update.state).schema_version
    return lambda cost: EntryAbsorbed(call.attempt, state_json, state_version, snapshot, assignments, cost, reason)


def _state_type(step: StepType) -> type[Record]:
    hint = typing.get_type_hints(step.call.start).get("return")
    if not (isinstance(hint, type) and issubclass(hint, Record)):
        raise TypeError(f"step {step.name!r}: start() must say which Record it returns")
    return hint


def _taken_values(given: dict[str, list[Any]], values: Mapping[str, str]) -> dict[str, Any]:
    """Return parameter → value for the parameters that are taken from another step's record."""
    taken = {}
    for parameter, path in values.items():
        value: Any = given[f"@{parameter}"][0]
        for part in path.split("."):
            if not isinstance(value, dict) or part not in value:
                raise ItemError(f"parameter {parameter!r}: the record has no field {path!r}")
            value = value[part]
        taken[parameter] = value
    return taken


def _restore(stored: StoredRecord) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(stored.json)
    return {"__version__": stored.version, "__type__": stored.type, **fields, **unpack_tables(stored.block)}


def _as_type(fields: dict[str, Any], record: type[Record], types: Mapping[str, str]) -> Record:
    """Return a record of the type that a port takes, or of the derived type that it was stored as, which is loaded if need be.

    Raises
    ------
    ItemError
        Its type is not known here: the plugin that declares it is not installed, or not in the version that made it.
    """
    name = fields["__type__"]
    stored = record_named(name)
    if stored is None and name in types:
        stored = find_record(types[name])
    if stored is None:
        raise ItemError(f"its input is a {name}, which comes from a plugin that is not installed here")
    own = stored if issubclass(stored, record) else record
    plain = {name: value for name, value in fields.items() if name not in ("__version__", "__type__")}
    return own.model_validate(own.upcast(plain, fields["__version__"]))


def store_record(record: Record) -> StoredRecord:
    """Describe a record for the store, after reading it back: NaN, for one, would not come back."""
    block = pack_tables(record)
    kind = type(record)
    if not kind.stored_name:
        raise TypeError(f"{kind.__name__} has no stored_name: the store does not know what to call it")
    text = record.model_dump_json()
    kind.restore(text, version=kind.schema_version, block=block)
    return StoredRecord(kind.stored_name, kind.schema_version, text, block, record.weight)
