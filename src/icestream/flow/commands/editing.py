"""Edits of the workflow while data keep arriving: the document is checked, written, and applied as new revisions."""

from icestream.errors import SessionError
from icestream.files import publish_text
from icestream.flow.commands.context import CommandContext
from icestream.flow.commands.requests import Apply, Branch, ChangeSteps, Reset, Restart, Set
from icestream.flow.planning.planned_revisions import plan_revisions
from icestream.flow.planning.plans import Plan, plan_document
from icestream.flow.storage import (
    DOCUMENT,
    NewBranch,
    Session,
    SessionDocument,
    check_owned,
    describe_change,
    dump_document,
    open_session,
    schema,
    with_changed_steps,
    with_params,
)
from icestream.flow.workflow import check_requests, look_into_files, require_programs
from icestream.settings import Settings

Edit = Set | Branch | ChangeSteps | Apply | Restart | Reset
"""The commands that can be planned."""


def plan_edit(session: Session, command: Edit, *, cores: int) -> Plan:
    """Return what ``command`` would do if it were carried out now; nothing is changed, and a runner may be at work.

    Raises
    ------
    WorkflowError
        The edited workflow cannot run.
    SessionError
        No step has this name, or the store cannot be read.
    """
    document, afresh = session.document, frozenset[str]()
    match command:
        case Set():
            document = with_params(document, command.step, command.params)
        case Branch():
            document = _new_branch(command).add_to(document)
        case ChangeSteps():
            document = with_changed_steps(document, command.steps, based_on=command.based_on)
        case Apply():
            document = open_session(session.folder).document
        case Restart() | Reset():
            if command.step not in document.steps:
                raise SessionError(f"no step is called {command.step!r}; known: {', '.join(document.steps)}")
            afresh = frozenset(session.graph().descendants(command.step))
    return plan_document(session, document, afresh=afresh, cores=cores)


def _new_branch(command: Branch) -> NewBranch:
    return NewBranch(command.step, command.name, command.params, command.below)


def set_params(context: CommandContext, command: Set) -> str:
    """Change parameters of one step."""
    document = with_params(context.workflow.session.document, command.step, command.params)
    return take_up(context, document, reason=command.reason)


def branch(context: CommandContext, command: Branch) -> str:
    """Add a second variant of a step, and of what hangs on it."""
    document, new = context.workflow.session.document, _new_branch(command)
    if new.is_in(document):  # a runner may have died after writing it, before the answer was committed
        return "nothing changes: that branch already exists"
    branched = new.add_to(document)
    twins = new.twins(context.workflow.session.graph())
    own = sum(step in twins for _, step in context.workflow.owned)
    left = f"; the branch does not include the {own} recomputed by hand" if own else ""
    return take_up(context, branched, reason=command.reason) + left


def change_steps(context: CommandContext, command: ChangeSteps) -> str:
    """Add, replace and remove steps."""
    document = with_changed_steps(context.workflow.session.document, command.steps, based_on=command.based_on)
    return take_up(context, document, reason=command.reason)


def apply_document(context: CommandContext, command: Apply) -> str:
    """Take up the document as it is on the disk."""
    session = context.workflow.session
    edited = open_session(session.folder).document
    fixed = {"name", "store"}
    changed = [name for name in fixed if getattr(edited, name) != getattr(session.document, name)]
    if changed:
        raise SessionError(f"{DOCUMENT}: {' and '.join(sorted(changed))} cannot change while the session runs; stop it first")
    return take_up(context, edited, reason=command.reason, by_hand=True)


def take_up(context: CommandContext, document: SessionDocument, *, reason: str, by_hand: bool = False) -> str:
    """Check an edited document, write it, and let the runner rebuild itself from it.

    The file is written before the commit: should the runner die between the two, the next one finds the edit and makes the same
    revisions from it.
    """
    session, writing, machine = context.workflow.session, context.writing, context.controls.machine
    edited = Session(session.folder, document)
    graph = edited.graph()
    look_into_files(graph, edited.roots)
    require_programs(graph, Settings().programs)
    plan_revisions(writing.connection, graph, document.acquisition.model_dump(exclude_none=True))  # tells of missing files
    check_requests(graph, machine.limits, machine.gpus)
    check_owned(writing.connection, graph, context.workflow.owned)
    if not by_hand and open_session(session.folder).document != session.document:
        raise SessionError(f"{DOCUMENT} has been edited by hand since the session started; apply that first (`icestream apply`)")
    if document == session.document:
        return "nothing changes"
    try:
        publish_text(session.folder / DOCUMENT, dump_document(document))
    except OSError as error:
        raise SessionError(f"{session.folder / DOCUMENT}: cannot be written, so nothing changes: {error}") from error
    writing.add(schema.document, text=dump_document(document), author=context.author, reason=reason, at=writing.now)
    context.controls.take_document(edited)
    return "applied: " + describe_change(session.document, document)
