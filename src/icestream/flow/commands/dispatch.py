"""Carrying out what people asked for; every command is answered, once."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from icestream.errors import IcestreamError, SessionError
from icestream.flow.commands import cleaning, editing, overrides, pausing, recomputing, requests, restarting, retrying, streams
from icestream.flow.storage import schema
from icestream.flow.storage.writing import Writing

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner

Handler = Callable[["Runner", Writing, Any, str], str]
"""``(runner, writing, command, author) → answer``; it raises `IcestreamError` to refuse."""

_HANDLERS: dict[type[requests.Command], Handler] = {
    requests.Pause: pausing.pause,
    requests.Resume: pausing.resume,
    requests.Stop: pausing.stop,
    requests.Close: streams.close,
    requests.Reopen: streams.reopen,
    requests.Release: streams.release,
    requests.Continue: streams.go_on,
    requests.Retry: retrying.retry,
    requests.Set: editing.set_params,
    requests.Branch: editing.branch,
    requests.Apply: editing.apply_document,
    requests.Restart: restarting.restart,
    requests.Reset: restarting.reset,
    requests.Override: overrides.override,
    requests.Recompute: recomputing.recompute,
    requests.Clean: cleaning.clean,
}


def carry_out_commands(runner: "Runner", writing: Writing) -> None:
    """Carry out the commands that were appended since the last look; after an edit the others wait for the new workflow."""
    table = schema.command
    asked = writing.connection.execute(select(table).where(table.c.state == "asked").order_by(table.c.id)).mappings().all()
    for row in asked:
        if runner.outdated:
            return
        state, answer = _carry_out(runner, writing, dict(row))
        runner.durable = True
        writing.flush()
        done = {"state": state, "answer": answer, "done_at": time.time()}
        writing.connection.execute(update(table).where(table.c.id == row["id"]).values(**done))


def _carry_out(runner: "Runner", writing: Writing, row: dict[str, Any]) -> tuple[str, str]:
    try:
        command = requests.read_command(row["kind"], row["arguments"])
        handler = _HANDLERS.get(type(command))
        if handler is None:
            raise SessionError(f"{command.kind}: this version of icestream cannot do that")
        return "done", handler(runner, writing, command, row["author"])
    except IcestreamError as error:
        return "refused", str(error)
