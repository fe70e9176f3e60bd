"""Computing one exposure again at one step with parameters of its own, and taking that back."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from icestream.errors import SessionError
from icestream.flow.commands.overrides import find_exposure
from icestream.flow.commands.requests import Recompute
from icestream.flow.commands.retrying import known_step, readmit
from icestream.flow.scheduling import events
from icestream.flow.storage import schema
from icestream.flow.storage.contents import content_name, file_parameters, read_contents
from icestream.flow.storage.own_params import OwnParams, check_own_params, describe_values, may_recompute
from icestream.flow.storage.writing import Writing
from icestream.flow.workflow.graph import Node

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner


def recompute(runner: "Runner", writing: Writing, command: Recompute, author: str) -> str:
    """Give an exposure parameters of its own at a step, or take them back, and decide it again.

    Raises
    ------
    IcestreamError
        Naming the step, the exposure or the parameter; nothing has changed then.
    """
    writing.flush()
    unit, name, _ = find_exposure(writing.connection, command.unit)
    known_step(runner, command.step)
    step, node = command.step, runner.graph.nodes[command.step]
    before = runner.task_builder.owned.get((unit, step))
    if command.lift:
        if before is None:
            raise SessionError(f"{name} has no parameters of its own at {step}: there is nothing to take back")
        params = None
    else:
        params = check_own_params(node, command.params)
        _check_files(node, params, runner.session.roots)
        if before is not None and dict(before.params) == params:
            return f"{name} has {describe_values(params)} of its own at {step} already: nothing changes"
    if runner.scheduler.stages[step].shut:
        raise SessionError(f"{runner.scheduler.stages[step].shut}; let it go on first (`icestream reopen`)")
    _store(runner, writing, command, unit=unit, params=params, author=author)
    if may_recompute(node) is None:
        _clear_failures(runner, writing, unit, step)
        readmit(runner, writing, unit, domain=node.domain)
        runner.handle(writing, events.Overridden(step, unit))
    if params is None:
        return f"{name} has the parameters of {step} again"
    return f"{name} is computed again at {step}, with {describe_values(params)} of its own"


def _check_files(node: Node, params: Mapping[str, Any], roots: dict[str, str]) -> None:
    contents = read_contents(node.type, params, roots)
    missing = [params[name] for name in file_parameters(node.type) if contents.get(content_name(name), "") is None]
    if missing:
        raise SessionError(f"{missing[0]}: there is no such file to read")


def _store(
    runner: "Runner", writing: Writing, command: Recompute, *, unit: str, params: Mapping[str, Any] | None, author: str
) -> None:
    table = schema.recompute
    earlier = (table.c.unit == unit) & (table.c.step == command.step) & table.c.active
    owned = dict(runner.task_builder.owned)
    owned.pop((unit, command.step), None)
    if params is not None:
        kept = {
            key
            for text in writing.connection.execute(select(table.c.replaced).where(earlier)).scalars()
            for key in json.loads(text)
        }
        contents = read_contents(runner.graph.nodes[command.step].type, params, runner.session.roots)
        owned[unit, command.step] = OwnParams(params, author, command.reason, contents)
        writing.add(
            table,
            unit=unit,
            step=command.step,
            params=json.dumps(dict(params)),
            replaced=json.dumps(sorted(kept | _keys_from(runner, writing, unit, command.step))),
            author=author,
            reason=command.reason,
            active=True,
            at=writing.now,
            seq=writing.store.next_seq(),
        )
    writing.connection.execute(update(table).where(earlier).values(active=False))
    writing.flush()
    runner.task_builder.owned = owned


def _keys_from(runner: "Runner", writing: Writing, unit: str, step: str) -> set[str]:
    """Return the keys of the results that an exposure has at a step and below it: they are kept for when it is taken back."""
    table = schema.outcome
    below = [runner.revisions[name].id for name in runner.graph.descendants(step)]
    texts = writing.connection.execute(
        select(table.c["keys"]).where((table.c.unit == unit) & table.c.revision.in_(below))
    ).scalars()
    return {key for text in texts for key in json.loads(text).values()}


def _clear_failures(runner: "Runner", writing: Writing, unit: str, step: str) -> None:
    """Let failures with other parameters count no more."""
    table = schema.failure
    mine = (table.c.revision == runner.revisions[step].id) & (table.c.unit == unit)
    writing.connection.execute(update(table).where(mine).values(cleared=True))
    runner.scheduler.stages[step].failures.pop(unit, None)
