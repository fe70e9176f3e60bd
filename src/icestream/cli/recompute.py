"""``icestream recompute``: one exposure, or a few, computed again at one step with parameters of their own."""

import re
from pathlib import Path

import typer

from icestream.account import user_name
from icestream.cli.asking import DRY_RUN, JSON, REASON, SESSION, finish
from icestream.cli.decide import listed_exposures
from icestream.cli.edit import read_params

_VALUE = re.compile(r"^[A-Za-z_]\w*=")

_WORDS = typer.Argument(
    None,
    metavar="EXPOSURE... NAME=VALUE...",
    help="Exposures: names, ids, patterns like `'mic_00*'`, or `-` for standard input. Parameters: NAME= restores the default.",
)


def recompute(
    session: Path = SESSION,
    step: str = typer.Argument(help="Name of the step in the workflow (`icestream status` lists them)."),
    words: list[str] = _WORDS,
    from_file: Path | None = typer.Option(None, help="A text file with one exposure on each line."),
    reason: str = REASON,
    dry_run: bool = DRY_RUN,
    json: bool = JSON,
) -> None:
    """Recompute exposures at one step with parameters of their own, and everything downstream of them.

    The values override the parameters of the step. They persist through `set`, `restart` and later runs, until `icestream
    withdraw`, and replace values given earlier for the same exposure at the same step. The other exposures are not touched.

    ```
    icestream recompute lysozyme ctf mic_0042 'defocus_um=[1.2, 2.5]' --dry-run
    icestream recompute lysozyme ctf mic_0042 'defocus_um=[1.2, 2.5]' --reason "second ring taken for the first"
    icestream recompute lysozyme ctf 'mic_01*' 'defocus_um=[1.2, 2.5]'
    icestream withdraw lysozyme mic_0042 --step ctf
    ```
    """
    from icestream.cli.run import make_settings
    from icestream.flow.runner.answering import recompute_exposures
    from icestream.flow.storage import open_session
    from icestream.observe.queries import open_view

    params = read_params([word for word in words or [] if _VALUE.match(word)])
    named = listed_exposures([word for word in words or [] if not _VALUE.match(word)], from_file)
    opened, settings = open_session(session), make_settings(cores=None, newest_first=False)
    with open_view(opened) as view:
        units = view.choose(named)
    if not dry_run:
        finish(recompute_exposures(opened, step, units, params, author=user_name(), settings=settings, reason=reason), json=json)
        return
    from icestream.cli.planned import print_plan
    from icestream.flow.planning.plans import plan_recompute

    fraction = settings.rebuild_fraction
    print_plan(plan_recompute(opened, step, units, params, cores=settings.cores, rebuild_fraction=fraction), json=json)
