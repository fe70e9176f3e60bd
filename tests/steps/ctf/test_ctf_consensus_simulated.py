"""The defaults of the consensus on micrographs of the simulated microscope: hard ones are kept, a wrong fit is not."""

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from icestream.microscope.camera import count_electrons
from icestream.microscope.draw import draw_exposure
from icestream.microscope.exposure import expected_frames, render_specimen
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import open_studio
from icestream.records import Acquisition, CtfFit, Micrograph
from icestream.steps.ctf.consensus import CtfConsensusParams, check_ctf_consensus, compare_ctfs
from icestream.steps.ctf.equiphase import CtfEquiphaseParams, estimate_ctf_equiphase
from icestream.steps.ctf.estimate import CtfParams, estimate_ctf
from icestream.testing.context import StepBench

TITAN = Acquisition(voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.1, pixel_size_ang=1.5)
SIDE = 640
NO_LIMITS: dict[str, Any] = {"defocus_um": None, "max_relative_astigmatism": None, "max_resolution_ang": None}
"""So that only what two CTFs say of each other counts."""


def expose(bench: StepBench, *, defocus_um: float, **specimen: float) -> Micrograph:
    """Write an image of a specimen: its frames summed before they are counted, without motion."""
    settings = SimulationSettings(
        height_px=SIDE, width_px=SIDE, drift_px=(0.0, 0.0), local_motion_px=0.0, gain=False, depth_spread=True, seed=7,
        n_frames=3, dose_per_frame_e_per_ang2=12.0, pixel_size_ang=1.5, voltage_kv=300, cs_mm=2.7, b_factor_ang2=80.0,
        defocus_um=(defocus_um, defocus_um), n_particles=30, phantom_diameter_ang=120.0, **specimen,
    )  # fmt: skip
    studio = open_studio(settings)
    truth = draw_exposure(settings, 0, fault=None, diameter_ang=studio.phantom.diameter_ang)
    generator = settings.generator(9)
    drawn = render_specimen(
        truth,
        studio.volume,
        particle_contrast=settings.particle_contrast,
        ice_thickness_ang=settings.ice_thickness_ang,
        generator=generator,
        ice_slices=settings.ice_slices,
        ice_ring=settings.ice_ring,
    )
    expected = np.sum(list(expected_frames(truth, drawn, dose_per_frame_e_per_ang2=12.0)), axis=0)  # (h, w)
    mrcfile.write(bench.folder / "image.mrc", count_electrons(expected, generator=generator).astype(np.float32))
    return Micrograph(image="session:image.mrc", height_px=SIDE, width_px=SIDE, bin=1.0)


def judge(micrograph: Micrograph, ctf: CtfFit, second: CtfFit) -> str | None:
    return check_ctf_consensus(micrograph, ctf, second, CtfConsensusParams(**NO_LIMITS), TITAN).reason


@pytest.mark.parametrize(
    ("defocus_um", "specimen"),
    [
        (1.5, {}),
        (2.0, {"ice_thickness_ang": 1500.0}),  # thick
        (4.3, {}),  # far from focus
        (0.5, {}),  # close to focus
        (1.2, {"particle_contrast": 0.4, "ice_thickness_ang": 150.0}),  # little contrast
    ],
)
def test_what_is_hard_is_not_rejected_for_that_and_a_fit_elsewhere_is(
    defocus_um: float, specimen: dict[str, float], tmp_path: Path
) -> None:
    bench = StepBench(tmp_path)
    micrograph = expose(bench, defocus_um=defocus_um, **specimen)
    ctf = estimate_ctf(micrograph, CtfParams(), TITAN, bench)
    second = estimate_ctf_equiphase(micrograph, CtfEquiphaseParams(), TITAN, bench)
    assert judge(micrograph, ctf, second) is None
    agreement_ang = compare_ctfs(ctf, second, TITAN).agreement_ang
    assert agreement_ang is not None
    assert agreement_ang < 4.0
    away = (0.2, defocus_um - 0.3) if defocus_um > 1.0 else (defocus_um + 0.3, defocus_um + 2.0)
    elsewhere = estimate_ctf(micrograph, CtfParams(defocus_um=away), TITAN, bench)
    assert judge(micrograph, elsewhere, second) is not None
