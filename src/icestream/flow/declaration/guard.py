"""The one place where any exception is caught: around a call of a step."""

import errno
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from icestream.errors import ItemError, SourceGone
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


def call_step(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a step's function; return what it returns, or a `CallFailure`.

    An `ItemError` is the item's fault and final; a file that is not there may be back in a moment, with its folder; a failing
    disk may heal; what ran out of memory is tried with fewer resources; anything else is an error in the step.
    """
    try:
        return function(*arguments, **named)
    except SourceGone as error:
        return _failure(FailureKind.GONE, error, str(error))
    except ItemError as error:
        return _failure(FailureKind.ITEM, error, str(error))
    except Exception as error:  # noqa: BLE001 - a step may raise anything; the stream must go on
        text = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            had = f"its process had used up to {peak_memory_gb():.1f} GB of memory"
            return _failure(FailureKind.OUT_OF_MEMORY, error, f"ran out of memory ({text}); {had}")
        if isinstance(error, OSError):
            kind = FailureKind.ENVIRONMENT if error.errno in _NOT_THE_ITEM else FailureKind.TRANSIENT
            return _failure(kind, error, text)
        return _failure(FailureKind.ERROR, error, text)


def _failure(kind: FailureKind, error: BaseException, message: str) -> CallFailure:
    return CallFailure(kind, type(error).__name__, message, "".join(traceback.format_exception(error)))
