"""Edits of the workflow while data keep coming: the document is written, checked, and taken up as new revisions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from icestream.errors import SessionError, WorkflowError
from icestream.files import publish_text
from icestream.flow.commands.requests import Apply, Branch, Set
from icestream.flow.planning.planned_revisions import plan_revisions
from icestream.flow.runner.capacity import own_limits
from icestream.flow.storage import schema
from icestream.flow.storage.contents import look_into_files
from icestream.flow.storage.own_params import check_owned
from icestream.flow.storage.session import DOCUMENT, Session, SessionDocument, dump_document, open_session
from icestream.flow.storage.writing import Writing
from icestream.flow.workflow.graph import Graph, StepSpec
from icestream.flow.workflow.requests import check_requests

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner


def set_params(runner: "Runner", writing: Writing, command: Set, author: str) -> str:
    """Change parameters of one step."""
    document = with_params(runner.session.document, command.step, command.params)
    return take_up(runner, writing, document, author=author, reason=command.reason)


def branch(runner: "Runner", writing: Writing, command: Branch, author: str) -> str:
    """Add a second variant of a step, and of what hangs on it."""
    if _has_branch(runner.session, command):  # a runner may have died after writing it, before the answer was committed
        return "nothing changes: that branch is there"
    document = with_branch(runner.session, command)
    twins = _twins_of(runner.session.graph(), command)
    own = sum(step in twins for _, step in runner.task_builder.owned)
    left = f"; {own} recomputed by hand, which the branch does not take over" if own else ""
    return take_up(runner, writing, document, author=author, reason=command.reason) + left


def apply_document(runner: "Runner", writing: Writing, command: Apply, author: str) -> str:
    """Take up the document as it is on the disk."""
    edited = open_session(runner.session.folder).document
    fixed = {"name", "store"}
    changed = [name for name in fixed if getattr(edited, name) != getattr(runner.session.document, name)]
    if changed:
        raise SessionError(f"{DOCUMENT}: {' and '.join(sorted(changed))} cannot change while the session runs; stop it first")
    return take_up(runner, writing, edited, author=author, reason=command.reason, by_hand=True)


def take_up(
    runner: "Runner", writing: Writing, document: SessionDocument, *, author: str, reason: str, by_hand: bool = False
) -> str:
    """Check an edited document, write it, and let the runner build itself anew from it.

    The file is written before the commit: should the runner die between the two, the next one finds the edit and makes the same
    revisions from it.
    """
    session = runner.session
    edited = Session(session.folder, document)
    graph = edited.graph()
    look_into_files(graph, edited.roots)
    plan_revisions(writing.connection, graph, document.acquisition.model_dump(exclude_none=True))  # tells of missing files
    check_requests(graph, own_limits(runner.settings, runner.gpus), runner.gpus)
    check_owned(writing.connection, graph, runner.task_builder.owned)
    if not by_hand and open_session(session.folder).document != session.document:
        raise SessionError(f"{DOCUMENT} was edited by hand since the session started; take that up first (`icestream apply`)")
    if document == session.document:
        return "nothing changes"
    try:
        publish_text(session.folder / DOCUMENT, dump_document(document))
    except OSError as error:
        raise SessionError(f"{session.folder / DOCUMENT}: cannot be written, so nothing changes: {error}") from error
    writing.add(schema.document, text=dump_document(document), author=author, reason=reason, at=writing.now)
    runner.session = edited
    runner.outdated = True
    return "taken up: " + describe_change(session.document, document)


def with_params(document: SessionDocument, step: str, params: Mapping[str, Any]) -> SessionDocument:
    """Return a document with other parameters of one step; a parameter set to None goes back to its default.

    Raises
    ------
    WorkflowError
        No step has this name.
    """
    if step not in document.steps:
        raise WorkflowError(f"no step is called {step!r}; known: {', '.join(document.steps)}")
    spec = document.steps[step]
    merged = {name: value for name, value in {**spec.params, **params}.items() if value is not None}
    return document.model_copy(update={"steps": {**document.steps, step: spec.model_copy(update={"params": merged})}})


def with_branch(session: Session, command: Branch) -> SessionDocument:
    """Return a document in which a step has a second variant, and what hangs on it a twin, each named after the branch.

    Raises
    ------
    WorkflowError
        No step has this name, or the name of the branch is taken.
    """
    document, graph = session.document, session.graph()
    if command.step not in document.steps:
        raise WorkflowError(f"no step is called {command.step!r}; known: {', '.join(document.steps)}")
    twins = _twins_of(graph, command)
    taken = sorted(set(twins.values()) & set(document.steps))
    if taken:
        raise WorkflowError(f"branch {command.name!r}: the workflow has a step called {', '.join(taken)} already")
    added = {twins[step]: _twin(document.steps[step], twins) for step in twins}
    branched = document.model_copy(update={"steps": {**document.steps, **added}})
    return with_params(branched, command.name, command.params) if command.params else branched


def _twins_of(graph: Graph, command: Branch) -> dict[str, str]:
    below = graph.descendants(command.step) if command.below else {command.step}
    return {step: command.name if step == command.step else f"{step}_{command.name}" for step in graph.nodes if step in below}


def _has_branch(session: Session, command: Branch) -> bool:
    """Tell whether the document is as this very branch would make it from one without it."""
    document = session.document
    if command.name not in document.steps or command.step not in document.steps:
        return False
    twins = set(_twins_of(session.graph(), command).values())
    bare = {name: spec for name, spec in document.steps.items() if name not in twins}
    try:
        return with_branch(Session(session.folder, document.model_copy(update={"steps": bare})), command) == document
    except WorkflowError:  # it is no workflow without those steps: they are something else
        return False


def _twin(spec: StepSpec, twins: Mapping[str, str]) -> StepSpec:
    """Return a copy of a step that takes its inputs and values from the twins where there are some."""
    inputs = {
        port: [_renamed(link, twins) for link in links] if isinstance(links, list) else _renamed(links, twins)
        for port, links in spec.inputs.items()
    }
    params = {
        name: {"from": _renamed(str(value["from"]), twins)} if isinstance(value, Mapping) and set(value) == {"from"} else value
        for name, value in spec.params.items()
    }
    return spec.model_copy(update={"inputs": inputs, "params": params})


def _renamed(link: str, twins: Mapping[str, str]) -> str:
    step, dot, rest = link.partition(".")
    return twins.get(step, step) + dot + rest


def describe_change(before: SessionDocument, after: SessionDocument) -> str:
    """Return in one line what an edit changed."""
    parts = []
    for name in {**before.steps, **after.steps}:
        old, new = before.steps.get(name), after.steps.get(name)
        if old is None:
            parts.append(f"{name} is new")
        elif new is None:
            parts.append(f"{name} is gone")
        elif old != new:
            parts.append(_describe_step(name, old, new))
    others = [field for field in ("acquisition", "roots") if getattr(before, field) != getattr(after, field)]
    return "; ".join(parts + [f"{field} changed" for field in others]) or "nothing"


def _describe_step(name: str, old: StepSpec, new: StepSpec) -> str:
    changed = [
        f"{parameter}: {old.params.get(parameter, 'default')} → {new.params.get(parameter, 'default')}"
        for parameter in {**old.params, **new.params}
        if old.params.get(parameter) != new.params.get(parameter)
    ]
    return f"{name} ({', '.join(changed) or 'changed'})"
