"""``icestream next-holes``: which holes to expose next."""

from pathlib import Path

import typer

from icestream.cli.asking import SESSION
from icestream.cli.console import errors, output
from icestream.counting import counted


def next_holes(
    session: Path = SESSION,
    form: str = typer.Option("text", "--format", help="text, json or csv."),
    good: list[str] = typer.Option(
        [],
        "--good",
        metavar="MEASURE,LOW,HIGH",
        help="A good exposure is in this range; a number may be empty. By default the CTF resolution is at most 6 Å.",
    ),
    goes_with: str | None = typer.Option(
        None, "--goes-with", metavar="MEASURE", help="The measure that is predicted for the holes; by default the ice thickness."
    ),
    explore: float = typer.Option(0.5, min=0.0, max=10.0, help="Worth of a square's uncertainty; 0: the best by what is known."),
    limit: int = typer.Option(100, min=1, max=1000, help="At most so many holes."),
    all_holes: bool = typer.Option(False, "--all", help="Also holes that the acquisition software does not mean to expose."),
    holes: Path | None = typer.Option(None, "--holes", help="Choose from these: CSV or JSON with hole, y_um, x_um, square."),
) -> None:
    """List the holes to expose next, the best first, by a score learnt from what was exposed.

    Positions are those of the stage in µm. `expected` is the share of good exposures to expect in the hole, from 0 to 1, `sd` its
    standard deviation, and `score` what the rows are sorted by: it also counts what a square would teach.

    ```
    icestream next-holes lysozyme
    icestream next-holes lysozyme --format json --limit 20
    icestream next-holes lysozyme --good ctf:ctf_resolution_angstroms,,5 --holes holes.csv
    ```
    """
    from icestream.flow.storage import open_session
    from icestream.observe.next_holes import NextQuery, read_next_holes, write_next_holes
    from icestream.observe.queries import open_view

    query = NextQuery.of_texts(good, goes_with, explore, limit, all_holes)
    with open_view(open_session(session)) as view:
        found = read_next_holes(view, query, listed=holes)
    for sentence in found.missing:
        errors().print(sentence, markup=False, soft_wrap=True)
    if form != "text":
        typer.echo(write_next_holes(found, form), nl=False)
        return
    console = output()
    share = "" if found.good_share is None else f", {100 * found.good_share:.0f} % of the exposures so far are good"
    head = f"{counted(found.n_candidates, 'hole')} to choose from, learnt from {found.n_judged}{share}"
    console.print(f"{head}; good: {'; '.join(found.good)}", markup=False, soft_wrap=True)
    for one in found.holes:
        place = f"{one.hole}  square {one.square or '–'}  x {one.x_um:.2f}  y {one.y_um:.2f} µm"
        console.print(f"{one.rank:4d}  {place}  expected {one.expected:.2f} ± {one.sd:.2f}", markup=False, soft_wrap=True)
