import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import SessionBusy, SessionError
from icestream.facility.new_sessions import WatchPlan
from icestream.facility.runners import Process, RunEnd, Runners, find_runner, how_run_ended, untaken_files
from icestream.facility.watch import Watch
from icestream.facility.watch_decisions import Folder, Phase, Wish
from icestream.facility.watch_state import StateFile, list_watches
from icestream.flow.runner.stopping import StopRequests
from icestream.flow.storage.session import open_session
from icestream.observe.queries import open_view
from icestream.workflows import load_template

LIMIT_S = 90.0
TEMPLATE = """# Movies, counted
placeholders:
  movies: {label: Movies, type: folder}
  voltage: {label: Voltage, type: float, unit: kV, gt: 0}
  idle: {label: Idle time, type: duration_s, default: 0.5}
acquisition: {voltage_kv: {ask: voltage}}
roots: {movies: {ask: movies}}
steps:
  movies: {use: import_movies, params: {idle_s: {ask: idle}, stable_s: 0.1, rescan_s: 0.1, pattern: "*.mrcs"}}
"""


def _is_dead(runners: Any, process: Process) -> bool:
    return not runners.alive(process)


def _write_movie(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    value = sum(path.name.encode())
    with mrcfile.new(temporary) as handle:
        handle.set_data(np.full((2, 32, 32), value, dtype=np.float32))
    temporary.rename(path)


def _until(condition: Callable[[], Any], *, every: Callable[[], None] | None = None) -> Any:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if every is not None:
            every()
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("the condition was not met in time")


class Facility:
    """A microscope's disk, a folder of sessions, and watches over them."""

    def __init__(self, folder: Path) -> None:
        self.root, self.sessions = folder / "data", folder / "sessions"
        self.root.mkdir()
        self.template = folder / "count.yaml"
        self.template.write_text(TEMPLATE, encoding="utf-8")
        self.state_file = StateFile(folder / "state", self.root)
        self.said: list[str] = []
        self.runners: list[Runners] = []

    def watch(self, **changes: Any) -> Watch:
        self.runners.append(Runners(cores=1))
        plan = WatchPlan(self.root, "*/", self.sessions, load_template(str(self.template)), "movies", look_every_s=0.1)
        plan = replace(plan, **{"values": {"voltage": 300}, **changes})
        return Watch(plan, self.state_file, self.runners[-1], self.said.append)

    def folder(self, name: str) -> Folder | None:
        state = self.state_file.read()
        return None if state is None else state.folders.get(name)

    def phase(self, name: str) -> Phase | None:
        found = self.folder(name)
        return None if found is None else found.phase

    def exposures(self, name: str) -> int:
        with open_view(open_session(self.sessions / name)) as view:
            return view.overview().exposures

    def stop_everything(self) -> None:
        state = self.state_file.read()
        for folder in [] if state is None else state.folders.values():
            if folder.pid is None or folder.pid_started is None:
                continue
            process = Process(folder.pid, folder.pid_started)
            if Runners().alive(process):
                os.kill(folder.pid, signal.SIGKILL)
            for runners in self.runners:
                _until(partial(_is_dead, runners, process))


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    made = Facility(tmp_path)
    yield made
    made.stop_everything()


def test_a_new_folder_becomes_a_session_and_new_files_open_it_again(facility: Facility) -> None:
    _write_movie(facility.root / "old" / "a.mrcs")
    watch = facility.watch()
    watch.look()
    (facility.root / "grid 1").mkdir()
    watch.look()
    assert (facility.phase("old"), facility.phase("grid 1")) == (Phase.IGNORED, Phase.EMPTY)
    _write_movie(facility.root / "grid 1" / "a.mrcs")
    _until(lambda: facility.phase("grid 1") is Phase.ENDED, every=watch.look)
    assert facility.exposures("grid_1") == 1
    assert open_session(facility.sessions / "grid_1").document.acquisition.voltage_kv == 300
    assert how_run_ended(facility.sessions / "grid_1") is RunEnd.CLOSED
    _write_movie(facility.root / "grid 1" / "late.mrcs")
    (facility.root / "grid 1" / "notes.mrc").write_text("is not taken by the pattern")
    _until(lambda: facility.phase("grid 1") is Phase.RUNNING, every=watch.look)
    _until(lambda: facility.phase("grid 1") is Phase.ENDED, every=watch.look)
    assert facility.exposures("grid_1") == 2
    assert untaken_files(facility.sessions / "grid_1") == set()
    assert [path.name for path in facility.sessions.iterdir()] == ["grid_1"]
    assert not any("ALERT" in line for line in facility.said)


def test_people_have_a_folder_taken_and_another_left_alone(facility: Facility, tmp_path: Path) -> None:
    _write_movie(facility.root / "old" / "a.mrcs")
    watch = facility.watch(at_most=0)
    watch.look()
    facility.state_file.ask(Wish(folder="old", what="take", author="anna"))
    facility.state_file.ask(Wish(folder="not there", what="take", author="anna"))
    (facility.state_file.path.with_suffix(".asked") / "1.json").write_text("not a wish", encoding="utf-8")
    (facility.root / "new").mkdir()
    watch.look()
    assert facility.phase("old") is Phase.READY
    assert (facility.sessions / "old" / "session.yaml").is_file()
    assert list(facility.state_file.path.with_suffix(".asked").iterdir()) == []
    facility.state_file.ask(Wish(folder="new", what="ignore", author="anna"))
    _write_movie(facility.root / "new" / "a.mrcs")
    watch.look()
    assert facility.phase("new") is Phase.IGNORED
    assert [state.root for _, state in list_watches(tmp_path / "state")] == [str(facility.root)]


def test_a_folder_that_lacks_a_value_waits_for_it(facility: Facility) -> None:
    watch = facility.watch(values={})
    watch.look()
    _write_movie(facility.root / "grid" / "a.mrcs")
    watch.look()
    told = facility.folder("grid")
    assert told is not None
    assert told.phase is Phase.INCOMPLETE
    assert any("'voltage' (Voltage) is not given" in problem for problem in told.problems)
    assert not facility.sessions.exists()
    (facility.root / "grid" / "icestream.yaml").write_text("voltage: 300\nidle: 1h\nvoltag: 2\n")
    watch.look()
    assert "did you mean 'voltage'" in str(facility.folder("grid"))
    (facility.root / "grid" / "icestream.yaml").unlink()
    (facility.root / "grid" / "a.mdoc").write_text("Voltage = 200\n[FrameSet = 0]\nExposureTime = 1\n")
    _until(lambda: facility.phase("grid") is Phase.RUNNING, every=watch.look)
    assert open_session(facility.sessions / "grid").document.acquisition.voltage_kv == 200
    _until(lambda: facility.phase("grid") is Phase.ENDED, every=watch.look)


def test_a_runner_that_dies_is_started_again(facility: Facility, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icestream.facility.watch_decisions.FIRST_PAUSE_S", 0.1)
    watch = facility.watch(values={"voltage": 300, "idle": 3})
    watch.look()
    _write_movie(facility.root / "grid" / "a.mrcs")
    _until(lambda: facility.phase("grid") is Phase.RUNNING, every=watch.look)
    first = _until(lambda: find_runner(facility.sessions / "grid"))
    os.kill(first.pid, signal.SIGKILL)
    _until(lambda: any("grid: fallen" in line for line in facility.said), every=watch.look)
    _until(lambda: facility.phase("grid") is Phase.ENDED, every=watch.look)
    assert facility.exposures("grid") == 1


def test_a_session_that_a_person_stops_stays_stopped(facility: Facility) -> None:
    watch = facility.watch(values={"voltage": 300, "idle": 600})
    watch.look()
    _write_movie(facility.root / "grid" / "a.mrcs")
    _until(lambda: facility.phase("grid") is Phase.RUNNING, every=watch.look)
    runner: Process = _until(lambda: find_runner(facility.sessions / "grid"))
    os.kill(runner.pid, signal.SIGTERM)
    _until(lambda: facility.phase("grid") is Phase.STOPPED, every=watch.look)
    _write_movie(facility.root / "grid" / "b.mrcs")
    for _ in range(14):
        watch.look()
    assert facility.phase("grid") is Phase.STOPPED
    assert how_run_ended(facility.sessions / "grid") is RunEnd.STOPPED


def test_what_is_forgotten_is_found_again_and_no_session_is_made_twice(facility: Facility) -> None:
    watch = facility.watch()
    watch.look()
    _write_movie(facility.root / "grid" / "a.mrcs")
    _until(lambda: facility.phase("grid") is Phase.ENDED, every=watch.look)
    facility.state_file.path.unlink()
    other = facility.watch(take_existing=True)
    _until(lambda: facility.phase("grid") is Phase.ENDED, every=other.look)
    assert [path.name for path in facility.sessions.iterdir()] == ["grid"]
    assert facility.exposures("grid") == 1


def test_a_session_that_was_archived_is_left_alone(facility: Facility) -> None:
    watch = facility.watch(take_existing=True)
    _write_movie(facility.root / "grid" / "a.mrcs")
    _until(lambda: facility.phase("grid") is Phase.ENDED, every=watch.look)
    (facility.sessions / "grid").rename(facility.sessions.with_name("archive"))
    _write_movie(facility.root / "grid" / "b.mrcs")
    for _ in range(14):
        watch.look()
    assert facility.phase("grid") is Phase.ENDED
    state = watch.state.folders["grid"].model_copy(update={"phase": Phase.READY})
    watch.state = watch.state.put("grid", state)
    watch.look()
    told = facility.folder("grid")
    assert told is not None
    assert (told.phase, told.note) == (Phase.STOPPED, "its session was moved or deleted")
    assert not (facility.sessions / "grid").exists()


def test_a_name_that_is_taken_gets_a_number(facility: Facility) -> None:
    (facility.sessions / "grid").mkdir(parents=True)
    (facility.sessions / "grid" / "something").touch()
    watch = facility.watch(at_most=1)
    watch.look()
    _write_movie(facility.root / "grid" / "a.mrcs")
    watch.look()
    told = facility.folder("grid")
    assert told is not None
    assert told.session == str(facility.sessions / "grid_2")
    _until(lambda: facility.phase("grid") is Phase.ENDED, every=watch.look)


def test_another_pattern_does_not_take_what_was_there_before(facility: Facility) -> None:
    _write_movie(facility.root / "grid" / "disc" / "a.mrcs")
    facility.watch().look()
    facility.watch(pattern="*/disc").look()
    assert facility.phase("grid/disc") is Phase.IGNORED


def test_a_root_that_is_gone_is_told_and_forgets_nothing(facility: Facility) -> None:
    watch = facility.watch()
    watch.look()
    facility.root.rename(facility.root.with_name("away"))
    watch.look()
    watch.look()
    assert sum("cannot be read" in line for line in facility.said) == 1
    facility.root.with_name("away").rename(facility.root)
    watch.look()
    assert "can be read again" in facility.said[-1]


def test_a_damaged_memory_is_told(facility: Facility) -> None:
    facility.state_file.path.parent.mkdir(parents=True)
    facility.state_file.path.write_text("{")
    with pytest.raises(SessionError, match="cannot be read as the state of a watch"):
        facility.watch()
    facility.state_file.path.unlink()


def test_a_root_has_one_watch(facility: Facility) -> None:
    with facility.state_file.held():
        assert facility.state_file.holder() == os.getpid()
        with (
            pytest.raises(SessionBusy, match=f"process {os.getpid()}"),
            StateFile(facility.state_file.path.parent.parent, facility.root).held(),
        ):
            pass
    assert facility.state_file.holder() is None


@pytest.fixture
def daemon(facility: Facility, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start ``icestream watch`` in a process of its own."""
    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setenv("ICESTREAM_STATE", str(facility.state_file.path.parent.parent))

    def start(*words: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "icestream", "watch", str(facility.root), "--template", str(facility.template)]
        command += ["--sessions", str(facility.sessions), "--look-every", "0.1", "--cores", "1", *words]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_watch_that_is_killed_finds_its_runners_again(
    facility: Facility, daemon: Callable[..., "subprocess.Popen[bytes]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_movie(facility.root / "grid" / "a.mrcs")
    words = ("--set", "voltage=300", "--set", "idle=1h", "--existing", "take")
    first = daemon(*words)
    _until(lambda: facility.phase("grid") is Phase.RUNNING)
    runner = _until(lambda: find_runner(facility.sessions / "grid"))
    first.kill()
    first.wait()
    second = daemon(*words)
    _until(lambda: facility.state_file.holder() == second.pid)
    told = json.loads(CliRunner().invoke(app, ["watch", str(facility.root), "--status", "--json"]).stdout)
    assert told["watched_by"] == second.pid
    assert told["folders"]["grid"]["pid"] == runner.pid
    assert "running" in CliRunner().invoke(app, ["watch", str(facility.root), "--status"]).stdout
    third = daemon(*words)
    assert third.wait(timeout=LIMIT_S) == 1
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=LIMIT_S) == 0
    assert not Runners().alive(runner)
    assert facility.phase("grid") is Phase.READY
    fourth = daemon(*words, "--keep-running")
    _until(lambda: facility.phase("grid") is Phase.RUNNING)
    again = _until(lambda: find_runner(facility.sessions / "grid"))
    fourth.send_signal(signal.SIGTERM)
    assert fourth.wait(timeout=LIMIT_S) == 0
    assert Runners().alive(again)
    assert [path.name for path in facility.sessions.iterdir()] == ["grid"]


def test_runners_stop_in_a_hurry_when_asked_twice(facility: Facility) -> None:
    watch = facility.watch(values={"voltage": 300, "idle": 600}, take_existing=True)
    _write_movie(facility.root / "grid" / "a.mrcs")
    _until(lambda: facility.phase("grid") is Phase.RUNNING, every=watch.look)
    _until(lambda: find_runner(facility.sessions / "grid"))
    with closing(StopRequests()) as stop:
        stop.ask()
        stop.ask()
        watch.stop_runners(stop)
    assert facility.phase("grid") is Phase.READY


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "needs --template and --sessions"),
        (("--template", "movies_to_ctf", "--sessions", "s", "--existing", "maybe"), "must be ignore or take"),
        (("--template", "movies_to_ctf", "--sessions", "s", "--pattern", "../*"), "--pattern '../*'"),
        (("--template", "movies_to_ctf", "--sessions", "s", "--set", "volt=3"), "did you mean 'voltage'"),
        (("--template", "movies_to_ctf", "--sessions", "s", "--folder-as", "x"), "asks for no such folder"),
        (("--status",), "has not been watched"),
    ],
)
def test_mistakes_are_told_before_the_watch_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.setenv("ICESTREAM_STATE", str(tmp_path / "state"))
    result = CliRunner().invoke(app, ["watch", str(tmp_path), *words])
    assert result.exit_code == 1
    assert told in result.stderr


def test_whoever_looks_who_watches_keeps_no_watch_from_starting(tmp_path: Path) -> None:
    state_file = StateFile(tmp_path / "state", tmp_path)
    with state_file.held():
        pass
    with state_file.path.with_suffix(".lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.3, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with state_file.held():
            assert state_file.holder() == os.getpid()
            with pytest.raises(SessionBusy, match=f"already watched by process {os.getpid()}"), state_file.held():
                pass
