"""One application, asked in this process, and a clock that a test moves."""

from dataclasses import dataclass, field
from pathlib import Path

from fastapi import APIRouter
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from icestream.facility.database import FacilityDatabase
from icestream.settings import Settings
from icestream.web.access import AccessFile
from icestream.web.app import make_app
from icestream.web.callers import Callers, TrustedProxies
from icestream.web.oidc import Oidc
from icestream.web.places import find_places
from icestream.web.raw_folders import RawFolders
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
    site: Site
    clock: Clock = field(default_factory=Clock)

    def client(self, *, peer: str = "testclient", **headers: str) -> TestClient:
        """Return somebody who asks, as a browser on this machine does; ``peer`` is where the connection comes from."""
        base, at = "http://127.0.0.1:8765", (peer, 50000)
        return TestClient(self.app, base_url=base, headers=headers, raise_server_exceptions=False, client=at)

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
    folder: Path,
    access: Path,
    *,
    local: bool = True,
    names: tuple[str, ...] = (),
    raw: tuple[Path, ...] = (),
    proxies: TrustedProxies | None = None,
    settings: Settings | None = None,
    oidc: Oidc | None = None,
    more: tuple[APIRouter, ...] = (),
) -> Served:
    """Return the application for a folder, as `icestream serve` makes it."""
    file, clock = AccessFile(access), Clock()
    callers = Callers(
        file,
        owner="owner",
        local=local,
        browsers=BrowserSessions(clock),
        brake=Brake(clock),
        database=FacilityDatabase(access.with_name("facility.db")),
        proxies=proxies or TrustedProxies(),
        oidc=oidc,
    )
    site = Site(find_places(folder), callers, settings or Settings(min_free_gb=0, cores=1), RawFolders(raw), more)
    app = make_app(site, frozenset({"localhost", *names}))
    return Served(folder, app, file, callers, site, clock)
