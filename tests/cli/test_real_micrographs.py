"""Real frame averages, copied one by one into a watched folder, become 2D classes and a RELION project."""

import csv
import json
import shutil
import threading
import time
from pathlib import Path

import gemmi
import numpy as np
import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import Session, open_session
from icestream.io.blocks import from_block
from icestream.io.image import read_stack
from icestream.microscope.score import match_picks
from icestream.observe.queries import open_view
from icestream.settings import Settings

NAMES = ("May08_03.15.02", "May08_04.36.57", "May08_05.53.51")
DEFOCUS_UM = {"May08_03.15.02": 2.24, "May08_04.36.57": 1.755, "May08_05.53.51": 1.925}
HEIGHT_PX = 1200
NEW = (
    "--voltage 300 --cs 0.01 --amplitude-contrast 0.07 --pixel-size 1.5 --diameter 100 135 --set micrographs.max_files=3 "
    "--set micrographs.stable_s=1 --set classes.n_classes=4 --set classes.first_particles=200"
)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Session:
    folder = tmp_path_factory.mktemp("apoferritin")
    averages = shared_data / "empiar10146_apoferritin" / "averages"
    (folder / "watched").mkdir()
    made = CliRunner().invoke(app, ["new", str(folder / "s"), "--micrographs", str(folder / "watched"), *NEW.split()])
    assert made.exit_code == 0, made.output

    def copy() -> None:
        for name in NAMES:
            time.sleep(0.5)
            shutil.copy(averages / f"{name}.bin_avg.png", folder / "watched")

    writer = threading.Thread(target=copy)
    writer.start()
    opened = open_session(folder / "s")
    report = run_session(opened, Settings(cores=2))
    writer.join()
    assert report.finished
    assert report.n_failed == 0
    return opened


def test_the_picks_agree_with_manual_picks(session: Session, shared_data: Path) -> None:
    found_in_all, true_in_all, matched = 0, 0, 0
    with open_view(session) as view:
        for stored in view.records("picks"):
            name = stored.name.removesuffix(".bin_avg")
            with (shared_data / "empiar10146_apoferritin" / "picks" / f"{name}.bin.csv").open() as handle:
                rows = [row for row in csv.DictReader(handle) if row["touches_edge"] == "0"]
            true = np.array([[HEIGHT_PX - 1 - float(row["y_px"]), float(row["x_px"])] for row in rows])
            table = from_block(stored.block or b"")
            score = match_picks(np.stack([table["y_px"], table["x_px"]], axis=1), true, radius_px=0.3 * 80)
            found_in_all, true_in_all, matched = (
                found_in_all + score.n_found,
                true_in_all + score.n_true,
                matched + score.n_matched,
            )
    assert 2 * matched / (found_in_all + true_in_all) > 0.9


def test_the_defocus_is_the_known_one(session: Session) -> None:
    with open_view(session) as view:
        found = {
            stored.name.removesuffix(".bin_avg"): (stored.record["defocus_u_ang"] + stored.record["defocus_v_ang"]) / 2e4
            for stored in view.records("ctf")
        }
    assert found == pytest.approx(DEFOCUS_UM, abs=0.06)


def test_the_classes_are_rings(session: Session) -> None:
    with open_view(session) as view:
        (newest,) = view.snapshots("classes", limit=1)
    assert newest.record is not None
    averages = read_stack(session.folder / newest.record["stack"].removeprefix("session:"))  # (n, h, w)
    largest = max(newest.record["classes"], key=lambda one: one["count"])["id"]
    average = averages[[one["id"] for one in newest.record["classes"]].index(largest)]
    rows, columns = np.indices(average.shape) - average.shape[0] // 2
    radius_ang = np.hypot(rows, columns) * 1.5 * newest.record["bin"]
    shell, centre, outside = (
        average[(radius_ang > low) & (radius_ang < high)].mean() for low, high in ((30, 52), (0, 15), (64, 72))
    )
    assert shell > centre > outside


def test_the_relion_project_has_all_particles(session: Session) -> None:
    folder = session.folder / "exports" / "relion"
    particles = gemmi.cif.read(str(folder / "Extract" / "job003" / "particles.star")).find_block("particles")
    names = particles.find_loop("_rlnImageName")
    with open_view(session) as view:
        expected = sum(stored.record["count"] for stored in view.records("particles"))
    assert len(names) == expected > 300
    assert (folder / names[0].partition("@")[2]).resolve().is_file()


def test_a_micrograph_can_be_traced_to_its_file(session: Session) -> None:
    answer = CliRunner().invoke(app, ["trace", str(session.folder), "May08_04.36.57.bin_avg", "--json"])
    assert answer.exit_code == 0, answer.output
    traced = json.loads(answer.output)
    assert "May08_04.36.57.bin_avg.png" in json.dumps(traced)
