"""``icestream recompute`` on sessions of small steps, and on a session that fits the CTF of simulated micrographs."""

import json
import shutil
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from scipy import fft
from typer.testing import CliRunner, Result

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.cli import app
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session, open_session
from icestream.settings import Settings
from toys.session import make_toy_session, outcomes_of, read_rows, toy_steps

SIDE_PX, PIXEL_SIZE_ANG = 512, 1.6
DEFOCUS_ANG = {"mic_1": 15000.0, "mic_2": 12000.0}


def call(*words: str | Path, input: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=input)


def done(*words: str | Path, input: str | None = None) -> str:
    result = call(*words, input=input)
    assert result.exit_code == 0, result.output
    return result.output


def told(*words: str | Path) -> Any:
    return json.loads(done(*words, "--json"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a session of small steps that has run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    run_session(make_toy_session(folder, toy_steps(6), numbers=range(6)), Settings(cores=2))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, as the folder of the session."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy" / "session"


def test_exposures_are_recomputed_by_name_pattern_file_and_pipe(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("4\n")
    assert done("recompute", folder, "triple", "2", "factor=8", "--reason", "thick ice") == (
        "2 is recomputed at triple, with factor=8 of its own\n"
    )
    assert done("recompute", folder, "triple", "factor=9", "[01]").count("with factor=9 of its own") == 2
    assert [one["state"] for one in [told("recompute", folder, "triple", "--from-file", tmp_path / "list", "factor=7")]] == [
        "done"
    ]
    assert "3 is recomputed" in done("recompute", folder, "triple", "-", "factor=", input="3\n")
    active = {
        row["unit"]: json.loads(row["params"]) for row in read_rows(open_session(folder), schema.recompute) if row["active"]
    }
    names = {row["unit"]: row["name"] for row in read_rows(open_session(folder), schema.exposure)}
    assert {names[unit]: params["factor"] for unit, params in active.items()} == {"0": 9, "1": 9, "2": 8, "3": 2, "4": 7}


def test_it_shows_wherever_a_person_looks(folder: Path) -> None:
    done("recompute", folder, "triple", "2", "factor=8", "--reason", "thick ice")
    run_session(open_session(folder), Settings(cores=2, rebuild_fraction=1.0))
    (row,) = read_rows(open_session(folder), schema.recompute)
    sentence = f"computed with factor=8 of its own, by {row['author']}: thick ice"
    trace = done("trace", folder, "2")
    assert trace.count(sentence) == 2
    assert "factor=8" in trace.split("triple (")[1].split("\n")[1]
    assert sentence not in done("trace", folder, "3")
    assert f"triple: {sentence}" in done("why", folder, "2")
    history = done("history", folder)
    assert "recompute 2 triple factor=8 (thick ice)" in " ".join(history.split())
    assert f"2 at triple: {sentence}" in history
    (decision,) = told("history", folder)["decisions"]
    assert (decision["verdict"], decision["params"], decision["exposure"]) == ("recompute", {"factor": 8}, "2")
    assert "1 recomputed with parameters of their own" in " ".join(done("status", folder).split())
    assert {row["step"]: row["own_params"] for row in told("revisions", folder)}["triple"] == 1
    assert "1 with parameters of their own" in " ".join(done("revisions", folder, "triple").split())
    done("report", folder)
    assert f"<bdi>{sentence}</bdi>" in (folder / "report" / "index.html").read_text()
    step = next(step for step in told("trace", folder, "2")["steps"] if step["step"] == "triple")
    assert (step["params"]["factor"], step["own"]["params"]) == (8, {"factor": 8})


def test_it_is_withdrawn_alone_or_with_what_else_was_decided(folder: Path) -> None:
    done("recompute", folder, "triple", "2", "factor=8")
    done("reject", folder, "2", "--step", "even")
    assert done("withdraw", folder, "2", "--step", "triple") == "2 uses the parameters of triple again\n"
    assert "2 at even: rejected by hand" in done("history", folder)
    done("recompute", folder, "triple", "2", "factor=8")
    taken_back = done("withdraw", folder, "2")
    assert "2 uses the parameters of triple again" in taken_back
    assert "2 is no longer overridden at even" in taken_back
    assert "there is no override for 2 at triple" in call("withdraw", folder, "2", "--step", "triple").stderr
    assert "withdraw 2 triple" in " ".join(done("history", folder).split())


def test_a_dry_run_says_what_it_takes(folder: Path) -> None:
    before = outcomes_of(open_session(folder))
    plan = told("recompute", folder, "triple", "[24]", "factor=8", "--dry-run")
    steps = {step["step"]: step for step in plan["steps"]}
    assert (steps["triple"]["computed"], steps["triple"]["change"]) == (2, "again")
    assert steps["total"]["change"] == "rebuilt"
    text = done("recompute", folder, "triple", "[24]", "factor=8", "--dry-run")
    assert "results to compute" in text
    assert "rebuilt" in " ".join(text.split())
    assert outcomes_of(open_session(folder)) == before
    assert read_rows(open_session(folder), schema.recompute) == []


@pytest.mark.parametrize(
    ("words", "told_why"),
    [
        (("triple", "2", "factr=7"), "has no parameter 'factr'; it has: factor"),
        (("triple", "2", "factor=many"), "parameter 'factor' is 'many'"),
        (("triple", "2"), "no parameter was given; write name=value"),
        (("triple", "factor=7"), "no exposure given"),
        (("triple", "x*", "factor=7"), "no exposure of this session"),
        (("tripel", "2", "factor=7"), "no step is called 'tripel'; known: numbers, triple"),
        (("total", "2", "fail_on=[1]"), "takes many exposures together; recompute at a step upstream of it"),
        (("numbers", "2", "folder=x"), "numbers (source) cannot compute one exposure again"),
        (("triple", "2", "factor=7", "factor=8"), "factor: given twice"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_mistakes_are_told_before_anything_is_asked(
    folder: Path, words: tuple[str, ...], told_why: str, dry: tuple[str, ...]
) -> None:
    result = call("recompute", folder, *words, *dry)
    assert result.exit_code != 0
    assert told_why in " ".join(result.stderr.split())
    assert read_rows(open_session(folder), schema.command) == []


def test_an_exported_workflow_does_not_carry_it_and_says_so(folder: Path, tmp_path: Path) -> None:
    done("recompute", folder, "triple", "2", "factor=8")
    text = done("export-workflow", folder, "-o", tmp_path / "workflow.yaml")
    assert "not exported: overrides of single exposures (1)" in " ".join(text.split())
    assert "8" not in (tmp_path / "workflow.yaml").read_text().split("factor:")[1].split("\n")[0]
    assert "not exported: overrides of single exposures (1)" in call("export-workflow", folder).stderr


# The CTF ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A session that has fitted the CTF of two simulated micrographs."""
    place = tmp_path_factory.mktemp("ctf")
    (place / "micrographs").mkdir()
    rng = np.random.default_rng(5)
    for name, defocus_ang in DEFOCUS_ANG.items():
        optics = {"voltage_kv": 300, "cs_mm": 2.7, "amplitude_contrast": 0.07, "pixel_size_ang": PIXEL_SIZE_ANG}
        ctf = ctf_2d(
            SIDE_PX, SIDE_PX, defocus_u_ang=defocus_ang, defocus_v_ang=defocus_ang - 300, astigmatism_angle_deg=30, **optics
        )
        rings = fft.irfft2(fft.rfft2(rng.standard_normal((SIDE_PX, SIDE_PX))) * ctf)
        image = (rings + 0.5 * rng.standard_normal((SIDE_PX, SIDE_PX))).astype(np.float32)
        mrcfile.write(place / "micrographs" / f"{name}.mrc", image, voxel_size=PIXEL_SIZE_ANG)
    steps = {
        "micrographs": {"use": "import_micrographs", "params": {"max_files": 2, "stable_s": 0}},
        "ctf": {"use": "ctf", "in": {"micrograph": "micrographs"}, "params": {"tile_ang": 400}},
        "good": {"use": "ctf_filter", "in": {"micrograph": "micrographs", "ctf": "ctf"}},
    }
    acquisition = {"voltage_kv": 300, "cs_mm": 2.7, "amplitude_contrast": 0.07, "pixel_size_ang": PIXEL_SIZE_ANG}
    document = {"name": "ctf", "roots": {"micrographs": "../micrographs"}, "acquisition": acquisition, "steps": steps}
    session = create_session(place / "session", SessionDocument.model_validate(document))
    assert run_session(session, Settings(cores=2)).finished
    return session


def fits(session: Session) -> dict[str, dict[str, Any]]:
    """Return the name of each micrograph → its CTF, with the parameters it was fitted with."""
    results = {row["key"]: row for row in read_rows(session, schema.result)}
    keys = {unit: row["keys"]["out"] for (step, unit), row in outcomes_of(session).items() if step == "ctf"}
    return {
        unit: json.loads(results[key]["record"]) | {"params": json.loads(results[key]["params"])} for unit, key in keys.items()
    }


def test_the_ctf_of_one_micrograph_is_fitted_within_other_bounds_and_stays_so(micrographs: Session) -> None:
    folder = micrographs.folder
    before = fits(micrographs)
    assert before["mic_1"]["defocus_u_ang"] == pytest.approx(15000, abs=150)
    wrong = call("recompute", folder, "ctf", "mic_1", "defocus_um=[4, 2]")
    assert "defocus_um is (4.0, 2.0); give the lower value first" in " ".join(wrong.stderr.split())
    assert fits(micrographs) == before
    done("recompute", folder, "ctf", "mic_1", "defocus_um=[2.5, 3.5]", "--reason", "as the microscope says")
    run_session(open_session(folder), Settings(cores=2))
    own = fits(open_session(folder))
    mean_ang = (own["mic_1"]["defocus_u_ang"] + own["mic_1"]["defocus_v_ang"]) / 2
    assert 24_000 < mean_ang < 36_000
    assert own["mic_2"] == before["mic_2"]
    done("set", folder, "ctf", "max_astigmatism_ang=1500")
    run_session(open_session(folder), Settings(cores=2))
    later = fits(open_session(folder))
    assert {name: fit["params"]["max_astigmatism_ang"] for name, fit in later.items()} == {"mic_1": 1500, "mic_2": 1500}
    assert later["mic_1"]["params"]["defocus_um"] == [2.5, 3.5]
    assert later["mic_2"]["params"]["defocus_um"] == before["mic_2"]["params"]["defocus_um"]
    assert 24_000 < (later["mic_1"]["defocus_u_ang"] + later["mic_1"]["defocus_v_ang"]) / 2 < 36_000
    done("report", folder)
    page = (folder / "report" / "index.html").read_text()
    assert page.count('<span class="odd"><bdi>ctf: computed with defocus_um=[2.5, 3.5] of its own, by ') == 1
    done("set", folder, "ctf", "max_astigmatism_ang=")
    done("withdraw", folder, "mic_1", "--step", "ctf")
    made = len(read_rows(open_session(folder), schema.result))
    run_session(open_session(folder), Settings(cores=2))
    assert fits(open_session(folder)) == before
    assert len(read_rows(open_session(folder), schema.result)) == made
