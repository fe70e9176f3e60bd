"""Latency under load: python benchmarks/newest_first.py [backlog] [new].

A backlog of exposures waits for two steps of 0.3 s and 0.2 s on two workers, newest first; new exposures arrive one at a time.
Prints one JSON line: how long a new exposure takes to its second step's row, in multiples of the half second its steps take.
"""

import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import with_toys  # noqa: F401 - first: it makes the toy steps importable
from icestream.flow.runner.status import RunStatus
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.settings import Settings
from toys.session import TOYS, active_steps, make_toy_session, read_rows

MOTION_S, CTF_S = 0.3, 0.2
INTERVAL_S = 2.0


def main(backlog: int, new: int) -> None:
    """Run, and print."""
    steps = {
        "movies": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": backlog + new}},
        "motion": {"use": f"{TOYS}:multiply", "in": {"number": "movies"}, "params": {"sleep_s": MOTION_S}},
        "ctf": {"use": f"{TOYS}:multiply", "in": {"number": "motion"}, "params": {"sleep_s": CTF_S}},
    }
    arrived_at: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session = make_toy_session(folder, steps, numbers=range(backlog))

        def feed() -> None:
            for number in range(backlog, backlog + new):
                time.sleep(INTERVAL_S)
                arrived_at[str(number)] = time.time()
                (folder / "numbers" / str(number)).touch()

        feeder, started = threading.Thread(target=feed), threading.Event()

        def watch(status: RunStatus) -> None:
            if not started.is_set() and status.steps[1].done > 4:
                started.set()
                feeder.start()

        threading.Thread(target=_stop_when, args=(arrived_at, new), daemon=True).start()
        run_session(session, Settings(cores=2, newest_first=True, min_free_gb=0), on_change=watch)
        ctf = {step: revision for revision, step in active_steps(session).items()}["ctf"]
        names = {row["unit"]: row["name"] for row in read_rows(session, schema.exposure)}
        done = {names[row["unit"]]: row["at"] for row in read_rows(session, schema.outcome) if row["revision"] == ctf}
    ratios = sorted((done[number] - at) / (MOTION_S + CTF_S) for number, at in arrived_at.items() if number in done)
    line = {
        "benchmark": "newest_first",
        "backlog": backlog,
        "new": len(ratios),
        "median_times_its_steps": round(statistics.median(ratios), 2),
        "worst_times_its_steps": round(ratios[-1], 2),
        "backlog_left": backlog + new - len(done),
    }
    print(json.dumps(line))


def _stop_when(arrived_at: dict[str, float], new: int) -> None:
    """Stop the runner, as its operator would, some seconds after the last new exposure."""
    while len(arrived_at) < new:
        time.sleep(0.1)
    time.sleep(4.0)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    main(*(numbers or [500, 15]))
