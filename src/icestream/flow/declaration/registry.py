"""Finding step types: by entry point (``icestream.steps``), ours and a plugin's alike, or as ``module:function``."""

import re
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points, packages_distributions, version

from icestream.errors import DeclarationError, WorkflowError
from icestream.flow.declaration.guard import import_attribute
from icestream.flow.declaration.step_type import StepType, step_type_of
from icestream.records import Record

STEPS_GROUP = "icestream.steps"

PLUGIN_API = "1.0"
"""Version of what plugins are written with: the first number grows where something was removed, the second where it was added."""

_API_GROUP = "icestream.plugin_api"
_API = re.compile(r"(\d+)\.(\d+)\Z")


def step_names() -> list[str]:
    """Return the names of all installed steps."""
    return sorted({entry.name for entry in entry_points(group=STEPS_GROUP)})


@lru_cache(maxsize=256)
def find_step(use: str) -> StepType:
    """Return the step type named ``use``.

    Raises
    ------
    WorkflowError
        No step has this name, or the module cannot be imported.
    DeclarationError
        The name leads to something that is not a step, or to a step of another name.
    """
    if ":" in use:
        return _load(use, use)
    entry = _entry_of(use)
    if entry is None:
        raise WorkflowError(f"no step type is called {use!r}; installed: {', '.join(step_names())}")
    check_plugin_api(entry)
    found = _load(use, entry.value)
    if found.name != use:
        raise DeclarationError(f"entry point {use!r} leads to a step that calls itself {found.name!r}")
    return found


def plugin_api_of(distribution: Distribution | None) -> str | None:
    """Return the version of the plugin interface that a distribution was written for; None where it does not say one."""
    named = [] if distribution is None else distribution.entry_points.select(group=_API_GROUP)
    return next((entry.name for entry in named), None)


def check_plugin_api(entry: EntryPoint) -> None:
    """Refuse a plugin that was written for another version of what plugins are written with, without importing it.

    Raises
    ------
    WorkflowError
        Its first number is another one, or its second is larger than ours; or it is no version.
    """
    wanted = plugin_api_of(entry.dist)
    if wanted is None or entry.dist is None:
        return
    said, ours = _API.match(wanted), PLUGIN_API.split(".")
    name = f"{entry.dist.name} {entry.dist.version}"
    if said is None:
        raise WorkflowError(
            f"{name}: says {wanted!r} as the version of its plugin interface; it must be two numbers, as {PLUGIN_API}"
        )
    if (said[1] == ours[0]) and int(said[2]) <= int(ours[1]):
        return
    older = (int(said[1]), int(said[2])) < (int(ours[0]), int(ours[1]))
    mend = f"install a newer {entry.dist.name}" if older else "install a newer icestream"
    raise WorkflowError(f"{name}: was written for version {wanted} of the plugin interface, icestream has {PLUGIN_API}: {mend}")


@lru_cache(maxsize=256)
def plugin_of(use: str) -> str:
    """Return the plugin that the step type ``use`` comes from, as ``name version``; empty for one of icestream's own.

    A module that no installed distribution has is named without a version.
    """
    entry = _entry_of(use)
    package = (use if entry is None else entry.value).partition(":")[0].partition(".")[0]
    if package == __package__.partition(".")[0]:
        return ""
    if entry is not None and entry.dist is not None:
        return f"{entry.dist.name} {entry.dist.version}"
    names = packages_distributions().get(package)
    return f"{names[0]} {version(names[0])}" if names else package


def _entry_of(use: str) -> EntryPoint | None:
    """Return the entry point of a step type; a plugin cannot take a name that icestream uses."""
    own = __package__.partition(".")[0] + "."
    found = [entry for entry in entry_points(group=STEPS_GROUP) if use in (entry.name, entry.value)]
    return min(found, key=lambda entry: not entry.value.startswith(own), default=None)


def _load(use: str, target: str) -> StepType:
    try:
        return step_type_of(import_attribute(target))
    except WorkflowError as error:
        raise WorkflowError(f"step type {use!r}: {error}") from error


@lru_cache(maxsize=256)
def find_record(name: str) -> type[Record]:
    """Return the record type ``module:name`` that a step of the workflow gives.

    Raises
    ------
    WorkflowError
        The name leads to nothing.
    DeclarationError
        The name leads to something that is no record.
    """
    found = import_attribute(name)
    if not (isinstance(found, type) and issubclass(found, Record)):
        raise DeclarationError(f"{name} is not a record that can be imported; declare it at the top level of its module")
    return found
