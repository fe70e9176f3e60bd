"""One contract for every executor: this machine's processes, a dask cluster, and jobs of a real Slurm."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import JsonValue
from sqlalchemy.exc import OperationalError

from icestream.flow.declaration.context import Exposure
from icestream.flow.declaration.outcomes import FailureKind
from icestream.flow.execution.dask_executor import DaskExecutor
from icestream.flow.execution.dask_host import KEY_PREFIX, run_packed
from icestream.flow.execution.executor import Answer, Executor, Request, hear
from icestream.flow.execution.messages import CallAnswer, CallEnded, CallFailed, CallProgress, ItemMade, StepCall, StoredRecord
from icestream.flow.execution.wire import pack
from icestream.flow.execution.work_folder import sweep_work_folders
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session
from services.slurm import running_jobs
from toys.programs import write_program
from toys.session import TOYS, make_toy_session, outcomes_of, read_rows, results_of, start_runner, toy_steps
from toys.sites import Site

PATIENCE_S = 60.0
N_ITEMS = 14


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Session:
    session = make_toy_session(tmp_path_factory.mktemp("calm"), toy_steps(N_ITEMS, fail_on=[4]), numbers=range(N_ITEMS))
    assert start_runner(session).wait(120) == 0
    return session


@pytest.fixture(scope="module")
def opened(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    executor = site.open(tmp_path_factory.mktemp("logs"))
    try:
        yield executor
    finally:
        executor.shut_down()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "session.yaml").touch()
    (tmp_path / "steps").mkdir()
    return tmp_path


def request_for(folder: Path, attempt: str, *, cores: int = 1, limit_s: float | None = None, **params: Any) -> Request:
    """Return a request to run the toy that waits for a file."""
    call = StepCall(
        attempt=attempt,
        use=f"{TOYS}:wait_for_file",
        step="wait",
        key=f"{attempt:0>32}",
        seed=5,
        cores=cores,
        folder="steps/wait/1",
        roots={"session": str(folder)},
        exposure=Exposure("seven", "seven"),
        params=params,
        inputs={"number": (StoredRecord("toy.Number", 1, '{"value": 7}', None, 1),)},
        acquisition={},
    )
    return Request(attempt, "wait", call, cores=cores, memory_gb=0.1, time_limit_s=limit_s, grace_s=0.5)


def request_for_program(folder: Path, attempt: str, pids: Path) -> Request:
    """Return a request to run a program that starts a daemon of its own, and never ends."""
    request = request_for(folder, attempt)
    words: list[JsonValue] = ["--stubborn", "--note", str(pids), "--descend", str(pids), "--say", "half", "--sleep", "600"]
    program = {"path": str(write_program(folder / "bin/fake_program"))}
    call = replace(request.call, use="toys.programs:run_fake", params={"words": words}, programs={"fake_program": program})
    return replace(request, call=call, grace_s=20.0)


def living(pids: Path) -> list[int]:
    """Return which of the processes that are noted in a file are alive, however dead their parents are."""
    found = []
    for number in map(int, pids.read_text().split()):
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
                found.append(number)
    return found


def start(executor: Executor, request: Request) -> None:
    executor.book(request)
    executor.submit(request)


def wait_for(executor: Executor, attempt: str, *kinds: type[Any]) -> Answer:
    """Return the first answer of one of these kinds; any but progress if none is named."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for answer in hear([executor], 1.0):
            if isinstance(answer.message, kinds or CallAnswer) and answer.message.attempt == attempt:
                return answer
    raise AssertionError(f"no answer of {attempt} in {PATIENCE_S} s")


def progress_of(executor: Executor, attempt: str) -> CallProgress:
    """Return what a call first says of its progress."""
    message = wait_for(executor, attempt, CallProgress).message
    assert isinstance(message, CallProgress)
    return message


def how_ended(executor: Executor, attempt: str) -> CallEnded:
    """Return how an attempt ended without an answer of its step."""
    message = wait_for(executor, attempt).message
    assert isinstance(message, CallEnded)
    return message


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_step_runs_with_the_threads_of_its_cores_and_answers(opened: Executor, folder: Path) -> None:
    (folder / "go").touch()
    start(opened, request_for(folder, "a", cores=2))
    answer = wait_for(opened, "a")
    assert isinstance(answer.message, ItemMade)
    written = folder / answer.message.record.json.partition("session:")[2].partition('"')[0]
    assert written.read_text() == "7 5 2"
    assert answer.worker
    assert opened.capacity().cores >= 2


