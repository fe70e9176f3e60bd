"""The rotation and flip of a gain reference, against RELION's own motion correction, which takes them as MotionCor does."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from icestream.algorithms.gain.orientation import ORIENTATIONS, orient_gain_2d
from icestream.io.image import read_image, write_mrc
from icestream.workflows.scipion.motion import name_orientation

ALL = [(turns, flip) for turns in range(4) for flip in range(3)]


def orient(gain: np.ndarray, turns: int, flip: int) -> np.ndarray:
    name = name_orientation(turns, flip)
    return orient_gain_2d(gain, orientation=next(known for known in ORIENTATIONS if known == name))


@pytest.mark.parametrize(("turns", "flip"), ALL)
def test_turns_are_clockwise_with_row_0_at_the_top_and_come_before_the_flip(turns: int, flip: int) -> None:
    gain = np.arange(12.0).reshape(3, 4)
    turned = np.rot90(gain, -turns)
    expected = {0: turned, 1: turned[::-1], 2: turned[:, ::-1]}[flip]
    assert np.array_equal(orient(gain, turns, flip), expected)


@pytest.mark.services
@pytest.mark.parametrize(("turns", "flip"), ALL[1:])
def test_relion_turns_a_gain_the_same_way(tmp_path: Path, turns: int, flip: int) -> None:
    program = shutil.which("relion_run_motioncorr")
    if program is None:
        pytest.skip("missing program: relion_run_motioncorr")
    rng = np.random.default_rng(1)
    gain = rng.uniform(0.5, 2.0, size=(96, 128) if turns % 2 == 0 else (128, 96)).astype(np.float32)
    frame = rng.uniform(90, 110, size=(96, 128)).astype(np.float32)
    write_mrc(tmp_path / "gain.mrc", gain, pixel_size_ang=1.0)
    write_mrc(tmp_path / "movie.mrcs", np.stack([frame] * 3), pixel_size_ang=1.0)
    words = "--i *.mrcs --o out/ --use_own --j 1 --angpix 1 --voltage 300 --bin_factor 1 --bfactor 150 --skip_defect"
    command = [program, *words.split(), "--gainref", "gain.mrc", "--gain_rot", str(turns), "--gain_flip", str(flip)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    applied = read_image(tmp_path / "out/movie.mrc") / frame
    ours = orient(gain, turns, flip)
    assert np.corrcoef(applied.ravel(), ours.ravel())[0, 1] > 0.99
