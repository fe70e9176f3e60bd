"""What a person may type or meet: one clear line, never a traceback, and nothing made by halves."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from icestream.cli import app, console
from icestream.io.image import write_mrc

DIAMETER = ("--diameter", "100", "120")


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("diameter", [("160", "120"), ("-5", "10"), ("nan", "10"), ("100", "inf"), ("0", "0")])
def test_an_impossible_diameter_is_refused(tmp_path: Path, diameter: tuple[str, str]) -> None:
    _refused(_call("new", tmp_path / "s", "--movies", tmp_path, "--diameter", *diameter), "--diameter", diameter[0])
    assert not (tmp_path / "s").exists()


def test_an_impossible_diameter_hides_no_other_mistake(tmp_path: Path) -> None:
    wrong = ("--diameter", "160", "120", "--voltage", "-3", "--set", "foo=1", "--set", "ctf.nope=2")
    result = _call("new", tmp_path / "s", "--movies", tmp_path, *wrong)
    _refused(result, "'diameter' (", "'voltage' (", "'foo'", "no parameter 'nope'")


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("--voltage", "300000", "3000"), ("--pixel-size", "83", "50"), ("--pixel-size", "0.00083", "0.05"), ("--cs", "2700", "20")],
)
def test_a_slip_of_the_unit_is_told(tmp_path: Path, option: str, value: str, allowed: str) -> None:
    _refused(_call("new", tmp_path / "s", "--movies", tmp_path, *DIAMETER, option, value), f"is {value}", allowed)
    assert not (tmp_path / "s").exists()


def test_a_file_is_no_folder_of_movies(tmp_path: Path) -> None:
    (tmp_path / "movie.mrc").touch()
    _refused(_call("new", tmp_path / "s", "--movies", tmp_path / "movie.mrc", *DIAMETER), "movie.mrc", "is a file")


def test_a_folder_that_is_not_there_yet_is_pointed_at(tmp_path: Path) -> None:
    result = _call("new", tmp_path / "s", "--movies", tmp_path / "moveis", *DIAMETER)
    assert result.exit_code == 0
    assert f"{tmp_path / 'moveis'} (movies) does not exist yet" in result.stderr


def test_a_pattern_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    _refused(_call("new", tmp_path / "s", "--movies", tmp_path / "*.tiff", *DIAMETER), "it is a pattern", "--pattern")
    _refused(_call("new", tmp_path / "s", "--movies", tmp_path, "--gain", tmp_path / "*gain*", *DIAMETER), "it is a pattern")
    assert not (tmp_path / "s").exists()


def test_a_gain_reference_that_would_be_refused_refuses_the_session(tmp_path: Path) -> None:
    write_mrc(tmp_path / "gain.mrc", np.full((8, 8), np.nan, dtype=np.float32), pixel_size_ang=1)
    result = _call("new", tmp_path / "s", "--movies", tmp_path, "--gain", tmp_path / "gain.mrc", *DIAMETER)
    _refused(result, "the gain reference is refused", "gain.mrc", "64 values that are not finite")
    assert not (tmp_path / "s").exists()


def test_a_pattern_that_fits_nothing_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "a.mrc").touch()
    result = _call("new", tmp_path / "s", "--movies", tmp_path, "--pattern", "*.tiff", *DIAMETER)
    assert result.exit_code == 0
    assert "none of the files that are there fits *.tiff, such as movies:a.mrc" in result.stderr


def test_a_step_of_an_unknown_type_is_named(tmp_path: Path) -> None:
    workflow = tmp_path / "mine.yaml"
    workflow.write_text("steps: {first: {use: nope}, second: {use: neither}}", encoding="utf-8")
    _refused(_call("new", tmp_path / "s", "--workflow", workflow), "step 'first'", "'nope'", "step 'second'", "'neither'")


def test_the_name_of_a_session_is_no_markup(tmp_path: Path) -> None:
    for name in ("[bold]s[", "a[]", "s [red]x[blue]"):
        result = _call("new", tmp_path / name, "--movies", tmp_path, *DIAMETER)
        assert result.exit_code == 0, result.output
        assert result.stdout.count(name) == 2


@pytest.mark.parametrize("command", ["failed", "retry"])
def test_a_step_that_the_session_has_not_is_refused(tmp_path: Path, command: str) -> None:
    _call("new", tmp_path / "s", "--movies", tmp_path, *DIAMETER)
    _refused(_call(command, tmp_path / "s", "cft"), "no step 'cft'", "ctf")


def test_a_file_in_the_place_of_a_folder_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _refused(_call("simulate", tmp_path / "file", "--movies", "1"), str(tmp_path / "file"), "Not a directory")


def test_the_next_command_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "venv" / "bin" / "icestream"
    own.parent.mkdir(parents=True)
    own.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(own.parent / "python"))
    monkeypatch.setenv("PATH", os.defpath)
    assert console.type_next("run", tmp_path / "a b") == f"{own} run '{tmp_path / 'a b'}'"
    monkeypatch.chdir(tmp_path)
    assert console.type_next("run", "s") == "venv/bin/icestream run s"
    monkeypatch.setenv("PATH", str(own.parent))
    assert console.type_next("run", "s") == "icestream run s"
