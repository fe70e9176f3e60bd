"""The decorators ``@step.source … @step.accumulate``."""

import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from string import Formatter
from typing import Any, TypeVar

from icestream.errors import DeclarationError
from icestream.flow.declaration.context import Verdict
from icestream.flow.declaration.program import Program
from icestream.flow.declaration.source import Foreseen
from icestream.flow.declaration.step_type import Accumulator, GpuUse, Kind, Port, StepType, read_signature
from icestream.records import Acquisition, Comparison, Method, Record, Snapshot, check_shown

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type[Accumulator[Any, Any]])
TargetT = TypeVar("TargetT")


_MAKERS = (Kind.SOURCE, Kind.MAP, Kind.ACCUMULATE)
"""Kinds of step that make records of their own."""


def _attach(target: TargetT, declared: StepType) -> TargetT:
    if not declared.summary:
        raise DeclarationError(f"step {declared.name!r}: the docstring is missing; its first sentence is shown to users")
    unknown = declared.reads - set(Acquisition.model_fields)
    if unknown:
        allowed = ", ".join(Acquisition.model_fields)
        raise DeclarationError(
            f"step {declared.name!r}: reads {sorted(unknown)}, which is not an acquisition value; allowed: {allowed}"
        )
    if declared.gpu == "required" and declared.gpu_gb <= 0:
        raise DeclarationError(
            f"step {declared.name!r}: needs a GPU but declares gpu_gb={declared.gpu_gb:g}; say how much memory"
        )
    if declared.reads and "acquisition" not in declared.arguments.values():
        raise DeclarationError(f"step {declared.name!r}: declares reads but has no argument of type Acquisition")
    if declared.names_inputs and declared.kind is not Kind.MAP:
        raise DeclarationError(f"step {declared.name!r}: only a map can be told the names of its inputs, it is a {declared.kind}")
    if declared.method is not None:
        _check_method(declared, declared.method)
    if declared.compares is not None:
        _check_comparison(declared, declared.compares)
    for record in (declared.output, declared.assigns) if declared.kind in _MAKERS else ():
        if record is not None and record is not Record and not record.stored_name:
            raise DeclarationError(
                f"step {declared.name!r}: makes records of {record.__name__}, which has no stored_name; give it one for good"
            )
    target.__icestream_step__ = declared  # type: ignore[attr-defined]
    return target


def _check_comparison(declared: StepType, comparison: Comparison) -> None:
    records = {port.name: port.record for port in declared.ports}
    for port in (comparison.first, comparison.second):
        if port not in records:
            raise DeclarationError(
                f"step {declared.name!r}: compares {port!r}, which is not an input; its inputs are {', '.join(records)}"
            )
        check_shown(comparison.number, records[port])


def _check_method(declared: StepType, method: Method) -> None:
    """Refuse sentences with parameters that the step does not have."""
    for one in method.sentences:
        named = [path for _, path, _, _ in Formatter().parse(one.template) if path is not None]
        named += [] if one.when is None else [one.when.field]
        unknown = [path for path in named if path not in declared.params.model_fields]
        if unknown:
            raise DeclarationError(
                f"step {declared.name!r}: its method names {', '.join(unknown)}, which is no parameter of it; "
                f"it has {', '.join(declared.params.model_fields) or 'none'}"
            )


def _expect_output(name: str, hint: Any, *, parent: type) -> Any:
    if not (isinstance(hint, type) and issubclass(hint, parent)):
        raise DeclarationError(f"step {name!r}: returns {hint!r}; it must return a {parent.__name__}")
    return hint


