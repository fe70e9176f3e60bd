"""The words of the table that says what Scipion's protocols are in icestream."""

from dataclasses import dataclass, field
from typing import Any

from icestream.workflows.scipion.convert import Convert

PIXEL = "computed with the pixel size of the import protocol"


@dataclass(frozen=True)
class Via:
    """The input ``port`` of the step that ``parameter`` points at: the micrograph that a CTF or a set of picks belongs to."""

    parameter: str
    port: str


@dataclass(frozen=True)
class Rule:
    """One of our parameters: the parameters of Scipion it is made from, how, and what it means now if not the same."""

    target: str
    sources: tuple[str, ...]
    convert: Convert
    changed: str = ""


@dataclass(frozen=True)
class Lost:
    """A parameter without a counterpart; it is told where its value is none of ``neutral``."""

    parameter: str
    neutral: tuple[Any, ...]
    reason: str


@dataclass(frozen=True)
class First:
    """A step that comes first and feeds the input ``port``; ``inputs`` pairs its inputs with those of the step it serves."""

    port: str
    use: str
    step: str
    inputs: dict[str, str]
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Before:
    """A step between the input ``port`` and what feeds it, unless that is a step of one of the types ``unless``.

    ``inputs`` pairs its inputs with those of the step it serves. Protocols that need the same one share it.
    """

    port: str
    use: str
    step: str
    inputs: dict[str, str]
    unless: frozenset[str]
    params: dict[str, Any] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Mapping:
    """What becomes of a protocol. ``outputs`` pairs the start of an output's name with our output; None: there is none.

    ``first`` are steps that one protocol of Scipion is besides: it measures and judges at once, here two steps do. ``before`` are
    steps that what it reads goes through first. ``decided_by`` are parameters that told which step it is.
    """

    use: str
    step: str
    ports: dict[str, tuple[str | Via, ...]]
    rules: tuple[Rule, ...] = ()
    lost: tuple[Lost, ...] = ()
    outputs: tuple[tuple[str, str | None], ...] = ()
    changed: str = ""
    first: tuple[First, ...] = ()
    decided_by: tuple[str, ...] = ()
    before: tuple[Before, ...] = ()
