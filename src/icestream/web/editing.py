"""The addresses of parameters: the form of a step, what an edit would do, and what is wrong with the values of each field."""

import dataclasses
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from icestream.errors import SessionError
from icestream.flow.commands.editing import Edit, plan_edit
from icestream.flow.commands.requests import Branch, ChangeSteps, Command, Recompute, Set, read_command
from icestream.flow.planning.plans import Change, Plan, plan_recompute
from icestream.flow.storage import Session
from icestream.flow.workflow import Node
from icestream.web.forbidden import leads_out, refuse_code, refuse_leading_out, trust_of
from icestream.web.site import Answer, Operating, SessionName, ThisSite, WrongValues, changes_nothing
from icestream.workflows.drafting import steps_as_draft

PLANNED_AT_ONCE = 2
"""So many dry runs are made at a time: each looks at every exposure, and reading goes on meanwhile."""

router = APIRouter(prefix="/api/v1/sessions/{session}", tags=["editing"])
_PLANNING = threading.Semaphore(PLANNED_AT_ONCE)


DEEPEST = 8


def _check_depth(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    level: list[JsonValue] = [value]
    for _ in range(DEEPEST):
        level = [
            member for one in level if isinstance(one, dict | list) for member in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return value
    raise ValueError(f"nested deeper than {DEEPEST}")


Arguments = Annotated[dict[str, JsonValue], AfterValidator(_check_depth)]


def read_arguments(kind: str, arguments: Mapping[str, JsonValue]) -> Command:
    """Return a command.

    Raises
    ------
    SessionError
        Its arguments are not what it takes.
    """
    return read_command(kind, json.dumps(arguments))


class StepParameters(Answer):
    """The parameters of a step: their JSON schema, from which a form is made, and the values they have."""

    step: str
    label: str
    use: str
    kind: str
    version: int
    summary: str
    values: dict[str, Any]
    """The schema."""
    given: dict[str, Any]
    """What the workflow gives; the others are at their defaults."""
    complete: dict[str, Any]
    taken: dict[str, str]
    """Parameter → the step and field that it is taken from."""
    below: list[str]
    """This step and those downstream of it, which an edit concerns."""
    computes: bool


class PlanAsked(BaseModel):
    """An edit that is to be foreseen: a command and what it takes, as in an action."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["set", "branch", "change_steps", "restart", "reset", "recompute"]
    arguments: Arguments = Field(default_factory=dict, max_length=8)


class StepPlanLine(Answer):
    """What would happen to one step; see the dry runs of the command line."""

    step: str
    kind: str
    change: Change
    computed: int
    at_most: int
    decided: int
    reused: int
    exact: bool
    seconds: float | None
    new_bytes: int | None
    old_bytes: int | None


class PlanAnswer(Answer):
    """What an edit would do: how many results are computed again, at most how many more, and how long that takes."""

    steps: list[StepPlanLine]
    computed: int
    at_most: int
    seconds: float | None
    cores: int


@router.get("/steps/{step}/parameters", summary="The parameters of a step, as a JSON schema with their values")
def parameters(session: SessionName, step: str, site: ThisSite) -> StepParameters:
    """Return the parameters of a step."""
    opened = site.places.open(session)
    graph = opened.graph()
    if step not in graph.nodes:
        raise HTTPException(404, f"no step is called {step[:80]!r}; known: {', '.join(graph.nodes)}")
    node, spec = graph.nodes[step], opened.document.steps[step]
    return StepParameters(
        step=step,
        label=spec.label or step,
        use=spec.use,
        kind=node.type.kind.value,
        version=node.type.version,
        summary=node.type.summary,
        values=node.type.params.model_json_schema(mode="validation"),
        given={name: value for name, value in spec.params.items() if name not in node.values},
        complete=node.params,
        taken={name: ".".join(source) for name, source in node.values.items()},
        below=graph.from_step(step),
        computes=node.type.makes_results,
    )


@router.post(
    "/plans",
    summary="What an edit would do: how many results are computed again, and how long that takes",
    dependencies=[Depends(changes_nothing)],
)
def plan(session: SessionName, asked: PlanAsked, site: ThisSite, _caller: Operating) -> PlanAnswer:
    """Foresee an edit; nothing is changed."""
    opened, command = site.places.open(session), read_arguments(asked.kind, asked.arguments)
    check_edit(opened, command)
    with _one_of_few():
        return describe_plan(foresee_edit(opened, command, rebuild_fraction=site.settings.rebuild_fraction))


def foresee_edit(session: Session, command: Command, *, rebuild_fraction: float) -> Plan:
    """Return what an edit would do, or computing one exposure again with parameters of its own."""
    cores = os.cpu_count() or 1
    if isinstance(command, Recompute):
        step, params = command.step, command.params
        return plan_recompute(session, step, [command.unit], params, cores=cores, rebuild_fraction=rebuild_fraction)
    if not isinstance(command, Edit):
        raise HTTPException(422, f"{command.kind}: cannot be foreseen")
    return plan_edit(session, command, cores=cores)


def describe_plan(found: Plan) -> PlanAnswer:
    """Return a plan as it is answered."""
    lines = [StepPlanLine.model_validate(dataclasses.asdict(one)) for one in found.steps]
    return PlanAnswer(steps=lines, computed=found.computed, at_most=found.at_most, seconds=found.seconds, cores=found.cores)


@contextmanager
def _one_of_few() -> Iterator[None]:
    if not _PLANNING.acquire(timeout=1.0):
        raise HTTPException(503, "other edits are being foreseen; try again", {"Retry-After": "2"})
    try:
        yield
    finally:
        _PLANNING.release()


def check_edit(session: Session, command: Command) -> None:
    """Check the parameters that an edit gives, so that a page can say of each field what is wrong.

    Raises
    ------
    WrongValues
        With what is wrong of each parameter.
    SessionError
        No step is called so.
    """
    if isinstance(command, ChangeSteps):
        given = {name: spec for name, spec in command.steps.items() if spec is not None}
        refuse_code(given, trust_of(steps_as_draft(session.document.steps)))
        refuse_leading_out(given)
    if not isinstance(command, Set | Branch | Recompute):
        return
    graph = session.graph()
    if command.step not in graph.nodes:
        raise SessionError(f"no step is called {command.step!r}; known: {', '.join(graph.nodes)}")
    wrong = find_wrong(graph.nodes[command.step], session.document.steps[command.step].params, command.params)
    if wrong:
        raise WrongValues(wrong)


def find_wrong(node: Node, present: Mapping[str, Any], given: Mapping[str, JsonValue]) -> dict[str, str]:
    """Return parameter → what is wrong with the value that is given for it; None stands for its default."""
    leading_out = {name: "must not lead out of its folder" for name, value in given.items() if leads_out(name, value)}
    merged = {name: value for name, value in {**present, **given}.items() if value is not None}
    taken = {name for name, value in merged.items() if isinstance(value, dict) and set(value) == {"from"}}
    try:
        node.type.params.model_validate({name: value for name, value in merged.items() if name not in taken})
    except ValidationError as error:
        found = {}
        for issue in error.errors():
            name = str(issue["loc"][0]) if issue["loc"] else ""
            if name not in taken:
                found[name] = issue["msg"].removeprefix("Value error, ")
        return leading_out | found
    return leading_out