class _Declare:
    """Decorators that declare steps."""

    def source(
        self,
        name: str,
        *,
        version: int,
        output: type[Record],
        foresee: "Callable[[Any, Path], Iterable[Foreseen]] | None" = None,
        method: Method | None = None,
    ) -> Callable[[F], F]:
        """Declare a generator that finds items: it yields `Arrival`, `Pulse` and `Troubles`.

        ``foresee(params, folder)`` says what can be known before the session is made, of the folder that ``params.root`` names.
        """

        def decorate(function: F) -> F:
            roles, _, params = read_signature(name, function)
            more: dict[str, Any] = {"arguments": roles, "foresee": foresee, "method": method}
            declared = StepType(name, version, Kind.SOURCE, function, params, (), output, **more)
            return _attach(function, declared)

        return decorate

    def map(
        self,
        name: str,
        *,
        version: int,
        reads: tuple[str, ...] = (),
        cores: int = 1,
        memory_gb: float = 1.0,
        gpu_gb: float = 0.0,
        gpu: GpuUse = "optional",
        max_hours: float | None = None,
        programs: tuple[Program, ...] = (),
        compares: Comparison | None = None,
        method: Method | None = None,
    ) -> Callable[[F], F]:
        """Declare a function from the items of one exposure to one item.

        ``gpu_gb`` asks for memory on one GPU where there is one; ``gpu="required"`` refuses machines that have none. ``programs``
        are those of other people that it runs: they are looked for before a session starts. ``compares`` says what is shown of
        two streams that the step joins, ``method`` what a report says of it, and what is to be cited.
        """

        def decorate(function: F) -> F:
            roles, ports, params = read_signature(name, function)
            output = _expect_output(name, typing.get_type_hints(function).get("return"), parent=Record)
            declared = StepType(
                name,
                version,
                Kind.MAP,
                function,
                params,
                _need_ports(name, ports),
                output,
                reads=frozenset(reads),
                arguments=roles,
                cores=cores,
                memory_gb=memory_gb,
                gpu_gb=gpu_gb,
                gpu=gpu,
                max_hours=max_hours,
                programs=programs,
                compares=compares,
                method=method,
            )
            return _attach(function, declared)

        return decorate

    def filter(
        self,
        name: str,
        *,
        version: int,
        reads: tuple[str, ...] = (),
        check: Callable[[Any, Mapping[str, type[Record]]], None] | None = None,
        min_inputs: int = 1,
        compares: Comparison | None = None,
        method: Method | None = None,
    ) -> Callable[[F], F]:
        """Declare a function that keeps or rejects an exposure; every input is passed on under its port's name.

        A port of type `Record` takes any record, and is passed on as what it is linked to. Of a first port that takes any number
        of streams, the first item that is there is passed on. ``check`` is asked when the graph is built, with the parameters and
        the record types of generic ports, and raises `WorkflowError`. ``min_inputs`` is the default of the workflow's.
        """

        def decorate(function: F) -> F:
            roles, ports, params = read_signature(name, function)
            _expect_output(name, typing.get_type_hints(function).get("return"), parent=Verdict)
            ports = list(_need_ports(name, ports))
            declared = StepType(
                name,
                version,
                Kind.FILTER,
                function,
                params,
                tuple(ports),
                ports[0].record,
                reads=frozenset(reads),
                arguments=roles,
                check=check,
                min_inputs=min_inputs,
                compares=compares,
                method=method,
            )
            return _attach(function, declared)

        return decorate

    def gate(self, name: str, *, version: int, admit: Callable[[str, Any], Verdict] | None = None) -> Callable[[F], F]:
        """Declare a pure function of `Progress` that holds the stream until it accepts.

        ``admit`` keeps or rejects each exposure, by its id and the parameters, before it waits; the rejected are a stream of
        their own. A parameter that is marked ``json_schema_extra={"drains": True}`` names steps that are drained when it opens.
        """
        return self._of_progress(name, version=version, kind=Kind.GATE, admit=admit)

    def collect(self, name: str, *, version: int, cumulative: bool = False) -> Callable[[F], F]:
        """Declare a pure function of `Progress` that closes the growing batch when it accepts.

        With ``cumulative`` every batch holds all exposures so far, not only those since the last one.
        """
        return self._of_progress(name, version=version, kind=Kind.COLLECT, cumulative=cumulative)

    def _of_progress(self, name: str, *, version: int, kind: Kind, **more: Any) -> Callable[[F], F]:
        def decorate(function: F) -> F:
            roles, _, params = read_signature(name, function)
            ports = (Port("items", Record),)
            return _attach(function, StepType(name, version, kind, function, params, ports, None, arguments=roles, **more))

        return decorate

    def accumulate(
        self,
        name: str,
        *,
        version: int,
        assigns: type[Record] | None = None,
        reads: tuple[str, ...] = (),
        cores: int = 1,
        memory_gb: float = 1.0,
        gpu_gb: float = 0.0,
        gpu: GpuUse = "optional",
        max_hours: float | None = None,
        programs: tuple[Program, ...] = (),
        method: Method | None = None,
    ) -> Callable[[C], C]:
        """Declare an `Accumulator`: ports are the ``Sequence`` arguments of its ``add``."""

        def decorate(accumulator: C) -> C:
            roles, ports, params = read_signature(name, vars(accumulator)["add"])
            emitted = typing.get_type_hints(accumulator.emit).get("return")
            known = [one for one in typing.get_args(emitted) if one is not Verdict]
            output = _expect_output(name, known[0] if len(known) == 1 else emitted, parent=Snapshot)
            declared = StepType(
                name,
                version,
                Kind.ACCUMULATE,
                accumulator,
                params,
                _need_ports(name, ports),
                output,
                assigns=assigns,
                reads=frozenset(reads),
                arguments=roles,
                cores=cores,
                memory_gb=memory_gb,
                gpu_gb=gpu_gb,
                gpu=gpu,
                max_hours=max_hours,
                programs=programs,
                method=method,
            )
            return _attach(accumulator, declared)

        return decorate


def _need_ports(name: str, ports: list[Port]) -> tuple[Port, ...]:
    if not ports:
        raise DeclarationError(f"step {name!r}: has no input; give it at least one argument typed by a Record")
    return tuple(ports)


step = _Declare()
