"""From a file that is closed to the last step's row: python benchmarks/engine_latency.py [seconds].

Eight steps that do nothing, two workers, five files a second through the watch of a real folder (the sources of the package, not
the toy's). Prints one JSON line: median, 95th percentile and worst latency in seconds.
"""

import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import mrcfile
import numpy as np

import with_toys  # noqa: F401 - first: it makes the toy steps importable
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import SessionDocument, create_session
from icestream.settings import Settings
from toys.session import active_steps, read_rows

PER_S = 5.0
DEPTH = 8
LOADS = "toys.loads"


def write_movie(path: Path, number: int) -> None:
    """Write a small movie and close it."""
    frames = np.full((4, 32, 32), number % 100, dtype=np.int16)
    with mrcfile.new(path) as movie:
        movie.set_data(frames)


def feed(folder: Path, count: int, closed_at: dict[str, float]) -> None:
    """Write movies at an even pace; note when each was closed."""
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / PER_S - time.monotonic()))
        path = folder / f"m{number:05d}.mrc"
        write_movie(path, number)
        closed_at[path.stem] = time.time()


def main(seconds: float) -> None:
    """Run, and print."""
    count = int(seconds * PER_S)
    steps: dict[str, object] = {"s0": {"use": "import_movies", "params": {"idle_s": 15.0, "pattern": "*.mrc"}}}
    for depth in range(1, DEPTH):
        steps[f"s{depth}"] = {"use": f"{LOADS}:pass_movie", "in": {"movie": f"s{depth - 1}"}}
    with tempfile.TemporaryDirectory() as name:
        movies = Path(name) / "movies"
        movies.mkdir()
        acquisition = {"voltage_kv": 300.0, "cs_mm": 2.7, "pixel_size_ang": 1.0, "dose_per_frame_e_per_ang2": 1.0}
        document = {"name": "latency", "roots": {"movies": str(movies)}, "acquisition": acquisition, "steps": steps}
        session = create_session(Path(name) / "session", SessionDocument.model_validate(document))
        closed_at: dict[str, float] = {}
        feeder = threading.Thread(target=feed, args=(movies, count, closed_at))
        threading.Timer(8.0, feeder.start).start()  # the workers are up by then
        run_session(session, Settings(cores=2, min_free_gb=0))
        last = {step: revision for revision, step in active_steps(session).items()}[f"s{DEPTH - 1}"]
        names = {row["unit"]: row["name"] for row in read_rows(session, schema.exposure)}
        rows = [row for row in read_rows(session, schema.outcome) if row["revision"] == last]
    latency_s = sorted(row["at"] - closed_at[Path(names[row["unit"]]).stem] for row in rows)
    line = {
        "benchmark": "engine_latency",
        "files": count,
        "arrived": len(rows),
        "median_s": round(statistics.median(latency_s), 3),
        "p95_s": round(latency_s[int(0.95 * len(latency_s))], 3),
        "worst_s": round(latency_s[-1], 3),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
