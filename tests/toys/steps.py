"""Small steps on numbers, to test the engine and to show a step author every kind."""

import errno
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from icestream.errors import ItemError
from icestream.flow import (
    Accumulator,
    Arrival,
    Context,
    Exposure,
    Field,
    Params,
    Progress,
    Pulse,
    SourceContext,
    Update,
    Verdict,
    Watch,
    keep,
    reject,
    step,
    wait,
)
from icestream.records import Acquisition, FileRef, Record, Snapshot


class Number(Record):
    """A number, and a file that holds it."""

    stored_name: ClassVar[str] = "toy.Number"

    value: int
    file: FileRef | None = None


class Crowd(Record):
    """So many things at once, as the particles of a micrograph."""

    stored_name: ClassVar[str] = "toy.Crowd"

    count: int

    @property
    def weight(self) -> int:
        """How many there are."""
        return self.count


class Total(Snapshot):
    """A sum so far."""

    stored_name: ClassVar[str] = "toy.Total"

    value: int
    count: int
    file: FileRef


class TotalState(Record):
    """What `AddUp` remembers."""

    value: int = 0
    count: int = 0
    history: list[int] = Field(default_factory=list)
    file: FileRef | None = None


class Share(Record):
    """What an exposure contributed to a total."""

    stored_name: ClassVar[str] = "toy.Share"

    value: int
    total: int


class CountParams(Params):
    """Which numbers arrive."""

    folder: str = Field("numbers", description="Root whose files are the numbers: the name counts")
    stop_after: int = Field(ge=0, description="Close the stream after so many", json_schema_extra={"operational": True})
    idle_s: float = Field(60.0, description="Close after so long without a new one", json_schema_extra={"operational": True})


@step.source("toy_numbers", version=1, output=Number)
def count_numbers(params: CountParams, ctx: SourceContext) -> Watch:
    """Take a number from the name of each file of a folder."""
    taken: set[str] = set()
    idle_since = time.monotonic()
    folder = ctx.path(f"{params.folder}:.")
    while len(taken) < params.stop_after and time.monotonic() - idle_since < params.idle_s:
        new = sorted(path.name for path in Path(folder).iterdir() if path.name not in taken)
        for name in new:
            taken.add(name)
            idle_since = time.monotonic()
            broken = name.startswith("broken")
            record = None if broken else Number(value=int(name))
            yield Arrival(identity=name, name=name, record=record, error="is broken" if broken else None)
        if not new:
            yield Pulse(f"{len(taken)} so far")
            ctx.wait(0.02)
        if ctx.stopping():
            return "stopping"
    return f"{len(taken)} numbers came"


class DoubleParams(Params):
    """How to multiply."""

    factor: int = Field(2, description="Multiply by this")
    fail_on: list[int] = Field(default_factory=list, description="Numbers that are refused")
    crash_on: list[int] = Field(default_factory=list, description="Numbers that kill the worker")
    break_on: list[int] = Field(default_factory=list, description="Numbers that raise something unexpected")
    heal_file: str | None = Field(None, description="Refuse nothing once this file exists")
    full_until: str | None = Field(None, description="The disk is full until this file exists")
    sleep_s: float = Field(0.0, description="How long it takes", json_schema_extra={"operational": True})


@step.map("toy_multiply", version=1, memory_gb=0.1)
def multiply(number: Number, params: DoubleParams, ctx: Context) -> Number:
    """Multiply a number and write it to a file."""
    time.sleep(params.sleep_s)
    healed = params.heal_file is not None and ctx.path(params.heal_file).exists()
    if params.full_until is not None and not ctx.path(params.full_until).exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if number.value in params.fail_on and not healed:
        raise ItemError(f"{number.value} is refused")
    if number.value in params.break_on:
        raise ZeroDivisionError(f"{number.value} breaks the step")
    if number.value in params.crash_on:
        os.kill(os.getpid(), signal.SIGKILL)
    value = number.value * params.factor
    with ctx.publish(".txt") as out:
        out.path.write_text(f"{value} {ctx.seed}")
    return Number(value=value, file=out.ref)


@step.map("toy_read_back", version=1, memory_gb=0.1)
def read_back(number: Number, params: DoubleParams, ctx: Context) -> Number:
    """Read a number from its file, multiply it, and write it to another."""
    if number.file is None:
        raise ItemError("there is no file")
    value = int(ctx.path(number.file).read_text().split()[0]) * params.factor
    with ctx.publish(".txt") as out:
        out.path.write_text(f"{value} {ctx.seed}")
    return Number(value=value, file=out.ref)


class WaitParams(Params):
    """What to wait for."""

    until: str = Field("session:go", description="Wait until this file exists")
    stubborn: bool = Field(False, description="Go on when told to end")
    wait_for: list[int] | None = Field(None, description="Numbers that wait; all if unset")


def _wait_for_file(number: Number, params: WaitParams, ctx: Context) -> Number:
    with ctx.publish(".txt") as out:
        out.path.write_text("begun")
        waits = params.wait_for is None or number.value in params.wait_for
        while waits and not ctx.path(params.until).exists():
            if ctx.cancelled() and not params.stubborn:
                ctx.path("session:told").touch()
                raise ItemError("told to end")
            ctx.progress(0.5, f"process {os.getpid()}")
            time.sleep(0.02)
        out.path.write_text(f"{number.value} {ctx.seed} {os.environ['OMP_NUM_THREADS']}")
    return Number(value=number.value, file=out.ref)


@step.map("toy_wait", version=1, memory_gb=0.1)
def wait_for_file(number: Number, params: WaitParams, ctx: Context) -> Number:
    """Wait for a file while a result is being written."""
    return _wait_for_file(number, params, ctx)


