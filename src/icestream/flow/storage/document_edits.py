"""Edits of a session's document, on paper: other parameters, a branch; and what an edit changed, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icestream.errors import SessionError, WorkflowError
from icestream.flow.storage.session import SessionDocument
from icestream.flow.workflow import Graph, StepSpec, Workflow, build_graph, digest


def with_params(document: SessionDocument, step: str, params: Mapping[str, Any]) -> SessionDocument:
    """Return a document with other parameters of one step; a parameter set to None goes back to its default.

    Raises
    ------
    WorkflowError
        No step has this name.
    """
    spec = _spec_of(document, step)
    merged = {name: value for name, value in {**spec.params, **params}.items() if value is not None}
    return _with_steps(document, {**document.steps, step: spec.model_copy(update={"params": merged})})


def _spec_of(document: SessionDocument, step: str) -> StepSpec:
    if step not in document.steps:
        raise WorkflowError(f"no step is called {step!r}; known: {', '.join(document.steps)}")
    return document.steps[step]


def _with_steps(document: SessionDocument, steps: Mapping[str, StepSpec]) -> SessionDocument:
    return document.model_copy(update={"steps": dict(steps)})


def digest_steps(steps: Mapping[str, StepSpec]) -> str:
    """Return what stands for the workflow of a document, so that an edit can say what it was made of."""
    return digest({name: spec.model_dump(mode="json", by_alias=True) for name, spec in steps.items()})


def with_changed_steps(
    document: SessionDocument, changes: Mapping[str, StepSpec | None], *, based_on: str | None = None
) -> SessionDocument:
    """Return a document with steps added and replaced; a step whose change is None is removed.

    Raises
    ------
    SessionError
        ``based_on`` stands for another workflow: somebody has changed it since. What is as asked for already is no conflict.
    WorkflowError
        A step that is to be removed is none.
    """
    missing = [name for name, spec in changes.items() if spec is None and name not in document.steps]
    changed = {name: spec for name, spec in {**document.steps, **changes}.items() if spec is not None}
    if changed == document.steps:
        return document
    if based_on is not None and based_on != digest_steps(document.steps):
        raise SessionError("the workflow has been changed since this edit was begun; look at it as it is now, and edit that")
    for name in missing:
        _spec_of(document, name)
    return _with_steps(document, changed)


@dataclass(frozen=True)
class NewBranch:
    """A second variant of a step, called ``name``, beside the first; with ``below``, what hangs on it gets a twin too."""

    step: str
    name: str
    params: Mapping[str, Any]
    below: bool = True

    def twins(self, graph: Graph) -> dict[str, str]:
        """Return the names of the steps that get a twin, and how the twins are called."""
        below = graph.descendants(self.step) if self.below else {self.step}
        twins = {step: f"{step}_{self.name}" for step in graph.nodes if step in below}
        return {step: self.name if step == self.step else twin for step, twin in twins.items()}

    def add_to(self, document: SessionDocument) -> SessionDocument:
        """Return a document in which the step has this variant, and what hangs on it its twins.

        Raises
        ------
        WorkflowError
            No step has this name, or the name of the branch is taken.
        """
        _spec_of(document, self.step)
        twins = self.twins(_graph_of(document))
        taken = sorted(set(twins.values()) & set(document.steps))
        if taken:
            raise WorkflowError(f"branch {self.name!r}: the workflow already has a step called {', '.join(taken)}")
        added = {twins[step]: _twin(document.steps[step], twins) for step in twins}
        branched = _with_steps(document, {**document.steps, **added})
        return with_params(branched, self.name, self.params) if self.params else branched

    def is_in(self, document: SessionDocument) -> bool:
        """Tell whether the document is as this very branch would make it from one without it."""
        if self.name not in document.steps or self.step not in document.steps:
            return False
        twins = set(self.twins(_graph_of(document)).values())
        bare = {name: spec for name, spec in document.steps.items() if name not in twins}
        try:
            return self.add_to(_with_steps(document, bare)) == document
        except WorkflowError:  # it is no workflow without those steps: they are something else
            return False


def _graph_of(document: SessionDocument) -> Graph:
    return build_graph(Workflow(steps=document.steps))


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
            parts.append(f"{name} was removed")
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
    changed += ["reads other inputs"] * (old.inputs != new.inputs) + ["another note"] * (old.note != new.note)
    return f"{name} ({', '.join(changed) or 'changed'})"
