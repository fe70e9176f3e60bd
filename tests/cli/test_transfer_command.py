"""`icestream transfer` and `icestream transfers` as people type them."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from icestream.cli import app
from icestream.flow.storage.session import DOCUMENT, open_session
from icestream.transfer.copies import verified_copy
from icestream.transfer.ends import find_ends
from icestream.transfer.ledger import session_ledger

SESSION = """
name: lysozyme
roots: {movies: movies}
steps:
  movies: {use: import_movies}
"""


@pytest.fixture
def session(tmp_path: Path) -> Path:
    folder = tmp_path / "lysozyme"
    (folder / "movies").mkdir(parents=True)
    (folder / DOCUMENT).write_text(SESSION, encoding="utf-8")
    return folder


@pytest.fixture
def microscope(tmp_path: Path) -> Path:
    folder = tmp_path / "microscope"
    (folder / "grid").mkdir(parents=True)
    (folder / "grid" / "a.dm4").write_bytes(os.urandom(5000))
    (folder / "grid" / "a.xml").write_text("<a/>", encoding="utf-8")
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def test_from_the_microscope_to_a_session_and_on_to_an_archive(session: Path, microscope: Path, tmp_path: Path) -> None:
    told = run("transfer", microscope, session, "--dry-run", "--remove-after", "0")
    assert told.exit_code == 0, told.output
    assert "would copy 2 files" in told.output
    assert "would remove 0 files" in told.output
    ledger = session_ledger(open_session(session))
    assert not ledger.exists
    assert list((session / "movies").iterdir()) == []
    done = run("transfer", microscope, session, "--once", "--stable", "0", "--json", "--keep-free", "0")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["copied"] == 2
    raw = session / "movies" / "grid" / "a.dm4"
    assert raw.read_bytes() == (microscope / "grid" / "a.dm4").read_bytes()
    assert verified_copy(ledger, raw) is None, "nothing is known of a copy of the raw data yet"
    assert run("transfer", session, tmp_path / "archive", "--once", "--stable", "0", "--keep-free", "0").exit_code == 0
    found = verified_copy(ledger, raw, reread=True)
    assert found is not None
    assert found.path == tmp_path / "archive" / "grid" / "a.dm4"
    due = run("transfer", microscope, session, "--dry-run", "--json", "--remove-after", "0", "--remove-pattern", "*.dm4")
    assert json.loads(due.stdout)["removed"] == ["grid/a.dm4"]
    assert (microscope / "grid" / "a.dm4").exists()
    listed = run("transfers", session, "--state", "verified", "--json")
    assert [len(one["files"]) for one in json.loads(listed.stdout)] == [2, 2]
    shown = run("transfers", session, "--name", "a.xml").output
    assert f"{microscope} → {session / 'movies'}" in shown
    assert "grid/a.xml" in shown
    assert "a.dm4" not in shown


def test_a_file_that_fails_is_told_by_the_exit_status(session: Path, microscope: Path) -> None:
    (session / "movies" / "grid").write_text("a file where a folder should be", encoding="utf-8")
    done = run("transfer", microscope, session, "--once", "--stable", "0", "--keep-free", "0")
    assert done.exit_code == 3, done.output
    assert "a.dm4: failed: grid in" in done.output


def test_a_file_with_the_longest_possible_name_is_copied(session: Path, microscope: Path) -> None:
    (microscope / ("b" * 251 + ".dm4")).write_bytes(b"b")
    assert run("transfer", microscope, session, "--once", "--stable", "0", "--keep-free", "0").exit_code == 0
    assert len(list((session / "movies").iterdir())) == 3, "two entries and the mark"


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ("missing", "raw", [], "is no folder"),
        ("microscope", "lysozyme/steps", [], "writes into it"),
        ("microscope", "lysozyme", ["--root", "gains"], "has movies"),
        ("lysozyme", "lysozyme/movies", [], "both belong to sessions"),
    ],
)
def test_mistakes_are_explained(
    session: Path, microscope: Path, *, source: str, target: str, options: list[str], message: str
) -> None:
    folder = session.parent
    assert microscope.is_relative_to(folder)
    done = run("transfer", folder / source, folder / target, "--once", *options)
    assert done.exit_code == 1
    assert message in done.output


def test_a_session_with_several_folders_asks_which(session: Path, microscope: Path, tmp_path: Path) -> None:
    text = SESSION.replace("{movies: movies}", "{movies: movies, gains: gains}")
    (session / DOCUMENT).write_text(text, encoding="utf-8")
    told = run("transfer", microscope, session, "--once").output
    assert "its folders of raw data are movies, gains" in told
    assert find_ends(microscope, session, root="gains", state_folder=tmp_path).target == session / "gains"


def test_nothing_yet_and_unknown_states(session: Path) -> None:
    assert "nothing was transferred yet" in run("transfers", session).output
    assert run("transfers", session, "--json").stdout.strip() == "[]"
    wrong = run("transfers", session, "--state", "stolen")
    assert wrong.exit_code == 1
    assert "must be copying, verified" in wrong.output


@pytest.mark.parametrize(
    "source", ["lysozyme", "lysozyme/movies", "lysozyme/movies/grid", "elsewhere", "elsewhere/grid", "outer"]
)
def test_raw_data_of_a_session_are_never_removed_by_a_transfer(session: Path, tmp_path: Path, source: str) -> None:
    text = SESSION.replace(
        "{movies: movies}", f"{{movies: movies, others: {tmp_path / 'elsewhere'}, third: {tmp_path}/outer/in}}"
    )
    (session / DOCUMENT).write_text(text, encoding="utf-8")
    for folder in (session / "movies" / "grid", tmp_path / "elsewhere" / "grid", tmp_path / "outer" / "in"):
        folder.mkdir(parents=True)
        (folder / "a.dm4").write_bytes(b"a")
    words = ("transfer", tmp_path / source, tmp_path / "archive", "--once", "--stable", "0", "--keep-free", "0")
    options = ("--root", "movies") if source == "lysozyme" else ()
    done = run(*words, "--remove-after", "0", *options)
    assert done.exit_code == 1, done.output
    assert "--delete-raw" in done.output
    assert not (tmp_path / "archive").exists()
    assert len(list(tmp_path.rglob("a.dm4"))) == 3
