"""The process that runs steps, when the one that gives it work is gone."""

import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from icestream.flow.declaration.context import Exposure
from icestream.flow.declaration.guard import CallFailure, call_step
from icestream.flow.declaration.outcomes import FailureKind
from icestream.flow.execution.bench import WorkerContext
from icestream.flow.execution.messages import WatchOrder
from icestream.flow.execution.wire import send


def test_a_worker_whose_runner_died_just_now_ends_without_a_word() -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "icestream.flow.execution.worker", str(os.getpid()), str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as worker:
        theirs.close()
        ours.shutdown(socket.SHUT_RD)  # nobody will hear its answer
        connection: Connection[Any, Any] = Connection(ours.detach())  # stays open: the worker is to find out as it answers
        send(connection, WatchOrder("no_such_step", {}, {}))
        said = worker.communicate(timeout=60)[1]
    connection.close()
    assert (worker.returncode, said) == (1, b"")


def test_a_step_never_makes_the_folder_of_a_session_that_is_gone(tmp_path: Path) -> None:
    home = tmp_path / "session"
    context = WorkerContext(
        exposure=Exposure("0" * 32, "one"),
        cores=1,
        seed=1,
        attempt="a",
        key="k" * 16,
        roots={"session": str(home)},
        folder="steps/x/1",
        step="x",
    )

    def write() -> None:
        with context.publish(".txt") as out:
            out.path.write_text("1")

    for attempt in (write, context.export_folder, lambda: context.checkpoint_dir):
        failure = call_step(attempt)
        assert isinstance(failure, CallFailure)
        assert failure.kind is FailureKind.ENVIRONMENT
        assert "the folder of the session is missing" in failure.message
    assert not home.exists()
    home.mkdir()
    failure = call_step(write)
    assert isinstance(failure, CallFailure)
    assert failure.kind is FailureKind.ENVIRONMENT
    assert "the folder of results is missing" in failure.message
    assert not (home / "steps").exists()
    (home / "steps").mkdir()
    write()
    assert (home / "steps/x/1").is_dir()
