"""``icestream particle`` and ``icestream funnel``: what became of one particle, and of all."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.cli.asking import JSON, SESSION
from icestream.cli.console import output, print_json

if TYPE_CHECKING:
    from icestream.observe.particle_history import ParticleEvent

_FATES = {"in": "has it", "removed": "removed it", "not in": "does not have it", "unknown": "cannot say", "exposure": ""}


def particle(
    session: Path = SESSION,
    exposure: str = typer.Argument(help="The exposure by name or id."),
    pid: int = typer.Argument(metavar="NUMBER", min=0, help="Number of the particle on its exposure: the pid of its pick."),
    step: str | None = typer.Option(
        None,
        "--step",
        help="The step whose numbers are meant; by default the last that knows the number, as a consensus of pickers.",
    ),
    json: bool = JSON,
) -> None:
    """Show what became of one particle: its pick and score, where it was set aside and why, its class by version, its pose.

    ```
    icestream particle lysozyme mic_0042 17
    icestream particle lysozyme mic_0042 17 --step pick_blob
    ```
    """
    from icestream.flow.storage import open_session
    from icestream.observe.particle_history import read_particle
    from icestream.observe.queries import open_view

    with open_view(open_session(session)) as view:
        found = read_particle(view, exposure, pid, step=step)
    if json:
        print_json(found)
        return
    lines = [f"{found.exposure}, particle {found.pid}, numbered by {found.numbered_by}"]
    lines += [f"  made of pick {one.pid} of {one.step}, score {one.score:g}" for one in found.parents]
    lines += [f"{one.step}{_of(one)}: {_said(one)}" for one in found.events]
    if found.other_numberings:
        lines.append(f"another particle has this number in {', '.join(found.other_numberings)}: choose with --step")
    for line in lines:
        output().print(line, markup=False, soft_wrap=True)


def _of(event: "ParticleEvent") -> str:
    named = "" if event.output == "out" else f".{event.output}"
    return named if event.version is None else f"{named} version {event.version}"


def _said(event: "ParticleEvent") -> str:
    said = " because: ".join(part for part in (_FATES[event.fate], event.reason) if part)
    values = ", ".join(f"{name}={value:g}" for name, value in (event.values or {}).items())
    return f"{said}; {values}" if values else said


def funnel(session: Path = SESSION, json: bool = JSON) -> None:
    """Show how many exposures and particles are left after each step: from exposures over picks to the particles of a map.

    ```
    icestream funnel lysozyme
    ```
    """
    from rich.table import Table

    from icestream.flow.storage import open_session
    from icestream.observe.funnel import read_funnel
    from icestream.observe.queries import open_view

    with open_view(open_session(session)) as view:
        rows = read_funnel(view)
    if json:
        print_json(rows)
        return
    table = Table("Step", box=None)
    for label in ("Exposures", "Set aside", "Failed", "Particles", "Version"):
        table.add_column(label, justify="right")
    for row in rows:
        values = (row.exposures, row.set_aside, row.failed, row.particles, row.version)
        table.add_row(row.label, *("" if value is None else f"{value:,}" for value in values))
    output().print(table)
