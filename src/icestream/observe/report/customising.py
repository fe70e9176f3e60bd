"""What a facility says about the report in ``report.yaml``: sections, columns, plots, units, and how it is published."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from icestream.documents import find_line, parse_document
from icestream.observe.report.layers import Layer
from icestream.observe.report.problems import Problem, ProblemList
from icestream.units import Second

FILE = "report.yaml"
OTHERS = "others"
"""Stands among the sections for those of ours that are not named."""

SECTIONS = (
    "figures",
    "alarms",
    "steps",
    "plots",
    "panels",
    "images",
    "exposures",
    "galleries",
    "trouble",
    "people",
    "methods",
    "provenance",
)
"""Our sections, in our order; each is a template of its name."""

StepColumn = Literal[
    "progress", "done", "waiting", "set aside", "failed", "skipped", "absent", "per hour", "time per item", "stream"
]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UnitAs(_Said):
    """How values of one unit are shown."""

    unit: str = Field(max_length=20, description="The unit in which they are shown")
    factor: float = Field(gt=0, allow_inf_nan=False, description="By what they are multiplied")


class FieldOf(_Said):
    """A number among what a step stores: of one step by its name, or of every step that makes one type of record."""

    step: str | None = Field(None, min_length=1, description="Name of the step in the workflow")
    record: str | None = Field(None, min_length=1, description="Stored name of the type of record, such as `CtfFit`")
    field: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", description="The field, such as `motion.total_px`"
    )
    label: str = Field("", max_length=80, description="What people read; unset: the name of the field")
    unit: str = Field("", max_length=20, description="The unit that is written beside it")
    factor: float = Field(1.0, allow_inf_nan=False, description="By what the stored number is multiplied")

    @model_validator(mode="after")
    def _names_one(self) -> "FieldOf":
        if (self.step is None) == (self.record is None):
            raise ValueError("give either `step` or `record`")
        return self

    @property
    def title(self) -> str:
        """What people read."""
        return self.label or self.field.rpartition(".")[2].replace("_", " ").capitalize()


class Plot(FieldOf):
    """A plot of one field along the session, or of one field against another of the same exposure."""

    title_: str = Field("", alias="title", max_length=80, description="Title; unset: the label")
    kind: Literal["series", "histogram", "both"] = Field("both", description="What is drawn of one field")
    against: FieldOf | None = Field(None, description="The field on the horizontal axis, instead of the exposures")


class StepsTable(_Said):
    """The table of steps."""

    leave_out: tuple[StepColumn, ...] = Field((), description="Columns that are not shown")


class ExposureTable(_Said):
    """The table of exposures: the newest, with what was measured of them."""

    rows: int = Field(25, ge=0, le=200, description="How many exposures are shown; 0: no table")
    leave_out: tuple[str, ...] = Field(
        (), description="Columns that are not shown, by label (`Astigmatism`), metric, or `step:metric`"
    )
    add: tuple[FieldOf, ...] = Field((), max_length=20, description="Columns with further fields")


class Publishing(_Said):
    """The command that copies the report to where others see it."""

    command: tuple[str, ...] = Field(
        min_length=1,
        description="Program and arguments, without a shell; `{folder}` is the folder of the report, `{session}` the name of the "
        "session in letters that are harmless anywhere",
    )
    timeout_s: Second = Field(300.0, gt=0, allow_inf_nan=False, description="A command that takes longer is ended")
    at_least_every_s: Second = Field(30.0, ge=0, allow_inf_nan=False, description="Time between two copies, at least")


class ReportSettings(_Said):
    """What ``report.yaml`` may say."""

    title: str = Field("", max_length=120, description="What is written above the name of the session")
    sections: tuple[str, ...] = Field(
        (OTHERS,), max_length=60, description="Sections in their order: ours, and templates of yours; `others` are all the rest"
    )
    leave_out: tuple[str, ...] = Field((), description="Sections that are not shown")
    units: dict[str, UnitAs] = Field(default_factory=dict, description="Unit → how values of it are shown")
    steps: StepsTable = Field(default_factory=StepsTable, description="The table of steps")
    exposures: ExposureTable = Field(default_factory=ExposureTable, description="The table of exposures")
    plots: tuple[Plot, ...] = Field((), max_length=40, description="Further plots")
    publish: Publishing | None = Field(None, description="Only in the facility's file: how the report is published")

    @property
    def order(self) -> tuple[str, ...]:
        """The sections that are shown."""
        rest = [name for name in SECTIONS if name not in self.sections]
        named = [one for name in self.sections for one in (rest if name == OTHERS else [name])]
        return tuple(name for name in dict.fromkeys(named) if name not in self.leave_out)


@dataclass(frozen=True)
class Customised:
    """The settings of the report, where each part of them is said, and what is wrong with them and with templates."""

    settings: ReportSettings = field(default_factory=ReportSettings)
    sources: dict[str, tuple[Path, str]] = field(default_factory=dict)
    """Key of the settings → file and text."""
    problems: ProblemList = field(default_factory=ProblemList)

    def tell(self, place: Sequence[str | int], message: str) -> None:
        """Note a mistake at a place of the settings, which is left out."""
        file, text = self.sources[str(place[0])]
        self.problems.add(Problem(file, find_line(text, place), f"{_written(place)}: {message}", "it is left out"))


def read_customised(layers: Sequence[Layer]) -> Customised:
    """Read what the facility and the session say; what is wrong is noted and left out. Keys of the session take precedence."""
    said: dict[str, Any] = {}
    sources: dict[str, tuple[Path, str]] = {}
    problems = ProblemList()
    for layer in reversed([one for one in layers if one.owner != "icestream"]):
        path = layer.folder / FILE
        try:
            if layer.find(FILE) is None:
                continue
            text = layer.read_text(path)
            document = parse_document(text)
        except ValueError as error:
            problems.add(Problem(path, _line_in(str(error)), str(error), "the file is left out"))
            continue
        for key, value in _read_keys(document, path, text, problems).items():
            if key == "publish" and layer.owner == "session":
                told = "a session cannot say what is run; the facility's file can"
                problems.add(Problem(path, find_line(text, [key]), f"publish: {told}", "it is left out"))
                continue
            said[key], sources[key] = value, (path, text)
    return Customised(ReportSettings(**said), sources, problems)


def _read_keys(document: Any, path: Path, text: str, problems: ProblemList) -> dict[str, Any]:
    """Return the keys of a file that are right, as they are typed."""
    if document is None:
        return {}
    if not isinstance(document, dict):
        problems.add(Problem(path, 1, f"must be names with values, is {type(document).__name__}", "the file is left out"))
        return {}
    right: dict[str, Any] = {}
    for key, value in document.items():
        try:
            right[key] = getattr(ReportSettings.model_validate({key: value}), key)
        except ValidationError as error:
            for issue in error.errors():
                place = issue["loc"] or (key,)
                told = f"{_written(place)}: {_reason(issue)}"
                problems.add(Problem(path, find_line(text, place), told, f"`{key}` is left out"))
    return right


def _reason(issue: Any) -> str:
    if issue["type"] == "extra_forbidden":
        known = ", ".join(sorted(_names_beside(issue["loc"])))
        return f"is not known here; known are {known}"
    said = str(issue["msg"]).removeprefix("Value error, ")
    got = issue.get("input")
    return said[:1].lower() + said[1:] + (f" (got {got!r:.80})" if isinstance(got, str | int | float | bool) else "")


def _names_beside(place: Sequence[str | int]) -> set[str]:
    """Return the names that may stand where one is that is not known."""
    model: type[BaseModel] = ReportSettings
    for part in place[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            inner = _model_in(model.model_fields[part].annotation)
            model = inner if inner is not None else model
    return {field.alias or name for name, field in model.model_fields.items()}


def _model_in(hint: Any) -> type[BaseModel] | None:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((found for inner in get_args(hint) if (found := _model_in(inner)) is not None), None)


def _written(place: Sequence[str | int]) -> str:
    return "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _line_in(message: str) -> int | None:
    found = re.search(r"line (\d+)", message)
    return int(found.group(1)) if found else None
