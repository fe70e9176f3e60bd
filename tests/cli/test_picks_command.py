"""Picks of two programs imported, joined and edited by hand in a session, with one that comes late."""

import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import SessionDocument, create_session, open_session
from icestream.io.blocks import from_block
from icestream.observe.queries import open_view
from icestream.settings import Settings
from toys.session import outcomes_of

PLACES = {"mic_1": [(40, 60), (90, 30), (100, 100)], "mic_2": [(20, 20), (70, 80)]}
SETTINGS = Settings(cores=2, min_free_gb=0)


def done(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def write_picks(folder: Path, name: str, places: list[tuple[int, int]], *, flipped: bool) -> None:
    folder.mkdir(exist_ok=True)
    rows = [f"{x},{127 - y if flipped else y},0.5" for y, x in places]
    (folder / f"{name}.csv").write_text("\n".join(["x,y,score", *rows]), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session that has run: the second program has not picked the second micrograph yet."""
    home = tmp_path_factory.mktemp("picked")
    (home / "data").mkdir()
    rng = np.random.default_rng(1)
    for name, places in PLACES.items():
        mrcfile.write(home / "data" / f"{name}.mrc", rng.normal(size=(128, 128)).astype(np.float32))
        write_picks(home / "one", name, places, flipped=False)
    write_picks(home / "two", "mic_1", PLACES["mic_1"][:2], flipped=True)
    own: dict[str, Any] = {"use": "import_picks", "in": {"micrograph": "mics"}}
    steps = {
        "mics": {"use": "import_micrographs", "params": {"max_files": 2, "stable_s": 0.1}},
        "one": {**own, "params": {"root": "one", "diameter_ang": 40}},
        "two": {**own, "params": {"root": "two", "diameter_ang": 40, "flip_y": True, "wait": False}},
        "both": {
            "use": "pick_consensus",
            "in": {"micrograph": "mics", "picks": ["one", "two"]},
            "params": {"rule": "all"},
        },
        "edited": {"use": "edit_picks", "in": {"picks": "both"}},
        "removed": {"use": "rejected_picks", "in": {"picks": "edited"}},
    }
    roots = {"micrographs": str(home / "data"), "one": str(home / "one"), "two": str(home / "two")}
    document = {"name": "picked", "roots": roots, "acquisition": {"pixel_size_ang": 1.0}, "steps": steps}
    run_session(create_session(home / "session", SessionDocument.model_validate(document)), SETTINGS)
    return home / "session"


def positions(folder: Path, step: str) -> dict[str, list[tuple[int, int]]]:
    with open_view(open_session(folder)) as view:
        tables = {one.name: from_block(one.block or b"") for one in view.records(step)}
    return {
        name: sorted((round(float(row["y_px"])), round(float(row["x_px"]))) for row in table) for name, table in tables.items()
    }


def test_a_late_file_is_taken_by_retry_and_edits_persist(folder: Path) -> None:
    assert positions(folder, "both") == {"mic_1": [(40, 60), (90, 30)], "mic_2": [(20, 20), (70, 80)]}
    outcome = outcomes_of(open_session(folder))["two", "mic_2"]
    assert outcome["status"] == "failed"
    assert "no file of picks is called mic_2.star" in outcome["reason"]
    assert "pickers that were missing: two" in done("trace", folder, "mic_2")
    write_picks(folder.parent / "two", "mic_2", [(70, 80)], flipped=True)
    done("retry", folder, "two")
    run_session(open_session(folder), SETTINGS)
    assert positions(folder, "both")["mic_2"] == [(70, 80)]

    said = done("picks", folder, "edited", "mic_1", "--add", "100,100", "--remove", "0", "--reason", "seen by eye")
    assert "mic_1 is recomputed at edited" in said
    run_session(open_session(folder), SETTINGS)
    edited, removed = positions(folder, "edited")["mic_1"], positions(folder, "removed")["mic_1"]
    assert (100, 100) in edited
    assert len(edited) == 2
    assert removed == [place for place in PLACES["mic_1"][:2] if place not in edited]
    history = " ".join(done("history", folder).split())
    assert "seen by eye" in history
    listed = json.loads(done("table", folder, "edited", "--particles", "--format", "json"))
    added = next(row["pid"] for row in listed if row["exposure"] == "mic_1" and row["y_px"] == 100)
    done("picks", folder, "edited", "mic_1", "--remove", str(added))
    run_session(open_session(folder), SETTINGS)
    assert positions(folder, "edited")["mic_1"] == [place for place in edited if place != (100, 100)]
    done("withdraw", folder, "mic_1", "--step", "edited")
    run_session(open_session(folder), SETTINGS)
    assert positions(folder, "edited")["mic_1"] == [(40, 60), (90, 30)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["both", "mic_1", "--remove", "0"], "'both' is no step of type edit_picks; those are: edited"),
        (["edited", "mic_1"], "nothing to add or remove"),
        (["edited", "mic_1", "--add", "3"], "--add 3: must be two numbers"),
        (["edited", "mic_1", "--remove", "99"], "there is no pick 99"),
        (["edited", "mic_9", "--remove", "0"], "mic_9"),
    ],
)
def test_what_cannot_be_edited_is_refused_by_name(folder: Path, words: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["picks", str(folder), *words])
    assert result.exit_code != 0
    assert told in " ".join(result.output.split())
