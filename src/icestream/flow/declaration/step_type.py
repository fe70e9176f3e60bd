"""Declaring a step: a typed function becomes a node of a workflow.

Arguments are recognised by their type::

    a Record            an input port (one exposure)
    Record | None       an optional port
    list[Record]        a port that takes any number of streams (maps and filters)
    Sequence[Record]    an input port of an accumulator: one element per exposure, ports aligned
    a Snapshot          a port bound to one version at first use
    Params              the parameters        Acquisition   the values named in ``reads``
    Context             the engine's side     Progress      what a gate decides on
    InputNames          the steps behind the items of list inputs (maps)

The decorator returns the same function, so a test calls it.
"""

import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from icestream.errors import DeclarationError
from icestream.flow.declaration.context import Context, Exposure, InputNames, Params, Progress, Verdict
from icestream.flow.declaration.program import Program
from icestream.flow.declaration.source import Foreseen, SourceContext
from icestream.records import Acquisition, Comparison, Method, Record, Snapshot

StateT = TypeVar("StateT", bound=Record)
SnapshotT = TypeVar("SnapshotT", bound=Snapshot)

GpuUse = Literal["optional", "required"]
"""What becomes of a step with ``gpu_gb`` on a machine without a GPU: it runs on cores, or the session is refused."""


class Kind(StrEnum):
    """The six kinds of step."""

    SOURCE = "source"
    MAP = "map"
    FILTER = "filter"
    GATE = "gate"
    COLLECT = "collect"
    ACCUMULATE = "accumulate"


@dataclass(frozen=True)
class Port:
    """One typed input of a step."""

    name: str
    record: type[Record]
    many: bool = False
    optional: bool = False

    @property
    def generic(self) -> bool:
        """The port takes any record; what passes it on gives the type that it is linked to."""
        return self.record is Record

    @property
    def bound(self) -> bool:
        """The port takes a snapshot, bound to one version at first use."""
        return issubclass(self.record, Snapshot)


@dataclass(frozen=True)
class StepType:
    """A declared step type."""

    name: str
    version: int
    kind: Kind
    call: Any
    params: type[Params]
    ports: tuple[Port, ...]
    output: type[Record] | None
    assigns: type[Record] | None = None
    reads: frozenset[str] = frozenset()
    arguments: dict[str, str] = field(default_factory=dict)
    cores: int = 1
    memory_gb: float = 1.0
    gpu_gb: float = 0.0
    gpu: GpuUse = "optional"
    max_hours: float | None = None
    programs: tuple[Program, ...] = ()
    """Programs of other people that it runs."""
    cumulative: bool = False
    """Of a batch step: every batch holds all exposures so far."""
    admit: "Callable[[str, Any], Verdict] | None" = None
    """Of a gate: keeps or rejects each exposure by its id alone, before it waits."""
    check: "Callable[[Any, Mapping[str, type[Record]]], None] | None" = None
    """Raises `WorkflowError` where parameters do not fit the records that generic ports are linked to."""
    foresee: "Callable[[Any, Path], Iterable[Foreseen]] | None" = None
    """Of a source: what its parameters and the folder say before it runs."""
    min_inputs: int = 1
    compares: Comparison | None = None
    """What is shown of two streams that the step joins."""
    method: Method | None = None
    """What the step does in the words of a methods section, and what is to be cited for it."""

    @property
    def is_source(self) -> bool:
        """It makes items of what it finds; it reads no other step."""
        return self.kind is Kind.SOURCE

    @property
    def computes(self) -> bool:
        """It makes a result of each unit, with a key of its own."""
        return self.kind is Kind.MAP

    @property
    def is_filter(self) -> bool:
        """It keeps or rejects each unit by looking at it."""
        return self.kind is Kind.FILTER

    @property
    def is_gate(self) -> bool:
        """It holds the stream until its rule lets it pass."""
        return self.kind is Kind.GATE

    @property
    def collects(self) -> bool:
        """It cuts the stream into batches."""
        return self.kind is Kind.COLLECT

    @property
    def accumulates(self) -> bool:
        """It grows a state with the stream."""
        return self.kind is Kind.ACCUMULATE

    @property
    def names_inputs(self) -> bool:
        """It is told which steps the items of its list inputs come from."""
        return "names" in self.arguments.values()

    @property
    def decides_membership(self) -> bool:
        """It says who belongs to a stream and passes on the keys of its inputs, unchanged."""
        return self.kind in (Kind.FILTER, Kind.GATE)

    @property
    def works_on_units(self) -> bool:
        """Its function is called for each unit by itself."""
        return self.kind in (Kind.MAP, Kind.FILTER)

    @property
    def holds_units(self) -> bool:
        """Units wait there until its rule says that there are enough; they may also be let go by hand."""
        return self.kind in (Kind.GATE, Kind.COLLECT)

    @property
    def takes_many(self) -> bool:
        """It takes many units together and keeps what it took, whatever becomes of them later."""
        return self.kind in (Kind.COLLECT, Kind.ACCUMULATE)

    @property
    def has_rule(self) -> bool:
        """A rule is asked whether those that wait there are enough."""
        return self.kind in (Kind.GATE, Kind.COLLECT, Kind.ACCUMULATE)

    @property
    def makes_results(self) -> bool:
        """It computes what it publishes: items, or versions."""
        return self.kind in (Kind.MAP, Kind.ACCUMULATE)

    @property
    def time_limit_s(self) -> float | None:
        """How long one call may take; no limit if unset."""
        return None if self.max_hours is None else 3600.0 * self.max_hours

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        return (self.call.__doc__ or "").strip().split("\n")[0]


