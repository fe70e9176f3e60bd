"""Soak the engine: kill it, break it and edit it while numbers arrive, for hours, and count what was lost or done twice.

``python benchmarks/soak.py --virtual --kills 1000 [--seed N]``: on virtual machines (`icestream.testing.virtual`), hours of acquisition
in minutes; the same seed gives the same run. ``python benchmarks/soak.py --real --hours 2 --folder F [--detach]``: real processes and
SIGKILL; what it has done is in F/soak.json, so the same command goes on where an earlier one ended. Each prints one JSON line.
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

from icestream.errors import SessionError
from icestream.flow import schema
from icestream.flow.control.asking import Command, Continue, Override, Pause, Restart, Resume, Retry, Set, ask
from icestream.flow.session import Session, open_session
from icestream.testing.toy_checks import compare_end
from icestream.testing.toy_life import Life
from icestream.testing.toy_model import Wanted, read_rows
from icestream.testing.toy_session import arrive, make_toy_session, start_runner, toy_steps
from icestream.testing.virtual import quiet_settings

ROOM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a private folder is made in it
KILLS_A_LIFE = 40
SECONDS_A_NUMBER = 8.0  # a microscope makes a movie every few seconds


def ask_something(rng: random.Random, names: list[str]) -> Command:
    """Choose what a person asks for."""
    unit = rng.choice(names)
    return rng.choice(
        [
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
        edits = {"edits": kinds["set"], "redone": kinds["restart"], "by_hand": kinds["override"], "commands": sum(kinds.values())}
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
