"""Carrying out what people asked for; every command is answered, once."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update

from icestream.errors import IcestreamError, SessionError
from icestream.flow.commands import editing, garbage, overrides, pausing, recomputing, removing, requests, restarting, streams
from icestream.flow.commands.context import CommandContext, Controls, WorkflowView
from icestream.flow.storage import Writing, schema
from icestream.logs import log_event

_LOG = logging.getLogger(__name__)

Handler = Callable[[CommandContext, Any], str]
"""``(context, command) → answer``; it raises `IcestreamError` to refuse."""

_HANDLERS: dict[type[requests.Command], Handler] = {
    requests.Pause: pausing.pause,
    requests.Resume: pausing.resume,
    requests.Stop: pausing.stop,
    requests.Close: streams.close,
    requests.Reopen: streams.reopen,
    requests.Release: streams.release,
    requests.Continue: streams.go_on,
    requests.Retry: streams.retry,
    requests.Set: editing.set_params,
    requests.Branch: editing.branch,
    requests.ChangeSteps: editing.change_steps,
    requests.Apply: editing.apply_document,
    requests.Restart: restarting.restart,
    requests.Reset: restarting.reset,
    requests.Override: overrides.override,
    requests.Recompute: recomputing.recompute,
    requests.Clean: garbage.clean,
    requests.BringBack: removing.bring_back,
    requests.EmptyTrash: removing.empty_trash,
    requests.RestoreFiles: removing.restore_files,
    requests.NoteRawDeletion: removing.note_raw_deletion,
}


@dataclass
class CommandDispatcher:
    """Carries out commands in the transactions of a runner; a removal is planned between two of them."""

    removal: removing.PlannedRemoval = field(default_factory=removing.PlannedRemoval)

    def carry_out(self, writing: Writing, workflow: WorkflowView, controls: Controls) -> bool:
        """Carry out the commands that were appended since the last look; some wait for the next transaction.

        After an edit the others wait for the new workflow; a removal that has to be planned, and those behind it, for that.

        Returns
        -------
        bool
            Some were answered, which a power cut must not undo.
        """
        table = schema.command
        asked = writing.connection.execute(select(table).where(table.c.state == "asked").order_by(table.c.id)).mappings().all()
        answered = False
        for row in asked:
            if controls.is_outdated:
                break
            try:
                state, answer = self._carry_out(CommandContext(row["author"], writing, workflow, controls), row)
            except removing.Postponed:
                break
            log_event(_LOG, logging.INFO, "command", command=row["kind"], by=row["author"], state=state, answer=answer)
            writing.flush()
            done = {"state": state, "answer": answer, "done_at": time.time()}
            writing.connection.execute(update(table).where(table.c.id == row["id"]).values(**done))
            answered = True
        return answered

    def _carry_out(self, context: CommandContext, row: Mapping[Any, Any]) -> tuple[str, str]:
        try:
            command = requests.read_command(row["kind"], row["arguments"])
            if isinstance(command, requests.Remove):
                return "done", removing.remove(context, command, self.removal.take(command, context.workflow.session))
            handler = _HANDLERS.get(type(command))
            if handler is None:
                raise SessionError(f"{command.kind}: this version of icestream cannot do that")
            return "done", handler(context, command)
        except IcestreamError as error:
            return "refused", str(error)
