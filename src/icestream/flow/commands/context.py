"""What the handler of a command is given: one transaction, the workflow as it runs, and what it may ask of the engine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from icestream.counting import counted as counted  # noqa: PLC0414 - handlers say how much it was
from icestream.errors import SessionError
from icestream.flow.resources.capacity import Machine
from icestream.flow.scheduling import Event, NoticeCause, Notify, Overridden, Overrides, Retried, Scheduler
from icestream.flow.storage import ActivePause, Owned, Revision, Session, Writing
from icestream.flow.workflow import Graph, Node


class WorkflowView(Protocol):
    """A session's workflow as it runs."""

    @property
    def session(self) -> Session:
        """The session it was built from."""

    @property
    def graph(self) -> Graph:
        """The checked graph."""

    @property
    def revisions(self) -> Mapping[str, Revision]:
        """The active revision of every step."""

    @property
    def scheduler(self) -> Scheduler:
        """What every step is at; handlers read it, and tell it events through the engine."""

    @property
    def owned(self) -> Owned:
        """The parameters that exposures have of their own."""


class Controls(Protocol):
    """What commands may ask of the engine; all of it within the transaction of the command."""

    @property
    def machine(self) -> Machine:
        """What this runner may use."""

    @property
    def is_outdated(self) -> bool:
        """The workflow was edited: other commands wait until it is rebuilt."""

    def handle(self, event: Event) -> None:
        """Let the scheduler take an event."""

    def decide_again(self, event: Retried | Overridden) -> None:
        """Take a unit back into memory, and decide it again at a step."""

    def resume_step(self, step: str) -> int:
        """Let a step go on that took nothing new; return how many units that it left out are decided."""

    def release(self, step: str) -> int:
        """Let a gate open or a batch close; return how many units wait no more."""

    def decide_with(self, overrides: Overrides) -> None:
        """Put other decisions by hand in the place of those there are."""

    def compute_with(self, owned: Owned) -> None:
        """Put other parameters of single exposures in the place of those there are."""

    def take_document(self, session: Session) -> None:
        """Take up an edited document after the commit."""

    def begin_anew(self, steps: Sequence[str]) -> None:
        """Give steps new revisions of the next epoch."""

    def drop(self, results: Iterable[str], files: Iterable[str]) -> None:
        """Forget results; delete files after the commit."""

    def move_files(self) -> None:
        """Move files into the trash or out of it, or delete them, as the removals say; after the commit, some at a time."""

    def compute_removed(self) -> None:
        """Put back the removed files that are wanted, when there is room for more work."""

    def running(self, step: str | None = None) -> list[str]:
        """Return the attempts that run, of one step or all."""

    def cancel(self, attempts: Iterable[str]) -> None:
        """End attempts."""

    def pause(self, pause: ActivePause) -> bool:
        """Dispatch nothing more and watch no folder; tell whether that is new."""

    def resume(self) -> bool:
        """End a person's pause; False if there is none."""

    def stop(self, reason: str, *, now: bool) -> None:
        """End the runner after what is running, or at once."""


@dataclass(frozen=True)
class CommandContext:
    """One command: who asked, in which transaction, of which workflow."""

    author: str
    writing: Writing
    workflow: WorkflowView
    controls: Controls

    def node(self, step: str) -> Node:
        """Return a step.

        Raises
        ------
        SessionError
            The workflow has none of this name.
        """
        if step not in self.workflow.graph.nodes:
            raise SessionError(f"no step is called {step!r}; known: {', '.join(self.workflow.graph.nodes)}")
        return self.workflow.graph.nodes[step]

    def notify(self, cause: NoticeCause, text: str, step: str | None = None) -> None:
        """Tell people what its author has asked for."""
        self.writing.notify(Notify("info", text, step, cause=cause, by=self.author))
