"""Soak the engine: kill it, break it and edit it while numbers arrive, for hours, and count what was lost or done twice.

``python benchmarks/soak.py --virtual --kills 1000 [--seed N]``: on virtual machines (`virtual.machine`); the same
seed gives the same run. ``python benchmarks/soak.py --real --hours 2 --folder F [--detach]``: real processes and SIGKILL;
what it has done is in F/soak.json, so the same command goes on where an earlier one ended. Each prints one JSON line.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy.exc import SQLAlchemyError

import with_toys  # noqa: F401 - first: it makes the toy steps importable
from icestream.errors import SessionError
from icestream.flow.commands.client import read_runner
from icestream.flow.commands.requests import (
    Command,
    Continue,
    Override,
    Pause,
    Recompute,
    Restart,
    Resume,
    Retry,
    Set,
    ask,
    read_command,
)
from icestream.flow.storage import schema
from icestream.flow.storage.claiming import is_alive
from icestream.flow.storage.session import Session, open_session
from toys.checks import compare_end
from toys.life import Life
from toys.model import Wanted, read_rows
from toys.session import arrive, make_toy_session, start_runner, toy_steps
from virtual.machine import quiet_settings

ROOM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a private folder is made in it
KILLS_A_LIFE = 40
SECONDS_A_NUMBER = 8.0  # a microscope makes a movie every few seconds


def ask_something(rng: random.Random, names: list[str]) -> Command:
    """Choose what a person asks for."""
    unit, own = rng.choice(names), rng.choice([None, 3, 8, 12])
    return rng.choice(
        [
            Recompute(
                unit=unit, step=rng.choice(["triple", "odd"]), lift=own is None, params={} if own is None else {"factor": own}
            ),
            Set(step="triple", params={"factor": rng.choice([3, 4, 5])}),
            Set(step="even", params={"divisor": rng.choice([2, 3])}),
            Set(step="odd", params={"factor": rng.choice([5, 7])}),
            Restart(step=rng.choice(["triple", "odd", "any", "total"])),
            Override(unit=unit, step="numbers", verdict=rng.choice(["reject", "lift"])),
            Override(unit=unit, step="even", verdict=rng.choice(["accept", "reject", "lift"])),
            Retry(),
            Pause(),
            Resume(),
            Continue(),
        ]
    )


# Virtual -----------------------------------------------------------------------------------------------------------------------


@dataclass
class Sum:
    """What was done in all lives together."""

    simulated_s: float = 0.0
    exposures: int = 0
    lives: int = 0
    counted: Counter[str] = field(default_factory=Counter)
    killed_at: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def live_once(folder: Path, seed: int, total: Sum) -> None:
    """Live one session through about `KILLS_A_LIFE` kills, and compare its end with the model."""
    rng = random.Random(seed)  # noqa: S311 - chooses misfortunes
    life = Life(folder, seed)
    machine = life.machine
    machine.settings = quiet_settings(rebuild_fraction=rng.choice([0.05, 0.5, 1.0]), newest_first=rng.random() < 0.5)
    began_s, number = machine.clock.now_s, 0
    while machine.counts.kills < KILLS_A_LIFE:
        due = int((machine.clock.now_s - began_s) / SECONDS_A_NUMBER)
        life.arrive([f"broken{n}" if n % 37 == 36 else str(n) for n in range(number, due)])
        number = max(number, due)
        _let_something_happen(life, rng)
        machine.start()
        machine.turn(rng.randint(1, 40))
        if rng.random() < 0.1:
            life.look()
    try:
        life.end()
    finally:
        total.simulated_s += machine.clock.now_s - began_s
        total.exposures += len(life.wanted.names)
        total.lives += 1
        counts = asdict(machine.counts)
        total.killed_at.update(counts.pop("killed_at"))
        kinds = Counter(command.kind for command in life.commands.values())
        edits = {
            "edits": kinds["set"],
            "redone": kinds["restart"],
            "recomputed": kinds["recompute"],
            "by_hand": kinds["override"],
            "commands": sum(kinds.values()),
        }
        total.counted.update(counts | edits)


def _let_something_happen(life: Life, rng: random.Random) -> None:
    machine = life.machine
    chance = rng.random()
    if chance < 0.55:
        machine.kill_in = rng.randint(1, 120)
    elif chance < 0.60:
        machine.kill()
    elif chance < 0.65:
        machine.replace_runner()
    elif chance < 0.70:
        machine.stop()
    elif chance < 0.90 and life.wanted.names:
        life.ask(ask_something(rng, life.wanted.names))
    elif chance < 0.92:
        machine.misfortunes.full_until_s = machine.clock.now_s + rng.uniform(1, 120)
    else:
        machine.misfortunes.worker_dies = rng.choice([0.0, 0.02, 0.3])
        machine.misfortunes.source_dies = rng.choice([0.0, 0.01])
        machine.misfortunes.transient = rng.choice([0.0, 0.1])
        machine.misfortunes.store_away = rng.choice([0.0, 0.01])


def run_virtual(kills: int, seed: int) -> int:
    """Live one session after another until so many runners were killed."""
    total, began_s = Sum(), time.perf_counter()
    while total.counted["kills"] < kills:
        life_seed = seed * 100_000 + total.lives
        with tempfile.TemporaryDirectory(dir=ROOM) as folder:
            try:
                live_once(Path(folder), life_seed, total)
            except AssertionError as error:
                total.wrong.append(f"seed {life_seed}: {error}")
                print(total.wrong[-1], file=sys.stderr)
    line = {
        "benchmark": "soak_virtual",
        "seed": seed,
        "simulated_hours": round(total.simulated_s / 3600, 1),
        "sessions": total.lives,
        "exposures": total.exposures,
        **total.counted,
        "killed_at": dict(total.killed_at),
        "sessions_that_differ": len(total.wrong),
        "lost": sum("never arrived" in text or "has no outcome" in text or "lost" in text for text in total.wrong),
        "double": sum(" times" in text or "did something" in text for text in total.wrong),
        "wall_s": round(time.perf_counter() - began_s),
    }
    print(json.dumps(line))
    return 1 if total.wrong else 0


# Real --------------------------------------------------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a real soak has come; kept in its folder after every blow."""

    seed: int
    ran_s: float = 0.0
    arrived: int = 0
    runner_kills: int = 0
    worker_kills: int = 0
    starts: int = 0
    resumed: int = 0
    ended_by_itself: int = 0
    paused: bool = False

    @property
    def names(self) -> list[str]:
        """The numbers that have arrived."""
        return [f"broken{n}" if n % 37 == 36 else str(n) for n in range(self.arrived)]

    def write(self, path: Path) -> None:
        """Write it so that a kill leaves the old file or the new one."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(path)


def run_real(folder: Path, hours: float, seed: int) -> int:
    """Soak real processes for so long altogether, or go on with that; then let it run out and compare."""
    state = folder / "soak.json"
    progress = Progress(seed)
    if (folder / "session").exists():
        session = open_session(folder / "session")
        progress = Progress(**json.loads(state.read_text())) if state.is_file() else progress
        progress.resumed += 1
        progress.arrived = max(progress.arrived, sum(1 for _ in (folder / "numbers").iterdir()))
    else:
        session = make_toy_session(folder, toy_steps(1_000_000, fail_on=[4], break_on=[9], sleep_s=0.5), numbers=[])
    rng = random.Random(f"{progress.seed} {progress.resumed}")  # noqa: S311 - chooses victims
    runner = _start(session, progress)
    try:
        while progress.ran_s < hours * 3600:
            runner = _soak_a_while(session, progress, rng, runner)
            progress.write(state)
    finally:
        runner.kill()
        runner.wait()
    return _conclude(session, progress)


def _start(session: Session, progress: Progress) -> "subprocess.Popen[bytes]":
    """Start a runner, after ending one that an earlier script left behind when it was killed."""
    _end_left_over(session, progress)
    progress.starts += 1
    return start_runner(session)


def _end_left_over(session: Session, progress: Progress) -> bool:
    if not session.store_path.is_file():
        return False
    try:
        row = read_runner(session)
    except (SessionError, SQLAlchemyError):  # its tables are not made yet
        return False
    if row is None or not is_alive(row):
        return False
    process = psutil.Process(row.pid)
    process.kill()
    psutil.wait_procs([process], timeout=60)
    progress.runner_kills += 1
    return True


def _soak_a_while(
    session: Session, progress: Progress, rng: random.Random, runner: "subprocess.Popen[bytes]"
) -> "subprocess.Popen[bytes]":
    began_s = time.monotonic()
    time.sleep(rng.uniform(1.0, 6.0))
    progress.ran_s += time.monotonic() - began_s
    progress.arrived = max(progress.arrived, int(progress.ran_s / SECONDS_A_NUMBER * 4))
    arrive(session.folder.parent, progress.names)
    if progress.paused:  # once it was paused for a moment, it has to go on
        progress.paused = not _ask_really(session, Resume())
    elif rng.random() < 0.15 and progress.arrived:
        command = ask_something(rng, progress.names)
        progress.paused = _ask_really(session, command) and isinstance(command, Pause)
    if runner.poll() is not None:
        another = _end_left_over(session, progress)  # it was refused, because that one had the session
        progress.ended_by_itself += runner.returncode != 0 and not another
        return _start(session, progress)
    workers = psutil.Process(runner.pid).children()
    if not workers:  # it has not begun yet
        return runner
    if rng.random() < 0.4:
        runner.kill()
        runner.wait()
        progress.runner_kills += 1
        return _start(session, progress)
    try:
        rng.choice(workers).send_signal(signal.SIGKILL)
        progress.worker_kills += 1
    except psutil.NoSuchProcess:
        pass
    return runner


def _ask_really(session: Session, command: Command) -> bool:
    try:
        ask(session, command, author="soak")
    except SessionError:  # there is no store yet
        return False
    return True


def _conclude(session: Session, progress: Progress) -> int:
    """Let the session run to its end, twice, without any disturbance, and compare with the model."""
    _end_left_over(session, progress)
    ask(session, Continue(), author="soak")
    codes = [start_runner(session).wait() for _ in range(2)]
    wanted = Wanted(progress.names)
    commands = read_rows(session, schema.command)
    for row in sorted(commands, key=lambda row: int(row["id"])):
        command = read_command(row["kind"], row["arguments"])
        if row["state"] != "done":
            continue
        if isinstance(command, Recompute):
            if command.lift:
                wanted.own.pop((command.step, command.unit), None)
            else:
                wanted.own[command.step, command.unit] = dict(command.params)
        elif not isinstance(command, Override):
            continue
        elif command.verdict == "lift":
            wanted.decided.pop((str(command.step), command.unit), None)
        else:
            wanted.decided[str(command.step), command.unit] = command.verdict == "accept"
    wrong = compare_end(session, wanted)
    counted = {name: value for name, value in asdict(progress).items() if name != "paused"}
    line: dict[str, Any] = {"benchmark": "soak_real", **counted, "commands": len(commands)}
    line |= {"minutes": round(progress.ran_s / 60, 1), "exit_statuses": codes, "wrong": wrong}
    line |= {"lost": sum("has no outcome" in text or "never arrived" in text for text in wrong)}
    line |= {"double": sum(" times" in text for text in wrong)}
    print(json.dumps(line))
    return 1 if wrong or any(codes) or progress.ended_by_itself else 0


# The way in --------------------------------------------------------------------------------------------------------------------


def main() -> int:
    """Read what is wanted and do it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--virtual", action="store_true", help="on virtual machines")
    kind.add_argument("--real", action="store_true", help="with real processes")
    parser.add_argument("--kills", type=int, default=1000, help="virtual: at least so many runners are killed")
    parser.add_argument("--hours", type=float, default=2.0, help="real: for so long")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn; a life that differed names its own: --life")
    parser.add_argument("--life", type=int, help="virtual: live this one again")
    parser.add_argument("--folder", type=Path, help="real: where the session and the state are")
    parser.add_argument("--detach", action="store_true", help="real: go on after the terminal is closed; the line is in soak.log")
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of what happens
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})  # noqa: S606 - this program
    if given.virtual and given.life is not None:
        with tempfile.TemporaryDirectory(dir=ROOM) as folder:
            live_once(Path(folder), given.life, Sum())
        return 0
    if given.virtual:
        return run_virtual(given.kills, given.seed)
    if given.folder is None:
        parser.error("--real needs --folder")
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.detach:
        with (given.folder / "soak.log").open("ab") as log:
            command = [sys.executable, *(word for word in sys.argv if word != "--detach")]
            child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        print(f"process {child.pid}; its line will be in {given.folder / 'soak.log'}")
        return 0
    return run_real(given.folder, given.hours, given.seed)


if __name__ == "__main__":
    sys.exit(main())
