"""The contract of programs: environment, folder, log, time-out, cancel, and what becomes of those who misbehave."""

import json
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from icestream.errors import ItemError
from icestream.external.command import Command
from icestream.external.log import HEAD_BYTES, TAIL_BYTES
from icestream.external.process import Finished, run_program
from icestream.flow import ProgramSettings
from icestream.testing.context import StepBench
from toys.programs import FAKE, write_program

PATIENCE_S = 20.0


@dataclass
class Bench(StepBench):
    """A bench that can be cancelled and remembers progress."""

    stop: threading.Event = field(default_factory=threading.Event)
    told: list[tuple[float, str]] = field(default_factory=list)

    def cancelled(self) -> bool:
        return self.stop.is_set()

    def progress(self, fraction: float, message: str = "") -> None:
        super().progress(fraction, message)
        self.told.append((fraction, message))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    said = ProgramSettings(path=str(write_program(tmp_path / "bin/fake_program")))
    return Bench(tmp_path / "session", cores=3, programs={"fake_program": said})


def run(bench: Bench, *words: object, timeout_s: float | None = None, **more: object) -> Finished:
    command = Command(tuple(str(word) for word in words))
    return run_program(FAKE, command, bench, timeout_s=timeout_s, **more)  # type: ignore[arg-type]


def survivors(pids: Path) -> list[int]:
    """Return which of the processes in a file of numbers are alive."""
    found = []
    for number in map(int, pids.read_text().split()):
        try:
            if psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
                found.append(number)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.is_file() or len(path.read_text().split()) < count:
        assert time.monotonic() < deadline, f"{path} has no {count} lines"
        time.sleep(0.02)


def test_it_works_in_its_folder_with_a_clean_environment(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    bench.programs["fake_program"] = bench.programs["fake_program"].model_copy(update={"environment": {"ADDED": "yes"}})
    done = run(bench, "--environment", "seen.json", "--say", "hello")
    seen = json.loads((bench.work_folder / "seen.json").read_text())
    environment = seen["environment"]
    assert (done.folder, seen["folder"]) == (bench.work_folder, str(bench.work_folder))
    assert {"SECRET_TOKEN", "LD_LIBRARY_PATH", "PYTHONPATH"} & set(environment) == set()
    assert (environment["ADDED"], environment["OMP_NUM_THREADS"], environment["LC_ALL"]) == ("yes", "3", "C")
    assert (environment["TMPDIR"], environment["CUDA_VISIBLE_DEVICES"]) == (str(bench.work_folder), "")
    assert (done.log.read_text(), done.tail, str(done.program)) == (
        "hello\n",
        "hello",
        f"fake_program 1.2.3 ({tmp_path / 'bin/fake_program'})",
    )


def test_it_sees_the_gpu_that_was_granted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")  # as the pool sets it for its worker
    bench.gpu = 2
    run(bench, "--environment", "seen.json")
    assert json.loads((bench.work_folder / "seen.json").read_text())["environment"]["CUDA_VISIBLE_DEVICES"] == "2"


def test_the_facility_adds_arguments_and_they_count(bench: Bench) -> None:
    bench.programs["fake_program"] = bench.programs["fake_program"].model_copy(update={"arguments": ("--say", "added")})
    done = run(bench, "--say", "first")
    assert (done.tail, done.program.identity) == ("first\nadded", "1.2.3 --say added")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--say", "bad input", "--exit", "3"), "ended with exit status 3"),
        (("--say", "bad input", "--die", int(signal.SIGSEGV)), "was killed by signal 11 (SIGSEGV)"),
    ],
)
def test_a_bad_end_is_the_items_with_the_last_lines_and_the_log(bench: Bench, words: tuple[object, ...], told: str) -> None:
    with pytest.raises(ItemError) as failed:
        run(bench, *words)
    message = str(failed.value)
    assert told in message
    assert message.endswith("\nbad input")
    assert "session:logs/exposure.log" in message
    assert (bench.folder / "logs/exposure.log").read_text() == "bad input\n"


def test_a_step_may_know_better_what_a_good_end_is(bench: Bench) -> None:
    done = run(bench, "--say", "all done", "--exit", "1", ended_well=lambda status, tail: status == 1 and "all done" in tail)
    assert done.tail == "all done"
    with pytest.raises(ItemError, match="exit status 2"):
        run(bench, "--exit", "2", ended_well=lambda status, _: status == 1)


def test_what_cannot_be_started_is_told(bench: Bench, tmp_path: Path) -> None:
    broken = tmp_path / "bin/broken"
    broken.write_text("no program")
    broken.chmod(0o755)
    bench.programs["fake_program"] = ProgramSettings(path=str(broken), version="1.2.3")
    with pytest.raises(OSError, match=r"could not be started \(Exec format error\)"):
        run(bench)


def test_a_log_keeps_its_beginning_and_its_end(bench: Bench) -> None:
    done = run(bench, "--flood", 100_000)
    text = done.log.read_text()
    assert len(text) < HEAD_BYTES + 2 * TAIL_BYTES
    assert text.startswith("line 0 of many\nline 1 of many\n")
    assert text.endswith("line 99999 of many\n")
    assert "bytes are left out" in text
    assert done.tail.endswith("line 99999 of many")


def test_progress_is_read_from_lines_and_from_what_overwrites_itself(bench: Bench) -> None:
    def read(line: str) -> float | None:
        return float(line.rstrip("%")) / 100 if line.endswith("%") else None

    run(bench, "--say", "start", "--carriage", "25%", "--carriage", "50%", "--say", "100%", read_progress=read)
    assert bench.told == [(0.25, "25%"), (0.5, "50%"), (1.0, "100%")]


@pytest.mark.parametrize("stubborn", [(), ("--stubborn",)])
def test_a_time_out_ends_all_that_descends_from_it(bench: Bench, tmp_path: Path, stubborn: tuple[str, ...]) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(TimeoutError, match="ran for more than 4 s"):
        run(bench, *stubborn, "--note", pids, "--descend", pids, "--sleep", 600, timeout_s=4.0)
    assert len(pids.read_text().split()) == 2
    assert survivors(pids) == []


def test_a_cancel_ends_all_that_descends_from_it(bench: Bench, tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def cancel() -> None:
        wait_for_lines(pids, 2)
        bench.stop.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(TimeoutError, match="was cancelled"):
        run(bench, "--note", pids, "--descend", pids, "--sleep", 600)
    thread.join()
    assert survivors(pids) == []


def test_what_a_program_leaves_behind_ends_with_it(bench: Bench, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    run(bench, "--descend", pids)
    assert len(pids.read_text().split()) == 1
    assert survivors(pids) == []


def test_nothing_is_left_open(bench: Bench) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        run(bench, "--say", "x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_it_reads_its_answers_from_the_standard_input(bench: Bench) -> None:
    done = run(bench, "--answer", "--answer", answers="micrograph.mrc\n1.5\n")
    assert done.tail.splitlines() == ["read micrograph.mrc", "read 1.5"]
    assert run(bench, "--answer").tail == "read nothing"
