"""Closing a stream by hand, opening it again, letting a gate go, and going on with everything."""

from typing import TYPE_CHECKING

from icestream.errors import SessionError
from icestream.flow.commands import pausing
from icestream.flow.commands.requests import Close, Continue, Release, Reopen, Resume, Retry
from icestream.flow.commands.retrying import known_step, retry
from icestream.flow.runner.reopening import release_gate, resume_step
from icestream.flow.scheduling import events, instructions
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.storage.writing import Writing

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner


def close(runner: "Runner", writing: Writing, command: Close, author: str) -> str:
    """Let a step take nothing new; what is below closes when it has finished."""
    known_step(runner, command.step)
    if runner.scheduler.stages[command.step].drained:
        return f"{command.step} takes nothing new already"
    runner.handle(writing, events.Drained(command.step, DrainReason(Cause.PERSON, author)))
    running = [attempt for attempt, (task, _) in runner.running.items() if task.step == command.step]
    if command.now:
        for attempt in running:
            runner.executor.cancel(attempt)
    return f"{command.step} takes nothing new; {len(running)} running {'are cancelled' if command.now else 'will end in peace'}"


def reopen(runner: "Runner", writing: Writing, command: Reopen, _author: str) -> str:
    """Let a step go on, with what it left out meanwhile."""
    known_step(runner, command.step)
    if not runner.scheduler.stages[command.step].drained:
        return f"{command.step} was not closed by hand; new exposures open it by themselves while the session runs"
    count = resume_step(runner, writing, command.step)
    return f"{command.step} goes on; {count} exposures that it left out are decided"


def release(runner: "Runner", writing: Writing, command: Release, author: str) -> str:
    """Let a gate open, or a batch close, because a person wants it."""
    known_step(runner, command.step)
    step_type = runner.graph.nodes[command.step].type
    if not step_type.holds_units:
        raise SessionError(
            f"{command.step} is no gate and collects no batches, but a {step_type.kind}: there is nothing to release"
        )
    count = release_gate(runner, writing, command.step)
    writing.notify(instructions.Notify("info", f"{command.step} was released by {author}", command.step))
    return f"{command.step} was released; {count} exposures wait no more"


def go_on(runner: "Runner", writing: Writing, _command: Continue, author: str) -> str:
    """End a pause, open what people closed or reset, and retry what failed."""
    parts = []
    if "person" in runner.holds.by_kind:
        parts.append(pausing.resume(runner, writing, Resume(), author))
    closed = [name for name, stage in runner.scheduler.stages.items() if stage.drained and stage.drained.by_hand]
    parts += [reopen(runner, writing, Reopen(step=step), author) for step in closed]
    parts.append(retry(runner, writing, Retry(), author))
    return "; ".join(parts)
