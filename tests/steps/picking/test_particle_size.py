"""The diameter that a session finds by itself."""

from pathlib import Path

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow import Exposure, Progress, Verdict
from icestream.io.image import write_mrc
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.records import Acquisition, Micrograph
from icestream.steps.picking.size import FindParticleSize, ParticleSizeParams, ParticleSizeState
from icestream.testing.context import StepBench

ACQUISITION = Acquisition(pixel_size_ang=3.0)
PARAMS = ParticleSizeParams(first_micrographs=2, diameter_ang=(100, 260))


def _micrograph(folder: Path, name: str, image: np.ndarray) -> Micrograph:
    write_mrc(folder / f"{name}.mrc", image.astype(np.float32), pixel_size_ang=3.0)
    return Micrograph(image=f"session:{name}.mrc", height_px=image.shape[0], width_px=image.shape[1], bin=1.0)


def _particles(folder: Path, seed: int) -> Micrograph:
    settings = SimulationSettings(
        n_movies=1, seed=seed, gain=False, height_px=400, width_px=400, pixel_size_ang=3.0, n_frames=1, n_particles=30,
        dose_per_frame_e_per_ang2=40.0, drift_px=(0, 0), local_motion_px=0, phantom_diameter_ang=160.0,
    )  # fmt: skip
    return _micrograph(folder, f"particles_{seed}", render_micrograph(settings, 0)[0])


def _add(bench: StepBench, micrographs: list[Micrograph], params: ParticleSizeParams = PARAMS) -> ParticleSizeState:
    exposures = [Exposure(f"id{index}", f"mic_{index}") for index in range(len(micrographs))]
    step = FindParticleSize()
    state = step.start(params, bench)
    return step.add(state, exposures, micrographs, params, [ACQUISITION] * len(micrographs), bench).state


def test_the_diameter_and_what_follows_from_it(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    noise = _micrograph(tmp_path, "noise", np.random.default_rng(0).normal(100, 5, (400, 400)))
    state = _add(bench, [_particles(tmp_path, 1), noise, _particles(tmp_path, 2)])
    size = FindParticleSize().emit(state, PARAMS, bench)
    assert size.diameter_ang == pytest.approx(160, rel=0.12)
    assert (size.n_micrographs, size.n_alike) == (3, 2)
    assert [one.exposure for one in size.micrographs] == ["mic_0", "mic_2"]
    assert size.box_px % 2 == 0 and size.box_ang == 3 * size.box_px >= 1.5 * size.diameter_ang
    assert size.diameter_ang < size.mask_diameter_ang < size.box_ang
    assert size.radius_px == pytest.approx(size.diameter_ang / 6, rel=1e-3)


def test_without_clear_particles_there_is_no_size(tmp_path: Path) -> None:
    bench = StepBench(tmp_path)
    state = _add(bench, [_micrograph(tmp_path, "noise", np.random.default_rng(0).normal(100, 5, (300, 300)))])
    waiting = FindParticleSize().emit(state, PARAMS, bench)
    assert isinstance(waiting, Verdict)
    assert not waiting.accepted
    assert "none of 1 micrograph shows particles" in (waiting.reason or "")


def test_enough_is_measured_once_something_was_found_and_not_before(tmp_path: Path) -> None:
    noise = _micrograph(tmp_path, "noise", np.random.default_rng(0).normal(100, 5, (300, 300)))
    particles = _particles(tmp_path, 1)
    params = PARAMS.model_copy(update={"max_micrographs": 2})
    assert _add(StepBench(tmp_path), [particles, noise, noise, noise], params).n_micrographs == 2
    late = _add(StepBench(tmp_path), [noise, noise, noise, particles, noise], params)
    assert (late.n_micrographs, len(late.found)) == (4, 1)


def test_a_reversed_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ItemError, match="not a range"):
        _add(StepBench(tmp_path), [], PARAMS.model_copy(update={"diameter_ang": (300.0, 100.0)}))


def test_it_waits_for_the_first_micrographs_and_not_after_the_end() -> None:
    def accepts(waiting: int, passed: int, *, closed: bool = False) -> bool:
        progress = Progress(waiting=waiting, waiting_weight=0, passed=passed, passed_weight=0, stream_closed=closed)
        return FindParticleSize().when(progress, PARAMS).accepted

    assert [accepts(1, 0), accepts(2, 0), accepts(2, 2), accepts(16, 2), accepts(1, 0, closed=True)] == [
        False,
        True,
        False,
        True,
        True,
    ]