@step.map("toy_hurry", version=1, memory_gb=0.1, max_hours=2.0 / 3600)
def hurry(number: Number, params: WaitParams, ctx: Context) -> Number:
    """Wait for a file, but not for long."""
    return _wait_for_file(number, params, ctx)


@step.map("toy_pass_on", version=1, memory_gb=0.1)
def pass_on(number: Number) -> Number:
    """Do nothing: what an engine costs by itself."""
    return number


@step.map("toy_crowd", version=1, memory_gb=0.1)
def gather_crowd(number: Number) -> Crowd:
    """Make a crowd of ten times a number."""
    return Crowd(count=10 * number.value)


@step.map("toy_count_crowds", version=1, memory_gb=0.1)
def count_crowds(crowds: list[Crowd]) -> Number:
    """Add up the crowds of a batch."""
    return Number(value=sum(crowd.count for crowd in crowds))


@step.map("toy_add", version=1, memory_gb=0.1)
def add(left: Number, right: Number) -> Number:
    """Add two numbers of one exposure."""
    return Number(value=left.value + right.value)


@step.map("toy_add_all", version=1, memory_gb=0.1)
def add_all(numbers: list[Number]) -> Number:
    """Add the numbers of any number of streams, or of a batch."""
    return Number(value=sum(number.value for number in numbers))


@step.map("toy_scale", version=1, reads=("pixel_size_ang",), memory_gb=0.1)
def scale(number: Number, acquisition: Acquisition) -> Number:
    """Multiply by the pixel size in picometres."""
    if acquisition.pixel_size_ang is None:
        raise ItemError("pixel_size_ang is unset")
    return Number(value=number.value * round(acquisition.pixel_size_ang * 100))


@step.map("toy_less_total", version=1, memory_gb=0.1)
def less_total(number: Number, total: Total) -> Number:
    """Subtract a bound total."""
    return Number(value=number.value - total.value)


@step.map("toy_report_total", version=1, memory_gb=0.1)
def report_total(total: Total) -> Total:
    """Run on the newest total alone."""
    return total


class EvenParams(Params):
    """Which numbers pass."""

    divisor: int = Field(2, ge=1, description="Keep multiples of this")


@step.filter("toy_keep_multiples", version=1)
def keep_multiples(number: Number, params: EvenParams) -> Verdict:
    """Keep the multiples of a number."""
    if number.value % params.divisor:
        return reject(f"{number.value} is no multiple of {params.divisor}")
    return keep()


class EnoughParams(Params):
    """When there is enough."""

    count: int = Field(ge=1, description="So many")


@step.gate("toy_enough", version=1)
def enough(progress: Progress, params: EnoughParams) -> Verdict:
    """Hold until enough wait."""
    if progress.waiting >= params.count:
        return keep()
    return wait(f"{progress.waiting} of {params.count}")


@step.collect("toy_batches", version=1)
def batches(progress: Progress, params: EnoughParams) -> Verdict:
    """Close batches of a size."""
    return keep() if progress.waiting >= params.count else wait(f"{progress.waiting} of {params.count}")


class AddUpParams(Params):
    """How to add up."""

    fail_on: list[int] = Field(default_factory=list, description="Numbers that are refused")
    sleep_s: float = Field(0.0, description="How long it takes", json_schema_extra={"operational": True})
    at_least: int = Field(0, description="Publish nothing while there are fewer", json_schema_extra={"operational": True})


@step.accumulate("toy_add_up", version=1, assigns=Share, memory_gb=0.1)
class AddUp(Accumulator[TotalState, Total]):
    """Add up all numbers, in an order that is remembered."""

    portion = 7

    def start(self, params: AddUpParams, ctx: Context) -> TotalState:
        """Start at nothing."""
        return TotalState()

    def add(
        self, state: TotalState, exposures: Sequence[Exposure], number: Sequence[Number], params: AddUpParams, ctx: Context
    ) -> Update[TotalState]:
        """Add numbers."""
        time.sleep(params.sleep_s)
        values = [one.value for one in number]
        bad = sorted(set(values) & set(params.fail_on))
        if bad:
            raise ItemError(f"{bad[0]} cannot be added")
        value = state.value + sum(values)
        shares: dict[str, Record] = {
            exposure.id: Share(value=one.value, total=value) for exposure, one in zip(exposures, number, strict=True)
        }
        history = [*state.history, *values]
        with ctx.publish("_state.txt") as out:
            out.path.write_text(f"{value} {ctx.seed}")
        count = state.count + len(values)
        return Update(TotalState(value=value, count=count, history=history, file=out.ref), shares)

    def emit(self, state: TotalState, params: AddUpParams, ctx: Context) -> Total | Verdict:
        """Publish the sum."""
        if state.count < params.at_least:
            return wait(f"{state.count} of {params.at_least} numbers")
        with ctx.publish("_total.txt") as out:
            out.path.write_text(str(state.value))
        return Total(value=state.value, count=state.count, file=out.ref)


@step.accumulate("toy_add_up_files", version=1, assigns=Share, memory_gb=0.1)
class AddUpFiles(AddUp):
    """Add up numbers as their files say them."""

    def add(
        self, state: TotalState, exposures: Sequence[Exposure], number: Sequence[Number], params: AddUpParams, ctx: Context
    ) -> Update[TotalState]:
        """Add numbers."""
        read = [int(ctx.path(one.file or "").read_text().split()[0]) for one in number]
        told = [one.model_copy(update={"value": value}) for one, value in zip(number, read, strict=True)]
        return super().add(state, exposures, told, params, ctx)
