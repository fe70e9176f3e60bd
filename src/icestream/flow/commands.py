"""Carrying out what people asked for; every command is answered."""

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from icestream.flow import moves, resuming, schema, versions
from icestream.flow.step import Kind
from icestream.flow.writing import Writing

if TYPE_CHECKING:
    from icestream.flow.runner import Runner


def carry_out_commands(runner: "Runner", writing: Writing) -> None:
    """Carry out the commands that were appended since the last look."""
    table = schema.command
    asked = writing.connection.execute(select(table).where(table.c.state == "asked").order_by(table.c.id)).mappings().all()
    for row in asked:
        arguments = json.loads(row["arguments"])
        state, answer = _retry(runner, writing, arguments) if row["kind"] == "retry" else _refuse(row["kind"])
        runner.durable = True
        writing.flush()
        writing.connection.execute(update(table).where(table.c.id == row["id"]).values(state=state, answer=answer))


def _refuse(kind: str) -> tuple[str, str]:
    return "refused", f"no command is called {kind!r}; known: retry"


def _retry(runner: "Runner", writing: Writing, arguments: Any) -> tuple[str, str]:
    """Try failed units again: those of one step or all, one unit or all."""
    if not isinstance(arguments, dict) or not all(value is None or isinstance(value, str) for value in arguments.values()):
        return "refused", f"retry takes a step and a unit by name, got {arguments!r}"
    step, wanted = arguments.get("step"), arguments.get("unit")
    if step is not None and step not in runner.graph.nodes:
        return "refused", f"no step is called {step!r}; known: {', '.join(runner.graph.nodes)}"
    count, sources = 0, 0
    for name, revision in runner.revisions.items():
        if step not in (None, name):
            continue
        outcome = schema.outcome
        failed = (outcome.c.revision == revision.id) & (outcome.c.status == moves.Status.FAILED.value)
        units = writing.connection.execute(select(outcome.c.unit).where(failed)).scalars().all()
        chosen = [unit for unit in units if wanted in (None, unit) and not _was_overtaken(runner, name, unit)]
        if runner.graph.nodes[name].type.kind is Kind.SOURCE:
            sources += len(chosen)
            continue
        for unit in chosen:
            _try_again(runner, writing, name, unit)
            count += 1
    broken = f"; {sources} arrived broken: write those files again to have them processed" if sources else ""
    return "done", f"{count} to be tried again{broken}"


def _was_overtaken(runner: "Runner", step: str, unit: str) -> bool:
    stage = runner.scheduler.stages[step]
    return stage.node.domain == f"version:{step}" and not versions.is_latest(stage, unit)


def _try_again(runner: "Runner", writing: Writing, step: str, unit: str) -> None:
    writing.flush()
    connection = writing.connection
    revision = runner.revisions[step].id
    failures = schema.failure
    connection.execute(update(failures).where((failures.c.revision == revision) & (failures.c.unit == unit)).values(cleared=True))
    exposures = schema.exposure
    connection.execute(update(exposures).where(exposures.c.unit == unit).values(settled_by=None))
    if unit not in runner.scheduler.units:
        runner.hearing.learn_units(connection, [unit])
        node = runner.graph.nodes[step]
        runner.scheduler.readmit(resuming.load_unit(connection, runner.revisions, unit, domain=node.domain))
    runner.handle(writing, moves.Retried(step, unit))
