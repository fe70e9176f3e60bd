"""Sessions on one machine: shared by two processes, on declared GPUs, with resources pinned by hand, and short of memory."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icestream.errors import DeclarationError, SessionError, WorkflowError
from icestream.flow import Context, Params, step
from icestream.flow.declaration.exhaustion import OomWatch
from icestream.flow.resources.devices import find_gpus, parse_gpus, read_answer, visible_gpus
from icestream.flow.resources.ledger import read_ledger
from icestream.flow.runner.loop import Runner
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, dump_document, open_session
from icestream.flow.workflow.graph import StepResources, StepSpec
from icestream.settings import Settings
from toys.session import TOYS, make_toy_session, outcomes_of, read_rows, start_runner
from toys.steps import Number

HERE = __name__


class NoteParams(Params):
    """Where to note."""

    folder: str = "session:notes"
    sleep_s: float = 0.0
    kernel: str = ""
    hunger: int = 1
    """How many tries run out of memory."""
    company: int = 0
    """Wait until so many calls have begun, for a minute at most."""


def note(number: Number, params: NoteParams, ctx: Context) -> Number:
    """Write down what this call was given."""
    folder = ctx.path(params.folder)
    folder.mkdir(exist_ok=True)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    given = {
        "gpu": ctx.gpu,
        "visible": visible,
        "cores": ctx.cores,
        "reduced": ctx.reduced,
        "pid": os.getpid(),
        "value": number.value,
    }
    began = time.monotonic()
    (folder.parent / "begun").mkdir(exist_ok=True)
    (folder.parent / "begun" / str(number.value)).touch()
    while len(list((folder.parent / "begun").iterdir())) < params.company and time.monotonic() < began + 60:
        time.sleep(0.05)
    time.sleep(params.sleep_s)
    text = json.dumps({**given, "began": began, "ended": time.monotonic()})
    (folder / f"{number.value}-{time.monotonic_ns()}").write_text(text)
    return number


@step.map("note_gpu", version=1, memory_gb=0.1, gpu_gb=6.0)
def note_gpu(number: Number, params: NoteParams, ctx: Context) -> Number:
    """Use a GPU where there is one."""
    return note(number, params, ctx)


@step.map("note_need", version=1, memory_gb=0.1, gpu_gb=6.0, gpu="required")
def note_need(number: Number, params: NoteParams, ctx: Context) -> Number:
    """Use a GPU, or nothing."""
    return note(number, params, ctx)


@step.map("note_plain", version=1, memory_gb=0.1)
def note_plain(number: Number, params: NoteParams, ctx: Context) -> Number:
    """Use cores."""
    return note(number, params, ctx)


@step.map("note_greedy", version=1, cores=2, memory_gb=0.1)
def note_greedy(number: Number, params: NoteParams, ctx: Context) -> Number:
    """Run out of memory, by an error, as often as is asked."""
    note(number, params, ctx)
    if len(list(ctx.path(params.folder).glob(f"{number.value}-*"))) <= params.hunger:
        bytearray(1 << 60)
    return number


@step.map("note_killed", version=1, memory_gb=0.1)
def note_killed(number: Number, params: NoteParams, ctx: Context) -> Number:
    """Be killed as the kernel kills for memory: it counts, then it kills."""
    note(number, params, ctx)
    counter = Path(params.kernel) / "proc" / "vmstat"
    if len(list(ctx.path(params.folder).glob(f"{number.value}-*"))) <= params.hunger:
        killed = int(counter.read_text().split()[1])
        counter.write_text(f"oom_kill {killed + 1}\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def make(folder: Path, use: str, count: int, *, resources: dict[str, Any] | None = None, **params: Any) -> Session:
    steps: dict[str, Any] = {
        "n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": count}},
        "d": {"use": f"{HERE}:{use}", "in": {"number": "n"}, "params": params, "resources": resources or {}},
    }
    return make_toy_session(folder, steps, numbers=range(count))


def notes_of(session: Session) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((session.folder / "notes").iterdir())]


def most_at_once(notes: list[dict[str, Any]]) -> int:
    return max(sum(other["began"] <= one["began"] < other["ended"] for other in notes) for one in notes)


# GPUs ------------------------------------------------------------------------------------------------------------------------


def test_tasks_are_spread_over_the_gpus_and_each_process_sees_only_its_own(tmp_path: Path) -> None:
    session = make(tmp_path, "note_gpu", 8, sleep_s=0.2)
    assert run_session(session, Settings(cores=4, gpus="0:10,3:10")).n_failed == 0
    notes = notes_of(session)
    assert {note["gpu"] for note in notes} == {0, 3}
    assert all(note["visible"] == str(note["gpu"]) for note in notes)
    by_process = {note["pid"]: note["gpu"] for note in notes}
    assert all(by_process[note["pid"]] == note["gpu"] for note in notes), "a worker belongs to one GPU"
    for gpu in (0, 3):
        assert most_at_once([note for note in notes if note["gpu"] == gpu]) == 1, "6 + 6 GB do not fit into 10"


def test_small_tasks_share_a_gpu(tmp_path: Path) -> None:
    session = make(tmp_path, "note_gpu", 4, sleep_s=0.1, company=2, resources={"gpu_gb": 3})
    run_session(session, Settings(cores=2, gpus="0:10"))
    notes = notes_of(session)
    assert {note["gpu"] for note in notes} == {0}
    assert most_at_once(notes) == 2


def test_without_a_gpu_an_optional_step_computes_on_cores(tmp_path: Path) -> None:
    session = make(tmp_path, "note_gpu", 2)
    assert run_session(session, Settings(cores=1, gpus="")).n_failed == 0
    assert {(note["gpu"], note["visible"]) for note in notes_of(session)} == {(None, "")}


def test_without_a_gpu_a_step_that_needs_one_is_refused_at_the_start(tmp_path: Path) -> None:
    session = make(tmp_path, "note_need", 2)
    with pytest.raises(WorkflowError, match="step 'd': note_need needs a GPU with 6 GB, and this machine has none"):
        run_session(session, Settings(cores=1, gpus=""))
    assert not session.store_path.exists(), "nothing was started"


def test_a_step_that_needs_a_gpu_says_how_much_memory() -> None:
    with pytest.raises(DeclarationError, match="needs a GPU but declares gpu_gb=0"):
        step.map("bad", version=1, gpu="required")(note_plain)


@pytest.mark.parametrize(
    "text", ["0", "0:x", "0:8,0:8", "a:8", "0:0", "0:8;1:8", "-1:8", "0:nan", ",".join(f"{n}:1" for n in range(99))]
)
def test_a_list_of_gpus_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(SessionError, match="ICESTREAM_GPUS"):
        parse_gpus(text)


def test_how_gpus_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_gpus("0:24, 1:12.5") == {0: 24.0, 1: 12.5}
    assert find_gpus("") == {}
    assert read_answer("0, 24576\n1, 81559 MiB\nFailed to initialize NVML\n") == {0: 24576, 1: 81559}
    assert visible_gpus(None) is None
    assert visible_gpus("") == set()
    assert visible_gpus("2,0,-1,5") == {2, 0}
    assert visible_gpus("GPU-8932f937") is None
    monkeypatch.setattr("icestream.flow.resources.devices._ask_driver", lambda: {0: 20480, 1: 40960})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert find_gpus(None) == {1: 36.0}


# Pinned by hand --------------------------------------------------------------------------------------------------------------


def test_what_is_pinned_wins_over_what_the_type_declares(tmp_path: Path) -> None:
    resources = {"cores": 2, "memory_gb": 0.5, "gpu_gb": 2, "gpus": [1], "max_parallel": 2}
    session = make(tmp_path, "note_gpu", 6, sleep_s=0.3, resources=resources)
    run_session(session, Settings(cores=8, gpus="0:24,1:24"))
    notes = notes_of(session)
    assert {(note["gpu"], note["cores"]) for note in notes} == {(1, 2)}
    assert most_at_once(notes) <= 2
    document = open_session(session.folder).document
    assert document.steps["d"].resources == StepResources.model_validate(resources)
    assert "resources" not in dump_document(document.model_copy(update={"steps": {"n": document.steps["n"]}}))


def test_pinning_computes_nothing_again(tmp_path: Path) -> None:
    session = make(tmp_path, "note_plain", 3)
    run_session(session, Settings(cores=1))
    pinned = session.document.steps["d"].model_copy(update={"resources": StepResources(cores=2, max_parallel=1)})
    steps = {**session.document.steps, "d": pinned}
    run_session(replace(session, document=session.document.model_copy(update={"steps": steps})), Settings(cores=2))
    assert len(notes_of(session)) == 3
    assert {row["number"] for row in read_rows(session, schema.revision)} == {1}


def test_what_can_never_fit_runs_alone_and_is_told(tmp_path: Path) -> None:
    session = make(tmp_path, "note_gpu", 2, resources={"cores": 64, "memory_gb": 9000, "gpu_gb": 500}, sleep_s=0.2)
    assert run_session(session, Settings(cores=2, memory_gb=4, gpus="0:24")).n_failed == 0
    assert most_at_once(notes_of(session)) == 1
    said = [row["message"] for row in read_rows(session, schema.notice)]
    for text in ("asks for 64 cores, but only 2", "9000 GB of memory, but only 4", "500 GB on one GPU, but only 24"):
        assert any(text in message for message in said), (text, said)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"gpu_gb": 2, "gpus": [0, 7]}, "is pinned to GPUs \\[7\\]; this machine has \\[0\\]"),
        ({"gpu_gb": 0, "gpus": [0]}, "asks for no memory on them"),
    ],
)
def test_gpus_that_are_not_there_are_refused(resources: dict[str, Any], message: str, tmp_path: Path) -> None:
    session = make(tmp_path, "note_gpu", 1, resources=resources)
    with pytest.raises(WorkflowError, match=message):
        run_session(session, Settings(cores=1, gpus="0:24"))


@pytest.mark.parametrize("resources", [{"cores": 0}, {"memory_gb": -1}, {"gpus": []}, {"max_parallel": 0}, {"core": 2}])
def test_pins_that_make_no_sense_are_refused(resources: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="resources"):
        StepSpec.model_validate({"use": "ctf", "resources": resources})


# Out of memory ---------------------------------------------------------------------------------------------------------------


def test_what_ran_out_of_memory_is_tried_once_more_with_fewer_resources(tmp_path: Path) -> None:
    session = make(tmp_path, "note_greedy", 2)
    assert run_session(session, Settings(cores=2)).n_failed == 0
    tries = sorted((note["value"], note["reduced"], note["cores"]) for note in notes_of(session))
    assert tries == [(0, False, 2), (0, True, 1), (1, False, 2), (1, True, 1)]


def test_the_second_time_is_final_and_tells_how_much_memory_there_was(tmp_path: Path) -> None:
    session = make(tmp_path, "note_greedy", 1, hunger=9)
    assert run_session(session, Settings(cores=2)).n_failed == 1
    reason = outcomes_of(session)["d", "0"]["reason"]
    assert "ran out of memory" in reason
    assert "GB of memory" in reason
    assert [row["kind"] for row in read_rows(session, schema.failure)] == ["out_of_memory"] * 2


@pytest.mark.parametrize(("hunger", "n_failed"), [(1, 0), (9, 1)])
def test_a_kill_by_the_kernel_is_out_of_memory_and_no_quarantine(hunger: int, n_failed: int, tmp_path: Path) -> None:
    (tmp_path / "kernel" / "proc").mkdir(parents=True)
    (tmp_path / "kernel" / "proc" / "vmstat").write_text("oom_kill 7\n")
    session = make(tmp_path, "note_killed", 1, kernel=str(tmp_path / "kernel"), hunger=hunger)
    runner = Runner(session, Settings(cores=1))
    runner.parts.place.pool.oom = OomWatch(tmp_path / "kernel")
    assert runner.run().n_failed == n_failed
    failures = read_rows(session, schema.failure)
    assert {row["kind"] for row in failures} == {"out_of_memory"}
    assert all("the system killed its worker; it had used up to 0." in row["message"] for row in failures)
    assert notes_of(session)[-1]["reduced"] is True


def test_that_fewer_resources_are_due_survives_a_restart(tmp_path: Path) -> None:
    session = make(tmp_path, "note_greedy", 1)
    runner = start_runner(session)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not _has_failure(session):
        time.sleep(0.01)
    runner.kill()
    runner.wait()
    run_session(session, Settings(cores=2))
    notes = notes_of(session)
    assert [note["reduced"] for note in sorted(notes, key=lambda note: note["began"])][:2] == [False, True]


def _has_failure(session: Session) -> bool:
    return session.store_path.exists() and (session.folder / "notes").exists() and bool(read_rows(session, schema.failure))


# Two processes ---------------------------------------------------------------------------------------------------------------


def test_two_runners_share_the_machine_and_a_killed_one_leaves_it_to_the_other(tmp_path: Path) -> None:
    ledger = Path(os.environ["ICESTREAM_LEDGER"])
    cores = max(4, os.cpu_count() or 1)
    sessions = [make(tmp_path / str(number), "note_plain", 400, sleep_s=0.4) for number in range(2)]
    runners = [start_runner(session, cores=cores) for session in sessions]
    try:
        both = [cores / 2, cores / 2]
        assert wait_for(lambda: sorted(held_cores(ledger)) == both), held_cores(ledger)
        entries = list(read_ledger(ledger)[0].values())
        assert {entry.session for entry in entries} == {str(session.folder) for session in sessions}
        runners[0].kill()
        runners[0].wait()
        assert wait_for(lambda: held_cores(ledger) == [cores]), held_cores(ledger)
    finally:
        for runner in runners:
            runner.kill()
            runner.wait()
    assert read_ledger(ledger) == ({}, [])


def held_cores(ledger: Path) -> list[float]:
    return [entry.held.get("cores", 0.0) for entry in read_ledger(ledger)[0].values()]


def wait_for(condition: Any) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_ledger_that_cannot_be_used_is_reported_and_the_session_runs(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    session = make(tmp_path, "note_plain", 3)
    assert run_session(session, Settings(cores=2, ledger=str(tmp_path / "folder"))).finished
    said = [(row["level"], row["message"]) for row in read_rows(session, schema.notice)]
    assert len(said) == 1
    assert said[0][0] == "warning"
    assert "keeps to its own limits" in said[0][1]


def test_the_command_shows_who_holds_what(tmp_path: Path) -> None:
    session = make(tmp_path, "note_plain", 100, sleep_s=0.5)
    runner = start_runner(session, cores=2)
    try:
        shown: dict[str, Any] = {}

        def shows_work() -> bool:
            command = [sys.executable, "-m", "icestream", "resources", "--json"]
            environment = {**os.environ, "ICESTREAM_GPUS": "0:24"}
            shown.update(json.loads(subprocess.run(command, capture_output=True, check=True, env=environment).stdout))
            return any(holder["steps"] for holder in shown["holders"])

        assert wait_for(shows_work)
    finally:
        runner.kill()
        runner.wait()
    (holder,) = shown["holders"]
    assert holder["session"] == str(session.folder)
    assert holder["pid"] == runner.pid
    assert holder["steps"]["d"] >= 1
    assert shown["machine"]["gpu0"] == 24.0
    assert shown["free"]["cores"] == max(0, shown["machine"]["cores"] - holder["held"]["cores"])
