"""Streams that are open again: what an earlier closing left out is decided anew.

A gate that closed unopened left its exposures absent; what waited for a snapshot that was never published was skipped. When the
first new item of a run arrives, those exposures wait again.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, select

from icestream.flow.commands.retrying import readmit
from icestream.flow.declaration import outcomes
from icestream.flow.declaration.step import Kind
from icestream.flow.scheduling import events, instructions
from icestream.flow.scheduling.draining import LIFTED
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


def lift_halt(runner: "Runner", writing: Writing, step: str) -> int:
    """Let a halted step go on, and decide again what it left out; return how many units these are."""
    runner.handle(writing, events.Lifted(step))
    return decide_absent(runner, writing, runner.graph.nodes[step])


def release_gate(runner: "Runner", writing: Writing, step: str) -> int:
    """Let a gate open (or a batch close) because a person wants it; return how many units wait no more, or are decided again.

    A gate whose stream closed before it opened takes back what it left out.
    """
    stage = runner.scheduler.stages[step]
    waiting, was_open = len(stage.waiting), stage.opened
    runner.handle(writing, events.Released(step))
    left_out = 0
    if stage.opened and not was_open and not stage.spent:
        left_out = decide_absent(runner, writing, stage.node)
    return waiting - len(stage.waiting) + left_out


def end_outlived_signals(runner: "Runner", writing: Writing) -> list[str]:
    """Let steps go on that a gate halted which is asked anew (it was edited, or is below an edit); return them.

    A signal holds as long as the opening of the gate that sent it.
    """
    ended = []
    for step, stage in runner.scheduler.stages.items():
        if stage.halted and any(stage.halted.startswith(f"{step} was halted: {gate} opened: ") for gate in _unopened(runner)):
            stage.halted = stage.wait_reason = ""
            writing.apply(instructions.Halt(step, LIFTED, "the gate that halted it is asked anew"))
            if stage.node.type.kind is Kind.SOURCE:
                runner.sources.go_on(step)
            ended.append(step)
    return ended


def _unopened(runner: "Runner") -> list[str]:
    stages = runner.scheduler.stages.values()
    return [stage.node.name for stage in stages if stage.node.type.kind is Kind.GATE and not stage.opened]


def decide_absent(runner: "Runner", writing: Writing, node: Node) -> int:
    """Decide again what a step left out while it took nothing, and what has changed above it; return how many units these are."""
    if node.type.kind is Kind.SOURCE:
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
    if node.type.kind in (Kind.COLLECT, Kind.ACCUMULATE):
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
    if node.type.kind is Kind.GATE:
        stage = runner.scheduler.stages[node.name]
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
