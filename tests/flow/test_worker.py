"""The process that runs steps, when the one that gives it work is gone."""

import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from icestream.flow.declaration.context import Exposure
from icestream.flow.declaration.guard import CallFailure, call_step
from icestream.flow.declaration.outcomes import FailureKind
from icestream.flow.execution.bench import WorkerContext
from icestream.flow.execution.calls import run_task
from icestream.flow.execution.messages import CallFailed, ItemMade, StepCall, StoredRecord, WatchOrder
from icestream.flow.execution.wire import send
from icestream.records import record_named


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


DERIVED = """from typing import ClassVar
from toys.steps import Number


class Labelled(Number):
    stored_name: ClassVar[str] = "lab.Labelled"

    label: str
"""

READER = """from icestream.flow import step
from toys.steps import Number


@step.map("lab_read_label", version=1)
def read_label(number: Number) -> Number:
    \"\"\"Count the letters of the label, if there is one.\"\"\"
    return Number(value=len(getattr(number, "label", "")))
"""


def test_a_derived_record_of_a_plugin_is_loaded_where_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("lab_labelled", DERIVED), ("lab_label_reader", READER)):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert record_named("lab.Labelled") is None
    call = StepCall(
        attempt="a",
        use="lab_label_reader:read_label",
        step="read",
        key="k" * 32,
        seed=1,
        cores=1,
        folder="steps/read/1",
        roots={"session": str(tmp_path)},
        exposure=Exposure("0" * 32, "one"),
        params={},
        inputs={"number": (StoredRecord("lab.Labelled", 1, '{"value": 1, "label": "seven"}', None, 1),)},
        acquisition={},
    )
    told = run_task(call, report=lambda *_: None, stop=threading.Event())
    assert isinstance(told, CallFailed)
    assert told.message == "its input is a lab.Labelled, which comes from a plugin that is not installed here"
    made = run_task(
        replace(call, types={"lab.Labelled": "lab_labelled:Labelled"}),
        report=lambda *_: None,
        stop=threading.Event(),
    )
    assert isinstance(made, ItemMade), made
    assert '"value":5' in made.record.json
