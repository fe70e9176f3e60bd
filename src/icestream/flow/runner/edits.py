"""When the workflow is rebuilt: a person edited it, a file that a parameter names has changed, a state is out of date."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from icestream.counting import counted
from icestream.flow.runner.build import ActiveWorkflow
from icestream.flow.scheduling import Accumulating, NoticeCause, Notify
from icestream.flow.storage import Session, Writing, begin_anew
from icestream.flow.workflow import GivenFiles


@dataclass
class Edits:
    """The newest document of a session, and whether the workflow that runs is out of date."""

    session: Session
    outdated: bool = False
    """Everything in memory is rebuilt after the commit."""
    _given_files: GivenFiles = field(default_factory=GivenFiles)

    def take(self, session: Session) -> None:
        """Take up an edited document after the commit."""
        self.session = session
        self.outdated = True

    def begin_anew(self, writing: Writing, workflow: ActiveWorkflow, steps: Sequence[str]) -> None:
        """Freeze the revisions of steps, give each a new one of the next epoch, and rebuild the workflow after the commit."""
        writing.flush()
        acquisition = workflow.session.document.acquisition.model_dump(exclude_none=True)
        begin_anew(writing.connection, workflow.graph, steps, acquisition=acquisition)
        self.outdated = True

    def look_at_given_files(self, writing: Writing, workflow: ActiveWorkflow) -> None:
        """Take up the new content of a file that a parameter names, as new revisions; say that one is away."""
        params = {step: revision.params for step, revision in workflow.revisions.items()}
        changed, missing = self._given_files.look(workflow.graph, params, workflow.session.roots)
        for text in [*changed, *missing]:
            writing.notify(Notify("warning", text, cause=NoticeCause.GIVEN_FILE))
        self.outdated = self.outdated or bool(changed)

    def rebuild_stale(self, writing: Writing, workflow: ActiveWorkflow, *, fraction: float) -> None:
        """Rebuild an accumulator once too much of what it took was taken out or has changed; the old one stays visible."""
        for name, stage in workflow.scheduler.stages.items():
            if self.outdated or not isinstance(stage, Accumulating) or not stage.stale or stage.entry is not None:
                continue
            if stage.shut:  # a new one would take nothing: it is rebuilt when the step goes on
                continue
            taken = stage.passed
            if len(stage.stale) >= fraction * taken:
                steps = workflow.graph.from_step(name)
                self.begin_anew(writing, workflow, steps)
                changed = f"of {counted(taken, 'exposure')} taken, {len(stage.stale)} changed or went away"
                text = f"{name}: {changed}; it is being rebuilt"
                text += f", with {', '.join(steps[1:])}" if steps[1:] else ""
                writing.notify(Notify("info", text, name, cause=NoticeCause.RECOMPUTED))
