"""The environment of a program: a few variables of ours, the modules that the facility loads for it, and what else it adds."""

import os
import shutil
import subprocess
from functools import lru_cache

from icestream.errors import WorkflowError
from icestream.flow.declaration import ProgramSettings

_PASSED_ON = ("HOME", "LANG", "LC_CTYPE", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER")
"""The variables of ours that a program gets; LC_ALL is C, so that numbers are written with a dot."""
_MODULES_S = 60.0
_LOAD = 'module load "$@" >&2 && exec env -0'
"""What a login shell is given, always the same; the names of modules are its arguments."""


def clean_environment(settings: ProgramSettings) -> dict[str, str]:
    """Return the environment of a program: a few variables of ours, that of its modules, and what the facility adds.

    Raises
    ------
    WorkflowError
        A module cannot be loaded.
    """
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    kept.setdefault("PATH", os.defpath)
    if settings.modules:
        kept = _load_modules(settings.modules, tuple(sorted(kept.items())))
    found = {**kept, "LC_ALL": "C", **settings.environment}
    if settings.prefix is not None:
        found = {**found, "PATH": os.pathsep.join([str(settings.prefix / "bin"), found["PATH"]])}
        found |= {"VIRTUAL_ENV": str(settings.prefix), "CONDA_PREFIX": str(settings.prefix)}
    return found


@lru_cache(maxsize=64)
def _load_modules(modules: tuple[str, ...], environment: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return what is in the environment after modules were loaded, as a login shell of the facility does it."""
    bash = shutil.which("bash")
    if bash is None:
        raise WorkflowError(f"modules {', '.join(modules)}: bash, which loads them, was not found")
    try:
        done = subprocess.run(
            [bash, "-l", "-c", _LOAD, "bash", *modules],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environment),
            timeout=_MODULES_S,
            check=False,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkflowError(f"modules {', '.join(modules)} could not be loaded: {error}") from error
    pairs = (entry.partition("=") for entry in done.stdout.decode(errors="replace").split("\0"))
    found = {name: value for name, _, value in pairs if name}
    if done.returncode != 0 or "PATH" not in found:
        said = " ".join(done.stderr.decode(errors="replace").split())[-400:]
        raise WorkflowError(f"modules {', '.join(modules)} could not be loaded: {said or 'bash said nothing'}")
    return found
