"""``icestream new``: make a session."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from icestream.cli.console import errors, output, type_next

if TYPE_CHECKING:
    from icestream.flow.storage import Session
    from icestream.workflows import Template


def new(
    session: Path = typer.Argument(help="Folder of the new session; it is created."),
    movies: Path | None = typer.Option(None, help="Folder where movies appear, now or later."),
    micrographs: Path | None = typer.Option(None, help="Folder where motion-corrected micrographs appear."),
    pattern: str | None = typer.Option(None, help="Which files to process, e.g. `**/*_fractions.tiff`."),
    gain: Path | None = typer.Option(None, help="Gain reference of the camera; it may appear later."),
    workflow: str | None = typer.Option(
        None, "--template", "--workflow", help="Template or workflow: a name (`icestream templates`) or a YAML file."
    ),
    diameter: tuple[float, float] | None = typer.Option(None, help="Smallest and largest diameter of the particle in Å."),
    root: list[str] = typer.Option([], metavar="NAME=FOLDER", help="Another folder of raw data used by the workflow."),
    set_: list[str] = typer.Option(
        [],
        "--set",
        metavar="[STEP.]NAME=VALUE",
        help="Fill in a placeholder, or set a step parameter; see `icestream templates NAME` and `icestream steps TYPE`.",
    ),
    add: list[str] = typer.Option([], "--add", metavar="FILE", help="Add the steps of an exported part of a workflow."),
    connect: list[str] = typer.Option([], metavar="INPUT=STEP", help="Connect an open input of an added part to a step."),
    voltage: float | None = typer.Option(None, help="Acceleration voltage in kV."),
    cs: float | None = typer.Option(None, help="Spherical aberration in mm."),
    amplitude_contrast: float | None = typer.Option(None, help="Amplitude contrast, as a fraction from 0 to 1."),
    pixel_size: float | None = typer.Option(None, help="Pixel size of the raw movie (or micrograph) in Å."),
    dose_per_frame: float | None = typer.Option(None, help="Dose of one frame in e/Å²."),
    pre_exposure: float | None = typer.Option(None, help="Dose before the first frame in e/Å²."),
    no_input: bool = typer.Option(False, "--no-input", help="Never ask for values; a missing one is an error."),
    run: bool = typer.Option(False, "--run", help="Start processing at once, without asking for values."),
    detach: bool = typer.Option(False, "--detach", help="With --run: process in the background."),
) -> None:
    r"""Create a session: a folder with everything about one acquisition. Nothing is processed yet.

    Microscope values that you leave out are taken from the files, if they contain them. At a terminal, you are asked for values
    that are still missing. Start processing with `icestream run`.

    Movies from a Krios, with the gain reference:

    ```
    icestream new lysozyme --movies /data/grid3 --pattern '**/*_fractions.tiff' \
        --gain /data/gain.mrc --voltage 300 --cs 2.7 --amplitude-contrast 0.1 \
        --pixel-size 0.83 --dose-per-frame 1.2 --diameter 120 160
    ```

    A quick quality check, started at once in the background:

    ```
    icestream new check --template movies_to_ctf --movies /data/grid3 --run --detach
    ```
    """
    from icestream.alarms.document import write_session_alarms
    from icestream.cli.plan import parse_roots
    from icestream.flow.storage import create_session
    from icestream.workflows import foresee, unset_values

    roots = parse_roots(root, movies=None, micrographs=None, gain=None)
    options = {
        "movies": movies,
        "micrographs": micrographs,
        "pattern": pattern,
        "gain": gain,
        "diameter": diameter,
        "voltage": voltage,
        "cs": cs,
        "amplitude_contrast": amplitude_contrast,
        "pixel_size": pixel_size,
        "dose_per_frame": dose_per_frame,
        "pre_exposure": pre_exposure,
    }
    chosen = workflow or ("micrographs_to_classes" if micrographs is not None and movies is None else "movies_to_classes")
    template = _load(chosen, add, connect)
    given = {name: value for name, value in options.items() if value is not None}
    document = _fill(session, template, given, roots, set_, ask=not (no_input or run))
    foreseen = foresee(document, folder=session.absolute())
    created = create_session(session, document)
    if template.alarms is not None:
        write_session_alarms(created.folder, template.alarms)
    _report(created, chosen, unset_values(created.document))
    for name, folder in created.roots.items():
        if not Path(folder).exists():
            errors().print(f"note: the folder {folder} ({name}) does not exist yet", markup=False, soft_wrap=True)
    for text in foreseen:
        errors().print(f"note: {text}", markup=False, soft_wrap=True)
    if run:
        _run(created, detach=detach)
    else:
        output().print(f"next: {type_next('run', created.folder)}", soft_wrap=True, markup=False)


def _load(name: str, parts: list[str], connections: list[str]) -> "Template":
    from icestream.cli.plan import parse_connections
    from icestream.workflows import load_template
    from icestream.workflows.joining import join_templates

    template = load_template(name)
    wanted = parse_connections(connections)
    for part in parts:
        template = join_templates(template, load_template(part), wanted)
    return template


def _fill(
    session: Path, template: "Template", given: dict[str, Any], roots: dict[str, str], settings: list[str], *, ask: bool
) -> Any:
    from icestream.cli.plan import split_roots, split_settings
    from icestream.cli.prompting import ask_for_values, can_ask
    from icestream.workflows import fill_template

    typed, parameters = split_settings(settings)
    asked_roots, others = split_roots(template, roots)
    values = {**given, **asked_roots, **typed}
    if ask and can_ask():
        values = ask_for_values(template, values, settings=parameters)
    return fill_template(template, values, name=session.absolute().name, settings=parameters, roots=others)


def _report(created: "Session", workflow: str, unset: dict[str, list[str]]) -> None:
    console = output()
    console.print(
        f"[bold]{escape(str(created.folder))}[/]: created a session with the workflow {escape(workflow)}", soft_wrap=True
    )
    console.print("  " + " → ".join(created.document.steps), soft_wrap=True)
    for value, steps in unset.items():
        errors().print(
            f"[yellow]note:[/] {value} is not given; {', '.join(steps)} will use the value in the files", soft_wrap=True
        )


def _run(created: "Session", *, detach: bool) -> None:
    from icestream.cli.run import detach_runner, finish, make_settings, process

    settings = make_settings(cores=None, newest_first=False)
    if detach:
        detach_runner(created, [])
        return
    raise typer.Exit(finish(created, process(created, settings, follow=True)))
