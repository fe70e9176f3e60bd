"""What goes wrong around executors: schedulers and files that go away, steps that hang, settings that cannot be."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from distributed import Client

from icestream.errors import SessionError
from icestream.flow.declaration.context import Exposure
from icestream.flow.declaration.exhaustion import OomWatch
from icestream.flow.declaration.outcomes import FailureKind
from icestream.flow.declaration.source import SeenFile
from icestream.flow.execution.cluster_settings import read_cluster_settings
from icestream.flow.execution.dask_executor import DaskExecutor
from icestream.flow.execution.dask_link import Link, Said
from icestream.flow.execution.executor import Capacity, Request
from icestream.flow.execution.executors import ExecutorName, open_executor
from icestream.flow.execution.messages import (
    CallCost,
    CallFailed,
    EntryAbsorbed,
    ExecutorNotice,
    ItemArrived,
    ItemJudged,
    StepCall,
    StoredRecord,
    WatchOrder,
    WorkerJoined,
)
from icestream.flow.execution.wire import pack, unpack
from icestream.flow.runner.ready_queue import ReadyQueue
from icestream.flow.runner.tasks import Task
from icestream.flow.scheduling.retry import retry_delay_s
from icestream.flow.storage import schema
from icestream.flow.storage.revisions import Revision
from toys.session import TOYS, make_toy_session, outcomes_of, read_rows, results_of, start_runner, toy_steps

PATIENCE_S = 60.0
CLUSTER = """
import sys, time
from distributed import LocalCluster
cluster = LocalCluster(
    n_workers=1, threads_per_worker=2, processes=False, scheduler_port=int(sys.argv[1]), dashboard_address=":0",
    memory_limit="2GiB", host="127.0.0.1",
)
print("up", flush=True)
time.sleep(600)
"""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def dask_cluster(port: int) -> Iterator[None]:
    command = [sys.executable, "-c", CLUSTER, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as cluster:
        try:
            assert cluster.stdout is not None
            assert cluster.stdout.readline() == b"up\n"
            yield
        finally:
            os.killpg(cluster.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_scheduler_that_goes_away_costs_nothing(tmp_path: Path) -> None:
    waiting = {"use": f"{TOYS}:wait_for_file", "in": {"number": "numbers"}}
    steps = {name: spec for name, spec in toy_steps(6).items() if name == "numbers"} | {"wait": waiting}
    session = make_toy_session(tmp_path, steps, numbers=range(6))
    port = free_port()
    where = {"executor": "dask", "scheduler": f"tcp://127.0.0.1:{port}"}
    with dask_cluster(port):
        runner = start_runner(session, where=where)
        wait_until(lambda: len(list(session.folder.rglob(".*part~*"))) == 2)
    wait_until(lambda: any("is unavailable" in text for text in notices(session)))
    (session.folder / "go").touch()
    with dask_cluster(port):
        assert runner.wait(120) == 0
    assert {row["status"] for (step, _), row in outcomes_of(session).items() if step == "wait"} == {"item"}
    assert read_rows(session, schema.failure) == []
    assert any("is back" in text for text in notices(session))


def notices(session: Any) -> list[str]:
    return [row["message"] for row in read_rows(session, schema.notice)]


def test_a_step_that_hangs_is_ended_after_its_hours_and_tried_again(tmp_path: Path) -> None:
    hurried = {"use": f"{TOYS}:hurry", "in": {"number": "numbers"}, "params": {"wait_for": [1], "stubborn": True}}
    session = make_toy_session(tmp_path, {"numbers": toy_steps(3)["numbers"], "hurry": hurried}, numbers=range(3))
    runner = start_runner(session)
    wait_until(lambda: session.store_path.exists() and bool(failures_of(session, "1")))
    (session.folder / "go").touch()
    assert runner.wait(120) == 0
    first = failures_of(session, "1")[0]
    assert first["kind"] == "transient"
    assert "2 s are allowed" in first["message"]
    assert {row["status"] for (step, _), row in outcomes_of(session).items() if step == "hurry"} == {"item"}


def failures_of(session: Any, name: str) -> list[dict[str, Any]]:
    """Return the failures of one exposure: on a busy machine others too may take longer than they are allowed."""
    units = {row["unit"] for row in read_rows(session, schema.exposure) if row["name"] == name} if failures(session) else set()
    return [row for row in failures(session) if row["unit"] in units]


def failures(session: Any) -> list[dict[str, Any]]:
    engine_ready = {"failure"} <= tables(session)
    return read_rows(session, schema.failure) if engine_ready else []


def tables(session: Any) -> set[str]:
    import sqlite3  # noqa: PLC0415 - only this look at a store that is being made

    with closing(sqlite3.connect(f"file:{session.store_path}?mode=ro", uri=True)) as connection, connection:
        found = {row[0] for row in connection.execute("select name from sqlite_master")}
    connection.close()
    return found


def test_a_file_whose_reading_kills_the_source_is_set_aside(tmp_path: Path) -> None:
    params = {"root": "numbers", "max_files": 5, "stable_s": 0.0}
    steps = {
        "numbers": {"use": "toys.files:read_fragile_files", "params": params},
        "double": {"use": f"{TOYS}:multiply", "in": {"number": "numbers"}},
    }
    session = make_toy_session(tmp_path, steps, numbers=["1.mrc", "2.mrc", "deadly.mrc", "3.mrc", "4.mrc"])
    for path in (tmp_path / "numbers").iterdir():
        mrcfile.write(path, np.zeros((4, 4), np.float32), overwrite=True)
    assert start_runner(session).wait(120) == 0
    outcomes = outcomes_of(session)
    assert {name: outcomes["double", name]["status"] for name in "1234"} == dict.fromkeys("1234", "item")
    assert outcomes["numbers", "deadly"]["status"] == "failed"
    assert "reading it killed the process 3 times" in outcomes["numbers", "deadly"]["reason"]
    assert sum("while it was reading numbers:deadly.mrc" in text for text in notices(session)) == 3


def test_bytes_bring_a_message_back_whole() -> None:
    record = StoredRecord("Number", 1, '{"value": "ü"}', b"\x00" * 5, 1)
    call = StepCall(
        attempt="a",
        use="multiply",
        step="s",
        key="k",
        seed=7,
        cores=1,
        folder="steps/s/1",
        roots={"session": "/x"},
        exposure=Exposure("1", "one"),
        params={"~": [1, {"~": "StoredRecord"}, None]},
        inputs={"number": (record, replace(record, block=b""), replace(record, block=None))},
        acquisition={"voltage_kv": 300.0},
    )
    seen = SeenFile("movies:a\udc80.tif", 5, 7)
    messages: list[object] = [
        call,
        Request("a", "s", call, cores=1, memory_gb=0.5, prefer="w1"),
        EntryAbsorbed("a", "{}", 1, record, {"1": record}, CallCost(1.0, 0.5, "here", 2)),
        CallFailed("a", FailureKind.TRANSIENT, "OSError", "no \udc80", "traceback"),
        WatchOrder("watch", {"root": "movies"}, {}, (seen,), ((seen, 3),)),
        ItemArrived("1", "one", None, "broken", {}, seen),
    ]
    assert [unpack(pack(message)) for message in messages] == messages


def test_what_is_no_message_does_not_travel() -> None:
    with pytest.raises(TypeError, match="OomWatch is neither a message"):
        pack(ItemJudged("a", True, OomWatch()))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [FailureKind.CANCELLED, FailureKind.PREEMPTED])
def test_what_says_nothing_about_an_item_is_never_too_much(kind: FailureKind) -> None:
    assert [retry_delay_s(kind, count) for count in (1, 3, 1000)] == [0.0, 0.0, 0.0]


def test_a_queue_gives_back_what_it_took_also_when_the_cluster_shrinks() -> None:
    queue = ReadyQueue(8, 16.0)
    tasks = [Task("s", str(n), str(n), {}, {}, 6, 1.0, Revision(1, "s", 1, "s", 1, 0, {})) for n in range(3)]
    for task in tasks:
        queue.put(task, depth=1)
    first = queue.take()
    assert first is tasks[0]
    assert queue.take() is None
    queue.resize(Capacity(0, 0.0, 0))
    queue.give_back(first)
    assert queue.running == {}
    assert queue.take() is None
    queue.resize(Capacity(8, 16.0, 4))
    assert [queue.take(), queue.take()] == tasks[1:]
    assert queue.running["cores"] == 8


class Unplugged(Link):
    """A link to nowhere: news are put by the test."""

    def open(self) -> None:
        self.up, self.client = True, _Running()  # type: ignore[assignment]

    def close(self, futures: Any) -> None:
        self.news.close()


class _Running:
    status = "running"


def no_client() -> Client:
    raise AssertionError("nothing connects")


def test_a_worker_with_another_version_is_not_used() -> None:
    executor = DaskExecutor(Unplugged("tcp://nowhere:1", no_client))
    joined = WorkerJoined("tcp://a:1", 4, 8.0, "0.0.0", None, 1)
    for _ in range(2):
        executor.link.news.put(Said(joined))
    (answer,) = executor.answers()
    assert isinstance(answer.message, ExecutorNotice)
    assert "has icestream 0.0.0" in answer.message.message
    assert executor.capacity() == Capacity(0, 0, 0)
    executor.shut_down()


SMALL = "cores: 4\nmemory_gb: 8\nmaximum_jobs: 2\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cores: 4\n", "memory_gb: Field required"),
        (SMALL + "queue: main\n", "queue: Extra inputs"),
        (SMALL + "minimum_jobs: 3\n", "minimum_jobs 3 is more than maximum_jobs 2"),
        (SMALL + "partition: 'main; rm -rf x'\n", "partition: "),
        (SMALL + 'directives: ["--qos=high\\n#SBATCH -p other"]\n', "directives.0: "),
        (SMALL + 'directives: ["rm -rf x"]\n', "directives.0: "),
        (SMALL + 'setup: ["module load a\\nrm b"]\n', "setup.0: "),
        (SMALL + "walltime: 12\n", "walltime: "),
        ("- a\n", "expected names and values, got list"),
        ("a: [\n", "is not YAML"),
    ],
)
def test_cluster_settings_that_cannot_be_are_named(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(SessionError, match=r"cluster settings .*cluster\.yaml") as caught:
        read_cluster_settings(path)
    assert problem in str(caught.value)


def test_the_settings_in_the_documentation_are_valid(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "run-on-a-cluster.md"
    path = tmp_path / "facility.yaml"
    path.write_text(page.read_text().split("```text\n")[1].split("```")[0])
    settings = read_cluster_settings(path)
    assert (settings.cores, settings.directives) == (16, ("--qos=high",))


@pytest.mark.parametrize(("walltime", "seconds"), [("00:30:00", 1800), ("2-01:00:05", 176405), ("120:00:00", 432000)])
def test_wall_times_are_those_of_slurm(walltime: str, seconds: int, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(f"{SMALL}walltime: '{walltime}'\n")
    assert read_cluster_settings(path).walltime_s == seconds


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("dask", {}, "--executor dask needs --scheduler"),
        ("slurm", {}, "--executor slurm needs --cluster-settings"),
        ("local", {"scheduler": "tcp://a:1"}, "--scheduler is only for --executor dask; the executor is local"),
        ("dask", {"scheduler": "tcp://a:1", "cluster_settings": Path("x")}, "--cluster-settings is only for --executor slurm"),
        ("dask", {"scheduler": "nonsense://a"}, "the dask scheduler nonsense://a cannot be reached"),
        ("slurm", {"cluster_settings": Path("/nowhere/x.yaml")}, "cluster settings /nowhere/x.yaml: cannot be read"),
    ],
)
def test_an_executor_that_cannot_be_says_why(name: ExecutorName, options: Any, problem: str, tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, {"numbers": toy_steps(1)["numbers"]}, numbers=range(1))
    with pytest.raises(SessionError, match=problem):
        open_executor(name, session, **options)


def test_an_undisturbed_local_run_knows_no_dask(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    code = (
        "import sys; from pathlib import Path; from icestream.flow.runner.supervisor import run_session; "
        "from icestream.flow.storage.session import open_session; from icestream.settings import Settings; "
        "run_session(open_session(Path(sys.argv[1])), Settings(cores=1)); sys.exit('distributed' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(session.folder)], check=False).returncode == 0
    assert results_of(session) != {}
