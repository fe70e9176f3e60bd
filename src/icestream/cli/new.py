"""``icestream new``: make a session."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from icestream.cli.console import errors, output, type_next

if TYPE_CHECKING:
    from icestream.flow.session import Session


def new(
    session: Path = typer.Argument(help="Folder of the new session; it is made."),
    movies: Path | None = typer.Option(None, help="Folder where movies appear, now or later."),
    micrographs: Path | None = typer.Option(None, help="Folder where motion-corrected micrographs appear."),
    pattern: str | None = typer.Option(None, help="Which files to take, as `**/*_fractions.tiff`."),
    gain: Path | None = typer.Option(None, help="Gain reference of the camera; it may appear later."),
    workflow: str | None = typer.Option(None, help="A workflow that comes with icestream, or a YAML file."),
    diameter: tuple[float, float] | None = typer.Option(None, help="Smallest and largest diameter of the particle in Å."),
    root: list[str] = typer.Option([], metavar="NAME=FOLDER", help="A further folder of raw data that the workflow names."),
    set_: list[str] = typer.Option([], "--set", metavar="STEP.PARAM=VALUE", help="Set a parameter; see `icestream steps TYPE`."),
    voltage: float | None = typer.Option(None, help="Acceleration voltage in kV."),
    cs: float | None = typer.Option(None, help="Spherical aberration in mm."),
    amplitude_contrast: float | None = typer.Option(None, help="Fraction of amplitude contrast, 0 to 1."),
    pixel_size: float | None = typer.Option(None, help="Pixel size of the raw movie (or micrograph) in Å."),
    dose_per_frame: float | None = typer.Option(None, help="Dose of one frame in e/Å²."),
    pre_exposure: float | None = typer.Option(None, help="Dose before the first frame in e/Å²."),
) -> None:
    r"""Make a session: a folder with everything about one acquisition. Nothing is processed yet.

    Values of the microscope that you leave out are taken from the files, where they have them.

    Movies from a Krios, with the gain reference:

    ```
    icestream new lysozyme --movies /data/grid3 --pattern '**/*_fractions.tiff' \
        --gain /data/gain.mrc --voltage 300 --cs 2.7 --amplitude-contrast 0.1 \
        --pixel-size 0.83 --dose-per-frame 1.2 --diameter 120 160
    ```

    Micrographs that were motion-corrected elsewhere, with particles scaled to 96 pixels:

    ```
    icestream new gal --micrographs /data/mics --voltage 300 --cs 2.7 \
        --amplitude-contrast 0.1 --pixel-size 1.77 --diameter 150 190 \
        --set particles.scaled_box_px=96
    ```
    """
    from icestream.cli.plan import acquisition_from, check_diameter, document_for, parse_roots, unset_values
    from icestream.flow.session import create_session
    from icestream.workflows import find_workflow

    check_diameter(diameter)
    roots = parse_roots(root, movies=movies, micrographs=micrographs, gain=gain)
    chosen = workflow or ("micrographs_to_classes" if micrographs is not None and movies is None else "movies_to_classes")
    document = document_for(
        session.absolute().name,
        find_workflow(chosen),
        roots=roots,
        pattern=pattern,
        gain_file=None if gain is None else gain.name,
        settings=set_,
        diameter_ang=diameter,
        acquisition=acquisition_from(
            voltage_kv=voltage,
            cs_mm=cs,
            amplitude_contrast=amplitude_contrast,
            pixel_size_ang=pixel_size,
            dose_per_frame_e_per_ang2=dose_per_frame,
            pre_exposure_e_per_ang2=pre_exposure,
        ),
    )
    created = create_session(session, document)
    _report(created, chosen, unset_values(created))
    for name, folder in roots.items():
        if not Path(folder).exists():
            errors().print(f"note: the folder {folder} ({name}) is not there yet", markup=False, soft_wrap=True)


def _report(created: "Session", workflow: str, unset: dict[str, list[str]]) -> None:
    console = output()
    console.print(f"[bold]{escape(str(created.folder))}[/]: a session with the workflow {escape(workflow)}", soft_wrap=True)
    console.print("  " + " → ".join(created.document.steps), soft_wrap=True)
    for value, steps in unset.items():
        errors().print(f"[yellow]note:[/] {value} is not given; {', '.join(steps)} will use what the files say", soft_wrap=True)
    console.print(f"next: {type_next('run', created.folder)}", soft_wrap=True, markup=False)
