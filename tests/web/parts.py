"""One application, asked in this process, and a clock that a test moves."""

from dataclasses import dataclass, field
from pathlib import Path

from starlette.testclient import TestClient
from starlette.types import ASGIApp

from icestream.settings import Settings
from icestream.web.access import AccessFile
from icestream.web.app import make_app
from icestream.web.callers import Callers
from icestream.web.places import find_places
from icestream.web.sign_in import Brake, BrowserSessions
from icestream.web.site import Site

PASSWORD = "correct horse battery"  # noqa: S105 - of a test


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Served:
    """One application and what a test needs to know of it."""

    folder: Path
    app: ASGIApp
    access: AccessFile
    callers: Callers
    clock: Clock = field(default_factory=Clock)

    def client(self, **headers: str) -> TestClient:
        """Return somebody who asks, as a browser on this machine does."""
        return TestClient(self.app, base_url="http://127.0.0.1:8765", headers=headers, raise_server_exceptions=False)

    def page(self) -> TestClient:
        """Return somebody who has the text that a change must carry, where nobody need sign in."""
        client = self.client()
        client.headers["x-icestream-csrf"] = client.get("/api/v1/me").json()["csrf"]
        return client

    def signed_in(self, name: str = "anna", password: str = PASSWORD) -> TestClient:
        """Return somebody who has signed in."""
        client = self.client()
        answer = client.post("/api/v1/sign-in", json={"name": name, "password": password})
        assert answer.status_code == 200, answer.text
        client.headers["x-icestream-csrf"] = answer.json()["csrf"]
        return client


def serve_folder(
    folder: Path, access: Path, *, local: bool = True, names: tuple[str, ...] = (), settings: Settings | None = None
) -> Served:
    """Return the application for a folder, as `icestream serve` makes it."""
    file, clock = AccessFile(access), Clock()
    callers = Callers(file, owner="owner", local=local, browsers=BrowserSessions(clock), brake=Brake(clock))
    settings = settings or Settings(min_free_gb=0, cores=1)
    app = make_app(Site(find_places(folder), callers, settings), frozenset({"localhost", *names}))
    return Served(folder, app, file, callers, clock)
