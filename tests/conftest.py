"""Fixtures shared by all tests."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from icestream.flow.execution.pool import Pool
from services.postgres import ThrowawayServer, find_binaries, throwaway_server

# Worker processes find the toy steps where this process finds them (`pythonpath` in pyproject.toml).
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])

pytest_plugins = ["toys.places", "toys.scipion_exports"]

_FIRST = ("flow", "cli", "workflows", "algorithms", "steps")
_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders whose files take longest, so that none of them is still running when all others are done."""
    folders = {item: item.path.relative_to(Path(__file__).parent).parts[0] for item in items}
    items.sort(key=lambda item: _FIRST.index(folders[item]) if folders[item] in _FIRST else len(_FIRST))


@pytest.fixture(scope="session", autouse=True)
def _a_machine_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Share the machine with no runner but those of this run of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICESTREAM_LEDGER", str(tmp_path_factory.mktemp("machine") / "ledger"))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.delenv("ICESTREAM_GPUS", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _workers_may_tell_what_they_ran() -> Iterator[None]:
    """Under `make coverage`, let idle workers end by themselves before they are killed: what is killed says nothing."""
    if "COVERAGE_PROCESS_CONFIG" not in os.environ:
        yield
        return
    kill_all = Pool.shut_down

    def end_then_kill(self: Pool) -> None:
        for worker in self.workers:
            with socket.socket(fileno=os.dup(worker.connection.fileno())) as line:
                line.shutdown(socket.SHUT_WR)
        for worker in self.workers:
            try:
                worker.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                continue
        kill_all(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pool, "shut_down", end_then_kill)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; a test that needs it is skipped by name where it is missing."""
    if not _SHARED_DATA.is_dir():
        pytest.skip("real data are missing: the folder shared/data beside the checkout")
    return _SHARED_DATA


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[ThrowawayServer]:
    """A private PostgreSQL server; its password is in the environment. Skipped by name where no server is installed."""
    if find_binaries() is None:
        pytest.skip("the PostgreSQL server is missing (Debian: postgresql)")
    with throwaway_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", server.password)
        yield server
