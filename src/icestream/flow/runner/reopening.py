"""Deciding again: what a person asks for, and what an earlier closing left out when its stream is reopened.

A gate that closed unopened left its exposures absent; what waited for a snapshot that was never published was skipped. When the
first new item of a run arrives, those exposures wait again.
"""

from collections.abc import Iterator

from sqlalchemy import ColumnElement, select, update

from icestream.flow.declaration import outcomes
from icestream.flow.runner.build import ActiveWorkflow
from icestream.flow.runner.engine import Engine
from icestream.flow.scheduling import Cause, Gate, events, instructions
from icestream.flow.storage import Writing, load_arrived, resuming, schema
from icestream.flow.workflow import Node


def readmit(engine: Engine, writing: Writing, unit: str, *, domain: str) -> None:
    """Take a unit back into the scheduler's memory with all that is known of it."""
    writing.flush()
    workflow, connection, exposures = engine.workflow, writing.connection, schema.exposure
    scheduler, revisions = workflow.scheduler, workflow.revisions
    if unit not in scheduler.units:
        workflow.learn_units(connection, [unit])
        steps = {stage.name for stage in scheduler.stages_of(domain)}
        arrived = load_arrived(connection, revisions, [unit]) if domain == "exposure" else []
        waiting = [one for one in arrived if steps - one.outcomes.keys()]  # its turn in the backlog has come: all decide it
        engine.carry_out(writing, scheduler.admit(waiting, more=scheduler.backlog))
        writing.flush()
    if unit not in scheduler.units:
        workflow.learn_units(connection, [unit])
        scheduler.readmit(resuming.load_unit(connection, revisions, unit, domain=domain))
    connection.execute(update(exposures).where(exposures.c.unit == unit).values(settled_by=None))


def decide_again(engine: Engine, writing: Writing, event: events.Retried | events.Overridden | events.Revised) -> None:
    """Take a unit back into memory, and decide it again at a step."""
    readmit(engine, writing, event.unit, domain=engine.workflow.graph.nodes[event.step].domain)
    engine.handle(writing, event)


def reopen_left_out(engine: Engine, writing: Writing) -> None:
    """Let the exposures wait again that were left out when a stream closed."""
    for node in engine.workflow.graph.nodes.values():
        left_out = _left_out(engine.workflow, node)
        if left_out is None:
            continue
        writing.flush()
        mine = schema.outcome.c.revision == engine.workflow.revisions[node.name].id
        units = writing.connection.execute(select(schema.outcome.c.unit).where(mine & left_out)).scalars().all()
        for unit in units:
            decide_again(engine, writing, events.Retried(node.name, unit))


def resume_step(engine: Engine, writing: Writing, step: str) -> int:
    """Let a drained step go on, and decide again what it left out; return how many units these are."""
    engine.handle(writing, events.Resumed(step))
    return decide_absent(engine, writing, step)


def release_gate(engine: Engine, writing: Writing, step: str) -> int:
    """Let a gate open (or a batch close) because a person wants it; return how many units wait no more, or are decided again.

    A gate whose stream closed before it opened takes back what it left out.
    """
    stage = engine.workflow.scheduler.stages[step]
    waiting, was_open = stage.n_waiting, isinstance(stage, Gate) and stage.opened
    engine.handle(writing, events.Released(step))
    left_out = 0
    if isinstance(stage, Gate) and stage.opened and not was_open and not stage.spent:
        left_out = decide_absent(engine, writing, step)
    return waiting - stage.n_waiting + left_out


def end_outlived_signals(engine: Engine, writing: Writing) -> list[str]:
    """Let steps go on that a gate drained which is asked again (it was edited, or is below an edit); return them.

    A signal holds as long as the opening of the gate that sent it.
    """
    ended = []
    stages = engine.workflow.scheduler.stages
    for step, stage in stages.items():
        if stage.drained is None or stage.drained.cause is not Cause.GATE:
            continue
        gate = stages.get(stage.drained.by)
        if isinstance(gate, Gate) and not gate.opened:
            stage.set_drained(None)
            writing.apply(instructions.Resume(step))
            if stage.node.type.is_source:
                engine.sources.go_on(step)
            ended.append(step)
    return ended


def decide_absent(engine: Engine, writing: Writing, step: str) -> int:
    """Decide again what a step left out while it took nothing, and what has changed above it; return how many units these are."""
    node = engine.workflow.graph.nodes[step]
    if node.type.is_source:
        return 0
    writing.flush()
    outcome = schema.outcome
    mine = (outcome.c.revision == engine.workflow.revisions[step].id) & (outcome.c.status == outcomes.Status.ABSENT.value)
    units = writing.connection.execute(select(outcome.c.unit).where(mine)).scalars().all()
    for unit in units:
        decide_again(engine, writing, events.Retried(step, unit))
    return len(units) + _decide_outdated(engine, writing, node)


def _decide_outdated(engine: Engine, writing: Writing, node: Node) -> int:
    """Decide again what a step keeps of units whose inputs changed while it took nothing."""
    stage = engine.workflow.scheduler.stages[node.name]
    if node.type.takes_many:
        return 0
    outdated, stage.stale = sorted(stage.stale), set()
    for unit in outdated:
        writing.apply(instructions.MarkStale(node.name, unit, None))
        decide_again(engine, writing, events.Overridden(node.name, unit))
    return len(outdated)


def _left_out(workflow: ActiveWorkflow, node: Node) -> "ColumnElement[bool] | None":
    """Return what marks the outcomes of ``node`` that only a closing made."""
    outcome = schema.outcome
    stage = workflow.scheduler.stages[node.name]
    if isinstance(stage, Gate):
        return None if stage.opened or stage.shut else outcome.c.status == outcomes.Status.ABSENT.value
    unpublished = list(_unpublished(workflow, node))
    if not unpublished:
        return None
    return (outcome.c.status == outcomes.Status.SKIPPED.value) & outcome.c.root.in_(unpublished)


def _unpublished(workflow: ActiveWorkflow, node: Node) -> Iterator[str]:
    for port in node.bound:
        for link in node.links[port]:
            if workflow.scheduler.stages[link.step].version_key is None:
                yield link.step
