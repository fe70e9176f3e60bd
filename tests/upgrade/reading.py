"""What an old session and its continuation are compared by: rows of the store and answers of the command line."""

import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from icestream.cli import app

Rows = list[dict[str, Any]]

Close = Callable[[str, float, float], bool]
"""``(where, found, wanted) → whether they are equal but for their last digits``."""

PATIENT = {"ICESTREAM_REBUILD_FRACTION": "1", "ICESTREAM_LEDGER": ""}
"""What was taken out of the classes stays marked, and they are not built anew: the sessions are too small for a fraction. Two of
them may be processed at a time."""


VIEWS = {
    "status": ("status",),
    "failed": ("failed", "--set-aside"),
    "history": ("history",),
    "revisions": ("revisions",),
    "why": ("why",),
    **{f"why {name}": ("why", name) for name in ("classes", "mic_0002", "mic_0006")},
    **{f"trace {name}": ("trace", name) for name in ("mic_0001", "mic_0002", "mic_0003", "mic_0005", "mic_0006", "classes:1")},
}
"""What is shown of a session, by name: words of the command line that print JSON."""


def icestream(*words: str | Path, expect: tuple[int, ...] = (0,)) -> str:
    """Run a command as it is typed; return what it printed."""
    answer = CliRunner().invoke(app, [str(word) for word in words], env=PATIENT)
    if answer.exit_code not in expect:
        raise AssertionError(
            f"icestream {' '.join(map(str, words))} ended with {answer.exit_code}: {answer.output}"
        ) from answer.exception
    return answer.stdout


def run(session: Path, *, cores: int = 1, expect: tuple[int, ...] = (0, 3)) -> None:
    """Process a session in a process of its own: on one core exposures come to every step in one order."""
    with start(session, cores=cores) as runner:
        if runner.wait() not in expect:
            raise AssertionError(f"icestream run {session} ended with {runner.returncode}")


def start(session: Path, *, cores: int = 1) -> "subprocess.Popen[bytes]":
    """Start to process a session."""
    command = [sys.executable, "-m", "icestream", "run", str(session), "--cores", str(cores), "--quiet"]
    return subprocess.Popen(command, env=os.environ | PATIENT, stdout=subprocess.DEVNULL)


def ask(session: Path, *words: str) -> Any:
    """Run a command that prints JSON."""
    return json.loads(icestream(words[0], session, *words[1:], "--json"))


def make_session(folder: Path) -> Path:
    """Make a session in ``folder`` of the movies and the gain that lie there."""
    session = folder / "session"
    roots = ("--set", f"movies={folder / 'movies'}", "--set", f"gain={folder / 'gain' / 'gain.mrc'}")
    icestream("new", session, "--template", Path(__file__).with_name("workflow.yaml"), *roots, "--no-input")
    return session


