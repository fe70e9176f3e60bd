"""Clients that are slow on purpose: they are let go, and keep nobody else out."""

import resource
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from icestream.web import connections
from icestream.web.connections import Connection, most_connections
from web.parts import Served

LARGE = 40_000_000


@dataclass
class Running:
    """An application that is served in a thread."""

    port: int
    server: uvicorn.Server

    def connect(self, *, takes_bytes: int | None = None) -> socket.socket:
        made = socket.socket()
        if takes_bytes is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes_bytes)
        made.settimeout(60)
        made.connect(("127.0.0.1", self.port))
        return made

    def ask(self, path: str) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            answer.read()
            return int(answer.status)

    def wait_until_gone(self) -> None:
        """Wait until no connection is left; the timeout of the test ends what would never."""
        while self.server.server_state.connections:
            time.sleep(0.02)


@contextmanager
def running(app: ASGIApp, *, most: int = 100) -> Iterator[Running]:
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", lifespan="off", http=Connection, limit_concurrency=most
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Running(server.servers[0].sockets[0].getsockname()[1], server)
    finally:
        server.force_exit = server.should_exit = True
        thread.join(timeout=30)


async def sends_much(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with more than any buffer holds, or with a word."""
    content = b"x" * LARGE if scope["path"] == "/much" else b"word"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(content)).encode())]})
    for start in range(0, len(content), 1_000_000):
        more = start + 1_000_000 < len(content)
        await send({"type": "http.response.body", "body": content[start : start + 1_000_000], "more_body": more})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes moments."""
    monkeypatch.setattr(connections, "REQUEST_S", 0.4)
    monkeypatch.setattr(connections, "TAKING_S", 0.4)
    monkeypatch.setattr(connections, "LOOK_S", 0.05)


def ended(client: socket.socket) -> bool:
    """Wait for what the server sends, and tell whether it ends the connection without an answer."""
    with suppress(ConnectionError):
        return client.recv(1000) == b""
    return True


def drip(client: socket.socket) -> None:
    """Send a header that never ends, one byte after the other, until the other side has had enough."""
    with suppress(OSError):
        while True:
            client.sendall(b"x")
            time.sleep(0.02)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"POST /api/v1/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n{",
        b"POST /api/v1/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{    \r\n2000\r\n",
    ],
    ids=["nothing", "headers", "body", "chunks"],
)
@pytest.mark.parametrize("drips", [False, True])
def test_a_request_that_never_ends_is_let_go(closed_site: Served, said: bytes, drips: bool):
    with running(closed_site.app) as served, served.connect() as client:
        client.sendall(said)
        if drips and said:
            threading.Thread(target=drip, args=(client,), daemon=True).start()
        assert ended(client)
        assert served.ask("/") == 200
        assert closed_site.callers.database is not None
        assert closed_site.callers.database.audit(limit=10) == []  # half a request is none


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("ends", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("path", [b"/much", b"/word"])
def test_who_takes_nothing_is_let_go(path: bytes, ends: bytes):
    with running(sends_much) as served, served.connect(takes_bytes=2048) as client:
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + ends + b"\r\n")
        while served.server.server_state.total_requests == 0 and path == b"/word":
            time.sleep(0.01)
        served.wait_until_gone()


@pytest.mark.usefixtures("impatient")
def test_who_takes_slowly_but_takes_gets_everything(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "TAKING_S", 30.0)
    with running(sends_much) as served, served.connect() as client:
        client.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = 0
        while piece := client.recv(1_000_000):
            received += len(piece)
    assert received > LARGE


def test_idle_connections_make_room_for_who_asks():
    with running(sends_much, most=40) as served, ExitStack() as stack:
        for number in range(300):
            client = stack.enter_context(served.connect())
            with suppress(OSError):
                client.sendall([b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"][number % 3])
            if number % 50 == 49:
                assert served.ask("/word") == 200
        assert len(served.server.server_state.connections) <= 40


def test_a_server_may_open_as_many_files_as_it_has_connections():
    most = most_connections()
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert 100 <= most <= connections.MOST_CONNECTIONS
    assert soft == resource.RLIM_INFINITY or soft >= most + connections.SPARE


CHUNKED = b"POST /api/v1/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "said",
    [
        CHUNKED + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n{}  ",
        CHUNKED + b"Content-Length: 4, 5\r\n\r\n{}  ",
        CHUNKED + b"Content-Length: +4\r\n\r\n{}  ",
        CHUNKED + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rSet-Cookie: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["both lengths", "two lengths", "a list", "a sign", "no such coding", "a space", "NUL", "CR", "two hosts", "no host",
         "another host", "a huge header", "TLS"],
)  # fmt: skip
def test_a_request_that_can_be_read_in_two_ways_is_refused(closed_site: Served, said: bytes):
    with running(closed_site.app) as served, served.connect() as client:
        with suppress(ConnectionError):
            client.sendall(said)
        status = client.recv(1000).split(b" ")[1]
        assert status in (b"400", b"413", b"421", b"431", b"501", b"505"), status
        assert served.ask("/") == 200
