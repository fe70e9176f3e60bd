"""Fault points: a test names one in the environment, and the process dies there, as if the power had gone."""

import os
import signal
from collections.abc import Callable

VARIABLE = "ICESTREAM_DIE_AT"

POINTS = (
    "claimed",
    "source_started",
    "before_commit",
    "after_commit",
    "after_sync",
    "before_give",
    "after_give",
    "before_drop_files",
    "before_close",
)
"""Every point between two commits where the runner can be interrupted."""

TRASH_POINTS = ("before_trash", "within_trash", "after_trash")
"""Further ones, where files are moved into the trash, out of it, or deleted."""


def fault_point(name: str) -> None:
    """Die (SIGKILL) here if the environment says ``name:count`` and this is the ``count``-th time."""
    for hook in hooks:
        hook(name)
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    point, _, count = wanted.partition(":")
    if point != name:
        return
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] >= int(count or "1"):
        os.kill(os.getpid(), signal.SIGKILL)


hooks: list[Callable[[str], None]] = []
"""What a test in this process wants to be told at each point; a virtual machine raises there to let a runner die."""

_passed: dict[str, int] = {}
