"""Running one task in a worker: message in, step called, message out."""

import json
import socket
import threading
import time
import typing
from collections.abc import Callable
from typing import Any

from icestream.errors import ItemError
from icestream.flow.declaration.context import Exposure, Verdict
from icestream.flow.declaration.guard import CallFailure, call_step
from icestream.flow.declaration.registry import find_record, find_step
from icestream.flow.declaration.step import StepType, Update
from icestream.flow.execution.bench import WorkerContext
from icestream.flow.execution.wire import Message
from icestream.flow.storage.contents import check_contents
from icestream.flow.workflow.acquiring import checked_acquisition
from icestream.records import Record


def run_task(task: Message, *, report: Callable[[float, str], None], stop: threading.Event | None = None) -> Message:
    """Run the step that ``task`` names; the answer says item, rejected, absorbed or failed. ``stop`` asks it to end early."""
    started_wall, started_cpu = time.perf_counter(), time.process_time()
    answer: Message | CallFailure = call_step(_run, task, report, stop or threading.Event())
    if isinstance(answer, CallFailure):
        answer = Message(
            {
                "status": "failed",
                "kind": answer.kind,
                "error_type": answer.error_type,
                "message": answer.message,
                "traceback": answer.traceback,
            }
        )
    answer.body |= {
        "attempt": task.body["attempt"],
        "wall_s": time.perf_counter() - started_wall,
        "cpu_s": time.process_time() - started_cpu,
        "host": socket.gethostname(),
    }
    return answer


def _run(task: Message, report: Callable[[float, str], None], stop: threading.Event) -> Message:
    step = find_step(task.body["use"])
    params, contents, roots = task.body["params"], task.body.get("contents", {}), task.body["roots"]
    check_contents(step, params, contents, roots)
    answer = (_absorb if step.accumulates else _call)(step, task, _context(task.body, report, stop))
    check_contents(step, params, contents, roots)
    answer.body["version"] = step.version
    json.dumps(answer.body)  # what cannot be sent is the step's failure, not the worker's death
    return answer


def _context(body: dict[str, Any], report: Callable[[float, str], None], stop: threading.Event) -> WorkerContext:
    return WorkerContext(
        exposure=Exposure(**body["exposure"]),
        cores=body["cores"],
        seed=body["seed"],
        attempt=body["attempt"],
        key=body["key"],
        roots=body["roots"],
        folder=body["folder"],
        step=body["step"],
        closing=body.get("closing", False),
        version=body.get("snapshot_version", 0),
        gpu=body.get("gpu"),
        reduced=body.get("reduced", False),
        report=report,
        stop=stop,
    )


def _call(step: StepType, task: Message, ctx: WorkerContext) -> Message:
    body = task.body
    given = {port: [_restore(task, stored) for stored in records] for port, records in body["inputs"].items()}
    ports = {port.name: port for port in step.ports}
    arguments: dict[str, Any] = {}
    for argument, role in step.arguments.items():
        if role == "port":
            linked = body["records"].get(argument)
            record_type = ports[argument].record if linked is None else find_record(linked)
            records = [_as_type(record, record_type) for record in given.get(argument, [])]
            if ports[argument].many:
                arguments[argument] = records if argument in given or not ports[argument].optional else None
            else:
                arguments[argument] = records[0] if records else None
        elif role == "params":
            arguments[argument] = step.params.model_validate(body["params"] | _taken_values(given, body["values"]))
        elif role == "acquisition":
            arguments[argument] = checked_acquisition(body["acquisition"])
        elif role == "context":
            arguments[argument] = ctx
    return _describe_answer(step, step.call(**arguments))


def _describe_answer(step: StepType, answer: object) -> Message:
    wanted = Verdict if step.is_filter else step.output or Record
    if not isinstance(answer, wanted):
        raise TypeError(f"step {step.name!r} returned {type(answer).__name__}; a {step.kind} like it returns {wanted.__name__}")
    if isinstance(answer, Verdict):
        return Message({"status": "item" if answer.accepted else "rejected", "reason": answer.reason})
    message = Message({"status": "item"})
    message.body["record"] = store_record(message, answer)
    return message


def _absorb(step: StepType, task: Message, ctx: WorkerContext) -> Message:
    body = task.body
    accumulator = step.call()
    params = step.params.model_validate(body["params"])
    state_type = _state_type(step)
    state = (
        accumulator.start(params, ctx)
        if body["state"] is None
        else state_type.restore(body["state"], version=body["state_version"], block=None)
    )
    arguments: dict[str, Any] = {"state": state}
    ports = {port.name: port for port in step.ports}
    for argument, role in step.arguments.items():
        if role == "exposures":
            arguments[argument] = [Exposure(**exposure) for exposure in body["exposures"]]
        elif role == "port":
            members = body["members"].get(argument, [None] * len(body["exposures"]))
            arguments[argument] = [
                None if stored is None else _as_type(_restore(task, stored), ports[argument].record) for stored in members
            ]
        elif role == "params":
            arguments[argument] = params
        elif role == "acquisition":
            arguments[argument] = [checked_acquisition(values) for values in body["acquisition"]]
        elif role == "context":
            arguments[argument] = ctx
    update: Update[Any] = accumulator.add(**arguments)
    snapshot = accumulator.emit(update.state, params, ctx)
    message = Message(
        {"status": "absorbed", "state": update.state.model_dump_json(), "state_version": type(update.state).schema_version}
    )
    message.body["record"] = store_record(message, snapshot)
    message.body["assignments"] = {unit: store_record(message, record) for unit, record in update.assignments.items()}
    return message


def _state_type(step: StepType) -> type[Record]:
    hint = typing.get_type_hints(step.call.start).get("return")
    if not (isinstance(hint, type) and issubclass(hint, Record)):
        raise TypeError(f"step {step.name!r}: start() must say which Record it returns")
    return hint


def _taken_values(given: dict[str, list[Any]], values: dict[str, str]) -> dict[str, Any]:
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


def _restore(task: Message, stored: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(stored["json"])
    block = task.block(stored["block"])
    return {"__version__": stored["version"], **fields, **({} if block is None else {"block": block})}


def _as_type(fields: dict[str, Any], record: type[Record]) -> Record:
    plain = {name: value for name, value in fields.items() if name != "__version__"}
    return record.model_validate(record.upcast(plain, fields["__version__"]))


def store_record(message: Message, record: Record) -> dict[str, Any]:
    """Describe a record for the store, after reading it back (NaN, for one, would not come back); its block travels beside it."""
    block = getattr(record, "block", None)
    kind = type(record)
    text = record.model_dump_json()
    kind.restore(text, version=kind.schema_version, block=block)
    name = kind.__name__ if kind.__module__ == "icestream.records" else f"{kind.__module__}:{kind.__qualname__}"
    return {
        "type": name,
        "version": kind.schema_version,
        "json": text,
        "block": message.add_block(block),
        "weight": record.weight,
    }
