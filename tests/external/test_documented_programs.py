"""Programs that were never run for real: stand-ins note what they are told and answer in the documented form.

``ctffind_4_1_14.txt`` was written by CTFFIND itself, on somebody else's machine.
"""

import json
import math
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from icestream.errors import FileFormatError, ItemError
from icestream.external.cryolo import CryoloParams, pick_with_cryolo, read_cbox
from icestream.external.ctffind import CtffindParams, fit_with_ctffind, read_ctffind
from icestream.external.gautomatch import GautomatchParams, pick_with_gautomatch, read_gautomatch
from icestream.external.gctf import GctfParams, fit_with_gctf, read_gctf
from icestream.external.motioncor import MotionCorParams, correct_with_motioncor, read_shifts
from icestream.flow import ProgramSettings
from icestream.io.blocks import from_block
from icestream.io.image import write_mrc
from icestream.records import Acquisition, GainReference, Micrograph, Movie, Picks, PickTemplates
from icestream.testing.context import StepBench

PRINTED = Path(__file__).parent / "printed"
ACQUISITION = Acquisition(pixel_size_ang=1.5, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07)

STAND_IN = """import json, pathlib, shutil, sys
words, printed = sys.argv[1:], pathlib.Path({printed!r})
if {probed}:
    print({banner!r})
    sys.exit()
pathlib.Path("told.json").write_text(json.dumps({{"words": words, "answers": sys.stdin.read().splitlines()}}))
for source, target in {writes!r}:
    pathlib.Path(target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(printed / source, target)
"""


def make_bench(
    folder: Path, name: str, banner: str, writes: list[tuple[str, str]], *, probe: str | None = "--version"
) -> StepBench:
    """Return a bench on which a stand-in of a program notes what it is told and writes recorded answers."""
    path = folder / "bin" / name
    path.parent.mkdir(parents=True)
    probed = "not words" if probe is None else f"words == [{probe!r}]"
    path.write_text(
        f"#!{sys.executable} -IS\n" + STAND_IN.format(printed=str(PRINTED), probed=probed, banner=banner, writes=writes)
    )
    path.chmod(0o755)
    return StepBench(folder / "session", programs={name: ProgramSettings(path=str(path))})


def make_micrograph(bench: StepBench) -> Micrograph:
    bench.folder.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(1).normal(size=(400, 360)).astype(np.float32)
    write_mrc(bench.folder / "mic.mrc", image, pixel_size_ang=1.5, remember=False)
    return Micrograph(image="session:mic.mrc", height_px=400, width_px=360, bin=1.0)


def told(bench: StepBench) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((bench.work_folder / "told.json").read_text())
    return found


def positions(picks: Picks) -> list[list[float]]:
    table = from_block(picks.block)
    return np.stack([table["y_px"], table["x_px"]], axis=1).tolist()


def test_ctffind_is_answered_question_by_question(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, "ctffind", "Version : 4.1.14", [("ctffind_4_1_14.txt", "spectrum.txt")])
    micrograph = make_micrograph(bench)
    write_mrc(bench.work_folder / "spectrum.mrc", np.eye(64, dtype=np.float32), pixel_size_ang=1.0)
    params = CtffindParams(astigmatism_ang=200.0, phase_shift_deg=(0.0, 180.0))
    found = fit_with_ctffind(micrograph, params, ACQUISITION, bench)
    asked = ["micrograph.mrc", "spectrum.mrc", "1.5", "300", "2.7", "0.07", "512", "30", "5", "3000", "50000", "100"]
    later = ["no", "no", "yes", "200", "yes", "0.000000", f"{math.pi:.6f}", f"{math.radians(10):.6f}", "no"]
    assert told(bench) == {"words": [], "answers": [*asked, *later]}
    assert (found.defocus_u_ang, found.defocus_v_ang, found.score, found.resolution_ang) == (9982.5, 9982.5, 0.5657, 1.981)
    assert found.phase_shift_deg == pytest.approx(math.degrees(0.035256), abs=0.01)
    assert found.spectrum is not None
    assert bench.path(found.spectrum).is_file()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "0 lines"),
        ("# only a comment\n", "0 lines"),
        ("1.0 9982.5 9982.5 0.0 0.03 0.56\n", "6 numbers"),
        ("1.0 9982.5 9982.5 0.0 0.03 0.56 4.0\n2.0 9982.5 9982.5 0.0 0.03 0.56 4.0\n", "2 lines"),
        ("1.0 9982.5 ***** 0.0 0.03 0.56 4.0\n", "could not convert"),
    ],
)
def test_an_answer_of_ctffind_that_lacks_something_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "spectrum.txt"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=re.escape(told)):
        read_ctffind(path)


