"""What a workflow that comes from a browser may not do: run any code, read any variable, or lead out of the allowed folders."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from icestream.flow.workflow import GraphProblem, StepSpec
from icestream.web.raw_folders import NotAllowed, RawFolders
from icestream.web.site import WrongValues
from icestream.workflows import Template

Trusted = Mapping[str, Any]
_UPWARDS = re.compile(r"(^|[/:])\.\.(/|$)")


def trust_of(template: Template) -> dict[str, Any]:
    """Return what a template of the facility, or a session, brings along that nobody may write in a browser."""
    return {
        "uses": sorted({spec.use for spec in template.steps.values() if ":" in spec.use}),
        "env": sorted({one.env for one in template.placeholders.values() if one.env is not None}),
        "roots": sorted({root for root in template.roots.values() if isinstance(root, str)}),
    }


def refuse_code(steps: Mapping[str, StepSpec], trusted: Trusted) -> None:
    """Refuse steps that are named by a module: a name of that kind imports whatever it names.

    Raises
    ------
    WrongValues
        With the step.
    """
    known = set(trusted.get("uses", ()))
    wrong = [name for name, spec in steps.items() if ":" in spec.use and spec.use not in known]
    if wrong:
        told = "must be the name of an installed type of step; a module and a function are only taken from files of the facility"
        raise WrongValues({f"steps.{name}.use": told for name in wrong[:20]})


def refuse_leading_out(steps: Mapping[str, StepSpec]) -> None:
    """Refuse parameters that lead out of their folders.

    Raises
    ------
    WrongValues
        With the steps and parameters.
    """
    wrong = {f"steps.{one.step}.{one.field}": one.text for one in _leading_out(steps)}
    if wrong:
        raise WrongValues(wrong)


def find_forbidden(template: Template, trusted: Trusted, raw_folders: RawFolders) -> list[GraphProblem]:
    """Return what keeps a draft from being saved as a template or applied, though it could run."""
    problems = list(_leading_out(template.steps))
    for name, one in template.placeholders.items():
        if one.env is not None and one.env not in trusted.get("env", ()):
            told = f"placeholder {name!r}: env {one.env!r}: what the server's environment holds cannot be asked for from here"
            problems.append(GraphProblem(told, None, "placeholders"))
    for name, root in template.roots.items():
        if isinstance(root, str) and root not in trusted.get("roots", ()):
            try:
                raw_folders.check(root)
            except NotAllowed as error:
                problems.append(GraphProblem(f"folder {name!r}: {error}", None, "roots"))
    return problems


def _leading_out(steps: Mapping[str, StepSpec]) -> Iterator[GraphProblem]:
    for step, spec in steps.items():
        for name, value in spec.params.items():
            if leads_out(name, value):
                yield GraphProblem(f"parameter {name!r} must not lead out of its folder", step, f"params.{name}")


def leads_out(name: str, value: JsonValue) -> bool:
    """Tell whether the value of a parameter names something outside of the folder that it is about."""
    return any(_UPWARDS.search(text) or (name == "pattern" and text.startswith("/")) for text in _texts(value))


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)
