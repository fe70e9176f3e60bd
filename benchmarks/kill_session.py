"""Kill a real session at random: python benchmarks/kill_session.py <finished session> <new folder> [kills].

Processes the same raw data with the same workflow again while the runner and its workers are killed (SIGKILL) at random times,
and compares with the finished session. Prints one JSON line: kills, results compared, how many differ in record, block or file,
and whether every accumulator consumed every exposure exactly once.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil

import with_toys  # noqa: F401 - first: it makes the toy steps importable
from icestream.flow.declaration.file_refs import files_named_in
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, create_session, open_session
from toys.session import active_steps, outcomes_of, read_rows, start_runner

SEED = 5


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def map_results(session: Session) -> dict[str, tuple[Any, ...]]:
    """Key → record, digest of its block, digests of its files, for all maps and sources of exposures."""
    kinds = {row["id"]: row["kind"] for row in read_rows(session, schema.revision)}
    found = {}
    for row in read_rows(session, schema.result):
        if kinds[row["revision"]] in ("map", "source"):
            names = files_named_in(row["record"])
            files = tuple(digest((session.folder / name.removeprefix("session:")).read_bytes()) for name in names)
            found[row["key"]] = (row["record"], digest(row["block"] or b""), files)
    return found


def run_with_kills(session: Session, wanted: int) -> int:
    rng = random.Random(SEED)  # noqa: S311 - chooses victims
    kills, runner = 0, start_runner(session)
    while runner.poll() is None:
        time.sleep(rng.uniform(1.0, 4.0))
        if kills >= wanted or runner.poll() is not None:
            continue
        workers = [child.pid for child in psutil.Process(runner.pid).children()]
        victim = runner.pid if not workers or rng.random() < 0.4 else rng.choice(workers)
        os.kill(victim, signal.SIGKILL)
        kills += 1
        if victim == runner.pid:
            runner.wait()
            runner = start_runner(session)
    return kills


def consumed_once(session: Session) -> bool:
    steps = active_steps(session)
    accumulators = {
        steps[row["id"]] for row in read_rows(session, schema.revision) if row["kind"] == "accumulate" and row["id"] in steps
    }
    for name in accumulators:
        log = [row for row in read_rows(session, schema.accumulator_log) if steps.get(row["revision"]) == name]
        members = [unit for row in log for unit, _ in json.loads(row["members"])]
        expected = {row["unit"] for (step, _), row in outcomes_of(session).items() if step == name and row["status"] == "item"}
        if sorted(members) != sorted(expected):
            return False
    return True


def main(finished: Path, folder: Path, wanted: int) -> None:
    calm = open_session(finished)
    document = calm.document.model_copy(update={"roots": {name: path for name, path in calm.roots.items() if name != "session"}})
    rough = create_session(folder, document)
    began_s = time.monotonic()
    kills = run_with_kills(rough, wanted)
    expected, found = map_results(calm), map_results(rough)
    line = {
        "benchmark": "kill_session",
        "kills": kills,
        "seconds": round(time.monotonic() - began_s),
        "results": len(found),
        "missing_or_extra": len(expected.keys() ^ found.keys()),
        "different": sum(expected.get(key) != value for key, value in found.items()),
        "consumed_exactly_once": consumed_once(rough),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 22)
