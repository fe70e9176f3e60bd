"""The whole chain at a pace: python benchmarks/chain_speed.py --per-hour 400 [--minutes 15] [--movies FOLDER].

Movies of a camera are made once (``--make N``; kept in ``--movies`` if that is given) and fed as hard links under new names, at a
steady pace, to a session of a shipped template, whose micrographs are removed once they are consumed. Prints one JSON line: CPU
seconds a movie of all processes of the session, system time included and also by step; from the file to each step's result; how
many movies the session was behind at the end; and the largest sum of its processes' memory (proportional set size). The time to
make movies, and the feeder's own, are left out. The first ``--warm-up`` movies are not counted.
"""

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from icestream.flow.storage.session import open_session

PIXEL_SIZE_ANG = 1.0
CAMERAS = {
    "tiff": ("n_frames=30", "height_px=4096", "width_px=4096"),
    "k3": ("n_frames=50", "height_px=4092", "width_px=5760"),
    "small": ("n_frames=10", "height_px=1024", "width_px=1024"),
}
DENSITY_PER_PX2 = 350 / 4096**2
RULES = """rules:
  - {name: consumed, kinds: [micrographs], state: processed, after_hours: 0, undo_hours: 0}
"""
SWEEP_S = 20.0
LOOK_S = 2.0


def icestream(*arguments: object) -> None:
    """Run a command of icestream; what it prints goes to standard error."""
    subprocess.run([sys.executable, "-m", "icestream", *map(str, arguments)], check=True, stdout=sys.stderr)


def make_movies(folder: Path, camera: str, count: int) -> None:
    """Simulate movies with barely visible particles, as many an area as 350 on 4096²."""
    sizes = dict(text.split("=") for text in CAMERAS[camera])
    particles = round(DENSITY_PER_PX2 * int(sizes["height_px"]) * int(sizes["width_px"]))
    given = [*CAMERAS[camera], f"n_particles={particles}", f"pixel_size_ang={PIXEL_SIZE_ANG}", "dose_per_frame_e_per_ang2=1.3"]
    given += ["particle_contrast=0.6", "spacing_diameters=0.8"]
    icestream("simulate", folder, "--movies", count, *(word for setting in given for word in ("--set", setting)))


@dataclass
class Feeder:
    """Gives hard links of movies new names at a pace, and remembers when each was complete."""

    movies: list[Path]
    watched: Path
    count: int
    seconds: float
    fed_at: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Feed all of them."""
        began = time.monotonic()
        for number in range(self.count):
            time.sleep(max(0.0, began + number * self.seconds - time.monotonic()))
            source = self.movies[number % len(self.movies)]
            name = f"exposure_{number:05d}"
            os.link(source, self.watched / f"{name}{source.suffix}")
            self.fed_at[name] = time.time()


@dataclass
class Usage:
    """CPU seconds of a tree of processes, kept over their ends, and the largest sum of their memory."""

    process: psutil.Process
    user_s: float = 0.0
    system_s: float = 0.0
    peak_pss_bytes: int = 0
    _times: dict[tuple[int, float], tuple[float, float]] = field(default_factory=dict)

    def look(self) -> None:
        """Add up what all processes have used so far."""
        memory = 0
        for one in [self.process, *self.process.children(recursive=True)]:
            try:
                times = one.cpu_times()
                self._times[one.pid, one.create_time()] = times.user, times.system
                memory += one.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        self.peak_pss_bytes = max(self.peak_pss_bytes, memory)
        self.user_s = sum(user for user, _ in self._times.values())
        self.system_s = sum(system for _, system in self._times.values())


def make_session(folder: Path, scope: Path, template: str, settings: list[str]) -> Path:
    """Make a session that watches an empty folder and keeps micrographs only until they are consumed."""
    session, watched = folder / "session", folder / "watched"
    watched.mkdir(parents=True)
    gain = ["--gain", scope / "gain.mrc"] if (scope / "gain.mrc").is_file() else []
    values = f"--voltage 300 --cs 2.7 --amplitude-contrast 0.07 --pixel-size {PIXEL_SIZE_ANG} --dose-per-frame 1.3".split()
    icestream("new", session, "--template", template, "--movies", watched, *gain, *values, *settings)
    (session / "storage.yaml").write_text(RULES)
    return session


def run_at_a_pace(session: Path, feeder: Feeder, *, warm_up: int, patience_s: float) -> dict[str, object]:
    """Run a session while it is fed; return CPU seconds and memory between the warm-up and the last movie's classes."""
    command = [sys.executable, "-m", "icestream", "run", str(session), "--quiet"]
    with (session.parent / "run.log").open("wb") as log:
        runner = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    usage = Usage(psutil.Process(runner.pid))
    thread = threading.Thread(target=feeder.run)
    thread.start()
    marks: dict[str, float] = {}
    swept, over_at = time.monotonic(), None
    try:
        while runner.poll() is None:
            time.sleep(LOOK_S)
            usage.look()
            done = count_of(session, "particles")
            if done >= warm_up and "at" not in marks:
                marks = {"at": time.time(), "user_s": usage.user_s, "system_s": usage.system_s, "done": done}
            if time.monotonic() - swept > SWEEP_S:
                icestream("storage", session, "--apply")
                swept = time.monotonic()
            if not thread.is_alive() and over_at is None:
                over_at = time.monotonic()
                marks |= {
                    "end_user_s": usage.user_s,
                    "end_system_s": usage.system_s,
                    "end_done": done,
                    "behind": feeder.count - done,
                }
            if over_at is not None and (done >= feeder.count or time.monotonic() - over_at > patience_s):
                break
    finally:
        runner.send_signal(signal.SIGINT)
        runner.wait(timeout=120)
        thread.join()
    if not {"done", "end_done"} <= marks.keys():
        raise RuntimeError(f"the session ended too early:\n{(session.parent / 'run.log').read_text()[-3000:]}")
    movies = marks["end_done"] - marks["done"]
    return {
        "movies_counted": int(movies),
        "cpu_s_per_movie": round((usage_between(marks, "user_s") + usage_between(marks, "system_s")) / movies, 2),
        "system_s_per_movie": round(usage_between(marks, "system_s") / movies, 2),
        "behind_at_the_end": int(marks["behind"]),
        "peak_pss_gb": round(usage.peak_pss_bytes / 1e9, 2),
    }


