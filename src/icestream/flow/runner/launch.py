"""Starting a runner in a process of its own, which outlives the one that started it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def launch_runner(session: Path, options: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Run a session in a process of its own that outlives this one; return it, and where its words begin in its log."""
    log = session / "logs" / "runner.log"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "icestream", "run", str(session), *options]
    with log.open("ab") as target:
        started = target.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ
        )
    return process, started


def typed_options(
    *, cores: int | None, newest_first: bool, where: tuple[str, str | None, Path | None] = ("local", None, None)
) -> list[str]:
    """Return the options of ``icestream run`` as they are typed; ``where`` is executor, scheduler and settings of a cluster."""
    executor, scheduler, cluster_settings = where
    options = {
        "--cores": cores,
        "--executor": executor,
        "--scheduler": scheduler,
        "--cluster-settings": None if cluster_settings is None else cluster_settings.resolve(),
    }
    typed = [text for name, value in options.items() if value is not None for text in (name, str(value))]
    return [*typed, "--newest-first"] if newest_first else typed
