"""What one report costs when a session is short and when it is long: python benchmarks/report_cost.py [exposures …].

The sessions are virtual work: rows as a runner stores them, of twenty steps from movies to 2D classes with a record of every
type, a fifth of the exposures rejected with a reason of their own and one in a hundred failed. Prints one JSON line: for each
number of exposures the CPU seconds of the first report of a process, of a later one after 20 more exposures, and the bytes of
the page and of the JSON beside it; and how many times as much the longest session costs as the shortest, and as the next.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import with_toys

sys.path.insert(0, str(Path(with_toys._TESTS) / "observe"))  # noqa: SLF001 - where the sessions on paper are

import paper_every_record as every
from paper_session import PaperSession

from icestream.flow.storage import schema
from icestream.flow.workflow.keys import digest
from icestream.observe.report import ReportWriter

CHUNK = 500
MORE = 20
POOL = 8


def main(sizes: list[int]) -> None:
    """Measure sessions of these sizes."""
    measured = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="report-cost-") as folder:
            measured[str(size)] = measure(Path(folder), size)
    ordered = [measured[str(size)] for size in sorted(sizes)]
    figures = ("next_cpu_s", "page_bytes", "json_bytes")
    growth = {name: round(ordered[-1][name] / ordered[0][name], 3) for name in figures}
    late = {name: round(ordered[-1][name] / ordered[-2][name], 3) for name in figures} if len(sizes) > 1 else growth
    print(json.dumps({"sizes": measured, "growth": growth, "late_growth": late}))


def measure(folder: Path, exposures: int) -> dict[str, float]:
    """Write a session, and its report twice."""
    session = VirtualSession(folder)
    session.add(exposures)
    with ReportWriter(session.paper.session) as writer:
        began = time.process_time()
        written = writer.write()
        first = time.process_time() - began
        costs = []
        for _ in range(3):
            session.add(MORE)
            began = time.process_time()
            written = writer.write()
            costs.append(time.process_time() - began)
    return {
        "first_cpu_s": round(first, 3),
        "next_cpu_s": round(sorted(costs)[1], 3),
        "page_bytes": written.page.stat().st_size,
        "json_bytes": written.data.stat().st_size,
    }


class VirtualSession:
    """A session that grows by rows, many at a time."""

    def __init__(self, folder: Path) -> None:
        self.paper: PaperSession = every.write_every_record(folder)
        self.paper.revise("good", "filter", links={"ctf": ["ctf_a"]})
        rng = np.random.default_rng(3)
        self.pool = [every._records_of(index + 1, rng, "movies:gain.mrc") for index in range(POOL)]  # noqa: SLF001
        self.texts = [{step: record.model_dump_json() for step, record in records.items()} for records in self.pool]
        self.n = every.N_EXPOSURES

    def add(self, exposures: int) -> None:
        """Let so many more exposures go through every step."""
        until = self.n + exposures
        while self.n < until:
            count = min(CHUNK, until - self.n)
            rows: dict[str, list[dict[str, Any]]] = {"exposure": [], "result": [], "outcome": [], "failure": []}
            for _ in range(count):
                self.n += 1
                self._expose(rows)
            self.paper.add_many({name: values for name, values in rows.items() if values})

    def text_of(self, step: str, number: int) -> str:
        """Return the record that a step has made of an exposure, as it is stored."""
        return self.texts[number % POOL][step]

    def _expose(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        paper, number = self.paper, self.n
        paper.now += 3.6
        unit = digest("origin", number)
        at = {"at": paper.now}
        arrival = {"name": f"FoilHole_{number:06d}", "identity": f"{number}|7|abc", "source": "movies"}
        times = {"acquisition": '{"voltage_kv": 300.0}', "arrived_at": paper.now, "seq": paper.store.next_seq()}
        rows["exposure"].append({"unit": unit, "ordinal": number, **arrival, **times})
        failed = number % 100 == 7
        for step, record in self.pool[number % POOL].items():
            decided = {"revision": paper.revisions[step], "unit": unit, **at, "seq": paper.store.next_seq()}
            if failed and step == "find":
                rows["outcome"].append(
                    {**decided, "status": "failed", "weight": 0, "reason": f"frame {number} is broken", "keys": "{}"}
                )
                rows["failure"].append(_failure(paper, unit, number))
                continue
            key = digest("result", step, unit)
            rows["result"].append({**_cost(paper, step), "key": key, "unit": unit, **_stored(record, self.text_of(step, number))})
            rows["outcome"].append(
                {**decided, "status": "item", "weight": record.weight, "reason": None, "keys": f'{{"out": "{key}"}}'}
            )
        aside = number % 5 == 0
        reason = f"resolution {6 + number / 1000:.3f} Å is above 6 Å" if aside else None
        decided = {"revision": paper.revisions["good"], "unit": unit, **at, "seq": paper.store.next_seq(), "keys": "{}"}
        rows["outcome"].append({**decided, "status": "rejected" if aside else "item", "weight": 1, "reason": reason})


def _cost(paper: PaperSession, step: str) -> dict[str, Any]:
    fixed = {"inputs": "{}", "params": "{}", "acquisition": "{}", "wall_s": 2.0, "cpu_s": 1.5, "host": "node1", "software": "9.9"}
    return {**fixed, "revision": paper.revisions[step], "created_at": paper.now}


def _stored(record: Any, text: str) -> dict[str, Any]:
    named = {"record_type": type(record).stored_name, "record_version": type(record).schema_version, "record": text}
    return {**named, "block": getattr(record, "block", None), "weight": record.weight}


def _failure(paper: PaperSession, unit: str, number: int) -> dict[str, Any]:
    what = {"kind": "error", "error_type": "ValueError", "message": f"frame {number} is broken", "traceback": "Traceback"}
    where = {"revision": paper.revisions["find"], "unit": unit, "attempt": unit[:8], "cleared": False}
    return {"seq": paper.store.next_seq(), "at": paper.now, **where, **what}


assert schema.SCHEMA_VERSION >= 6  # noqa: S101 - the rows above are those of this schema

if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [1000, 6000, 20_000])
