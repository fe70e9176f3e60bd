"""Commands as browsers and scripts send them: their arguments are JSON of bounded depth, checked as everywhere else."""

import json
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, JsonValue

from icestream.flow.commands.requests import Command, read_command

DEEPEST = 8


def _check_depth(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    level: list[JsonValue] = [value]
    for _ in range(DEEPEST):
        level = [
            member for one in level if isinstance(one, dict | list) for member in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return value
    raise ValueError(f"nested deeper than {DEEPEST}")


Arguments = Annotated[dict[str, JsonValue], AfterValidator(_check_depth)]


def read_arguments(kind: str, arguments: Mapping[str, JsonValue]) -> Command:
    """Return a command.

    Raises
    ------
    SessionError
        Its arguments are not what it takes.
    """
    return read_command(kind, json.dumps(arguments))
