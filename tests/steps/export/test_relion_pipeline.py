"""People work in the project while it grows: their jobs stay, RELION's lock is honoured, and picks are a job of their own."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest

from icestream.errors import ItemError
from icestream.io.image import read_stack
from icestream.io.star import Table, read_star, write_star
from icestream.steps.export import relion_pipeline
from icestream.steps.export.relion import ExportRelion, ExportRelionParams, ExportState
from icestream.testing.context import StepBench
from toys.relion_project import add, make_exposure, make_picks

MINE = "JoinStar/job005/"


def pipeline(project: Path) -> dict[str, Table]:
    return read_star(project / "default_pipeline.star")


def processes(project: Path) -> list[str]:
    return pipeline(project)["pipeline_processes"].texts("rlnPipeLineProcessName")


def run_a_job(project: Path, *, later: bool = False) -> None:
    """Add a job to the list as RELION does when a person runs one (``later``: as RELION 4 and 5 do)."""
    tables = pipeline(project)
    added = {
        "pipeline_processes": [MINE, "JoinStar/mine/", "13", "2"],
        "pipeline_nodes": [f"{MINE}join_particles.star", "3"],
        "pipeline_input_edges": ["Extract/job003/particles.star", MINE],
        "pipeline_output_edges": [MINE, f"{MINE}join_particles.star"],
    }
    for name, row in added.items():
        old = tables[name].columns if name in tables else {"rlnPipeLineEdgeFromNode": [], "rlnPipeLineEdgeProcess": []}
        columns = {label: [*values, row[index]] for index, (label, values) in enumerate(old.items())}
        if later:
            words = {"13": "relion.joinstar", "2": "Succeeded", "1": "MicrographGroupMetadata.star.relion"}
            columns = {
                f"{label}Label" if label.endswith(("Type", "Status")) else label: [words.get(value, value) for value in values]
                for label, values in columns.items()
            }
            if name == "pipeline_nodes":
                columns["rlnPipeLineNodeTypeLabelDepth"] = ["1"] * len(columns["rlnPipeLineNodeName"])
        tables[name] = Table(columns)
    tables["pipeline_general"] = Table({"rlnPipeLineJobCounter": ["6"]}, is_list=True)
    write_star(project / "default_pipeline.star", tables)
    (project / MINE).mkdir(parents=True)


@pytest.mark.parametrize("later", [False, True], ids=["relion 3.1", "relion 4 and 5"])
def test_the_jobs_of_people_stay_when_ours_are_added(tmp_path: Path, later: bool) -> None:
    bench = StepBench(tmp_path)
    state = add(bench, ExportState(), [make_exposure(bench, 1, ctf=None, n_particles=None)])
    project = bench.export_folder()
    assert pipeline(project)["pipeline_general"].texts("rlnPipeLineJobCounter") == ["5"]
    run_a_job(project, later=later)
    state = add(bench, state, [make_exposure(bench, 2)], picks=[make_picks((20, 30))])
    assert processes(project) == ["MotionCorr/job001/", MINE, "CtfFind/job002/", "AutoPick/job004/", "Extract/job003/"]
    tables = pipeline(project)
    assert tables["pipeline_general"].texts("rlnPipeLineJobCounter") == ["6"]
    assert tables["pipeline_processes"].texts("rlnPipeLineProcessAlias")[1] == "JoinStar/mine/"
    assert f"{MINE}join_particles.star" in tables["pipeline_nodes"].texts("rlnPipeLineNodeName")
    assert MINE in tables["pipeline_input_edges"].texts("rlnPipeLineEdgeProcess")
    kinds = tables["pipeline_processes"].texts("rlnPipeLineProcessTypeLabel" if later else "rlnPipeLineProcessType")
    picker = kinds[processes(project).index("AutoPick/job004/")]
    assert picker == ("relion.autopick" if later else "4")
    written = (project / "default_pipeline.star").read_bytes()
    add(bench, state, [make_exposure(bench, 3)], picks=[make_picks((20, 30))])
    assert (project / "default_pipeline.star").read_bytes() == written


def test_a_restart_keeps_the_jobs_of_people(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    add(bench, ExportState(), [make_exposure(bench, 1)])
    run_a_job(bench.export_folder())
    add(bench, ExportState(), [make_exposure(bench, 1)])
    assert MINE in processes(bench.export_folder())


def test_a_lock_of_relion_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(relion_pipeline, "_PAUSE_S", 0.0)
    bench = StepBench(tmp_path)
    project = bench.export_folder()
    lock = project / ".relion_lock" / "lock_default_pipeline.star"
    lock.parent.mkdir()
    lock.write_text("relion\n")
    with caplog.at_level(logging.WARNING):
        state = add(bench, ExportState(), [make_exposure(bench, 1)])
    assert "locked by another program" in caplog.text
    assert not (project / "default_pipeline.star").exists() and lock.is_file()
    assert ExportRelion().emit(state, ExportRelionParams(), bench).list_locked is True
    shutil.rmtree(lock.parent)
    state = add(bench, state, [make_exposure(bench, 2)])
    assert len(processes(project)) == 3 and not lock.parent.exists()
    assert ExportRelion().emit(state, ExportRelionParams(), bench).list_locked is None


def test_a_lock_that_a_crash_of_ours_left_is_taken_over(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    lock = bench.export_folder() / ".relion_lock" / "lock_default_pipeline.star"
    lock.parent.mkdir()
    lock.write_text("icestream export_relion on here\n")
    add(bench, ExportState(), [make_exposure(bench, 1)])
    assert len(processes(bench.export_folder())) == 3 and not lock.parent.exists()


def test_a_list_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    listed = bench.export_folder() / "default_pipeline.star"
    listed.write_text("what is this\n")
    with pytest.raises(ItemError, match=r"default_pipeline\.star: cannot be read as the list of RELION's jobs"):
        add(bench, ExportState(), [make_exposure(bench, 1)])
    assert listed.read_text() == "what is this\n"


def test_the_picking_job_has_the_coordinates_of_each_micrograph(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    picks = [make_picks((20, 30), (40.5, 50.25)), make_picks()]
    state = add(bench, ExportState(), [make_exposure(bench, 1), make_exposure(bench, 2)], picks=picks)
    project = bench.export_folder()
    table = read_star(project / "AutoPick/job004/autopick.star")["coordinate_files"]
    first, second = (project / name for name in table.texts("rlnMicrographCoordinates"))
    assert read_star(first)[""].floats("rlnCoordinateY").tolist() == [20, 40.5]
    assert read_star(first)[""].floats("rlnCoordinateX").tolist() == [30, 50.25]
    assert len(read_star(second)[""]) == 0
    assert first.name == Path(table.texts("rlnMicrographName")[0]).stem + "_autopick.star"
    assert (project / "AutoPick/job004/coords_suffix_autopick.star").read_text() == "CtfFind/job002/micrographs_ctf.star\n"
    assert ExportRelion().emit(state, ExportRelionParams(), bench).n_picks == 2


def test_a_picking_job_gets_a_free_number_in_a_project_that_people_have_used(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = add(bench, ExportState(), [make_exposure(bench, 1)])
    (bench.export_folder() / "Class2D/job004").mkdir(parents=True)
    for _ in range(2):  # the second time as after a crash: the state is lost
        add(bench, state, [make_exposure(bench, 2)], picks=[make_picks((20, 30))])
    assert [job for job in processes(bench.export_folder()) if "AutoPick" in job] == ["AutoPick/job005/"]


def run(project: Path, program: str, *arguments: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"missing program: {program}")
    done = subprocess.run([path, *arguments], cwd=project, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.services
def test_relion_takes_our_picks_and_keeps_its_jobs(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    data = [make_exposure(bench, number, n_particles=None) for number in (1, 2)]
    yx_px = [(20.0, 30.0), (40.0, 50.0)]
    state = add(bench, ExportState(), data[:1], picks=[make_picks(*yx_px)])
    project = bench.export_folder()
    job = Table({"rlnJobType": ["13"], "rlnJobIsContinue": ["0"]}, is_list=True)
    options = {
        "do_mic": "Yes",
        "fn_mic1": "CtfFind/job002/micrographs_ctf.star",
        "fn_mic2": "CtfFind/job002/micrographs_ctf.star",
    }
    values = Table({"rlnJobOptionVariable": [*options], "rlnJobOptionValue": [*options.values()]})
    write_star(project / "join.star", {"job": job, "joboptions_values": values})
    run(project, "relion_pipeliner", "--addJobFromStar", "join.star")
    assert "JoinStar/job005/" in processes(project)
    add(bench, state, data[1:], picks=[make_picks()])
    assert {"JoinStar/job005/", "AutoPick/job004/"} <= set(processes(project))
    coordinates = ("--coord_dir", "AutoPick/job004/", "--coord_suffix", "_autopick.star")
    micrographs = ("--i", "CtfFind/job002/micrographs_ctf.star")
    (project / "Extract/job009").mkdir(parents=True)
    target = ("--part_dir", "Extract/job009/", "--part_star", "Extract/job009/particles.star")
    run(project, "relion_preprocess", *micrographs, *coordinates, *target, "--extract", "--extract_size", "16")
    cut = read_star(project / "Extract/job009/particles.star")["particles"]
    assert sorted(zip(cut.floats("rlnCoordinateY"), cut.floats("rlnCoordinateX"), strict=True)) == yx_px
    stack = read_stack(project / cut.texts("rlnImageName")[0].partition("@")[2])
    assert stack.shape == (2, 16, 16)
