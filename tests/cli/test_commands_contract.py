"""What every command keeps to, whatever database the store lives in: dry runs, edits, decisions, views and copies."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from icestream.cli import app
from toys.session import arrive, toy_steps

if TYPE_CHECKING:
    from toys.places import Place


def done(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.stdout


def told(*words: object) -> Any:
    return json.loads(done(*words, "--json"))


@pytest.fixture
def folder(place: "Place") -> Iterator[Path]:
    """A session that has run, on each kind of store."""
    session = place.session(toy_steps(4), numbers=range(4))
    done("run", session.folder, "--quiet")
    yield session.folder


def computed(*words: object) -> dict[str, int]:
    """Return step → results that a dry run would compute; every step that reuses all is left out."""
    plan = told(*words, "--dry-run")
    return {step["step"]: step["computed"] + step["at_most"] for step in plan["steps"] if step["computed"] or step["at_most"]}


def test_every_command_works(folder: Path, place: "Place") -> None:
    below_triple = {"triple": 4, "odd": 2, "both": 4, "any": 4, "sums": 1, "total": 4, "late": 2, "newest": 1}
    assert computed("set", folder, "triple", "factor=7").keys() <= below_triple.keys()
    assert computed("set", folder, "odd", "factor=7")["odd"] == 2
    assert computed("branch", folder, "odd", "factor=9", "--as", "odder", "--only") == {"odder": 2}
    assert computed("restart", folder, "--from", "odd")["odd"] == 2
    assert told("reset", folder, "--from", "newest", "--dry-run")["steps"]
    assert told("recompute", folder, "odd", "1", "factor=9", "--dry-run")["computed"] >= 1
    assert told("clean", folder, "--dry-run")["bytes"] == 0
    for words in (
        ("pause", folder),
        ("resume", folder),
        ("reject", folder, "1"),
        ("accept", folder, "1", "--step", "even"),
        ("withdraw", folder, "1"),
        ("close", folder, "odd"),
        ("reopen", folder, "odd"),
        ("set", folder, "odd", "factor=7", "--reason", "sharper"),
        ("recompute", folder, "odd", "1", "factor=11"),
        ("branch", folder, "odd", "factor=9", "--as", "odder", "--only"),
        ("restart", folder, "--from", "newest"),
        ("reset", folder, "--from", "late"),
        ("continue", folder),
        ("retry", folder),
    ):
        assert told(*words), words
    (folder / "session.yaml").write_text((folder / "session.yaml").read_text().replace("factor: 9", "factor: 10"))
    assert computed("apply", folder) == {"odder": 1}  # the other one has parameters of its own
    assert told("apply", folder)["state"] == "done"
    arrive(place.folder / "a", range(4, 6))
    done("relink", folder, f"numbers={place.folder / 'a' / 'numbers'}")
    done("run", folder, "--quiet")
    assert told("clean", folder, "--old-revisions", "--yes")["state"] == "done"
    assert_it_is_shown(folder, place.folder)


def assert_it_is_shown(folder: Path, tmp: Path) -> None:
    counts = {step["name"]: step["counts"]["item"] for step in told("status", folder)["steps"]}
    assert (counts["numbers"], counts["odd"], counts["odder"]) == (6, 3, 3)
    assert told("trace", folder, "1")["name"] == "1"
    assert told("trace", folder, "total")
    assert told("failed", folder, "--set-aside")
    assert [one["sentence"] for one in told("why", folder, "odd")]
    assert {entry["what"].split()[0] for entry in told("history", folder)["history"]} >= {"pause", "resume"}
    assert [row["number"] for row in told("revisions", folder, "odd")] == [1, 2]
    assert told("revisions", folder, "odd", "--compare", "1", "2")["same"] >= 0
    for step in told("status", folder)["steps"]:
        if step["name"] in ("triple", "even", "odd", "both", "any"):
            assert sum(step["counts"].values()) == 6, step  # the columns of a row add up to all exposures
    done("why", folder)
    done("why", folder, "1")
    done("report", folder)
    done("metrics", folder)
    done("export-workflow", folder)
    done("pack", folder, "-o", tmp / "packed")
    assert told("status", tmp / "packed")["overview"]["exposures"] == 6
