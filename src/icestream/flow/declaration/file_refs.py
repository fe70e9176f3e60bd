"""References to files, ``root:relative``: where they lead, and which of them a stored record holds."""

import json
import os
from pathlib import Path

from icestream.errors import SessionError, SourceGone

RESULTS = "steps"
"""The folder of a session below which its results are."""


def resolve_ref(roots: dict[str, str], ref: str) -> Path:
    """Return the absolute path behind ``root:relative``; it cannot leave its root.

    Raises
    ------
    SourceGone
        The root is not known to this session.
    SessionError
        The path leads out of its root.
    """
    name, _, relative = ref.partition(":")
    if name not in roots:
        raise SourceGone(f"{ref}: this session has no root {name!r}; it has {', '.join(sorted(roots))}")
    root = roots[name]
    path = os.path.normpath(os.path.join(root, relative))  # noqa: PTH118
    if path != root and not path.startswith(root.rstrip("/") + "/"):
        raise SessionError(f"{ref}: leads out of its root {root}")
    return Path(path)


def files_named_in(record_json: str) -> list[str]:
    """Return the session's own files that a stored record names."""
    found: list[str] = []
    _collect_files(json.loads(record_json), found)
    return found


def _collect_files(value: object, found: list[str]) -> None:
    if isinstance(value, str) and value.startswith(f"session:{RESULTS}/"):
        found.append(value)
    elif isinstance(value, dict):
        for inner in value.values():
            _collect_files(inner, found)
    elif isinstance(value, list):
        for inner in value:
            _collect_files(inner, found)
