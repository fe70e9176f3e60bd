"""The one place where any exception is caught: around a call of a step."""

import errno
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from icestream.errors import ItemError
from icestream.flow.moves import FailureKind

_NOT_THE_ITEM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
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

    An `ItemError` is the item's fault and final; a failing disk or memory may heal; anything else is an error in the step.
    """
    try:
        return function(*arguments, **named)
    except ItemError as error:
        return _failure(FailureKind.ITEM, error, str(error))
    except (OSError, MemoryError) as error:
        full = isinstance(error, OSError) and error.errno in _NOT_THE_ITEM
        kind = FailureKind.ENVIRONMENT if full else FailureKind.TRANSIENT
        return _failure(kind, error, f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - a step may raise anything; the stream must go on
        return _failure(FailureKind.ERROR, error, f"{type(error).__name__}: {error}")


def _failure(kind: FailureKind, error: BaseException, message: str) -> CallFailure:
    return CallFailure(kind, type(error).__name__, message, "".join(traceback.format_exception(error)))
