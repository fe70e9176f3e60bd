"""Putting removed files back when a step asks for one, or a person does: from the trash, or by computing the result again.

A result that is computed again is no business of the scheduler: nothing was undecided. Its task is made of what the store knows
of the result, and is run only if it would have the same key; its record stays as it is, and its files are written where it says.
"""

import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy import select

from icestream.flow.declaration import CallFailure, FailureKind, files_named_in, outcomes
from icestream.flow.execution.messages import CallAnswer, CallEnded, CallFailed, ItemMade
from icestream.flow.runner.engine import LOW_WATER, Engine
from icestream.flow.runner.tasks import Task
from icestream.flow.scheduling import Dispatch, NoticeCause, Notify, events
from icestream.flow.storage import RemovedFile, Writing, find_removed, forget_removed, move_back, schema, want_again, wanted_keys
from icestream.flow.workflow import may_repeat

_TRIES = 3
_NAME = re.compile(r"(.*/)[^/]*_[0-9a-f]{8}([^/]*)$")
"""The folder of a result's file, and what follows the key in its name."""
_LOST = "removed, and cannot be computed again"
_FINAL = (FailureKind.ITEM, FailureKind.GONE)


@dataclass(frozen=True)
class Restoring:
    """Hears of tasks that lack files, and of results that were computed again."""

    engine: Engine

    def admit(self, writing: Writing) -> None:
        """Begin with what people want back, whenever little else is ready to run."""
        held = self.engine.held
        if not held.more or len(self.engine.work.ready) >= LOW_WATER:
            return
        writing.flush()
        keys = wanted_keys(writing.connection, limit=LOW_WATER + len(held.computing))
        new = [key for key in keys if key not in held.computing]
        for key in new:
            refs = self._refs_of(writing, key)
            if self._put_back(writing, find_removed(writing.connection, refs)):
                reason = self._compute(writing, key)
                if reason is not None:
                    self._give_up(writing, key, reason)
            else:
                held.restored += 1
        if not new:
            held.more = False
            self._tell_when_done(writing)

    def lacks(self, writing: Writing, task: Task, ref: str) -> str | None:
        """Let a task that asked for a removed file wait until it is there; those like it among its inputs come along.

        Returns
        -------
        str or None
            Why the file can never be there again, so that the task has to fail.
        """
        return self._wait_for(writing, task, ref)

    def _wait_for(self, writing: Writing, task: Task, ref: str) -> str | None:
        tasks = self.engine.workflow.tasks
        alike = [one for one in tasks.files_read_by(writing.connection, task) if _is_like(one, ref)]
        missing = self._put_back(writing, find_removed(writing.connection, [ref, *alike]))
        lost = {key: reason for key in missing if (reason := self._compute(writing, key)) is not None}
        still = {one.key for one in find_removed(writing.connection, [ref])} & set(lost)
        if still:
            return f"{ref}: {_LOST}: {lost[still.pop()]}"
        self.engine.held.block(task.key, set(missing) - set(lost))  # others that are lost matter once they are asked for
        return None

    def hear(self, writing: Writing, task: Task, message: CallAnswer, *, lost: bool) -> None:
        """Take what came of computing a result again; ``lost``: what was written may not be there."""
        if task.key not in self.engine.held.computing:  # nobody wants it any more
            return
        if isinstance(message, ItemMade) and not lost:
            self._made(writing, task, message)
        elif isinstance(message, CallFailed) and message.kind is FailureKind.REMOVED:
            reason = self._wait_for(writing, task, message.message)
            if reason is None:
                self._again(task)
            else:
                self._give_up(writing, task.key, reason)
        elif lost or (isinstance(message, CallEnded) and message.kind in outcomes.UNCOUNTED):
            self._again(task)
        else:
            self._failed(writing, task, message)

    def _made(self, writing: Writing, task: Task, message: ItemMade) -> None:
        refs = self._refs_of(writing, task.key)
        other = set(refs) - set(files_named_in(message.record.json))
        if other:
            self._give_up(writing, task.key, f"it writes {len(other)} of its files under other names now")
            return
        forget_removed(writing.connection, keys=[task.key])
        self.engine.held.restored += 1
        for freed in self.engine.held.end(task.key):
            self.engine.make_ready(freed)
        self._tell_when_done(writing)

    def _failed(self, writing: Writing, task: Task, message: CallAnswer) -> None:
        kind = message.kind if isinstance(message, CallFailed | CallEnded) else FailureKind.ERROR
        told = message.message if isinstance(message, CallFailed | CallEnded) else "its step decided about it anew"
        tries = self.engine.held.computing[task.key] = self.engine.held.computing[task.key] + 1
        if tries < _TRIES and kind not in _FINAL:
            self._again(task)
        else:
            self._give_up(writing, task.key, told)

    def _give_up(self, writing: Writing, key: str, told: str) -> None:
        """Say that a result cannot be computed again, and let what waits for it fail."""
        refs = self._refs_of(writing, key)
        want_again(writing.connection, refs, wanted=False)
        text = f"{', '.join(refs[:3])}: {_LOST}: {told}"
        writing.notify(Notify("warning", text, cause=NoticeCause.REMOVED, subject=key))
        waiting = self.engine.held.waiting_for(key)
        self.engine.held.end(key)
        for task in waiting:
            self.engine.work.forget(task)
            if task.folder is not None:
                self._give_up(writing, task.key, text)
                continue
            failure = CallFailure(FailureKind.ITEM, "FileRemoved", text, "")
            for step, unit in list(task.waiters):
                writing.add_failure(step, unit, attempt=task.attempt, failure=failure)
                self.engine.handle(writing, events.Failed(step, unit, failure.kind, text, 0.0))
        self._tell_when_done(writing)

    def _tell_when_done(self, writing: Writing) -> None:
        held = self.engine.held
        if held.restored and not held.busy:
            text = f"{held.restored} results have their removed files again"
            writing.notify(Notify("info", text, cause=NoticeCause.REMOVED))
            held.restored = 0

    def _again(self, task: Task) -> None:
        self.engine.enqueue(replace(task, attempt=uuid.uuid4().hex, waiters=[]))

    def _refs_of(self, writing: Writing, key: str) -> list[str]:
        """Return the removed files of a result."""
        table = schema.removed_file
        return list(writing.connection.execute(select(table.c.ref).where(table.c.key == key).order_by(table.c.ref)).scalars())

    def _put_back(self, writing: Writing, removed: Iterable[RemovedFile]) -> list[str]:
        """Move files back from the trash; return the results whose files are not there."""
        folder = self.engine.workflow.session.folder
        files = list(removed)
        there = {ref for one in files for ref in move_back(folder, one.removal, [one.ref])}
        forget_removed(writing.connection, refs=sorted(there))
        return list(dict.fromkeys(one.key for one in files if one.ref not in there))

    def _compute(self, writing: Writing, key: str) -> str | None:
        """Begin to compute a result again, unless that has begun; return why it cannot be."""
        if key in self.engine.held.computing:
            return None
        task = self._task_for(writing, key)
        if isinstance(task, str):
            return task
        self.engine.held.computing[key] = 0
        self.engine.enqueue(task)
        return None

    def _task_for(self, writing: Writing, key: str) -> Task | str:
        """Return the task that makes a result again; or, in words, why there is none."""
        result, revision, workflow = schema.result, schema.revision, self.engine.workflow
        columns = (result.c.unit, result.c.inputs, revision.c.step, revision.c.number)
        joined = result.join(revision, revision.c.id == result.c.revision)  # the one that made it first: where its files are
        row = writing.connection.execute(select(*columns).select_from(joined).where(result.c.key == key)).first()
        node = None if row is None else workflow.graph.nodes.get(row.step)
        if row is None or node is None or not may_repeat(node):
            return "its step cannot repeat a result, or is no part of the workflow any more"
        forgotten = row.unit not in workflow.scheduler.units
        workflow.learn_units(writing.connection, [row.unit])
        inputs = {port: tuple(keys) for port, keys in json.loads(row.inputs).items()}
        task = workflow.tasks.task_for(Dispatch(row.step, row.unit, inputs))
        name = workflow.tasks.identity_of(row.unit)
        if forgotten:
            workflow.tasks.forget_unit(row.unit)
        if task.key != key:
            return "its step has other parameters or inputs by now"
        return replace(task, folder=f"steps/{row.step}/{row.number}", exposure=name)


def _is_like(ref: str, other: str) -> bool:
    """Tell whether two files were written by one revision of a step, with names that end alike after the key."""
    one, another = _NAME.match(ref), _NAME.match(other)
    return one is not None and another is not None and one.groups() == another.groups()
