"""What a step says about a unit, and how an attempt ends badly."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Keys = Mapping[str, str]
Member = tuple[str, Keys]


class Status(StrEnum):
    """What a step says about a unit. Every unit gets one from every step."""

    ITEM = "item"
    REJECTED = "rejected"
    FAILED = "failed"
    SKIPPED = "skipped"
    ABSENT = "absent"


class FailureKind(StrEnum):
    """How an attempt ended badly."""

    ITEM = "item"
    ERROR = "error"
    TRANSIENT = "transient"
    GONE = "gone"
    NOT_YET = "not_yet"
    WORKER_DIED = "worker_died"
    ENVIRONMENT = "environment"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    REMOVED = "removed"
    """A file that it reads was removed, and is computed again first."""


UNCOUNTED = frozenset({FailureKind.CANCELLED, FailureKind.PREEMPTED, FailureKind.REMOVED})
"""How an attempt ends that says nothing about its item: never counted, tried again at once."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a unit at a step: ``keys`` maps the step's outputs to result keys."""

    status: Status
    keys: Keys = field(default_factory=dict)
    weight: int = 1
    reason: str | None = None
    root: str | None = None
    missing: tuple[str, ...] = ()


Outcomes = Mapping[str, Outcome]
