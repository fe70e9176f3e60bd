import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from icestream.algorithms.motion.model import local_shift_px
from icestream.algorithms.particles.extract import cut_box_2d
from icestream.errors import ItemError
from icestream.flow import Exposure
from icestream.flow.declaration.step_type import step_type_of
from icestream.io.image import read_image, read_stack, write_mrc
from icestream.io.star import Table, read_star
from icestream.records import Acquisition, FrameUse, Micrograph, Motion
from icestream.steps.export.relion import ExportRelion, ExportRelionParams, ExportState
from icestream.testing.context import StepBench
from toys.relion_project import ACQUISITION, add, make_exposure

RELION = ("relion_star_handler", "relion_image_handler", "relion_reconstruct", "relion_preprocess")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def column(path: Path, table: str, label: str) -> list[str]:
    return list(gemmi.cif.read(str(path)).find_block(table).find_values(f"_{label}"))


def test_ports_of_ctf_and_particles_are_optional() -> None:
    ports = {port.name: port.optional for port in step_type_of(ExportRelion).ports}
    assert ports == {"micrograph": False, "ctf": True, "particles": True, "picks": True}


def test_a_cropped_micrograph_has_no_movie_for_relion(tmp_path: Path) -> None:
    """RELION would look for its particles at the wrong place of the frames."""
    bench = StepBench(tmp_path)
    use = FrameUse(movie="session:a.mrc", movie_frames=2, height_px=200, width_px=200, crop_px=(10, 4, 128, 192))
    exposure, micrograph, ctf, particles = make_exposure(bench, 1)
    state = add(bench, ExportState(), [(exposure, micrograph.model_copy(update={"frames": use}), ctf, particles)])
    project = bench.path(ExportRelion().emit(state, ExportRelionParams(), bench).folder)
    corrected = project / "MotionCorr/job001/corrected_micrographs.star"
    assert column(corrected, "micrographs", "rlnMicrographMetadata") == ["None"]
    assert float(column(corrected, "micrographs", "rlnAccumMotionTotal")[0]) == pytest.approx(1.6)
    assert not list(project.glob("MotionCorr/job001/Movies/*.star")) and not (project / "Movies").exists()
    assert state.motion_error_px is None
    assert column(project / "Extract/job003/particles.star", "particles", "rlnCoordinateY") == ["21.000000"] * 3


