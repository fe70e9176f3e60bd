"""``icestream steps``: what can be put into a workflow."""

from typing import TYPE_CHECKING, Any

import typer

from icestream.cli.console import errors, make_table, output, print_json
from icestream.errors import IcestreamError

if TYPE_CHECKING:
    from icestream.flow.declaration import StepType


def steps(
    type_: str | None = typer.Argument(None, metavar="[TYPE]", help="A step type; by default all are listed."),
    json: bool = typer.Option(False, "--json", help="Print JSON for another program."),
) -> None:
    """List the installed step types, or show the inputs, outputs and parameters of one.

    ```
    icestream steps
    icestream steps ctf
    ```
    """
    from icestream.cli.describe import describe_step
    from icestream.flow.declaration import find_step, step_names

    if type_ is not None:
        found = find_step(type_)
        print_json(describe_step(found)) if json else _show(found)
        return
    found_all, problems = [], {}
    for name in step_names():
        try:
            found_all.append(find_step(name))
        except IcestreamError as error:
            problems[name] = str(error)
    if json:
        unusable = [{"name": name, "problem": problem} for name, problem in problems.items()]
        print_json([*map(describe_step, found_all), *unusable])
        return
    table = make_table("type", "kind", "what it does")
    for step_type in found_all:
        never_run = [program.name for program in step_type.programs if program.never_run]
        note = f" ({', '.join(never_run)}: never run for real)" if never_run else ""
        table.add_row(step_type.name, step_type.kind.value, f"{step_type.summary}{note}")
    output().print(table)
    for name, problem in problems.items():
        errors().print(f"note: {name} cannot be used: {problem}", markup=False, soft_wrap=True)


def _show(step_type: "StepType") -> None:
    from icestream.cli.describe import describe_step

    text: dict[str, Any] = describe_step(step_type)
    console = output()
    console.print(f"[bold]{text['name']}[/] ({text['kind']}, version {text['version']})", markup=True)
    console.print(f"  {text['summary']}\n", markup=False)
    inputs = make_table("input", "record", "", title="Inputs")
    for port in text["inputs"]:
        inputs.add_row(port["name"], port["record"], port["note"])
    outputs = make_table("output", "record", title="Outputs")
    for out in text["outputs"]:
        outputs.add_row(out["name"], out["record"])
    parameters = make_table("parameter", "type", "unit", "default", "range", "description", title="Parameters")
    for field in text["parameters"]:
        parameters.add_row(field.name, field.type, field.unit, field.default, field.range, field.description)
    for table in (inputs, outputs, parameters):
        if table.row_count:
            console.print(table)
            console.print()
    if text["reads"]:
        console.print(f"Uses these microscope values: {', '.join(text['reads'])}")
    for program in text["programs"]:
        note = f" ({program['note']})" if program["note"] else ""
        console.print(f"Runs {program['name']}, version {program['versions']}{note}")
    console.print(f"Needs {text['cores']} core(s), {text['memory_gb']:g} GB of memory")
