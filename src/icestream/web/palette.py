"""The addresses of the types of step that a workflow can be built of."""

from typing import Any

from fastapi import APIRouter, HTTPException

from icestream.flow.declaration import find_step, step_names
from icestream.web.site import Answer, Asking, ThisSite
from icestream.workflows.palette import PaletteStep, askable, describe_type

router = APIRouter(prefix="/api/v1", tags=["building"])


class TypeInput(Answer):
    """An input of a type of step; ``bound``: it takes a whole that is published in versions."""

    name: str
    record: str
    many: bool
    optional: bool
    bound: bool


class TypeLine(Answer):
    """A type of step; ``problem`` says why it cannot be used."""

    use: str
    title: str
    summary: str
    category: str
    kind: str
    version: int
    plugin: str
    inputs: list[TypeInput]
    outputs: dict[str, str]
    parameters: list[str]
    problem: str | None


class TypePage(TypeLine):
    """A type of step with its parameters as a JSON schema, and the placeholders with which a template can ask for them."""

    values: dict[str, Any]
    placeholders: dict[str, dict[str, Any]]


@router.get("/steps", summary="All types of step that a workflow can be built of")
def steps(site: ThisSite, _caller: Asking) -> list[TypeLine]:
    """Return all installed types of step, those of plugins too."""
    return [TypeLine.model_validate(one) for one in site.catalogue.steps()]


@router.get("/steps/{use}", summary="A type of step with its parameters, as a JSON schema")
def one_step(use: str, _caller: Asking) -> TypePage:
    """Return one type of step."""
    if use not in step_names():  # a module is none, whoever asks
        raise HTTPException(404, f"no type of step is called {use[:80]!r}; /api/v1/steps lists them")
    return page_of_type(use)


def page_of_type(use: str) -> TypePage:
    """Return a type of step in full."""
    described: PaletteStep = describe_type(use)
    asked = {name: one.model_dump(mode="json", exclude_defaults=True) for name, one in askable(use)}
    line = TypeLine.model_validate(described)
    return TypePage(**line.model_dump(), values=find_step(use).params.model_json_schema(mode="validation"), placeholders=asked)
