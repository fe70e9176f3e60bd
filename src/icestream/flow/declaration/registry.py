"""Finding step types: by entry point (``icestream.steps``), ours and a plugin's alike, or as ``module:function``."""

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version

from icestream.errors import DeclarationError, WorkflowError
from icestream.flow.declaration.guard import import_attribute
from icestream.flow.declaration.step_type import StepType, step_type_of
from icestream.records import Record

GROUP = "icestream.steps"


def step_names() -> list[str]:
    """Return the names of all installed steps."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


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
    found = _load(use, entry.value)
    if found.name != use:
        raise DeclarationError(f"entry point {use!r} leads to a step that calls itself {found.name!r}")
    return found


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
    found = [entry for entry in entry_points(group=GROUP) if use in (entry.name, entry.value)]
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
