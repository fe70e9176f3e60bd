"""Fifty people look at a session that runs: python benchmarks/web_load.py [--clients 50] [--phase-s 120] [--rounds 3].

A real runner processes a backlog by steps that only wait, as many exposures an hour as it is told (1,000), with workers that
are busy all the time, so that whatever slows it down is seen. A real `icestream serve` shows it. In turns, nobody looks, and
then clients do, as the page of a session does: each listens to the events, asks for the session and its newest exposures
when it hears of one, at most every 0.4 s, and every 5 s anyway. Clients share one process; on four cores or more it has one of
its own, which neither the runner nor the server uses. Browsers run on other machines, so it must not wait for the workers: a
process of lowest priority would measure mostly how long it waits itself.

Prints one JSON line: from the time at which the runner stored an outcome, how long it took until a client was told
(`event`), and until it had read both answers that show it (`page`); how fast outcomes were stored with clients and without;
and the CPU of each.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sqlalchemy import select

import with_toys  # noqa: F401 - first: it makes the toy steps importable
from icestream.flow.storage import Session, schema
from icestream.observe.queries import open_view
from toys.session import TOYS, make_toy_session
from with_server import Server, serve

DEPTH = 8
WORKERS = 4
SOONEST_S = 0.4
TICK_S = 5.0
SETTLING_S = 5.0
"""The beginning of each part, which does not count."""
PAGE = "/api/v1/sessions/session"
SHOWN = (PAGE, f"{PAGE}/exposures?limit=24")


@dataclass
class Client:
    """One browser: what it was told, and what it has shown, as pairs of time and number in the change sequence."""

    port: int
    token: str
    told: list[tuple[float, int]] = field(default_factory=list)
    shown: list[tuple[float, int]] = field(default_factory=list)
    _wanted: str | None = None
    _again: asyncio.Event = field(default_factory=asyncio.Event)

    async def live(self, seconds: float) -> None:
        """Follow the session for a while."""
        tasks = [asyncio.create_task(one) for one in (self._listen(), self._refresh(), self._tick())]
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task.exception() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        if failed:
            raise SystemExit(f"a client has failed: {failed[0]!r}")

    async def _listen(self) -> None:
        reader, _ = await self._ask(f"{PAGE}/events")
        while line := await reader.readline():
            if line.startswith(b"data: "):
                said = json.loads(line[6:])
                self.told.append((time.time(), said["seq"]))
                self._wanted = said["pulse"]
                self._again.set()
        raise ConnectionError("the stream of events has ended")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._again.set()

    async def _refresh(self) -> None:
        while True:
            await self._again.wait()
            self._again.clear()
            answers = await asyncio.gather(*(self._read(path) for path in SHOWN))
            self.shown.append((time.time(), min(int(one["x-icestream-seq"]) for one in answers)))
            if self._wanted is not None and answers[-1]["x-icestream-pulse"] != self._wanted:
                self._again.set()
            await asyncio.sleep(SOONEST_S)

    async def _read(self, path: str) -> dict[str, str]:
        reader, writer = await self._ask(path, "Connection: close\r\n")
        answer = await reader.read()
        writer.close()
        head, _, _ = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        if " 200 " not in status:
            raise ConnectionError(status)
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def _ask(self, path: str, more: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.token}\r\n{more}\r\n"
        writer.write(asked.encode())
        return reader, writer


async def _live(port: int, token: str, count: int, seconds: float) -> None:
    clients = [Client(port, token) for _ in range(count)]
    await asyncio.gather(*(one.live(seconds) for one in clients))
    print(json.dumps({"clients": [[one.told, one.shown] for one in clients], "cpu_s": time.process_time()}))


def _apart() -> tuple[list[int] | None, list[int] | None]:
    """Return the cores of the clients and of everything else; None where there are too few to part them."""
    cores = psutil.Process().cpu_affinity()
    return ([cores[-1]], cores[:-1]) if len(cores) >= 4 else (None, None)


def _look(server: Server, count: int, seconds: float) -> dict[str, Any]:
    """Let clients look for a while, and return what they saw."""
    command = [sys.executable, __file__, "--live", str(server.port), server.tokens[0], str(count), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    mine = psutil.Process(process.pid)
    if (core := _apart()[0]) is not None:
        mine.cpu_affinity(core)
    said, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the clients ended with {process.returncode}")
    found: dict[str, Any] = json.loads(said)
    return found


def _outcomes(session: Session) -> list[tuple[float, int]]:
    """Return when the runner stored each outcome of the steps that work, and its number in the change sequence."""
    table = schema.outcome
    with open_view(session) as view, view.reading() as connection:
        if connection is None:
            return []
        asked = select(table.c.at, table.c.seq).where(table.c.status == "item").order_by(table.c.seq)
        return [(row.at, row.seq) for row in connection.execute(asked)]


def _delays(rows: list[tuple[float, int]], seen: list[tuple[float, int]], until: float) -> list[float]:
    """Return for each outcome how long it took until a client had seen it, or something later."""
    numbers = list(np.maximum.accumulate([seq for _, seq in seen])) if seen else []
    delays = []
    for at, seq in rows:
        index = bisect_left(numbers, seq)
        delays.append((seen[index][0] if index < len(seen) else until) - at)
    return delays


def _pace(rows: list[tuple[float, int]], since: float, until: float) -> tuple[int, float]:
    """Return how many outcomes followed one another in a time, and how many seconds that took."""
    times = sorted(at for at, _ in rows if since <= at <= until)
    return (len(times) - 1, times[-1] - times[0]) if len(times) > 1 else (0, 0.0)


@dataclass
class Parts:
    """When nobody looked, and when clients did, and what they saw."""

    alone: list[tuple[float, float]] = field(default_factory=list)
    watched: list[tuple[float, float, dict[str, Any]]] = field(default_factory=list)

    def figures(self, rows: list[tuple[float, int]]) -> dict[str, Any]:
        """Return what the parts show."""
        told: list[float] = []
        shown: list[float] = []
        for since, until, seen in self.watched:
            mine = [row for row in rows if since + SETTLING_S <= row[0] <= until - SETTLING_S]
            for one in seen["clients"]:
                told += _delays(mine, one[0], until)
                shown += _delays(mine, one[1], until)
        paces = {}
        for name, spans in (("without", self.alone), ("with", [(since, until) for since, until, _ in self.watched])):
            counted = [_pace(rows, since + SETTLING_S, until) for since, until in spans]
            paces[name] = sum(count for count, _ in counted) / max(1e-9, sum(seconds for _, seconds in counted))
        gaps = [late - early for (early, _), (late, _) in pairwise(rows)]
        return {
            **{f"event_{name}_s": value for name, value in _percentiles(told).items()},
            **{f"page_{name}_s": value for name, value in _percentiles(shown).items()},
            "updates": len(shown),
            "outcomes_per_s": {name: round(pace, 4) for name, pace in paces.items()},
            "exposures_per_hour": {name: round(3600 * pace / DEPTH, 1) for name, pace in paces.items()},
            "throughput_ratio": round(paces["with"] / paces["without"], 4),
            "longest_without_an_outcome_s": round(max(gaps, default=0.0), 2),
        }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{part}": round(float(np.percentile(values, part)), 3) for part in (50, 95, 99)} if values else {}


def _make_session(folder: Path, *, per_hour: float, exposures: int) -> Session:
    sleep_s = WORKERS * 3600.0 / per_hour / (DEPTH - 1)
    steps: dict[str, Any] = {"s0": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": exposures}}}
    for depth in range(1, DEPTH):
        steps[f"s{depth}"] = {
            "use": f"{TOYS}:multiply",
            "in": {"number": f"s{depth - 1}"},
            "params": {"factor": 1, "sleep_s": sleep_s},
        }
    return make_toy_session(folder, steps, numbers=range(1, exposures + 1))


def main(*, clients: int, per_hour: float, phase_s: float, rounds: int) -> None:
    exposures = round(per_hour / 3600 * (2 * rounds * phase_s + 120) * 1.5)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        session = _make_session(folder, per_hour=per_hour, exposures=exposures)
        command = [sys.executable, "-m", "icestream", "run", str(session.folder), "--cores", str(WORKERS)]
        runner = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"ICESTREAM_LEDGER": ""})
        try:
            with serve(session.folder, folder / "state") as server:
                if (others := _apart()[1]) is not None:
                    for pid in (runner.pid, server.process.pid):
                        psutil.Process(pid).cpu_affinity(others)
                while len(_outcomes(session)) < exposures + DEPTH * WORKERS:  # the backlog has arrived, and every worker works
                    time.sleep(1.0)
                print(json.dumps(_measure(session, server, runner.pid, clients=clients, phase_s=phase_s, rounds=rounds)))
        finally:
            runner.terminate()
            runner.wait(timeout=120)


def _measure(session: Session, server: Server, runner: int, *, clients: int, phase_s: float, rounds: int) -> dict[str, Any]:
    parts, served_s, clients_s = Parts(), 0.0, 0.0
    began = psutil.Process(runner).cpu_times().user
    for _ in range(rounds):
        since = time.time()
        time.sleep(phase_s)
        parts.alone.append((since, time.time()))
        since, used = time.time(), sum(server.process.cpu_times()[:2])
        seen = _look(server, clients, phase_s)
        parts.watched.append((since, time.time(), seen))
        served_s += sum(server.process.cpu_times()[:2]) - used
        clients_s += seen["cpu_s"]
    watched_s = sum(until - since for since, until, _ in parts.watched)
    return {
        "benchmark": "web_load",
        "clients": clients,
        "phase_s": phase_s,
        "rounds": rounds,
        **parts.figures(_outcomes(session)),
        "server_cpu_percent": round(100 * served_s / watched_s, 1),
        "clients_cpu_percent": round(100 * clients_s / watched_s, 1),
        "runner_cpu_s": round(psutil.Process(runner).cpu_times().user - began, 1),
        "clients_apart": _apart()[0] is not None,
        "server_rss_mb": server.rss_mb(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--per-hour", type=float, default=1000.0, help="exposures that the runner processes in an hour")
    parser.add_argument("--phase-s", type=float, default=120.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--live", nargs=4, metavar=("PORT", "TOKEN", "CLIENTS", "SECONDS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.live:
        asyncio.run(_live(int(given.live[0]), given.live[1], int(given.live[2]), float(given.live[3])))
    else:
        main(clients=given.clients, per_hour=given.per_hour, phase_s=given.phase_s, rounds=given.rounds)
