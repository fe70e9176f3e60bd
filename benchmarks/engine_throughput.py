"""The engine alone: python benchmarks/engine_throughput.py [exposures].

Steps that do nothing, eight deep, two workers. Prints one JSON line: item-steps per second, and CPU milliseconds
of the runner per item-step in the first and the last tenth of the run.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import with_toys  # noqa: F401 - first: it makes the toy steps importable
from icestream.flow.runner.status import RunStatus
from icestream.flow.runner.supervisor import run_session
from icestream.settings import Settings
from toys.session import TOYS, make_toy_session

DEPTH = 8


def main(exposures: int) -> None:
    steps = {"s0": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": exposures}}}
    for depth in range(1, DEPTH):
        steps[f"s{depth}"] = {"use": f"{TOYS}:pass_on", "in": {"number": f"s{depth - 1}"}}
    marks: list[tuple[int, float, float]] = [(0, time.process_time(), time.perf_counter())]

    def watch(status: RunStatus) -> None:
        marks.append((sum(step.done for step in status.steps), time.process_time(), time.perf_counter()))

    with tempfile.TemporaryDirectory() as folder:
        session = make_toy_session(Path(folder), steps, numbers=range(exposures))
        run_session(session, Settings(cores=2), on_change=watch)
        size = session.store_path.stat().st_size
    total = marks[-1][0]

    def cpu_ms(low: float, high: float) -> float:
        begin = max((mark for mark in marks if mark[0] <= low * total), key=lambda mark: mark[0])
        end = min((mark for mark in marks if mark[0] >= high * total), key=lambda mark: mark[0])
        return 1e3 * (end[1] - begin[1]) / (end[0] - begin[0])

    began = next(mark for mark in marks if mark[0] > 0)
    line = {
        "benchmark": "engine_throughput",
        "exposures": exposures,
        "item_steps": total,
        "item_steps_per_s": round((total - began[0]) / (marks[-1][2] - began[2]), 1),
        "runner_cpu_ms_per_item_step": round(cpu_ms(0.0, 1.0), 3),
        "first_tenth_cpu_ms": round(cpu_ms(0.0, 0.1), 3),
        "last_tenth_cpu_ms": round(cpu_ms(0.9, 1.0), 3),
        "store_mb": round(size / 1e6, 1),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
