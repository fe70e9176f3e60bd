"""From what a person typed to the document of a session."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from icestream.documents import parse_typed_value
from icestream.errors import WorkflowError
from icestream.flow.workflow import describe_refused
from icestream.records import Acquisition, PossibleAcquisition
from icestream.workflows import Template


def parse_roots(given: Iterable[str], *, movies: Path | None, micrographs: Path | None, gain: Path | None) -> dict[str, str]:
    """Return the named folders of raw data, as absolute paths.

    Raises
    ------
    WorkflowError
        A root is not written as NAME=FOLDER, or is no folder.
    """
    roots = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise WorkflowError(f"--root {text!r}: write NAME=FOLDER")
        roots[name] = str(Path(folder).absolute())
    folders = {"movies": movies, "micrographs": micrographs, "gain": None if gain is None else gain.parent}
    roots |= {name: str(folder.absolute()) for name, folder in folders.items() if folder is not None}
    for name, path in roots.items():
        if any(mark in path for mark in "*?") and not Path(path).exists():
            raise WorkflowError(f"{name}: {path} is a pattern; give the folder, and the pattern with --pattern")
        if Path(path).exists() and not Path(path).is_dir():
            raise WorkflowError(f"{name}: {path} is a file; give the folder that contains it, and --pattern for its name")
    return roots


def acquisition_from(**values: float | None) -> Acquisition:
    """Check the values of the microscope.

    Raises
    ------
    WorkflowError
        A value is outside of what is possible.
    """
    try:
        return PossibleAcquisition.model_validate(values)
    except ValidationError as error:
        raise WorkflowError("; ".join(describe_refused(error))) from error


def split_roots(template: Template, roots: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the folders that the template asks for by the name of a root, and the others."""
    asked = {name: path for name, path in roots.items() if name in template.placeholders}
    return asked, {name: path for name, path in roots.items() if name not in asked}


def split_settings(settings: Iterable[str]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Return what ``--set name=value`` says of placeholders, as text, and ``--set step.param=value`` of steps."""
    texts = list(settings)
    names = [text for text in texts if "=" in text and "." not in text.partition("=")[0]]
    values = {name: value for name, _, value in (text.partition("=") for text in names)}
    return values, parse_settings(text for text in texts if text not in names)


def parse_settings(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read ``step.param=value`` texts; ``[0.5, 3]``, ``true`` and ``null`` mean what they say, and ``*.tiff`` is text.

    Raises
    ------
    WorkflowError
        A setting is written otherwise.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in settings:
        target, equals, value = text.partition("=")
        step, dot, parameter = target.partition(".")
        if not (step and dot and parameter and equals):
            raise WorkflowError(f"--set {text!r}: write STEP.PARAM=VALUE, as in --set ctf.tile_ang=900")
        found.setdefault(step, {})[parameter] = _read_value(text, value)
    return found


def parse_connections(given: Iterable[str]) -> dict[str, str]:
    """Read ``input=step`` or ``input=step.output`` texts.

    Raises
    ------
    WorkflowError
        One is written otherwise.
    """
    found = {}
    for text in given:
        name, equals, target = text.partition("=")
        if not (name and equals and target):
            raise WorkflowError(f"--connect {text!r}: write INPUT=STEP or INPUT=STEP.OUTPUT")
        found[name] = target
    return found


def parse_values(settings: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` texts, their values as `parse_settings` does.

    Raises
    ------
    WorkflowError
        A setting is written otherwise.
    """
    found = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise WorkflowError(f"--set {text!r}: write NAME=VALUE")
        found[name] = _read_value(text, value)
    return found


def _read_value(text: str, value: str) -> Any:
    try:
        return parse_typed_value(value)
    except ValueError as error:
        raise WorkflowError(f"--set {text!r}: the value {error}; put text with such characters in quotes") from None
