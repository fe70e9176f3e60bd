"""Classes of another program for our particles: found by stack and number, in our conventions."""

from pathlib import Path

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow import Exposure
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.records import Acquisition, Particles
from icestream.steps.classify2d.import_assignments import ImportAssignmentsParams, import_assignments
from icestream.testing.context import StepBench

HEAD = """data_

loop_
_rlnImageName #1
_rlnClassNumber #2
_rlnAnglePsi #3
_rlnOriginXAngst #4
_rlnOriginYAngst #5
"""
EXPOSURE = Exposure("0a1b2c3d" + "4" * 24, "mic_1")


def particles_of(stack: str, slices: list[int]) -> Particles:
    table = np.zeros(len(slices), dtype=dtype_of(Particles.block_columns))
    table["pid"], table["slice"] = 10 * np.arange(len(slices)), slices
    return Particles(
        stack=stack,
        count=len(slices),
        box_px=16,
        bin=2,
        inverted=True,
        phase_flipped=False,
        micrograph="session:m.mrc",
        picks_key="k",
        block=to_block(table),
    )


def assigned(folder: Path, text: str, particles: Particles) -> np.ndarray:
    (folder / "data.star").write_text(HEAD + text, encoding="utf-8")
    bench = StepBench(folder / "session", roots={"given": folder}, exposure=EXPOSURE)
    params = ImportAssignmentsParams(file="given:data.star")
    made = import_assignments(particles, params, Acquisition(pixel_size_ang=0.5), bench)
    assert made.picks_key == "k"
    return from_block(made.block)


def test_classes_and_poses_come_back_in_our_conventions(tmp_path: Path) -> None:
    text = "3@Extract/job003/m.mrcs 7 30 4 -2\n1@Extract/job003/m.mrcs 2 -10 0 0\n1@Extract/job003/other.mrcs 9 0 0 0\n"
    rows = assigned(tmp_path, text, particles_of("session:steps/m.mrcs", [0, 1, 2]))
    assert rows["pid"].tolist() == [0, 10, 20]
    assert rows["class_id"].tolist() == [2, -1, 7]
    assert rows["psi_deg"].tolist() == [10, 0, -30]
    assert (rows["shift_x_px"].tolist(), rows["shift_y_px"].tolist()) == ([0, 0, -4], [0, 0, 2])


def test_particles_of_our_exports_are_found_by_their_exposure(tmp_path: Path) -> None:
    text = "000001@Extract/job003/Movies/mic_1_0a1b2c3d.mrcs 4 0 0 0\n000001@Extract/job003/Movies/mic_1_99999999.mrcs 5 0 0 0\n"
    assert assigned(tmp_path, text, particles_of("session:steps/extract/1/abc.mrcs", [0]))["class_id"].tolist() == [4]


def test_a_list_of_other_particles_is_told(tmp_path: Path) -> None:
    with pytest.raises(ItemError, match=r"given:data\.star: names none of the particles of mic_1"):
        assigned(tmp_path, "1@a.mrcs 4 0 0 0\n", particles_of("session:m.mrcs", [0]))
    with pytest.raises(ItemError, match="has no classes"):
        (tmp_path / "none.star").write_text("data_\n\nloop_\n_rlnImageName #1\n1@m.mrcs\n", encoding="utf-8")
        bench = StepBench(tmp_path, roots={"given": tmp_path}, exposure=EXPOSURE)
        params = ImportAssignmentsParams(file="given:none.star")
        import_assignments(particles_of("session:m.mrcs", [0]), params, Acquisition(pixel_size_ang=1), bench)