def test_progress_comes_back_while_a_step_runs(opened: Executor, folder: Path) -> None:
    start(opened, request_for(folder, "p"))
    assert progress_of(opened, "p").fraction == 0.5
    (folder / "go").touch()
    assert isinstance(wait_for(opened, "p").message, ItemMade)


def test_a_cancelled_step_is_told_and_leaves_nothing(opened: Executor, folder: Path) -> None:
    start(opened, request_for(folder, "c"))
    progress_of(opened, "c")
    opened.cancel("c")
    assert how_ended(opened, "c").kind is FailureKind.CANCELLED
    wait_until((folder / "told").exists)
    wait_until(lambda: not [path for path in (folder / "steps").rglob("*") if path.is_file()])


def test_a_cancelled_step_that_does_not_listen_is_killed(opened: Executor, folder: Path) -> None:
    start(opened, request_for(folder, "s", stubborn=True))
    process = psutil.Process(int(progress_of(opened, "s").text.split()[1]))
    opened.cancel("s")
    assert how_ended(opened, "s").kind is FailureKind.CANCELLED
    hear_until(opened, lambda: not process.is_running())


def hear_until(executor: Executor, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        hear([executor], 0.05)


def test_a_step_beyond_its_time_limit_ends_with_the_figures(opened: Executor, folder: Path) -> None:
    start(opened, request_for(folder, "t", limit_s=0.4, stubborn=True))
    ended = how_ended(opened, "t")
    assert ended.kind is FailureKind.TRANSIENT
    assert "0.4 s are allowed" in ended.message


def test_a_stopped_process_is_killed_at_its_limit(opened: Executor, folder: Path) -> None:
    start(opened, request_for(folder, "z", limit_s=8.0))  # by then a busy machine has begun it
    process = psutil.Process(int(progress_of(opened, "z").text.split()[1]))
    process.suspend()
    assert how_ended(opened, "z").kind is FailureKind.TRANSIENT
    wait_until(lambda: not process.is_running())


def test_a_process_that_dies_costs_its_own_step_only(opened: Executor, folder: Path) -> None:
    for attempt in ("d1", "d2"):
        start(opened, request_for(folder, attempt))
    process = psutil.Process(int(progress_of(opened, "d1").text.split()[1]))
    process.kill()
    ended = how_ended(opened, "d1")
    assert (ended.kind, ended.message) == (FailureKind.WORKER_DIED, "its worker died (exit status -9)")
    (folder / "go").touch()
    assert isinstance(wait_for(opened, "d2").message, ItemMade)


def test_a_cancel_ends_a_program_and_all_that_it_started(opened: Executor, folder: Path) -> None:
    pids = folder / "pids"
    start(opened, request_for_program(folder, "g", pids))
    assert progress_of(opened, "g").fraction == 0.5
    assert len(living(pids)) == 2  # it says so only when both are there
    opened.cancel("g")
    assert how_ended(opened, "g").kind is FailureKind.CANCELLED
    wait_until(lambda: not living(pids))
    wait_until(lambda: not list((folder / "work").iterdir()))


def test_a_program_does_not_outlive_its_worker(opened: Executor, folder: Path) -> None:
    pids = folder / "pids"
    start(opened, request_for_program(folder, "o", pids))
    progress_of(opened, "o")
    program, _daemon = living(pids)
    guardian = psutil.Process(program).parent()
    worker = None if guardian is None else guardian.parent()
    assert worker is not None
    assert worker.cmdline()[1:3] == ["-m", "icestream.flow.execution.worker"]
    worker.kill()
    wait_until(lambda: not living(pids))  # whoever adopted them may not have taken leave of them yet
    assert how_ended(opened, "o").kind is FailureKind.WORKER_DIED
    assert sweep_work_folders(folder / "work") == 1


@pytest.mark.parametrize("site", ["dask"], indirect=True)
def test_an_attempt_that_dask_runs_twice_writes_two_temporary_files(site: Site, opened: Executor, folder: Path) -> None:
    assert isinstance(opened, DaskExecutor)
    request = request_for(folder, "r")
    client, arguments = opened.link.client, (pack(request), opened.link.topic)
    workers = list(client.scheduler_info()["workers"])
    twice = [client.submit(run_packed, *arguments, key=f"{KEY_PREFIX}r{n}", workers=[workers[-n]], pure=False) for n in range(2)]
    wait_until(lambda: len(list((folder / "steps" / "wait" / "1").glob(".*part~r-*"))) == 2)
    (folder / "go").touch()
    assert [bool(future.result(timeout=PATIENCE_S)) for future in twice] == [True, True]
    (published,) = (folder / "steps" / "wait" / "1").iterdir()
    assert published.read_text() == "7 5 1"


@pytest.mark.parametrize("site", ["dask"], indirect=True)
def test_a_worker_that_does_not_see_the_session_writes_nothing(site: Site, opened: Executor, tmp_path: Path) -> None:
    start(opened, request_for(tmp_path / "elsewhere", "e"))
    failed = wait_for(opened, "e").message
    assert isinstance(failed, CallFailed)
    assert "does not see the session's folder" in failed.message
    assert not (tmp_path / "elsewhere").exists()


def test_results_are_those_of_a_local_run(site: Site, calm: Session, tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(N_ITEMS, fail_on=[4]), numbers=range(N_ITEMS))
    assert start_runner(session, where=site.where).wait(120) == 0
    assert results_of(session) == results_of(calm) != {}
    assert read_rows(session, schema.lease) == []


def test_a_worker_that_is_killed_in_the_middle_changes_no_result(site: Site, tmp_path: Path) -> None:
    waiting = {"use": f"{TOYS}:wait_for_file", "in": {"number": "triple"}}
    steps = {name: spec for name, spec in toy_steps(8).items() if name in ("numbers", "triple")} | {"wait": waiting}
    sessions = [make_toy_session(tmp_path / name, steps, numbers=range(8)) for name in ("calm", "rough")]
    (sessions[0].folder / "go").touch()
    assert start_runner(sessions[0]).wait(120) == 0
    session = sessions[1]
    runner = start_runner(session, where=site.where)
    wait_until(lambda: len(list(session.folder.rglob(".*part~*"))) == site.slots)
    site.kill_one(runner)
    wait_until(lambda: bool(read_rows(session, schema.failure) or read_rows(session, schema.notice)))
    (session.folder / "go").touch()
    assert runner.wait(120) == 0
    assert results_of(session, ("triple", "wait")) == results_of(sessions[0], ("triple", "wait")) != {}
    assert {row["kind"] for row in read_rows(session, schema.failure)} == site.counted
    assert start_runner(session).wait(120) == 0
    assert not list(session.folder.rglob(".*part~*")), "the next run did not sweep what the killed worker left"


def results_so_far(session: Session) -> list[Any]:
    if not session.store_path.exists():
        return []
    try:
        return read_rows(session, schema.result)
    except OperationalError:  # the tables are being made
        return []


def test_an_item_that_kills_workers_three_times_is_set_aside(site: Site, tmp_path: Path) -> None:
    steps = {name: spec for name, spec in toy_steps(4, crash_on=[2]).items() if name in ("numbers", "triple")}
    session = make_toy_session(tmp_path, steps, numbers=range(4))
    assert start_runner(session, where=site.where).wait(120) == 0
    outcomes = outcomes_of(session)
    assert {unit: outcomes["triple", unit]["status"] for unit in "0123"} == {
        "0": "item",
        "1": "item",
        "2": "failed",
        "3": "item",
    }
    assert [row["kind"] for row in read_rows(session, schema.failure)] == ["worker_died"] * 3


def test_a_killed_run_is_continued_on_another_executor(site: Site, calm: Session, tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(N_ITEMS, fail_on=[4], sleep_s=0.2), numbers=range(N_ITEMS))
    runner = start_runner(session, where=site.where)
    wait_until(lambda: len(results_so_far(session)) > N_ITEMS + 2)
    runner.kill()
    runner.wait()
    before = {row["key"]: row["created_at"] for row in read_rows(session, schema.result)}
    assert start_runner(session).wait(120) == 0
    assert results_of(session) == results_of(calm)
    after = {row["key"]: row["created_at"] for row in read_rows(session, schema.result)}
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize("site", [pytest.param("slurm", marks=pytest.mark.services)], indirect=True)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_jobs_end_with_their_runner(site: Site, name: str, tmp_path: Path) -> None:
    environment = dict(os.environ)
    others = set(running_jobs(environment))
    steps = {**toy_steps(4), "wait": {"use": f"{TOYS}:wait_for_file", "in": {"number": "numbers"}}}
    session = make_toy_session(tmp_path, steps, numbers=range(4))
    runner = start_runner(session, where=site.where)
    wait_until(lambda: bool(list(session.folder.rglob(".*part~*"))))
    assert set(running_jobs(environment)) - others
    for _ in range(2):  # the second says: at once
        runner.send_signal(getattr(signal, name))
        time.sleep(0.2)
    runner.wait(60)
    wait_until(lambda: not set(running_jobs(environment)) - others)
    assert {path.suffix for path in (session.folder / "logs" / "cluster").iterdir()} >= {".err", ".out"}
