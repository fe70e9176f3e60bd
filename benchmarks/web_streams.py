"""Very many streams of events at once: python benchmarks/web_streams.py [--streams 10000] [--people 12].

A client opens streams of events at a real `icestream serve`, in the name of several people, and keeps them all open; then as
many connections again that send nothing. Meanwhile another process asks for a page of a session, twenty times a second, each
time over a new connection. Prints one JSON line: how many streams were opened and refused, memory of the server, and how
long the page took before, while the streams stood open, and while the silent connections did.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import with_toys  # noqa: F401 - first: it makes the toy steps importable
from icestream.flow.runner.supervisor import run_session
from icestream.settings import Settings
from toys.session import make_toy_session, toy_steps
from with_server import Server, serve

PAGE = "/api/v1/sessions/session"
EVERY_S = 0.05
AT_ONCE = 200
PATIENCE_S = 60.0


async def _open(
    server: Server, number: int, kept: list[asyncio.StreamWriter], seen: Counter[str], few: asyncio.Semaphore
) -> None:
    token = server.tokens[number % len(server.tokens)]
    asked = f"GET {PAGE}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
    async with few:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", server.port), PATIENCE_S)
            kept.append(writer)
            writer.write(asked.encode())
            line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
            seen[line.split(b" ")[1].decode() if line else "closed"] += 1
        except (OSError, TimeoutError) as error:
            seen[type(error).__name__] += 1


async def _open_silent(server: Server, kept: list[asyncio.StreamWriter], few: asyncio.Semaphore) -> None:
    async with few:
        with suppress(OSError, TimeoutError):
            _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", server.port), PATIENCE_S)
            kept.append(writer)


async def _ask_page(port: int, token: str) -> tuple[int, float]:
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {PAGE} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    return int(answer.split(b" ", 2)[1]) if answer else 0, time.perf_counter() - began


async def _measure(port: int, token: str) -> None:
    """Print for each page its status and how many milliseconds it took, until standard input ends."""
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not ended.done():
        status, took_s = await _ask_page(port, token)
        print(status, 1e3 * took_s, flush=True)
        await asyncio.sleep(EVERY_S)


class Asking:
    """Another process that asks for a page again and again."""

    def __init__(self, server: Server) -> None:
        command = [sys.executable, __file__, "--measure", str(server.port), server.tokens[0]]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop(self) -> dict[str, Any]:
        """Return what was seen."""
        said, _ = self._process.communicate()
        rows = [line.split() for line in said.splitlines()]
        took = [float(ms) for status, ms in rows if status == "200"]
        return {
            "asked": len(rows),
            "not_answered": len(rows) - len(took),
            "p50_ms": round(float(np.percentile(took, 50)), 1) if took else None,
            "p95_ms": round(float(np.percentile(took, 95)), 1) if took else None,
        }


async def _attack(server: Server, *, streams: int, seconds: float) -> dict[str, Any]:
    kept: list[asyncio.StreamWriter] = []
    seen: Counter[str] = Counter()
    few = asyncio.Semaphore(AT_ONCE)
    found: dict[str, Any] = {}
    for name in ("before", "with_streams", "with_silent_connections"):
        asking, until = Asking(server), time.perf_counter() + seconds
        if name == "with_streams":
            await asyncio.gather(*(_open(server, number, kept, seen, few) for number in range(streams)))
            found["opening_s"] = round(time.perf_counter() - until + seconds, 1)
        elif name == "with_silent_connections":
            await asyncio.gather(*(_open_silent(server, kept, few) for _ in range(streams)))
        await asyncio.sleep(max(1.0, until - time.perf_counter()))
        found[f"page_{name}"] = await asyncio.to_thread(asking.stop)
        found[f"rss_mb_{name}"] = server.rss_mb()
        found[f"connections_{name}"] = len(server.process.net_connections(kind="tcp")) - 1
    for writer in kept:
        writer.close()
    answers = {"opened": seen.pop("200", 0), "refused": seen.pop("503", 0), "other": dict(seen)}
    return {"benchmark": "web_streams", "streams": streams, "people": len(server.tokens), **answers, **found}


def main(*, streams: int, people: int, seconds: float) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < streams + 500:
        raise SystemExit(f"this machine lets a process open {hard} files; {streams} streams need {streams + 500}: use --streams")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        session = make_toy_session(folder, toy_steps(4), numbers=range(20))
        run_session(session, Settings(cores=1))
        with serve(session.folder, folder / "state", people=people) as server:
            print(json.dumps(asyncio.run(_attack(server, streams=streams, seconds=seconds))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=15.0, help="at least so long each of the three parts takes")
    parser.add_argument("--measure", nargs=2, metavar=("PORT", "TOKEN"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        asyncio.run(_measure(int(given.measure[0]), given.measure[1]))
    else:
        main(streams=given.streams, people=given.people, seconds=given.seconds)
