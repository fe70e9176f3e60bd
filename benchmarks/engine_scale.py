"""A session of many exposures: python benchmarks/engine_scale.py [exposures] [folder].

Eight steps deep, three of them with tables of 300 particles of the sizes of picks, particles and class assignments. Prints one
JSON line: CPU milliseconds of the runner per item-step around the 1,000th exposure and at the end, the size of the store, the
memory of the runner, and how long opening, resuming and answering `status` take afterwards. With a folder, what is there is kept.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

import with_toys  # noqa: F401 - first: it makes the toy steps importable
from icestream.flow.runner.loop import Runner
from icestream.flow.runner.resuming import resume
from icestream.flow.runner.status import RunStatus
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import open_session
from icestream.settings import Settings
from toys.session import TOYS, make_toy_session

LOADS = "toys.loads"
AHEAD = 400
WINDOW = 500


def workflow(exposures: int) -> dict[str, object]:
    """Return eight steps: a source, four that write records of 500 bytes, three with tables."""
    tables = {"picks": 16, "particles": 32, "assignments": 28}
    steps: dict[str, object] = {"s0": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": exposures, "idle_s": 600.0}}}
    for number in range(1, 5):
        steps[f"s{number}"] = {"use": f"{TOYS}:pass_on", "in": {"number": f"s{number - 1}"}}
    for name, row_bytes in tables.items():
        params = {"rows": 300, "row_bytes": row_bytes}
        steps[name] = {"use": f"{LOADS}:tabulate", "in": {"number": "s4"}, "params": params}
    return steps


def feed(folder: Path, exposures: int, done: list[int], stop: threading.Event) -> None:
    """Let files arrive, a few hundred ahead of what is processed."""
    fed = 0
    while fed < exposures and not stop.is_set():
        for number in range(fed, min(exposures, done[0] + AHEAD)):
            (folder / str(number)).touch()
            fed = number + 1
        time.sleep(0.05)


def run(folder: Path, exposures: int) -> list[tuple[int, float]]:
    """Run the whole session; return ``(item-steps, CPU seconds)`` marks."""
    session = make_toy_session(folder, workflow(exposures), numbers=range(0))
    marks, done, stop = [(0, time.process_time())], [0], threading.Event()

    def watch(status: RunStatus) -> None:
        counts = [step.done for step in status.steps]
        done[0] = min(counts)
        marks.append((sum(counts), time.process_time()))

    feeder = threading.Thread(target=feed, args=(folder / "numbers", exposures, done, stop))
    feeder.start()
    try:
        run_session(session, Settings(cores=2, min_free_gb=0), on_change=watch)
    finally:
        stop.set()
        feeder.join()
    return marks


def cpu_ms(marks: list[tuple[int, float]], around: int) -> float:
    """Return the runner's CPU milliseconds per item-step in the exposures before ``around``."""
    low, high = 8 * (around - WINDOW), 8 * around
    begin = max((mark for mark in marks if mark[0] <= low), default=marks[0])
    end = next((mark for mark in marks if mark[0] >= high), marks[-1])
    return 1e3 * (end[1] - begin[1]) / (end[0] - begin[0])


def main(exposures: int, folder: Path) -> None:
    """Run, look, and print."""
    began = time.perf_counter()
    marks = run(folder, exposures)
    took_s = time.perf_counter() - began
    rss_mb = psutil.Process().memory_info().rss / 1e6
    session = open_session(folder / "session")
    began = time.perf_counter()
    runner = Runner(session, Settings(cores=2, min_free_gb=0))
    resume(runner.parts)
    resume_s = time.perf_counter() - began
    runner.store.close("benchmark")
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "icestream", "status", str(session.folder)], check=True, stdout=subprocess.DEVNULL)
    line = {
        "benchmark": "engine_scale",
        "exposures": exposures,
        "item_steps_per_s": round(marks[-1][0] / took_s, 1),
        "cpu_ms_per_item_step_at_1000th": round(cpu_ms(marks, 1000), 3),
        "cpu_ms_per_item_step_at_last": round(cpu_ms(marks, exposures), 3),
        "store_gb": round(session.store_path.stat().st_size / 1e9, 3),
        "runner_rss_mb": round(rss_mb),
        "open_and_resume_s": round(resume_s, 2),
        "status_s": round(time.perf_counter() - began, 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    if len(sys.argv) > 2:
        main(count, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(count, Path(temporary))
