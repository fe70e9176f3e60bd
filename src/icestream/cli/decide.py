"""``icestream reject``, ``accept`` and ``withdraw``: what people decide by hand."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from icestream.cli.asking import JSON, REASON, SESSION, finish, submit_here
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.flow.commands.requests import Command
    from icestream.observe.queries import Decision

_EXPOSURES = typer.Argument(None, metavar="EXPOSURE...", help="Names, ids, patterns like `'mic_00*'`, or `-` for standard input.")
_STEP = typer.Option(None, help="The step to decide for.")
_FILE = typer.Option(None, help="A text file with one exposure on each line.")


def reject(
    session: Path = SESSION,
    exposures: list[str] = _EXPOSURES,
    step: str | None = _STEP,
    from_file: Path | None = _FILE,
    reason: str = REASON,
    json: bool = JSON,
) -> None:
    """Reject exposures by hand.

    Without `--step` they are rejected at the source, so that no step uses them. The decision persists through re-runs, until
    `icestream withdraw`.

    ```
    icestream reject lysozyme mic_0042 --reason "crystalline ice"
    icestream reject lysozyme 'mic_01*' --step good
    icestream failed lysozyme --json | jq -r '.[].exposure' | icestream reject lysozyme -
    ```
    """
    _decide(session, exposures, "reject", step=step, from_file=from_file, reason=reason, json=json)


def accept(
    session: Path = SESSION,
    exposures: list[str] = _EXPOSURES,
    step: str | None = _STEP,
    from_file: Path | None = _FILE,
    reason: str = REASON,
    json: bool = JSON,
) -> None:
    """Accept exposures that a filter, or a person, has rejected.

    Without `--step` this applies to the step that rejected the exposure. The decision persists through re-runs, until
    `icestream withdraw`.

    ```
    icestream accept lysozyme mic_0042 --reason "looks fine"
    icestream accept lysozyme mic_0042 --step good
    ```
    """
    _decide(session, exposures, "accept", step=step, from_file=from_file, reason=reason, json=json)


def withdraw(
    session: Path = SESSION,
    exposures: list[str] = _EXPOSURES,
    step: str | None = _STEP,
    from_file: Path | None = _FILE,
    json: bool = JSON,
) -> None:
    """Withdraw an override: the step decides again by itself, with its own parameters.

    This undoes `reject`, `accept` and `recompute`. Results that already exist are reused.

    ```
    icestream withdraw lysozyme mic_0042
    icestream withdraw lysozyme mic_0042 --step ctf
    ```
    """
    _decide(session, exposures, "lift", step=step, from_file=from_file, reason="", json=json)


def _decide(
    session: Path,
    exposures: list[str] | None,
    verdict: Literal["accept", "reject", "lift"],
    *,
    step: str | None,
    from_file: Path | None,
    reason: str,
    json: bool,
) -> None:
    from icestream.flow.commands.requests import Override
    from icestream.flow.storage import open_session
    from icestream.observe.queries import open_view

    wanted = listed_exposures(exposures or [], from_file)
    with open_view(open_session(session)) as view:
        units = view.choose(wanted)
        decided = [one for one in view.decisions(units) if step in (None, one.step)] if verdict == "lift" else []
    if verdict == "lift":
        if not decided:
            raise SessionError("there is no override for " + ", ".join(wanted) + (f" at {step}" if step else ""))
        commands: list[Command] = [_take_back(one) for one in decided]
    else:
        commands = [Override(unit=unit, verdict=verdict, step=step, reason=reason) for unit in units]
    finish(submit_here(session, commands), json=json)


def _take_back(decision: "Decision") -> "Command":
    from icestream.flow.commands.requests import Override, Recompute

    if decision.params is not None:
        return Recompute(unit=decision.unit, step=decision.step, lift=True)
    return Override(unit=decision.unit, verdict="lift", step=decision.step)


def listed_exposures(exposures: list[str], from_file: Path | None) -> list[str]:
    """Return what was named: on the command line, in a file, on standard input.

    Raises
    ------
    SessionError
        Nothing was named.
    """
    named = [name for name in exposures if name != "-"]
    if from_file is not None:
        named += from_file.read_text(encoding="utf-8").splitlines()
    if "-" in exposures:
        named += sys.stdin.read().splitlines()
    named = [name.strip() for name in named if name.strip()]
    if not named:
        raise SessionError("no exposure given; use names, patterns, --from-file, or - for standard input")
    return named
