"""Our motion and that of RELION's own program agree on a simulated movie, by our own consensus."""

from pathlib import Path

import numpy as np
import pytest

from icestream.io.star import Table, read_star, write_star
from icestream.microscope import Pace, SimulationSettings, simulate
from icestream.records import Acquisition, Motion, Movie
from icestream.steps.motion.consensus import MotionConsensusParams, check_motion_consensus, compare_motion
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.testing.context import StepBench
from services.relion import relion

SIDE, N_FRAMES, PIXEL_ANG, DOSE = 512, 10, 1.5, 2.5
OPTICS = {
    "rlnOpticsGroupName": "opticsGroup1",
    "rlnOpticsGroup": "1",
    "rlnMicrographOriginalPixelSize": str(PIXEL_ANG),
    "rlnVoltage": "300",
    "rlnSphericalAberration": "2.7",
    "rlnAmplitudeContrast": "0.07",
}


@pytest.mark.services
def test_relion_and_we_agree(tmp_path: Path) -> None:
    settings = SimulationSettings(
        n_movies=1, height_px=SIDE, width_px=SIDE, n_frames=N_FRAMES, drift_px=(15, 15), local_motion_px=0.3, gain=False
    )
    simulate(tmp_path, settings=settings, pace=Pace())
    path = tmp_path / "movies/mic_0001.tiff"
    tables = {
        "optics": Table({label: [value] for label, value in OPTICS.items()}),
        "movies": Table({"rlnMicrographMovieName": ["movies/mic_0001.tiff"], "rlnOpticsGroup": ["1"]}),
    }
    write_star(tmp_path / "movies.star", tables)
    words = "--i movies.star --o out/ --use_own --bfactor 150 --dose_weighting --j 1 --patch_x 1 --patch_y 1"
    relion("relion_run_motioncorr", *words.split(), "--dose_per_frame", str(DOSE), cwd=tmp_path)
    found = read_star(tmp_path / "out/movies/mic_0001.star")["global_shift"]
    theirs = -np.stack([found.floats(f"rlnMicrographShift{axis}") for axis in "YX"], axis=1)  # (n, 2)
    size = {"n_frames": N_FRAMES, "height_px": SIDE, "width_px": SIDE, "size_bytes": path.stat().st_size}
    movie = Movie(file="session:movies/mic_0001.tiff", format="tiff", **size)
    known = Acquisition(pixel_size_ang=PIXEL_ANG, voltage_kv=300, dose_per_frame_e_per_ang2=DOSE)
    ours = correct_motion(movie, None, MotionParams(), known, StepBench(tmp_path))
    other = ours.model_copy(update={"motion": Motion(global_yx_px=theirs.tolist(), total_px=0, early_px=0)})
    agreement = compare_motion(ours, other)
    assert agreement.n_frames == N_FRAMES and agreement.range_px > 3
    assert agreement.correlation is not None and agreement.correlation > 0.99
    assert agreement.rms_px < 0.5
    assert check_motion_consensus(ours, agreement, MotionConsensusParams(), known).accepted
    swapped = other.model_copy(update={"motion": Motion(global_yx_px=theirs[:, ::-1].tolist(), total_px=0, early_px=0)})
    assert not check_motion_consensus(ours, compare_motion(ours, swapped), MotionConsensusParams(), known).accepted
