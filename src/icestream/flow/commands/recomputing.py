"""Computing one exposure again at one step with parameters of its own, and taking that back."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update

from icestream.errors import SessionError
from icestream.flow.commands.context import CommandContext
from icestream.flow.commands.requests import Recompute
from icestream.flow.commands.streams import clear_failures
from icestream.flow.scheduling import events
from icestream.flow.storage import OwnParams, check_own_params, describe_values, find_exposure, may_recompute, schema
from icestream.flow.workflow import Node, content_name, file_parameters, read_contents


def recompute(context: CommandContext, command: Recompute) -> str:
    """Give an exposure parameters of its own at a step, or take them back, and decide it again.

    Raises
    ------
    IcestreamError
        Naming the step, the exposure or the parameter; nothing has changed then.
    """
    context.writing.flush()
    unit, name, _ = find_exposure(context.writing.connection, command.unit)
    node = context.node(command.step)
    step, stage = node.name, context.workflow.scheduler.stages[node.name]
    before = context.workflow.owned.get((unit, step))
    if command.lift:
        if before is None:
            raise SessionError(f"{name} has no parameters of its own at {step}: nothing to withdraw")
        params = None
    else:
        params = check_own_params(node, command.params)
        _check_files(node, params, context.workflow.session.roots)
        if before is not None and dict(before.params) == params:
            return f"{name} already has {describe_values(params)} of its own at {step}: nothing changes"
    if stage.shut:
        raise SessionError(f"{stage.shut}; reopen it first (`icestream reopen`)")
    _store(context, command, unit=unit, params=params)
    if may_recompute(node) is None:
        clear_failures(context, step, unit)
        stage.failures.pop(unit, None)
        context.controls.decide_again(events.Overridden(step, unit))
    if params is None:
        return f"{name} uses the parameters of {step} again"
    return f"{name} is recomputed at {step}, with {describe_values(params)} of its own"


def _check_files(node: Node, params: Mapping[str, Any], roots: dict[str, str]) -> None:
    contents = read_contents(node.type, params, roots)
    missing = [params[name] for name in file_parameters(node.type) if contents.get(content_name(name), "") is None]
    if missing:
        raise SessionError(f"{missing[0]}: file not found")


def _store(context: CommandContext, command: Recompute, *, unit: str, params: Mapping[str, Any] | None) -> None:
    table, writing = schema.recompute, context.writing
    earlier = (table.c.unit == unit) & (table.c.step == command.step) & table.c.active
    owned = dict(context.workflow.owned)
    owned.pop((unit, command.step), None)
    if params is not None:
        kept = {
            key
            for text in writing.connection.execute(select(table.c.replaced).where(earlier)).scalars()
            for key in json.loads(text)
        }
        contents = read_contents(context.node(command.step).type, params, context.workflow.session.roots)
        owned[unit, command.step] = OwnParams(params, context.author, command.reason, contents)
        writing.add(
            table,
            unit=unit,
            step=command.step,
            params=json.dumps(dict(params)),
            replaced=json.dumps(sorted(kept | _keys_from(context, unit, command.step))),
            author=context.author,
            reason=command.reason,
            active=True,
            at=writing.now,
            seq=writing.store.next_seq(),
        )
    writing.connection.execute(update(table).where(earlier).values(active=False))
    writing.flush()
    context.controls.compute_with(owned)


def _keys_from(context: CommandContext, unit: str, step: str) -> set[str]:
    """Return the keys of the results that an exposure has at a step and below it: they are kept for when it is taken back."""
    table = schema.outcome
    below = [context.workflow.revisions[name].id for name in context.workflow.graph.descendants(step)]
    mine = (table.c.unit == unit) & table.c.revision.in_(below)
    texts = context.writing.connection.execute(select(table.c["keys"]).where(mine)).scalars()
    return {key for text in texts for key in json.loads(text).values()}