def test_tables_say_what_the_records_say(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = add(bench, ExportState(), [make_exposure(bench, 1), make_exposure(bench, 2)])
    snapshot = ExportRelion().emit(state, ExportRelionParams(), bench)
    project = bench.path(snapshot.folder)
    assert (snapshot.n_micrographs, snapshot.n_particles) == (2, 6)
    particles = project / "Extract/job003/particles.star"
    assert column(particles, "optics", "rlnImagePixelSize") == ["4.000000"]
    assert column(particles, "optics", "rlnImageSize") == ["16"]
    assert column(particles, "particles", "rlnCoordinateX") == ["30.000000", "31.000000", "32.000000"] * 2
    assert column(particles, "particles", "rlnCoordinateY") == ["21.000000"] * 3 + ["22.000000"] * 3
    assert column(particles, "particles", "rlnDefocusU") == ["15000.000000"] * 6
    number, _, stack = column(particles, "particles", "rlnImageName")[1].partition("@")
    assert number == "000002"
    assert (project / stack).resolve() == (tmp_path / "mic_1.mrcs").resolve()
    assert not (project / stack).readlink().is_absolute()
    corrected = project / "MotionCorr/job001/corrected_micrographs.star"
    assert column(corrected, "optics", "rlnMicrographPixelSize") == ["2.000000"]
    names = column(corrected, "micrographs", "rlnMicrographName")
    assert [(project / name).is_file() for name in names] == [True, True]
    assert names[0] == column(particles, "particles", "rlnMicrographName")[0]
    track = project / column(corrected, "micrographs", "rlnMicrographMetadata")[0]
    assert column(track, "global_shift", "rlnMicrographShiftY") == ["0.000000", "-1.500000"]  # minus the displacement
    assert column(track, "global_shift", "rlnMicrographShiftX") == ["0.000000", "0.500000"]
    ctf = project / "CtfFind/job002/micrographs_ctf.star"
    assert column(ctf, "micrographs", "rlnCtfAstigmatism") == ["1000.000000"] * 2
    pipeline = gemmi.cif.read(str(project / "default_pipeline.star"))
    assert list(pipeline.find_block("pipeline_input_edges").find_values("_rlnPipeLineEdgeProcess")) == [
        "CtfFind/job002/",
        "Extract/job003/",
    ]
    assert (project / "Extract/job003/RELION_JOB_EXIT_SUCCESS").is_file()


@pytest.mark.parametrize("damage", ["rows added", "half a row", "nothing committed", "clean"])
def test_a_replay_after_a_crash_gives_the_same_bytes(tmp_path: Path, damage: str) -> None:
    straight, crashed = StepBench(tmp_path / "a"), StepBench(tmp_path / "b")
    for bench in (straight, crashed):
        bench.folder.mkdir()
        data = [make_exposure(bench, number) for number in (1, 2, 3)]
        state = add(bench, ExportState(), data[:1]) if damage != "nothing committed" else ExportState()
        rest = data[1:] if damage != "nothing committed" else data
        if bench is crashed and damage != "clean":
            add(bench, state, rest[:2])  # its state is lost
            if damage == "half a row":
                table = bench.export_folder() / "Extract/job003/particles.star"
                table.write_bytes(table.read_bytes()[:-17])
        state = ExportState.restore(state.model_dump_json(), version=ExportState.schema_version, block=None)
        for item in rest:
            state = add(bench, state, [item])
    assert contents(crashed.export_folder()) == contents(straight.export_folder())


def test_batches_and_single_exposures_give_the_same_project(tmp_path: Path) -> None:
    one, many = StepBench(tmp_path / "a"), StepBench(tmp_path / "b")
    for bench in (one, many):
        bench.folder.mkdir()
    state = ExportState()
    for number in (1, 2, 3):
        state = add(one, state, [make_exposure(one, number)])
    assert add(many, ExportState(), [make_exposure(many, number) for number in (1, 2, 3)]) == state
    assert contents(one.export_folder()) == contents(many.export_folder())


def test_projects_without_ctf_or_particles_are_whole(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = add(bench, ExportState(), [make_exposure(bench, 1, ctf=None, n_particles=None)])
    project = bench.export_folder()
    assert not (project / "CtfFind").exists()
    assert not (project / "Extract").exists()
    pipeline = gemmi.cif.read(str(project / "default_pipeline.star"))
    assert list(pipeline.find_block("pipeline_processes").find_values("_rlnPipeLineProcessName")) == ["MotionCorr/job001/"]
    state = add(bench, state, [make_exposure(bench, 2, ctf=None, n_particles=0), make_exposure(bench, 3, ctf=None)])
    assert (state.n_micrographs, state.n_particles) == (3, 3)
    block = gemmi.cif.read(str(project / "Extract/job003/particles.star")).find_block("particles")
    assert not block.find_values("_rlnDefocusU")


def test_particles_without_ctf_stay_out_of_a_project_with_ctf(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = add(bench, ExportState(), [make_exposure(bench, 1), make_exposure(bench, 2, ctf=None)])
    assert (state.n_micrographs, state.n_particles) == (2, 3)


def test_copies_are_files(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    add(bench, ExportState(), [make_exposure(bench, 1)], ExportRelionParams(copy_images=True))
    (copy,) = (bench.export_folder() / "Extract/job003/Movies").glob("*.mrcs")
    assert not copy.is_symlink()
    assert copy.read_bytes() == (tmp_path / "mic_1.mrcs").read_bytes()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    exposure, micrograph, ctf, particles = make_exposure(bench, 1)
    params = ExportRelionParams()
    with pytest.raises(ItemError, match="voltage_kv, cs_mm"):
        unset = Acquisition(pixel_size_ang=1, amplitude_contrast=0.1)
        ExportRelion().add(ExportState(), [exposure], [micrograph], [ctf], [particles], [unset], [None], params, bench)
    assert particles is not None
    flipped = particles.model_copy(update={"phase_flipped": True})
    with pytest.raises(ItemError, match="mic_1: its particles are phase-flipped"):
        add(bench, ExportState(), [(exposure, micrograph, ctf, flipped)])
    state = add(bench, ExportState(), [(exposure, micrograph, ctf, particles)])
    bigger = particles.model_copy(update={"box_px": 32})
    with pytest.raises(ItemError, match="box_px is 32, the project has 16; restart"):
        add(bench, state, [(exposure, micrograph, ctf, bigger)])
    multiplied = particles.model_copy(update={"ctf_premultiplied": True})
    with pytest.raises(ItemError, match="premultiplied is True, the project has False; restart"):
        add(bench, state, [(exposure, micrograph, ctf, multiplied)])
    (bench.export_folder() / "CtfFind/job002/micrographs_ctf.star").write_text("")
    with pytest.raises(ItemError, match="something else changed it"):
        add(bench, state, [make_exposure(bench, 2)])


OTHER = ACQUISITION.model_copy(update={"pixel_size_ang": 0.8, "voltage_kv": 200})


def add_with(bench: StepBench, state: ExportState, data: Sequence[Any], acquisition: Acquisition) -> ExportState:
    exposure, micrograph, ctf, particles = ([value] for value in data)
    given = (exposure, micrograph, ctf, particles, [acquisition], [None])
    return ExportRelion().add(state, *given, ExportRelionParams(), bench).state


def test_other_optics_are_a_group_of_their_own(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = add(bench, ExportState(), [make_exposure(bench, 1)])
    state = add_with(bench, state, make_exposure(bench, 2), OTHER)
    state = add(bench, state, [make_exposure(bench, 3)])
    assert ExportRelion().emit(state, ExportRelionParams(), bench).n_optics_groups == 2
    project = bench.export_folder()
    tables = {"MotionCorr/job001/corrected_micrographs.star": "micrographs", "Extract/job003/particles.star": "particles"}
    for path, name in {**tables, "CtfFind/job002/micrographs_ctf.star": "micrographs"}.items():
        assert column(project / path, "optics", "rlnOpticsGroup") == ["1", "2"]
        assert column(project / path, "optics", "rlnVoltage") == ["300.000000", "200.000000"]
        groups = column(project / path, name, "rlnOpticsGroup")
        assert groups == (["1"] * 3 + ["2"] * 3 + ["1"] * 3 if name == "particles" else ["1", "2", "1"])
    assert column(project / "Extract/job003/particles.star", "optics", "rlnImagePixelSize") == ["4.000000", "3.200000"]


@pytest.mark.parametrize("lost", ["other", "same"])
def test_a_group_begun_in_a_lost_attempt_vanishes(tmp_path: Path, lost: str) -> None:
    straight, crashed = StepBench(tmp_path / "a"), StepBench(tmp_path / "b")
    for bench in (straight, crashed):
        bench.folder.mkdir()
        state = add(bench, ExportState(), [make_exposure(bench, 1)])
        if bench is crashed:  # this state is lost, its files are not
            add_with(bench, state, make_exposure(bench, 2), OTHER)
        state = add_with(bench, state, make_exposure(bench, 2), OTHER if lost == "same" else ACQUISITION)
        add(bench, state, [make_exposure(bench, 3)])
    assert contents(crashed.export_folder()) == contents(straight.export_folder())


def test_a_project_of_the_first_schema_goes_on(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = add(bench, ExportState(), [make_exposure(bench, 1)])
    lengths = {name: getattr(state, name) for name in ("micrographs_bytes", "ctf_bytes", "particles_bytes")}
    old = {**lengths, "n_micrographs": 1, "n_particles": 3, "with_ctf": True}
    old |= {"acquisition": ACQUISITION.model_dump(), "bin": 2.0, "box_px": 16, "particle_bin": 4.0}
    restored = ExportState.restore(json.dumps(old), version=1, block=None)
    assert restored == state.model_copy(update={"motion_error_px": None, "ids_bytes": 0})
    assert add(bench, restored, [make_exposure(bench, 2)]).n_micrographs == 2
    ids = read_star(bench.export_folder() / ".icestream/particle_ids.star")["particle_ids"]
    assert ids.ints("icestreamPid").tolist() == [-1, -1, -1, 0, 1, 2]  # nobody wrote down which the old ones were
    assert ExportState.restore("{}", version=1, block=None) == ExportState()


def make_moving(bench: StepBench) -> Micrograph:
    """Return a micrograph of frames 2 to 6 of 8 of a movie of 96 × 128 pixels, moved as a whole and locally."""
    write_mrc(bench.folder / "movie.mrc", np.zeros((8, 96, 128), dtype=np.int16), pixel_size_ang=1.0, remember=False)
    gain = np.random.default_rng(1).uniform(0.8, 1.2, (96, 128)).astype(np.float32)
    gain[3, 5] = 0
    write_mrc(bench.folder / "gain.mrc", np.ascontiguousarray(np.rot90(1 / np.where(gain > 0, gain, np.inf))), pixel_size_ang=1.0)
    (bench.folder / "hot.txt").write_text("7 9 1 1\n")
    write_mrc(bench.folder / "moving.mrc", np.zeros((48, 64), dtype=np.float32), pixel_size_ang=2.0)
    use = FrameUse(
        movie="session:movie.mrc",
        movie_frames=8,
        first_frame=2,
        height_px=96,
        width_px=128,
        gain="session:gain.mrc",
        gain_operation="divide",
        gain_orientation="rot270",
        hot_pixels="session:hot.txt",
    )
    coefficients = np.random.default_rng(2).normal(size=(2, 18)).tolist()
    track = [(0.0, 0.0), (1.5, -0.5), (2.5, -1.0), (3.0, -1.5), (3.25, -2.0)]
    since = [0.3, 0.15, 0.1]  # what the sum counts from is no matter to RELION, whose shifts are zero in the first frame
    motion = Motion(global_yx_px=track, local_coefficients=coefficients, local_reference=since, total_px=4, early_px=2)
    return Micrograph(image="session:moving.mrc", height_px=48, width_px=64, bin=2.0, motion=motion, frames=use)


def test_motion_of_a_movie_is_told_in_the_words_of_relion(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    micrograph, dose = make_moving(bench), ACQUISITION.model_copy(update={"dose_per_frame_e_per_ang2": 1.25})
    state = add_with(bench, ExportState(), (Exposure("ab" * 16, "moving"), micrograph, None, None), dose)
    assert state.motion_error_px is not None and state.motion_error_px < 1e-6
    project = bench.export_folder()
    tables = read_star(project / "MotionCorr/job001/Movies/moving_abababab.star")
    general = {label: column[0] for label, column in tables["general"].columns.items()}
    assert (general["rlnMicrographStartFrame"], general["rlnImageSizeZ"]) == ("3", "8")
    assert (general["rlnImageSizeX"], general["rlnImageSizeY"]) == ("128", "96")
    assert (general["rlnMicrographDoseRate"], general["rlnMicrographBinning"]) == ("1.250000", "2.000000")
    assert general["rlnMotionModelVersion"] == "1"
    assert (project / general["rlnMicrographMovieName"]).resolve() == (tmp_path / "movie.mrc").resolve()
    gain = read_image(project / general["rlnMicrographGainName"])
    true = np.random.default_rng(1).uniform(0.8, 1.2, (96, 128))
    true[3, 5] = 0
    assert gain.shape == (96, 128) and np.ptp(gain[true > 0] / true[true > 0]) < 1e-4 and gain[3, 5] == 0
    shifts = tables["global_shift"]
    assert shifts.ints("rlnMicrographFrameNumber").tolist() == list(range(1, 9))
    assert shifts.floats("rlnMicrographShiftY").tolist() == [-9999, -9999, 0, -1.5, -2.5, -3.0, -3.25, -9999]
    assert tables["hot_pixels"].columns == {"rlnCoordinateX": ["7.000000"], "rlnCoordinateY": ["9.000000"]}
    assert motion_of(tables, frame=4, y=10.0, x=100.0) == pytest.approx(ours_of(micrograph, used=2, y=10.0, x=100.0), abs=1e-5)


def test_the_gain_of_an_eer_movie_divides_as_relion_expects(tmp_path: Path) -> None:
    """RELION takes the inverse of a gain of EER movies that is no .gain file (`EERRenderer::loadEERGain`)."""
    bench = StepBench(tmp_path)
    micrograph = make_moving(bench)
    (bench.folder / "movie.eer").touch()
    gains: list[Any] = []
    for changes in ({}, {"eer_group": 8, "eer_upsampling": 1, "movie": "session:movie.eer"}):
        use = micrograph.frames.model_copy(update=changes)
        image = micrograph.model_copy(update={"frames": use})
        number = len(gains)
        add_with(bench, ExportState(), (Exposure(f"{number}b" * 16, f"m{number}"), image, None, None), ACQUISITION)
        (star,) = (bench.export_folder() / "MotionCorr/job001/Movies").glob(f"m{number}_*.star")
        name = read_star(star)["general"].columns["rlnMicrographGainName"][0]
        gains.append(read_image(bench.export_folder() / name))
    multiplies, divides = gains
    assert (divides == 0).sum() == (multiplies == 0).sum() == 1
    np.testing.assert_allclose(divides[multiplies > 0] * multiplies[multiplies > 0], 1.0, rtol=1e-5)


def motion_of(tables: dict[str, Table], *, frame: int, y: float, x: float) -> tuple[float, float]:
    """Return minus the shift that RELION computes, written out: (y, x) in pixels of the movie."""
    c = tables["local_motion_model"].floats("rlnMotionModelCoeff")
    u, v, z = x / 128 - 0.5, y / 96 - 0.5, frame - 2
    polynomials = [1, u, u * u, v, v * v, u * v]
    of_x, of_y = (
        sum(c[axis + 3 * p + q] * polynomials[p] * z ** (q + 1) for p in range(6) for q in range(3)) for axis in (0, 18)
    )
    shifts = tables["global_shift"]
    return -float(of_y + shifts.floats("rlnMicrographShiftY")[frame]), -float(of_x + shifts.floats("rlnMicrographShiftX")[frame])


def ours_of(micrograph: Micrograph, *, used: int, y: float, x: float) -> tuple[float, float]:
    motion = micrograph.motion
    assert motion is not None
    local = local_shift_px(
        np.array(motion.local_coefficients), frame=used, y_px=np.array(y), x_px=np.array(x), shape=(96, 128), n_frames=5
    )
    return motion.global_yx_px[used][0] + float(local[0]), motion.global_yx_px[used][1] + float(local[1])


@pytest.mark.services
def test_relion_reads_the_project(tmp_path: Path) -> None:
    programs = {name: shutil.which(name) for name in RELION}
    missing = sorted(name for name, path in programs.items() if path is None)
    if missing:
        pytest.skip(f"missing programs: {', '.join(missing)}")
    bench = StepBench(tmp_path)
    add(bench, ExportState(), [make_exposure(bench, 1), make_exposure(bench, 2)])
    project = bench.export_folder()

    def relion(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(programs[program]), *arguments], cwd=project, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    relion("relion_star_handler", "--i", "Extract/job003/particles.star", "--o", "copy.star", "--select", "rlnDefocusU")
    assert len(column(project / "copy.star", "particles", "rlnImageName")) == 6
    relion("relion_image_handler", "--i", "Extract/job003/particles.star", "--o", "sum.mrc", "--avg_ampl")
    relion("relion_reconstruct", "--i", "Extract/job003/particles.star", "--o", "map.mrc", "--ctf")
    assert read_stack(project / "map.mrc").shape == (16, 16, 16)
    extract = ["--i", "CtfFind/job002/micrographs_ctf.star", "--part_star", "new.star", "--part_dir", "New/", "--extract"]
    relion("relion_preprocess", *extract, "--extract_size", "16", "--reextract_data_star", "Extract/job003/particles.star")
    micrograph = read_image(tmp_path / "mic_1.mrc")
    boxes = np.stack([cut_box_2d(micrograph, (21, x), side_px=16) for x in (30, 31, 32)])
    (stack,) = (project / "New").rglob("mic_1*.mrcs")
    assert np.allclose(read_stack(stack), boxes, atol=1e-5)  # RELION centres a box where we do


@pytest.mark.services
def test_relion_classifies_particles_of_several_optics_groups(tmp_path: Path) -> None:
    """Pixel sizes and voltages differ, and the second group has no particle, so that the numbers have a gap."""
    program = shutil.which("relion_refine")
    if program is None:
        pytest.skip("missing programs: relion_refine")
    bench = StepBench(tmp_path)
    state = add(bench, ExportState(), [make_exposure(bench, 1)])
    bare = ACQUISITION.model_copy(update={"pixel_size_ang": 0.9})
    state = add_with(bench, state, make_exposure(bench, 2, n_particles=None), bare)
    add_with(bench, state, make_exposure(bench, 3), OTHER)
    project = bench.export_folder()
    (project / "Class2D").mkdir()
    quick = ["--iter", "1", "--K", "1", "--oversampling", "0", "--psi_step", "60", "--offset_range", "2", "--offset_step", "1"]
    optics = ["--ctf", "--norm", "--scale", "--particle_diameter", "50", "--pad", "1", "--j", "1"]
    command = [program, "--i", "Extract/job003/particles.star", "--o", "Class2D/run", *quick, *optics]
    done = subprocess.run(
        command,
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = read_star(project / "Class2D/run_it001_data.star")
    assert seen["optics"].texts("rlnVoltage") == ["300.000000", "200.000000"]
    sizes = dict(zip(seen["optics"].texts("rlnOpticsGroup"), seen["optics"].floats("rlnImagePixelSize"), strict=True))
    of_particles = [sizes[group] for group in seen["particles"].texts("rlnOpticsGroup")]
    assert sorted(of_particles) == pytest.approx([3.2] * 3 + [4.0] * 3)
