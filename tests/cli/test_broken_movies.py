"""A hundred movies, ten of them broken in the ways of a real acquisition: ninety come through, ten are listed with the reason."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from icestream.microscope.pace import Pace
from icestream.microscope.settings import Fault, SimulationSettings
from icestream.microscope.simulate import simulate
from icestream.microscope.truth import load_exposure_truth, load_session_truth

N_MOVIES = 100
FAULTS = {
    7: Fault.TRUNCATED,
    18: Fault.EMPTY,
    29: Fault.HUGE_DRIFT,
    33: Fault.WRONG_SIZE,
    40: Fault.UNFINISHED,
    52: Fault.TRUNCATED,
    61: Fault.EMPTY,
    74: Fault.HUGE_DRIFT,
    85: Fault.WRONG_SIZE,
    93: Fault.UNFINISHED,
    97: Fault.PAUSE,  # a pause is not broken: the movie is completed later
}
EXPECTED = {
    Fault.TRUNCATED: ("movies", "header declares"),
    Fault.UNFINISHED: ("movies", "header declares"),
    Fault.EMPTY: ("aligned", "beam"),
    Fault.WRONG_SIZE: ("aligned", "gain"),
    Fault.HUGE_DRIFT: ("steady", "Å"),
}
WORKFLOW = {
    "steps": {
        "movies": {"use": "import_movies"},
        "gain": {"use": "import_gain"},
        "aligned": {"use": "motion", "in": {"movie": "movies", "gain": "gain"}},
        "steady": {"use": "max_shift", "in": {"micrograph": "aligned"}},
        "picks": {"use": "pick_blob", "in": {"micrograph": "steady"}},
        "particles": {"use": "extract", "in": {"micrograph": "steady", "picks": "picks"}},
    }
}


def icestream(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "icestream", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, "subprocess.CompletedProcess[str]"]:
    """Process the movies while they are written; return microscope, session and how the run ended."""
    folder = tmp_path_factory.mktemp("broken")
    microscope, session = folder / "microscope", folder / "session"
    settings = SimulationSettings(
        n_movies=N_MOVIES, height_px=256, width_px=256, n_frames=5, n_particles=3, faults=FAULTS, seed=3, format="mrc"
    )
    (microscope / "movies").mkdir(parents=True)
    (folder / "workflow.yaml").write_text(yaml.safe_dump(WORKFLOW))
    made = icestream(
        "new", session, "--workflow", folder / "workflow.yaml",
        "--movies", microscope / "movies", "--gain", microscope / "gain.mrc",
        "--pixel-size", 1.5, "--voltage", 300, "--dose-per-frame", 2.5, "--diameter", 130, 170,
        "--set", f"movies.max_files={N_MOVIES}", "--set", "movies.give_up_s=3", "--set", "movies.stable_s=1",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    writer = threading.Thread(target=simulate, args=(microscope,), kwargs={"settings": settings, "pace": Pace(pause_s=2.0)})
    writer.start()
    ended = icestream("run", session, "--quiet", "--cores", 2)
    writer.join()
    return microscope, session, ended


def listed(session: Path, *arguments: str) -> list[dict[str, Any]]:
    found = icestream("failed", session, "--json", *arguments)
    assert found.returncode == 0, found.stderr
    items: list[dict[str, Any]] = json.loads(found.stdout)
    return items


def test_ninety_come_through_and_ten_are_listed_with_the_right_reason(
    finished: tuple[Path, Path, "subprocess.CompletedProcess[str]"],
) -> None:
    microscope, session, ended = finished
    truth = load_session_truth(microscope)
    faults = {name: load_exposure_truth(microscope, name).fault for name in truth.exposures}
    items = listed(session, "--set-aside")
    reasons = {item["exposure"]: (item["step"], item["reason"]) for item in items}
    broken = {name: fault for name, fault in faults.items() if fault not in (None, Fault.PAUSE)}
    assert set(reasons) == set(broken)
    for name, fault in broken.items():
        step, word = EXPECTED[fault]
        assert reasons[name][0] == step, (name, fault, reasons[name])
        assert word in reasons[name][1], (name, fault, reasons[name])
    assert Counter(step for step, _ in reasons.values()) == {"movies": 4, "aligned": 4, "steady": 2}
    status = json.loads(icestream("status", session, "--json").stdout)
    counts = {step["name"]: step["counts"] for step in status["steps"]}
    assert counts["particles"]["item"] == N_MOVIES - len(broken) == 90
    assert ended.returncode == 3
    assert "8 failed" in ended.stdout


def test_the_report_says_so_too(finished: tuple[Path, Path, "subprocess.CompletedProcess[str]"]) -> None:
    _, session, _ = finished
    assert icestream("report", session).returncode == 0
    page = (session / "report" / "index.html").read_text()
    for item in listed(session, "--set-aside"):
        assert item["exposure"] in page