def let_others_arrive(session: Path) -> None:
    """Tell a session where its raw data are now, and let the movies come that are still missing."""
    for root in ("movies", "gain"):
        icestream("relink", session, f"{root}={session.parent / root}")
    for path in sorted((session.parent / "arriving").iterdir()):
        path.rename(session.parent / "movies" / path.name)


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a stored session with its raw data; times of files are kept, by which a source knows them again."""
    with tarfile.open(archive) as packed:
        packed.extractall(target, filter="data")
    return target / "session"


def rows(session: Path, query: str) -> Rows:
    """Read rows of the store, without a change to it."""
    with closing(sqlite3.connect(f"file:{session / 'icestream.db'}?mode=ro", uri=True)) as store:
        store.row_factory = sqlite3.Row
        return [dict(row) for row in store.execute(query)]


def schema_version(session: Path) -> int:
    """Return the version of the tables of the store."""
    return int(rows(session, "SELECT schema_version FROM runner")[0]["schema_version"])


def read_outcomes(session: Path) -> Rows:
    """Return what every revision of every step says about every exposure, by name."""
    return rows(
        session,
        "SELECT step, number, coalesce(name, outcome.unit) AS exposure, status, reason, root, keys "
        "FROM outcome JOIN revision ON revision.id = outcome.revision LEFT JOIN exposure ON exposure.unit = outcome.unit "
        "ORDER BY step, number, exposure",
    )


def read_results(session: Path) -> dict[str, dict[str, Any]]:
    """Return key → record, table and where it was made."""
    found = rows(session, "SELECT key, record, block, weight, created_at, host FROM result ORDER BY key")
    return {
        row["key"]: {
            "record": json.loads(row["record"]),
            "table": read_table(row["block"]),
            "weight": row["weight"],
            "made": [row["created_at"], row["host"]],
            "bits": sha256(row["record"].encode() + (row["block"] or b"")).hexdigest(),
            "files": {ref: digest(session / ref) for ref in sorted(re.findall(r'"session:([^"]+)"', row["record"]))},
        }
        for row in found
    }


def digest(path: Path) -> str | None:
    """Return a hash of a file, or None where it is not there."""
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def read_table(block: bytes | None) -> dict[str, Any] | None:
    """Return the columns of a table of particles, each with its type."""
    if block is None:
        return None
    table = np.load(io.BytesIO(block), allow_pickle=False)
    return {name: [table.dtype[name].str, table[name].tolist()] for name in table.dtype.names}


def read_session(session: Path) -> dict[str, Any]:
    """Return everything that a continuation is compared by."""
    named = "step, number FROM revision JOIN {0} ON {0}.revision = revision.id"
    return {
        "outcomes": read_outcomes(session),
        "results": read_results(session),
        "snapshots": rows(session, f"SELECT version, key, pruned, {named.format('snapshot')} ORDER BY step, number, version"),
        "logs": rows(
            session, f"SELECT position, members, closing, state_key, {named.format('accumulator_log')} ORDER BY 5, 6, 1"
        ),
        "batches": rows(
            session,
            "SELECT batch.number AS batch, members, remainder, step FROM batch JOIN revision ON id = revision ORDER BY 4, 1",
        ),
        "gates": rows(session, f"SELECT last, {named.format('gate_opening')} ORDER BY step, number"),
        "bindings": rows(session, f"SELECT unit, port, version, key, {named.format('binding')} ORDER BY 5, 6, 1, 2"),
        "stale": rows(session, f"SELECT unit, {named.format('stale')} ORDER BY step, number, unit"),
        "revisions": rows(session, "SELECT step, number, state, epoch, params FROM revision ORDER BY step, number"),
    }


def read_report(session: Path) -> dict[str, Any]:
    """Write the report; return how many pictures and drawings are in it, and which exposures and steps."""
    page = icestream_report(session)
    words = set(re.findall(r"[a-z]\w+", re.sub(r"<[^>]*>|data:[^\"']*", " ", page)))
    return {
        "pictures": len(re.findall(r"<img\b", page)),
        "drawings": len(re.findall(r"<svg\b", page)),
        "exposures": sorted(word for word in words if word.startswith("mic_")),
        "steps": sorted(words & {row["step"] for row in rows(session, "SELECT step FROM revision")}),
    }


def icestream_report(session: Path) -> str:
    """Write the report beside the session; return the page."""
    page = session.with_name("report.html")
    icestream("report", session, "--to", page)
    return page.read_text(encoding="utf-8")


def differences(found: Any, wanted: Any, close: Close, where: str = "") -> Iterator[str]:
    """Compare values of records and tables: exactly, but for numbers that are floats."""
    if isinstance(wanted, float) and isinstance(found, int | float):
        if not close(where, float(found), wanted):
            yield f"{where}: {found!r}, not {wanted!r}"
    elif isinstance(wanted, dict) and isinstance(found, dict):
        for name in sorted(wanted.keys() | found.keys()):
            yield from differences(found.get(name), wanted.get(name), close, f"{where}.{name}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(found) == len(wanted):
        for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from differences(one, other, close, f"{where}[{index}]")
    elif found != wanted:
        yield f"{where}: {found!r}, not {wanted!r}"
