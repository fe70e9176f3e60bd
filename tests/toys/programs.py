"""A program of somebody else, as a script that tests write somewhere, and steps that run it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from icestream.external.command import Command
from icestream.external.process import run_program
from icestream.flow import Accumulator, Context, Exposure, Field, Params, Program, Progress, Update, Verdict, step, wait
from icestream.records import Record, Snapshot
from toys.steps import Number

FAKE = Program("fake_program", version=r"fake version (\S+)", oldest="1.0", below="3")

_SOURCE = '''
import json, os, signal, sys, time

def descend(path):
    """Leave a process behind that has left the group, as a daemon does."""
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note(path)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(tell, b"!")
            time.sleep(600)
        os._exit(0)
    os.wait()
    os.read(ready, 1)

def note(path):
    with open(path, "a") as handle:
        handle.write(f"{os.getpid()}\\n")

words = iter(sys.argv[1:])
for word in words:
    if word == "--version":
        print("fake version VERSION")
    elif word == "--say":
        print(next(words), flush=True)
    elif word == "--answer":
        print("read", sys.stdin.readline().strip() or "nothing", flush=True)
    elif word == "--carriage":
        print(next(words), end="\\r", flush=True)
    elif word == "--flood":
        for number in range(int(next(words))):
            print(f"line {number} of many")
    elif word == "--environment":
        json.dump({"environment": dict(os.environ), "folder": os.getcwd(), "files": sorted(os.listdir())}, open(next(words), "w"))
    elif word == "--double":
        numbers = [int(open(name).read()) for name in sorted(os.listdir()) if name.endswith(".number")]
        json.dump([2 * number for number in numbers], open("doubled.json", "w"))
        open(next(words), "a").write("one call\\n")
    elif word == "--stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif word == "--note":
        note(next(words))
    elif word == "--descend":
        descend(next(words))
    elif word == "--sleep":
        time.sleep(float(next(words)))
    elif word == "--die":
        os.kill(os.getpid(), int(next(words)))
    elif word == "--exit":
        sys.exit(int(next(words)))
'''


def write_program(path: Path, version: str = "1.2.3") -> Path:
    """Write the program as an executable; return where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable} -IS\n{_SOURCE.replace('VERSION', version)}")
    path.chmod(0o755)
    return path


class RunFakeParams(Params):
    """What the program is told."""

    words: list[str] = Field(default_factory=list, description="Its arguments")


@step.map("run_fake", version=1, programs=(FAKE,))
def run_fake(number: Number, params: RunFakeParams, ctx: Context) -> Number:
    """Run the program and return what came in."""
    command = Command()
    for word in params.words:
        command = command.word(word)
    run_program(FAKE, command, ctx, read_progress=lambda line: 0.5 if line == "half" else None)
    return number


class DoubledParams(Params):
    """How many numbers one call takes."""

    together: int = Field(3, ge=1, description="Numbers of one call")
    count_calls: str = Field(description="A file that gets a line for each call")


class DoubledTotal(Snapshot):
    """How many were doubled so far."""

    stored_name: ClassVar[str] = "toy.DoubledTotal"

    count: int


class DoubledState(Record):
    """How many were doubled."""

    count: int = 0


@step.accumulate("doubled", version=1, assigns=Number, programs=(FAKE,))
class DoubleTogether(Accumulator[DoubledState, DoubledTotal]):
    """Double numbers with a program that is dear to start: one call for several, and an item for each."""

    def when(self, progress: Progress, params: DoubledParams) -> Verdict:
        """Wait until there are enough, or no more will come."""
        enough = progress.waiting >= params.together or (progress.stream_closed and progress.waiting > 0)
        return Verdict(accepted=True) if enough else wait(f"{progress.waiting} of {params.together}")

    def start(self, params: DoubledParams, ctx: Context) -> DoubledState:
        """Nothing yet."""
        return DoubledState()

    def add(
        self, state: DoubledState, exposures: Sequence[Exposure], number: Sequence[Number], params: DoubledParams, ctx: Context
    ) -> Update[DoubledState]:
        """Double all that wait in one call."""
        for index, one in enumerate(number):
            (ctx.work_folder / f"{index:06d}.number").write_text(str(one.value))
        done = run_program(FAKE, Command().option("--double", params.count_calls), ctx)
        doubled = [int(word) for word in (done.folder / "doubled.json").read_text().strip("[]").split(",")]
        items: dict[str, Record] = {exposure.id: Number(value=value) for exposure, value in zip(exposures, doubled, strict=True)}
        return Update(DoubledState(count=state.count + len(items)), items)

    def emit(self, state: DoubledState, params: DoubledParams, ctx: Context) -> DoubledTotal:
        """Say how many there were."""
        return DoubledTotal(count=state.count)
