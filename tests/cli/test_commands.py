import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from icestream.cli import app
from icestream.cli.asking import ask_for, finish
from icestream.flow.runner import supervisor
from icestream.flow.runner.status import RunReport, RunStatus, StepStatus
from icestream.flow.storage.session import open_session
from reference import own_commands

MICROSCOPE = ["--voltage", "300", "--cs", "2.7", "--amplitude-contrast", "0.1", "--pixel-size", "1.5"]


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", app.registered_commands, ids=lambda command: command.name)
def test_every_command_says_with_which_status_it_ends(command: Any) -> None:
    helped = " ".join(_call(command.name, "--help").stdout.split())
    assert "Exit status: 0 " in helped
    assert ("4 not answered yet" in helped) == (ask_for in _called_by(command.callback) or finish in _called_by(command.callback))


def _called_by(function: Any) -> list[Any]:
    """Return what a command calls by name, and what that calls in its own module."""
    names = [*function.__code__.co_names]
    module = function.__globals__
    for name in function.__code__.co_names:
        names += getattr(getattr(module.get(name), "__code__", None), "co_names", ())
    return [module[name] for name in names if name in module]


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """A session that has not been run; its folder of movies is empty."""
    (tmp_path / "movies").mkdir()
    result = _call("new", tmp_path / "s", "--movies", tmp_path / "movies", "--diameter", "100", "120", *MICROSCOPE)
    assert result.exit_code == 0, result.output
    return tmp_path / "s"


def _run_that_ends(monkeypatch: pytest.MonkeyPatch, *, finished: bool, n_failed: int) -> list[Any]:
    """Let a run end in a certain way; return what it was called with."""
    seen: list[Any] = []

    def run_session(opened: Any, settings: Any, *, on_change: Any = None, cluster: Any = None) -> RunReport:
        assert cluster is None  # the default is this machine
        seen.append((opened, settings))
        steps = (StepStatus("ctf", 1, 0, 4, n_failed, 0, closed=finished, note=""),)
        if on_change is not None:
            on_change(RunStatus(steps))
        return RunReport(finished, "the end", 5, n_failed, steps)

    monkeypatch.setattr(supervisor, "run_session", run_session)
    return seen


