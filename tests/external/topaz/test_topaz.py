"""Topaz: its coordinates, what it is told, and, where it is installed, its picks, its training and its denoising."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from icestream.errors import FileFormatError, ItemError, WorkflowError
from icestream.external.topaz.denoise import TopazDenoiseParams, denoise_with_topaz
from icestream.external.topaz.picker import TopazPickParams, pick_with_topaz
from icestream.external.topaz.program import TOPAZ, read_coordinates
from icestream.external.topaz.train import TopazTrainParams, TrainTopaz, newest_model
from icestream.flow import Exposure, ProgramSettings
from icestream.flow.workflow import find_program, read_program_settings
from icestream.io.blocks import from_block
from icestream.io.image import read_image, write_mrc
from icestream.io.picks import make_picks, table_of_picks
from icestream.microscope.score import match_picks
from icestream.records import Acquisition, Micrograph, Picks, TopazModel
from icestream.testing.context import StepBench

ACQUISITION = Acquisition(pixel_size_ang=1.5)
HEAD = "image_name\tx_coord\ty_coord\tscore\n"
STAND_IN = """import pathlib, shutil, sys
words = sys.argv[1:]
if words == ["--version"]:
    print("0.3.20")
    sys.exit()
pathlib.Path("told.txt").open("a").write(" ".join(words) + "\\n")
if words[0] == "preprocess":
    pathlib.Path("small").mkdir(exist_ok=True)
    shutil.copy({small!r}, "small/micrograph.mrc")
elif words[0] == "denoise":
    pathlib.Path("denoised").mkdir()
    shutil.copy("micrograph.mrc", "denoised/micrograph.mrc")
elif words[0] == "extract":
    pathlib.Path("picks.txt").write_text({picks!r})