def usage_between(marks: dict[str, float], name: str) -> float:
    """Return the CPU seconds between the warm-up and the end of feeding."""
    return marks[f"end_{name}"] - marks[name]


@contextmanager
def reading_store(session: Path) -> Iterator[sqlite3.Connection]:
    """Open the session's store for reading."""
    connection = sqlite3.connect(f"file:{open_session(session).store_path}?mode=ro", uri=True)
    try:
        yield connection
    finally:
        connection.close()


def count_of(session: Path, step: str) -> int:
    """Return for how many exposures a step has a result."""
    if not open_session(session).store_path.is_file():
        return 0
    with reading_store(session) as store:
        try:
            query = "select count(distinct r.unit) from result r join revision v on v.id = r.revision where v.step = ?"
            return int(store.execute(query, (step,)).fetchone()[0])
        except sqlite3.OperationalError:  # its tables are not made yet
            return 0


def read_times(session: Path, fed_at: dict[str, float], *, warm_up: int) -> dict[str, object]:
    """Return, by step, the CPU seconds of a result and the seconds from the file to it: median and 95th percentile."""
    late, cost = defaultdict(list), defaultdict(list)
    with reading_store(session) as store:
        rows = store.execute(
            "select v.step, e.name, r.created_at, r.cpu_s from result r join revision v on v.id = r.revision "
            "left join exposure e on e.unit = r.unit"
        ).fetchall()
    counted = set(sorted(fed_at)[warm_up:])
    for step, name, created_at, cpu_s in rows:
        cost[step].append(cpu_s)
        if name in counted:
            late[step].append(created_at - fed_at[name])
    return {
        "cpu_s_of_step": {step: round(sum(values) / len(fed_at), 3) for step, values in sorted(cost.items())},
        "file_to_result_s": {
            step: [round(float(value), 2) for value in np.percentile(values, (50, 95))] for step, values in sorted(late.items())
        },
    }


def main() -> None:
    """Read what is wanted and do it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--camera", choices=sorted(CAMERAS), default="tiff")
    parser.add_argument("--make", type=int, default=6, help="different movies")
    parser.add_argument("--movies", type=Path, help="where movies are made and kept; a temporary folder if unset")
    parser.add_argument("--per-hour", type=float, default=400.0)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--warm-up", type=int, default=10, help="movies that are not counted")
    parser.add_argument("--template", default="movies_to_classes")
    parser.add_argument("--set", nargs="*", default=[], help="of `icestream new`")
    parser.add_argument("--patience-s", type=float, default=300.0, help="how long the backlog may take after the last movie")
    parser.add_argument("--folder", type=Path, help="where the session is made; a temporary folder if unset")
    given = parser.parse_args()
    room = Path(tempfile.mkdtemp(prefix="chain", dir=given.folder))
    scope = (given.movies or room) / f"scope_{given.camera}"
    try:
        if not (scope / "truth").is_dir():
            make_movies(scope, given.camera, given.make)
        settings = [word for setting in given.set for word in ("--set", setting)]
        session = make_session(room, scope, given.template, settings)
        movies = sorted(path for path in (scope / "movies").iterdir() if path.suffix in {".tiff", ".tif", ".mrc", ".eer"})
        feeder = Feeder(movies, room / "watched", round(given.per_hour * given.minutes / 60), 3600 / given.per_hour)
        used = run_at_a_pace(session, feeder, warm_up=given.warm_up, patience_s=given.patience_s)
        line = {"benchmark": "chain_speed", "camera": given.camera, "per_hour": given.per_hour, "movies": feeder.count, **used}
        print(json.dumps(line | read_times(session, feeder.fed_at, warm_up=given.warm_up)))
    finally:
        shutil.rmtree(room)


if __name__ == "__main__":
    main()