class Accumulator(Generic[StateT, SnapshotT]):
    """A state that grows with the stream and publishes snapshots; subclasses are functions, they keep no state.

    ``add`` also has one ``Sequence[Record]`` argument for each input port, aligned with ``exposures``.
    """

    portion: ClassVar[int] = 50
    """The most exposures that one call of ``add`` takes."""

    def when(self, progress: Progress, params: Any) -> Verdict:
        """Decide, without side effects, whether to call `add` now; by default as soon as anything waits."""
        return Verdict(accepted=progress.waiting > 0 or progress.stream_closed)

    def start(self, params: Any, ctx: Context) -> StateT:
        """Return the state before the first item."""
        raise NotImplementedError

    add: Callable[..., "Update[StateT]"]
    """``add(self, state, exposures: Sequence[Exposure], <ports>, params, ctx)``: the state with the exposures added, and the
    assignments of the exposures it touched."""

    def emit(self, state: StateT, params: Any, ctx: Context) -> SnapshotT | Verdict:
        """Return the snapshot to publish for ``state``; or `wait` with the reason why there is nothing to publish yet."""
        raise NotImplementedError


@dataclass(frozen=True)
class Update(Generic[StateT]):
    """What `Accumulator.add` returns: the new state, and an assignment record for each exposure id it touched."""

    state: StateT
    assignments: dict[str, Record] = field(default_factory=dict)


def step_type_of(target: object) -> StepType:
    """Return the `StepType` that a decorator attached to ``target``."""
    declared = getattr(target, "__icestream_step__", None)
    if not isinstance(declared, StepType):
        raise DeclarationError(f"{target!r} is not a step: decorate it with @step.map, @step.filter, …")
    return declared


def read_signature(name: str, function: Callable[..., Any]) -> tuple[dict[str, str], list[Port], type[Params]]:
    """Sort the arguments of a step function into roles, ports and parameters."""
    hints = typing.get_type_hints(function)
    hints.pop("return", None)
    roles: dict[str, str] = {}
    ports: list[Port] = []
    params: type[Params] = Params
    for argument, hint in hints.items():
        role, port = _read_argument(name, argument, hint)
        roles[argument] = role
        if port is not None:
            ports.append(port)
        if role == "params":
            params = hint if isinstance(hint, type) else Params
    return roles, ports, params


_ROLES: dict[Any, str] = {
    Context: "context",
    SourceContext: "context",
    Progress: "progress",
    InputNames: "names",
    Acquisition: "acquisition",
    Sequence[Exposure]: "exposures",
    Sequence[Acquisition]: "acquisition",
}


def _read_argument(step_name: str, argument: str, hint: Any) -> tuple[str, Port | None]:
    if hint in _ROLES:
        return _ROLES[hint], None
    if argument == "params" and (hint is Any or (isinstance(hint, type) and issubclass(hint, Params))):
        return "params", None
    if argument == "state":
        return "state", None
    inner, optional = _strip_none(hint)
    many = typing.get_origin(inner) is list
    if many or typing.get_origin(inner) is Sequence:
        (inner,) = typing.get_args(inner)
        inner, inner_optional = _strip_none(inner)
        optional = optional or inner_optional
    if isinstance(inner, type) and issubclass(inner, Record):
        return "port", Port(argument, inner, many=many, optional=optional)
    raise DeclarationError(
        f"step {step_name!r}: argument {argument!r} has type {hint!r}; must be one of Record, Record | None, list[Record], "
        "Sequence[Record], Params, Acquisition, Context, Progress, InputNames"
    )


def _strip_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [member for member in typing.get_args(hint) if member is not type(None)]
        if len(rest) == 1:
            return rest[0], True
    return hint, False