@pytest.mark.parametrize("name", sorted(own_commands()))
def test_help_teaches_every_command_with_an_example(name: str) -> None:
    result = _call(name, "--help")
    assert result.exit_code == 0
    assert f"icestream {name}" in result.output


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, icestream.cli; heavy = {'numpy', 'numba', 'scipy', 'sqlalchemy', 'jinja2'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_new_session_holds_what_was_typed(session: Path) -> None:
    document = open_session(session).document
    assert document.acquisition.cs_mm == 2.7
    assert document.steps["picks"].params == {"diameter_ang": [100.0, 120.0]}


def test_a_session_is_not_made_twice(session: Path) -> None:
    result = _call("new", session, "--movies", session, "--diameter", "100", "120")
    assert result.exit_code == 1
    assert "already has a session" in result.stderr
    assert "Traceback" not in result.output


def test_all_mistakes_in_a_workflow_are_told_at_once(tmp_path: Path) -> None:
    result = _call(
        "new",
        tmp_path / "s",
        "--movies",
        tmp_path,
        "--set",
        "ctf.tile=3",
        "--set",
        "aligned.bin=99",
        "--set",
        "picks.diameter_ang=x",
    )
    assert result.exit_code == 1
    assert "no parameter 'tile'" in result.stderr
    assert "'bin' is 99" in result.stderr
    assert "'diameter_ang" in result.stderr
    assert not (tmp_path / "s").exists()


def test_micrographs_choose_their_own_workflow(tmp_path: Path) -> None:
    assert _call("new", tmp_path / "s", "--micrographs", tmp_path, "--diameter", "100", "120").exit_code == 0
    assert next(iter(open_session(tmp_path / "s").document.steps)) == "micrographs"


@pytest.mark.parametrize("options", [("--executor", "dask"), ("--executor", "slurm"), ("--scheduler", "tcp://a:1")])
@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_an_executor_without_what_it_needs_is_wrong_usage(
    session: Path, options: tuple[str, ...], detach: tuple[str, ...]
) -> None:
    result = CliRunner().invoke(app, ["run", str(session), *options, *detach])
    assert result.exit_code == 2
    assert "--scheduler" in result.stderr or "--cluster-settings" in result.stderr


def test_wrong_usage_has_its_own_exit_status() -> None:
    assert _call("run").exit_code == 2
    assert _call("run", "here", "--cores", "0").exit_code == 2
    assert _call("walk").exit_code == 2


@pytest.mark.parametrize(("finished", "n_failed", "status"), [(True, 0, 0), (True, 2, 3), (False, 0, 130), (False, 2, 130)])
def test_the_exit_status_says_how_a_run_ended(
    session: Path, monkeypatch: pytest.MonkeyPatch, finished: bool, n_failed: int, status: int
) -> None:
    _run_that_ends(monkeypatch, finished=finished, n_failed=n_failed)
    result = _call("run", session)
    assert result.exit_code == status
    assert f"the end: 5 exposures, {n_failed} failed" in result.output
    assert ("icestream failed" in result.output) == (n_failed > 0)


def test_progress_is_shown_unless_quiet(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_that_ends(monkeypatch, finished=True, n_failed=1)
    assert "ctf 5/6 (1 failed)" in _call("run", session).output
    assert "ctf 5/6" not in _call("run", session, "--quiet").output


def test_what_is_typed_wins_over_the_environment(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICESTREAM_CORES", "5")
    monkeypatch.setenv("ICESTREAM_NEWEST_FIRST", "true")
    seen = _run_that_ends(monkeypatch, finished=True, n_failed=0)
    _call("run", session)
    _call("run", session, "--cores", "3")
    assert [(settings.cores, settings.newest_first) for _, settings in seen] == [(5, True), (3, True)]


def test_a_wrong_environment_is_told_by_name(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICESTREAM_CORES", "many")
    result = _call("run", session)
    assert result.exit_code == 1
    assert "ICESTREAM_CORES is 'many'" in result.stderr


@pytest.mark.parametrize("command", ["run", "status", "failed", "retry", "report"])
def test_a_folder_that_is_no_session_is_told(tmp_path: Path, command: str) -> None:
    result = _call(command, tmp_path)
    assert result.exit_code == 1
    assert "is not a session" in result.stderr


def test_status_of_a_session_that_was_not_run(session: Path) -> None:
    assert "not started" in _call("status", session).output
    told = json.loads(_call("status", session, "--json").output)
    assert told["overview"]["runner"]["state"] == "not started"
    assert [step["name"] for step in told["steps"]] == list(open_session(session).document.steps)


def test_nothing_failed_and_nothing_is_known_before_the_first_run(session: Path) -> None:
    assert json.loads(_call("failed", session, "--json").output) == []
    assert "has not been run yet" in _call("retry", session).stderr
    assert "has not started" in _call("trace", session, "mic_0001").stderr


def test_steps_are_listed_and_shown() -> None:
    assert "classify2d" in _call("steps").output
    shown = _call("steps", "ctf").output
    assert "tile_ang" in shown
    assert "CtfFit" in shown
    told = json.loads(_call("steps", "ctf", "--json").output)
    assert {"name": "micrograph", "record": "Micrograph", "note": ""} in told["inputs"]
    assert "installed:" in _call("steps", "nothing").stderr


def test_simulation_settings_are_checked(tmp_path: Path) -> None:
    result = _call("simulate", tmp_path / "scope", "--set", "n_frames=0", "--set", "colour=red")
    assert result.exit_code == 1
    assert "n_frames" in result.stderr
    assert "colour" in result.stderr
