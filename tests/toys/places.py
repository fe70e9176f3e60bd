"""Where the contract of the engine is tested: every store, and every way to execute."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from icestream.flow.storage.location import Location
from icestream.flow.storage.session import Session
from toys.session import make_toy_session, start_runner
from toys.sites import SITES, Site

STORES = [pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.services)]
"""The kinds of store."""

EXECUTORS = [pytest.param("local"), pytest.param("dask"), pytest.param("slurm", marks=pytest.mark.services)]
"""The ways to execute."""


@pytest.fixture(scope="module", params=EXECUTORS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        yield SITES[request.param](stack, tmp_path_factory.mktemp(request.param))


@dataclass(frozen=True)
class Place:
    """A kind of store, under a folder of one test."""

    folder: Path
    store: str | None
    """What ``store:`` of a session's document says; None is the default, a SQLite file in the session's folder."""

    def session(self, steps: Mapping[str, Any], *, numbers: range | list[str], name: str = "a") -> Session:
        """Make a toy session; every ``name`` has a store of its own."""
        return make_toy_session(self.folder / name, steps, numbers=numbers, store=self.store)

    def location(self, name: str = "a") -> Location:
        """Return where a session without results keeps its store."""
        steps = {"n": {"use": "toys.steps:count_numbers", "params": {"stop_after": 0}}}
        return self.session(steps, numbers=range(0), name=name).store_at

    def start(self, session: Session, *, die_at: str | None = None) -> "subprocess.Popen[bytes]":
        """Run a session in a process of its own."""
        return start_runner(session, die_at=die_at)


@pytest.fixture(params=STORES)
def store_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(store_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    server = None if store_kind == "sqlite" else request.getfixturevalue("postgres_server")
    return Place(tmp_path, None if server is None else server.url)
