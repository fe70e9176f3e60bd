"""The one place where any exception is caught: around what others wrote, a call of a step or the import of its module."""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from icestream.errors import DeclarationError, FileRemoved, ItemError, NotYet, SourceGone, WorkflowError
from icestream.flow.declaration.exhaustion import is_out_of_memory, peak_memory_gb
from icestream.flow.declaration.outcomes import FailureKind

_NOT_THE_ITEM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENODEV}
"""A disk that is full or cannot be written fails whatever it is given."""


@dataclass(frozen=True)
class CallFailure:
    """How a call of a step ended badly."""

    kind: FailureKind
    error_type: str
    message: str
    traceback: str


_KINDS = {SourceGone: FailureKind.GONE, NotYet: FailureKind.NOT_YET, FileRemoved: FailureKind.REMOVED}
"""Errors of an item that are not final; they have no types below them."""


def call_step(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a step's function; return what it returns, or a `CallFailure`.

    An `ItemError` is the item's fault and final; a file that is not there may be back in a moment, with its folder; what another
    program has not made yet may come; a failing disk may heal; what ran out of memory is tried with fewer resources; anything
    else is an error in the step.
    """
    try:
        return function(*arguments, **named)
    except ItemError as error:
        return _failure(_KINDS.get(type(error), FailureKind.ITEM), error, str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a step may raise anything; the stream must go on
        text = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            had = f"its process had used up to {peak_memory_gb():.1f} GB of memory"
            return _failure(FailureKind.OUT_OF_MEMORY, error, f"ran out of memory ({text}); {had}")
        if isinstance(error, OSError):
            kind = FailureKind.ENVIRONMENT if error.errno in _NOT_THE_ITEM else FailureKind.TRANSIENT
            return _failure(kind, error, text)
        return _failure(FailureKind.ERROR, error, text)


def import_plugin(name: str) -> ModuleType:
    """Import a module, whatever it does meanwhile.

    What it prints goes to the error output; the working folder stays as it was.

    Raises
    ------
    WorkflowError
        It raised something, or wanted to end the process.
    DeclarationError
        It declares a step or record wrongly.
    """
    try:
        with _same_folder(), redirect_stdout(sys.stderr):
            return import_module(name)
    except (KeyboardInterrupt, DeclarationError):
        raise
    except BaseException as error:
        raise WorkflowError(f"module {name!r} cannot be imported: {_describe(error)}") from error


@contextmanager
def _same_folder() -> Iterator[None]:
    """Come back to the working folder; one that was removed, or cannot be read, is left as it is."""
    try:
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.fchdir(folder)
        os.close(folder)


def import_attribute(name: str) -> object:
    """Return what ``module:path.to.it`` names.

    Raises
    ------
    WorkflowError
        The module cannot be imported (see `import_plugin`), or has no such name.
    DeclarationError
        The module declares a step or record wrongly.
    """
    module_name, _, path = name.partition(":")
    found: object = import_plugin(module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise WorkflowError(f"module {module_name!r} has no {path!r}")
        found = getattr(found, part)
    return found


def _describe(error: BaseException) -> str:
    """Return what was raised, and where if that was not in the machinery of imports."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    return said if len(frames) < 3 else f"{said} ({frames[-1].filename}, line {frames[-1].lineno})"


def _failure(kind: FailureKind, error: BaseException, message: str) -> CallFailure:
    return CallFailure(kind, type(error).__name__, message, "".join(traceback.format_exception(error)))
