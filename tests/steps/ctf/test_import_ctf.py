"""CTFs of other programs as ours: joined by name, waited for, and completed by what people know."""

from pathlib import Path

import pytest

from icestream.errors import ItemError
from icestream.flow import Exposure, NotYet
from icestream.records import CtfFit, Micrograph
from icestream.steps.ctf.import_ctf import ImportCtfParams, import_ctf
from icestream.testing.context import StepBench

MICROGRAPH = Micrograph(image="session:m1.mrc", height_px=64, width_px=64, bin=1)
TEXT = "# Output from CTFFind\n1.0 15000 14000 45 0.0 0.2 3.4\n"
STAR = """data_

loop_
_rlnMicrographName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
MotionCorr/job002/m0.mrc 9000 8000 5
MotionCorr/job002/m1.mrc 10000 11000 10
MotionCorr/job002/broken.mrc nan nan nan
"""


def imported(folder: Path, *, exposure: str = "m1", **params) -> CtfFit:
    bench = StepBench(folder / "session", roots={"ctf": folder}, exposure=Exposure("1" * 32, exposure))
    return import_ctf(MICROGRAPH, ImportCtfParams(**params), bench)


def test_ctffind_s_file_of_the_micrograph_is_taken_and_its_other_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "m1_ctf.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "m1_ctf_avrot.txt").write_text("0 1\n2 3\n", encoding="utf-8")
    (tmp_path / "m11_ctf.txt").write_text(TEXT.replace("15000", "9"), encoding="utf-8")
    fit = imported(tmp_path)
    assert (fit.defocus_u_ang, fit.defocus_v_ang, fit.astigmatism_angle_deg) == (15000, 14000, 45)
    assert (fit.score, fit.resolution_ang, fit.estimator) == (0.2, 3.4, None)


def test_a_picture_that_was_turned_over_turns_the_angle(tmp_path: Path) -> None:
    (tmp_path / "m1.txt").write_text(TEXT, encoding="utf-8")
    assert imported(tmp_path, flip_y=True).astigmatism_angle_deg == -45


def test_what_a_file_does_not_say_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "all.star").write_text(STAR, encoding="utf-8")
    with pytest.raises(ItemError, match="does not say to what resolution the CTF fits; set resolution_ang"):
        imported(tmp_path, file="ctf:all.star")
    fit = imported(tmp_path, file="ctf:all.star", resolution_ang=5.0)
    assert (fit.defocus_u_ang, fit.astigmatism_angle_deg, fit.resolution_ang, fit.score) == (11000, -80, 5, 0)


def test_a_micrograph_without_a_ctf_fails_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "all.star").write_text(STAR, encoding="utf-8")
    with pytest.raises(ItemError, match=r"ctf:all\.star: has no CTF of m7"):
        imported(tmp_path, file="ctf:all.star", exposure="m7")
    with pytest.raises(ItemError, match="has no defocus of broken: the program that wrote it failed there"):
        imported(tmp_path, file="ctf:all.star", exposure="broken", resolution_ang=4)
    with pytest.raises(NotYet, match=r"no file of CTFs is called m1\.star"):
        imported(tmp_path)
    with pytest.raises(NotYet, match=r"has no CTFs of m7 \(yet\)"):
        imported(tmp_path, growing_file="all.star", exposure="m7")