"""


def make_bench(folder: Path, picks: str) -> tuple[StepBench, Micrograph]:
    """Return a bench with a stand-in of Topaz that answers with ``picks``, and a micrograph that it reduces by 4."""
    session, path = folder / "session", folder / "bin/topaz"
    session.mkdir(parents=True)
    path.parent.mkdir()
    write_mrc(session / "mic.mrc", np.zeros((402, 360), np.float32), pixel_size_ang=1.5, remember=False)
    write_mrc(session / "small.mrc", np.zeros((100, 90), np.float32), pixel_size_ang=6.0, remember=False)
    path.write_text(f"#!{sys.executable} -IS\n" + STAND_IN.format(small=str(session / "small.mrc"), picks=picks))
    path.chmod(0o755)
    bench = StepBench(session, programs={"topaz": ProgramSettings(path=str(path))})
    return bench, Micrograph(image="session:mic.mrc", height_px=402, width_px=360, bin=1.0)


def test_topaz_is_called_and_its_coordinates_become_pixels_of_the_micrograph(tmp_path: Path) -> None:
    bench, micrograph = make_bench(tmp_path, HEAD + "micrograph\t20\t50\t0.5\nmicrograph\t10\t30\t2.5\n")
    picks = pick_with_topaz(micrograph, None, TopazPickParams(diameter_ang=192, threshold=-1), ACQUISITION, bench)
    assert (bench.work_folder / "told.txt").read_text().splitlines() == [
        "preprocess -s 4 -o small -d -1 -j 1 micrograph.mrc",
        "extract -m resnet16 -r 8 -t -1 -o picks.txt -d -1 -j 1 small/micrograph.mrc",
    ]
    table = from_block(picks.block)
    assert (picks.count, picks.diameter_ang, picks.threshold) == (2, 192, -1)
    assert np.allclose(table["y_px"], [30 * 4.02, 50 * 4.02])
    assert table["x_px"].tolist() == [40, 80]
    assert table["score"].tolist() == [2.5, 0.5]


def test_a_denoised_micrograph_has_the_field_of_view_of_the_micrograph(tmp_path: Path) -> None:
    bench, micrograph = make_bench(tmp_path, HEAD)
    found = denoise_with_topaz(micrograph, TopazDenoiseParams(model="unet-small"), ACQUISITION, bench)
    told = (bench.work_folder / "told.txt").read_text()
    assert told == "denoise -m unet-small -o denoised -s 1024 -p 200 -d -1 -j 1 micrograph.mrc\n"
    assert (found.method, found.bin, found.seen_ang) == ("network", 1.0, None)
    assert read_image(bench.path(found.image)).shape == (402, 360)


def test_a_model_of_another_pixel_size_is_refused(tmp_path: Path) -> None:
    bench, micrograph = make_bench(tmp_path, HEAD)
    model = TopazModel(file="session:m.sav", pixel_size_ang=9.0, diameter_ang=192, n_micrographs=1, count=1)
    with pytest.raises(ItemError, match=r"trained at 9\.00 Å per pixel, this micrograph is reduced to 6\.00 Å"):
        pick_with_topaz(micrograph, model, TopazPickParams(diameter_ang=192), ACQUISITION, bench)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected are the columns"),
        ("image_name\tx_coord\ty_coord\n", "expected are the columns"),
        (HEAD + "micrograph\t1\t2\n", "lack a column"),
        (HEAD + "other\t1\t2\t3\n", "not of micrograph"),
        (HEAD + "micrograph\t1\tx\t3\n", "could not convert"),
        (HEAD + "micrograph\t1\t2\tnan\n", "not finite"),
    ],
)
def test_coordinates_that_lack_something_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "picks.txt"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=told):
        read_coordinates(path, "micrograph")


def test_no_picks_are_no_error_and_no_model_is_one(tmp_path: Path) -> None:
    (tmp_path / "picks.txt").write_text(HEAD)
    assert read_coordinates(tmp_path / "picks.txt", "micrograph")[0].shape == (0, 2)
    for name in ("model_epoch2.sav", "model_epoch10.sav", "other.sav"):
        (tmp_path / name).touch()
    assert newest_model(tmp_path / "model").name == "model_epoch10.sav"
    (tmp_path / "none").mkdir()
    with pytest.raises(FileFormatError, match="saved no model"):
        newest_model(tmp_path / "none/model")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[StepBench, list[Micrograph], np.ndarray]:
    """Return micrographs with dark discs, where these are, and a bench with the Topaz of this machine."""
    file = os.environ.get("ICESTREAM_PROGRAMS")
    said = read_program_settings(None if file is None else Path(file)).get("topaz", ProgramSettings())
    try:
        find_program(TOPAZ, said)
    except WorkflowError:
        pytest.skip("missing program: topaz (scripts/install-programs.sh installs it)")
    bench = StepBench(tmp_path_factory.mktemp("topaz"), programs={"topaz": said})
    rng, (y, x), grid = np.random.default_rng(1), np.mgrid[:512, :448], np.mgrid[1:5, 1:5].reshape(2, -1).T
    centres = grid * [100, 88] + rng.uniform(-12, 12, (16, 2))
    micrographs = []
    for number in range(2):
        image = rng.normal(0, 0.5, y.shape)
        for row, column in centres:
            image -= np.sqrt(np.clip(1 - ((y - row) ** 2 + (x - column) ** 2) / 24**2, 0, None))
        write_mrc(bench.folder / f"{number}.mrc", image.astype(np.float32), pixel_size_ang=1.5, remember=False)
        micrographs.append(Micrograph(image=f"session:{number}.mrc", height_px=512, width_px=448, bin=1.0))
    return bench, micrographs, centres


def pick(bench: StepBench, micrograph: Micrograph, model: TopazModel | None) -> Picks:
    shutil.rmtree(bench.work_folder)
    return pick_with_topaz(micrograph, model, TopazPickParams(diameter_ang=72, reduce_by=4), ACQUISITION, bench)


def f1(picks: Picks, centres: np.ndarray) -> float:
    table = from_block(picks.block)
    return match_picks(np.stack([table["y_px"], table["x_px"]], axis=1), centres, radius_px=15).f1


@pytest.mark.services
def test_topaz_picks(simulated: tuple[StepBench, list[Micrograph], np.ndarray]) -> None:
    bench, micrographs, centres = simulated
    assert f1(pick(bench, micrographs[0], None), centres) > 0.6  # discs are not what it was trained on


@pytest.mark.services
def test_topaz_trains_where_its_torchvision_is_whole(simulated: tuple[StepBench, list[Micrograph], np.ndarray]) -> None:
    bench, micrographs, centres = simulated
    python = bench.program(TOPAZ).path.parent / "python"
    probe = "import torchvision, torch; torchvision.transforms.functional.rotate(torch.zeros(1, 4, 4), 90)"
    if subprocess.run([python, "-c", probe], capture_output=True, check=False, timeout=120).returncode:
        pytest.skip("missing module: torchvision beside Topaz, with which it turns images to train")
    params = TopazTrainParams(
        diameter_ang=72, reduce_by=4, micrographs=2, expected_particles=16, epochs=1, epoch_size=40, label_radius_px=2
    )
    given = make_picks(table_of_picks(centres, np.ones(16)), diameter_ang=72)
    exposures = [Exposure(f"{number:032x}", f"mic{number}") for number in range(2)]
    training = TrainTopaz()
    state = training.start(params, bench)
    with pytest.raises(ItemError, match="0 of 2 micrographs"):
        training.emit(state, params, bench)
    shutil.rmtree(bench.work_folder)
    update = training.add(state, exposures, micrographs, [given, given], acquisition=[ACQUISITION] * 2, params=params, ctx=bench)
    model = training.emit(update.state, params, bench)
    assert (model.pixel_size_ang, model.count, model.n_micrographs) == (6.0, 32, 2)
    picks = pick(bench, micrographs[1], model)
    assert picks.reference == model.file
