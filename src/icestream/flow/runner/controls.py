"""What the handlers of commands may ask of a runner, within one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from icestream.flow.execution.executor import Executor
from icestream.flow.resources.capacity import Machine
from icestream.flow.runner import reopening
from icestream.flow.runner.edits import Edits
from icestream.flow.runner.engine import Engine
from icestream.flow.runner.stopping import RunnerStop
from icestream.flow.scheduling import Event, Overridden, Overrides, Retried
from icestream.flow.storage import ActivePause, Owned, Pauses, Session, Writing


@dataclass(frozen=True)
class RunnerControls:
    """Implements `icestream.flow.commands.context.Controls`."""

    writing: Writing
    engine: Engine
    edits: Edits
    pauses: Pauses
    runner_stop: RunnerStop
    executor: Executor
    machine: Machine

    @property
    def is_outdated(self) -> bool:
        """The workflow was edited: other commands wait until it is rebuilt."""
        return self.edits.outdated

    def handle(self, event: Event) -> None:
        """Let the scheduler take an event."""
        self.engine.handle(self.writing, event)

    def decide_again(self, event: Retried | Overridden) -> None:
        """Take a unit back into memory, and decide it again at a step."""
        reopening.decide_again(self.engine, self.writing, event)

    def resume_step(self, step: str) -> int:
        """Let a step go on that took nothing new; return how many units that it left out are decided."""
        return reopening.resume_step(self.engine, self.writing, step)

    def release(self, step: str) -> int:
        """Let a gate open or a batch close; return how many units wait no more."""
        return reopening.release_gate(self.engine, self.writing, step)

    def decide_with(self, overrides: Overrides) -> None:
        """Put other decisions by hand in the place of those there are."""
        self.engine.workflow.scheduler.overrides = overrides

    def compute_with(self, owned: Owned) -> None:
        """Put other parameters of single exposures in the place of those there are."""
        self.engine.workflow.tasks.owned = owned

    def take_document(self, session: Session) -> None:
        """Take up an edited document after the commit."""
        self.edits.take(session)

    def begin_anew(self, steps: Sequence[str]) -> None:
        """Give steps new revisions of the next epoch."""
        self.edits.begin_anew(self.writing, self.engine.workflow, steps)

    def drop(self, results: Iterable[str], files: Iterable[str]) -> None:
        """Forget results; delete files after the commit."""
        for key in results:
            self.engine.workflow.tasks.records.drop(key)
        self.engine.files_to_drop.extend(files)

    def move_files(self) -> None:
        """Move files into the trash or out of it, or delete them, as the removals say; after the commit, some at a time."""
        self.engine.trash_waits = True

    def compute_removed(self) -> None:
        """Put back the removed files that are wanted, when there is room for more work."""
        self.engine.held.more = True

    def running(self, step: str | None = None) -> list[str]:
        """Return the attempts that run, of one step or all."""
        return list(self.engine.work.running) if step is None else self.engine.work.running_of(step)

    def cancel(self, attempts: Iterable[str]) -> None:
        """End attempts."""
        for attempt in attempts:
            self.executor.cancel(attempt)

    def pause(self, pause: ActivePause) -> bool:
        """Dispatch nothing more and watch no folder; tell whether that is new."""
        new = self.pauses.begin(pause)
        if new:
            self.engine.sources.rest()
        return new

    def resume(self) -> bool:
        """End a person's pause; False if there is none."""
        ended = self.pauses.end("person") is not None
        self.engine.sources.wanted = self.engine.sources.wanted or ended
        return ended

    def stop(self, reason: str, *, now: bool) -> None:
        """End the runner after what is running, or at once."""
        self.runner_stop.reason = reason
        for _ in range(2 if now else 1):
            self.runner_stop.ask()
