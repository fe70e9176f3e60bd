"""The reference pages of the documentation, written from the declarations in the source.

``python scripts/reference.py docs/reference`` writes them (`make docs`); a test fails where the committed pages are out of date.
"""

import inspect
import sys
import typing
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.models import ArgumentInfo

from icestream import workflows
from icestream.cli import app
from icestream.cli.describe import describe_step
from icestream.cli.fields import describe_fields
from icestream.flow.declaration.program import ProgramSettings
from icestream.flow.declaration.registry import find_step, step_names
from icestream.flow.execution.cluster_settings import ClusterSettings
from icestream.flow.storage.session import SessionDocument
from icestream.flow.workflow.graph import StepResources, StepSpec
from icestream.microscope.grid import GridSettings
from icestream.microscope.pace import Pace
from icestream.microscope.settings import Fault, Scene, SimulationSettings
from icestream.observe.report.customising import (
    ExposureTable,
    FieldOf,
    Plot,
    Publishing,
    ReportSettings,
    StepsTable,
    UnitAs,
)
from icestream.records.acquisition import PossibleAcquisition
from icestream.settings import Settings
from icestream.workflows.placeholders import Placeholder, describe_allowed
from icestream.workflows.template import Template, TemplateStep
from reference_alarms import alarms_page
from reference_metrics import metrics_page
from reference_parts import fields_table, page, table
from reference_records import own_records, records_page


def render_reference() -> dict[str, str]:
    """Return all pages by file name."""
    return {
        "alarms.md": alarms_page(own_records()),
        "commands.md": _commands_page(),
        "metrics.md": metrics_page(),
        "records.md": records_page(),
        "report.md": _report_page(),
        "session.md": _session_page(),
        "settings.md": _settings_page(),
        "simulation.md": _simulation_page(),
        "steps.md": _steps_page(),
        "workflows.md": _workflows_page(),
    }


