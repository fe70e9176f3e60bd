"""Streams that are open again: what an earlier closing left out is decided anew.

A gate that closed unopened left its exposures absent; what waited for a snapshot that was never published was skipped. When the
first new item of a run arrives, those exposures wait again.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, select

from icestream.flow.commands.retrying import readmit
from icestream.flow.declaration import outcomes
from icestream.flow.scheduling import events, instructions
from icestream.flow.scheduling.draining import Cause
from icestream.flow.scheduling.gate import Gate
from icestream.flow.storage import schema
from icestream.flow.storage.writing import Writing
from icestream.flow.workflow.graph import Node

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner


def reopen_left_out(runner: "Runner", writing: Writing) -> None:
    """Let the exposures wait again that were left out when a stream closed."""
    for node in runner.graph.nodes.values():
        left_out = _left_out(runner, node)
        if left_out is None:
            continue
        writing.flush()
        mine = schema.outcome.c.revision == runner.revisions[node.name].id
        units = writing.connection.execute(select(schema.outcome.c.unit).where(mine & left_out)).scalars().all()
        for unit in units:
            readmit(runner, writing, unit, domain=node.domain)
            runner.handle(writing, events.Retried(node.name, unit))


def resume_step(runner: "Runner", writing: Writing, step: str) -> int:
    """Let a drained step go on, and decide again what it left out; return how many units these are."""
    runner.handle(writing, events.Resumed(step))
    return decide_absent(runner, writing, runner.graph.nodes[step])


def release_gate(runner: "Runner", writing: Writing, step: str) -> int:
    """Let a gate open (or a batch close) because a person wants it; return how many units wait no more, or are decided again.

    A gate whose stream closed before it opened takes back what it left out.
    """
    stage = runner.scheduler.stages[step]
    waiting, was_open = stage.n_waiting, isinstance(stage, Gate) and stage.opened
    runner.handle(writing, events.Released(step))
    left_out = 0
    if isinstance(stage, Gate) and stage.opened and not was_open and not stage.spent:
        left_out = decide_absent(runner, writing, stage.node)
    return waiting - stage.n_waiting + left_out


def end_outlived_signals(runner: "Runner", writing: Writing) -> list[str]:
    """Let steps go on that a gate drained which is asked anew (it was edited, or is below an edit); return them.

    A signal holds as long as the opening of the gate that sent it.
    """
    stages, ended = runner.scheduler.stages, []
    for step, stage in stages.items():
        if stage.drained is None or stage.drained.cause is not Cause.GATE:
            continue
        gate = stages.get(stage.drained.by)
        if isinstance(gate, Gate) and not gate.opened:
            stage.set_drained(None)
            writing.apply(instructions.Resume(step))
            if stage.node.type.is_source:
                runner.sources.go_on(step)
            ended.append(step)
    return ended


def decide_absent(runner: "Runner", writing: Writing, node: Node) -> int:
    """Decide again what a step left out while it took nothing, and what has changed above it; return how many units these are."""
    if node.type.is_source:
        return 0
    writing.flush()
    outcome = schema.outcome
    mine = (outcome.c.revision == runner.revisions[node.name].id) & (outcome.c.status == outcomes.Status.ABSENT.value)
    units = writing.connection.execute(select(outcome.c.unit).where(mine)).scalars().all()
    for unit in units:
        readmit(runner, writing, unit, domain=node.domain)
        runner.handle(writing, events.Retried(node.name, unit))
    return len(units) + _decide_outdated(runner, writing, node)


def _decide_outdated(runner: "Runner", writing: Writing, node: Node) -> int:
    """Decide again what a step keeps of units whose inputs changed while it took nothing."""
    stage = runner.scheduler.stages[node.name]
    if node.type.takes_many:
        return 0
    outdated, stage.stale = sorted(stage.stale), set()
    for unit in outdated:
        writing.apply(instructions.MarkStale(node.name, unit, None))
        readmit(runner, writing, unit, domain=node.domain)
        runner.handle(writing, events.Overridden(node.name, unit))
    return len(outdated)


def _left_out(runner: "Runner", node: Node) -> "ColumnElement[bool] | None":
    """Return what marks the outcomes of ``node`` that only a closing made."""
    outcome = schema.outcome
    stage = runner.scheduler.stages[node.name]
    if isinstance(stage, Gate):
        return None if stage.opened or stage.shut else outcome.c.status == outcomes.Status.ABSENT.value
    unpublished = list(_unpublished(runner, node))
    if not unpublished:
        return None
    return (outcome.c.status == outcomes.Status.SKIPPED.value) & outcome.c.root.in_(unpublished)


def _unpublished(runner: "Runner", node: Node) -> Iterator[str]:
    for port in node.bound:
        for link in node.links[port]:
            if runner.scheduler.stages[link.step].version_key is None:
                yield link.step