def test_a_ctf_without_a_resolution_is_none(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, "ctffind", "Version : 4.1.14", [("ctffind_inf.txt", "spectrum.txt")])
    with pytest.raises(FileFormatError, match="values that are no CTF"):
        fit_with_ctffind(make_micrograph(bench), CtffindParams(), ACQUISITION, bench)


def test_gctf_is_called_and_its_log_is_read(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, "Gctf", "Gctf_v1.18", [("gctf_log.txt", "micrograph_gctf.log")], probe=None)
    found = fit_with_gctf(make_micrograph(bench), GctfParams(), ACQUISITION, bench)
    words = "--apix 1.5 --kV 300 --Cs 2.7 --ac 0.07 --boxsize 1024 --resL 50 --resH 4 --defL 5000 --defH 50000 --astm 1000"
    assert told(bench)["words"] == [*words.split(), "--do_EPA", "1", "--gid", "0", "micrograph.mrc"]
    ctf = (found.defocus_u_ang, found.defocus_v_ang, found.astigmatism_angle_deg, found.score, found.resolution_ang)
    assert ctf == (15230.12, 14890.55, 42.17, 0.1523, 3.72)


@pytest.mark.parametrize("missing", ["Final Values", "RES_LIMIT"])
def test_a_log_of_gctf_that_lacks_something_is_refused(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "micrograph_gctf.log"
    path.write_text((PRINTED / "gctf_log.txt").read_text().replace(missing, "nothing"))
    with pytest.raises(FileFormatError):
        read_gctf(path)


def test_gautomatch_is_called_with_templates_and_its_picks_are_read(tmp_path: Path) -> None:
    writes = [("gautomatch.star", "micrograph_automatch.star")]
    bench = make_bench(tmp_path, "Gautomatch", "Gautomatch_v0.56", writes, probe=None)
    micrograph = make_micrograph(bench)
    write_mrc(bench.folder / "t.mrcs", np.ones((2, 32, 32), np.float32), pixel_size_ang=4.0)
    templates = PickTemplates(
        stack="session:t.mrcs", picture="session:t.png", count=2, box_px=32, pixel_size_ang=4.0, diameter_ang=90,
        made_from="two", templates=[],
    )  # fmt: skip
    picks = pick_with_gautomatch(micrograph, templates, GautomatchParams(diameter_ang=120, max_picks=2), ACQUISITION, bench)
    words = "--apixM 1.5 --diameter 120 --T templates.mrcs --apixT 4 --cc_cutoff 0.1 --lp 30 --hp 1000 --gid 0 micrograph.mrc"
    assert told(bench)["words"] == words.split()
    assert (picks.count, positions(picks)) == (2, [[210.0, 100.5], [35.25, 300.0]])


def test_cryolo_gets_its_configuration_and_its_boxes_are_read(tmp_path: Path) -> None:
    writes = [("cryolo.cbox", "found/CBOX/micrograph.cbox")]
    bench = make_bench(tmp_path, "cryolo_predict.py", "crYOLO 1.9.9", writes)
    micrograph = make_micrograph(bench)
    (bench.folder / "net.h5").write_bytes(b"net")
    params = CryoloParams(model="session:net.h5", diameter_ang=120)
    picks = pick_with_cryolo(micrograph, params, ACQUISITION, bench)
    assert " ".join(told(bench)["words"]) == "-c config.json -w model.h5 -i images -o found -t 0.3 -g -1"
    config = json.loads((bench.work_folder / "config.json").read_text())
    assert config["model"]["anchors"] == [80, 80]
    assert (bench.work_folder / "images/micrograph.mrc").exists()
    assert positions(picks) == [[240.0, 140.0], [50.0, 90.0]]
    assert from_block(picks.block)["score"].tolist() == pytest.approx([0.91, 0.42])


def test_motioncor_is_called_and_its_shifts_are_displacements(tmp_path: Path) -> None:
    banner = (PRINTED / "motioncor_printed.txt").read_text()
    bench = make_bench(tmp_path, "MotionCor2", "MotionCor2 version 1.6.4", [("motioncor_printed.txt", "printed.txt")])
    bench.folder.mkdir(parents=True)
    (bench.folder / "m.tiff").write_bytes(b"movie")
    (bench.folder / "gain.mrc").write_bytes(b"gain")
    movie = Movie(file="session:m.tiff", n_frames=3, height_px=32, width_px=48, format="tiff", size_bytes=5)
    gain = GainReference(file="session:gain.mrc", height_px=32, width_px=48)
    known = ACQUISITION.model_copy(update={"dose_per_frame_e_per_ang2": 1.25})
    with pytest.raises(FileFormatError, match="says shifts of 0 frames"):
        correct_with_motioncor(movie, gain, MotionCorParams(gain_flip=1), known, bench)
    words = "-InTiff movie.tiff -OutMrc sum.mrc -Patch 5 5 -Bft 150 -Iter 10 -Tol 0.5 -PixSize 1.5 -Gain gain.mrc -RotGain 0"
    later = "-FlipGain 1 -Kv 300 -FmDose 1.25 -InitDose 0 -Gpu 0"
    assert " ".join(told(bench)["words"]) == f"{words} {later}"
    shutil.rmtree(bench.work_folder)
    for name in ("sum.mrc", "sum_DW.mrc"):
        write_mrc(bench.work_folder / name, np.eye(32, 48, dtype=np.float32), pixel_size_ang=1.5, remember=False)
    path = Path(str(bench.programs["MotionCor2"].path))
    path.write_text(path.read_text() + f"print({banner!r})\n")
    found = correct_with_motioncor(movie, gain, MotionCorParams(), known, bench)
    assert (found.dose_weighted, found.n_frames, found.unweighted is not None) == (True, 3, True)
    assert found.motion is not None
    assert found.motion.global_yx_px == [(0.0, 0.0), (-1.5, 0.5), (-2.25, 1.0)]
    with pytest.raises(ItemError, match="this is eer"):
        correct_with_motioncor(movie.model_copy(update={"format": "eer"}), None, MotionCorParams(), known, bench)


@pytest.mark.parametrize("change", [("Full-frame alignment", "Other"), ("(  2)", "(  4)"), ("-0.75", "nan"), ("-0.75", "*")])
def test_shifts_that_lack_something_are_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    text = (PRINTED / "motioncor_printed.txt").read_text()
    assert change[0] in text
    (tmp_path / "printed.txt").write_text(text.replace(*change))
    with pytest.raises(FileFormatError):
        read_shifts(tmp_path / "printed.txt", n_frames=3)


def test_picks_outside_of_the_micrograph_are_refused(tmp_path: Path) -> None:
    writes = [("cryolo_outside.cbox", "found/CBOX/micrograph.cbox")]
    bench = make_bench(tmp_path, "cryolo_predict.py", "crYOLO 1.9.9", writes)
    micrograph = make_micrograph(bench)
    (bench.folder / "net.h5").write_bytes(b"net")
    with pytest.raises(FileFormatError, match="outside of the micrograph of 400 x 360 px"):
        pick_with_cryolo(micrograph, CryoloParams(model="session:net.h5", diameter_ang=120), ACQUISITION, bench)


@pytest.mark.parametrize(("read", "name"), [(read_cbox, "cryolo.cbox"), (read_gautomatch, "gautomatch.star")])
def test_picks_that_lack_a_column_are_refused(tmp_path: Path, read, name: str) -> None:
    text = (PRINTED / name).read_text()
    columns = [
        word
        for word in re.findall(r"^_(\w+)", text, re.MULTILINE)
        if re.fullmatch("(rln)?Coordinate[XY]|Width|Height|Confidence|rlnAutopickFigureOfMerit", word)
    ]
    assert len(columns) >= 3
    for column in columns:
        (tmp_path / name).write_text(text.replace(f"_{column} ", f"_{column}Not "))
        with pytest.raises(FileFormatError):
            read(tmp_path / name)


def test_a_program_that_writes_nothing_fails_its_exposure(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, "Gctf", "Gctf_v1.18", [], probe=None)
    with pytest.raises(ItemError, match="0 lines of the final values of Gctf"):
        fit_with_gctf(make_micrograph(bench), GctfParams(), ACQUISITION, bench)