def write_reference(folder: Path) -> list[Path]:
    """Write all pages into ``folder``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in render_reference().items():
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def own_steps() -> list[str]:
    """Return the step types that come with icestream, not those of plugins that are installed here."""
    return [name for name in step_names() if find_step(name).call.__module__.startswith("icestream.")]


def _steps_page() -> str:
    parts = ["Every step type shipped with icestream. `icestream steps TYPE` shows the same in the terminal."]
    for name in own_steps():
        parts += _step_section(describe_step(find_step(name)), find_step(name).params)
    return page("Steps", *parts)


def _step_section(text: dict[str, Any], params: type[BaseModel]) -> list[str]:
    facts = [f"Kind `{text['kind']}`, version {text['version']}, {text['cores']} core(s), {text['memory_gb']:g} GB of memory."]
    if text["reads"]:
        facts.append(f"Uses these microscope values: {', '.join(f'`{value}`' for value in text['reads'])}.")
    notes = {program["name"]: f" ({program['note']})" if program["note"] else "" for program in text["programs"]}
    facts += [f"Runs `{program['name']}`, version {program['versions']}{notes[program['name']]}." for program in text["programs"]]
    inputs = [[f"`{port['name']}`", port["record"], port["note"]] for port in text["inputs"]]
    outputs = [[f"`{out['name']}`", out["record"]] for out in text["outputs"]]
    return [
        f"## {text['name']}",
        text["summary"],
        " ".join(facts),
        table(["input", "record", "note"], inputs) if inputs else "",
        table(["output", "record"], outputs),
        fields_table(params) if params.model_fields else "No parameters.",
    ]


def _session_page() -> str:
    return page(
        "session.yaml",
        "`icestream new` writes this file into the session's folder. Apply edits with `icestream apply`, or before the next run.",
        "## The document",
        fields_table(SessionDocument),
        "## A step of the workflow",
        fields_table(StepSpec),
        "## resources",
        "Resources for one step; unset values are as the step type declares.",
        fields_table(StepResources),
        "## acquisition",
        "Values here take precedence over those in files.",
        fields_table(PossibleAcquisition),
    )


def _settings_page() -> str:
    environment = [[f"`ICESTREAM_{field.name.upper()}`", field.default, field.description] for field in describe_fields(Settings)]
    return page(
        "Settings of the machine",
        "Environment variables. They never change a result, except by the programs that ICESTREAM_PROGRAMS names.",
        table(["variable", "default", "description"], environment),
        "## Cluster settings",
        "What `icestream run --executor slurm --cluster-settings FILE` reads: a YAML file.",
        fields_table(ClusterSettings),
        "## The file of programs",
        "What `ICESTREAM_PROGRAMS` names: a YAML file with an entry for each program, by the name of its executable.",
        fields_table(ProgramSettings),
    )


def _report_page() -> str:
    parts: list[str] = []
    for title, model in (
        ("The document", ReportSettings),
        ("steps", StepsTable),
        ("exposures", ExposureTable),
        ("A column of exposures", FieldOf),
        ("A plot", Plot),
        ("units", UnitAs),
        ("publish", Publishing),
    ):
        parts += [f"## {title}", fields_table(model)]
    told = "What `report.yaml` in a folder of templates may say; [how to customise the report](../how-to/customise-the-report.md)"
    return page("report.yaml", f"{told} shows it at work.", *parts)


def _simulation_page() -> str:
    faults = [[f"`{fault.value}`"] for fault in Fault]
    return page(
        "The simulated microscope",
        "Settings of `icestream simulate`, given as `--set NAME=VALUE`.",
        fields_table(SimulationSettings),
        "## The grid",
        "What `grid` may say, as `--set 'grid={rows: 3, columns: 3}'`.",
        fields_table(GridSettings),
        "## Faults",
        table(["fault"], faults),
        "## Scenes",
        table(["scene"], [[f"`{scene.value}`"] for scene in Scene]),
        "## Pace",
        "How fast and in which manner files are written, if you call `icestream.microscope.simulate` from Python.",
        fields_table(Pace),
    )


def _workflows_page() -> str:
    parts = [
        "Templates shipped with icestream. Give a name, or a file of this form, to `icestream new --template`.",
        "## The document",
        fields_table(Template),
        "## A placeholder",
        fields_table(Placeholder),
        "## A step",
        "As in [session.yaml](session.md); parameters may have `{ask: placeholder}` in them.",
        fields_table(TemplateStep),
    ]
    for name, summary in workflows.list_workflows().items():
        text = (files(workflows) / f"{name}.yaml").read_text(encoding="utf-8")
        asked = [
            [f"`{key}`", one.label, describe_allowed(one), "optional" if one.optional else "needed"]
            for key, one in workflows.load_template(str(files(workflows) / f"{name}.yaml")).placeholders.items()
        ]
        placeholders = table(["placeholder", "label", "allowed", ""], asked)
        parts += [f"## {name}", f"{summary}.", placeholders, f"```yaml\n{text.partition(chr(10))[2].strip()}\n```"]
    return page("Workflows", *parts)


def _commands_page() -> str:
    parts = ["`icestream COMMAND --help` shows the same in the terminal."]
    exits = {str(command.name): str(command.epilog) for command in app.registered_commands}
    for name, function in own_commands().items():
        parameters = list(inspect.signature(function).parameters.values())
        arguments = [_argument(p) for p in parameters if isinstance(p.default, ArgumentInfo)]
        parts += [
            f"## {name}",
            f"`icestream {' '.join([name, *arguments])} [OPTIONS]`",
            inspect.cleandoc(function.__doc__ or ""),
            exits[name],
            table(["argument or option", "default", "description"], [_parameter_row(p) for p in parameters]),
        ]
    return page("Commands", *parts)


def own_commands() -> dict[str, Callable[..., Any]]:
    """Return the commands of ``icestream`` by name, each with its function."""
    callbacks = [command.callback for command in app.registered_commands if command.callback is not None]
    return {callback.__name__.rstrip("_").replace("_", "-"): callback for callback in callbacks}


def _argument(parameter: inspect.Parameter) -> str:
    info = parameter.default
    name = str(info.metavar or parameter.name.upper()).strip("[]")
    return name if info.default is ... else f"[{name}]"


def _parameter_row(parameter: inspect.Parameter) -> list[str]:
    info = parameter.default
    if isinstance(info, ArgumentInfo):
        return [f"`{_argument(parameter)}`", "required" if info.default is ... else "", str(info.help)]
    names = "/".join(info.param_decls or [f"--{parameter.name.replace('_', '-')}"])
    value = "" if parameter.annotation is bool else f" {info.metavar or _value_name(parameter.annotation)}"
    shown = "required" if info.default is ... else "" if info.default in (None, []) else _shown_default(info.default)
    return [f"`{names}{value}`", shown, str(info.help)]


def _shown_default(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _value_name(annotation: Any) -> str:
    members = [member for member in typing.get_args(annotation) or (annotation,) if member is not type(None)]
    first = members[0]
    if typing.get_origin(first) is tuple:
        return " ".join("NUMBER" for _ in typing.get_args(first))
    return {Path: "PATH", float: "NUMBER", int: "INTEGER"}.get(first, "TEXT")


if __name__ == "__main__":
    for written in write_reference(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference")):
        sys.stdout.write(f"{written}\n")
