"""Denoised previews are closer to the noiseless image than the micrograph is, and say how far signal goes."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.micrograph.denoise import denoise_halves_2d, reduce_to_pixel_2d
from icestream.errors import ItemError
from icestream.io.image import read_image
from icestream.records import Acquisition, CtfFit, Micrograph
from icestream.steps.micrographs.denoise import DenoiseParams, denoise_preview
from icestream.testing.context import StepBench

SIDE_PX, PIXEL_ANG = 512, 2.0
MICROSCOPE = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.07}
DEFOCUS = {"defocus_u_ang": 18000.0, "defocus_v_ang": 17800.0, "astigmatism_angle_deg": 20.0}
CTF = CtfFit(**DEFOCUS, score=0.5, resolution_ang=5.0)
ACQUISITION = Acquisition(pixel_size_ang=PIXEL_ANG, **MICROSCOPE)


def _clean(seed: int) -> NDArray[np.float64]:
    """Lumps of protein through a lens."""
    rng = np.random.default_rng(seed)
    bodies = np.zeros((SIDE_PX, SIDE_PX))
    bodies[tuple(rng.integers(0, SIDE_PX, (2, 400)))] = 1.0
    lumps = ndimage.gaussian_filter(bodies, 2.0, mode="wrap")
    ctf = ctf_2d(SIDE_PX, SIDE_PX, pixel_size_ang=PIXEL_ANG, **DEFOCUS, **MICROSCOPE)
    image = fft.irfft2(fft.rfft2(lumps) * ctf, s=lumps.shape)
    return np.asarray(100 + image / image.std())


def _likeness(image: NDArray[np.floating], clean: NDArray[np.floating]) -> float:
    return float(np.corrcoef(image.ravel(), clean.ravel())[0, 1])


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    rng = np.random.default_rng(1)
    halves = [_clean(1) / 2 + rng.normal(0, 1.5, (SIDE_PX, SIDE_PX)) for _ in range(2)]
    for name, image in zip(("even", "odd", "sum"), (*halves, halves[0] + halves[1]), strict=True):
        mrcfile.write(tmp_path / f"{name}.mrc", image.astype(np.float32))
    return StepBench(tmp_path)


def _micrograph(*, halves: bool) -> Micrograph:
    both = {"even": "session:even.mrc", "odd": "session:odd.mrc"} if halves else {}
    return Micrograph.model_validate({"image": "session:sum.mrc", "height_px": SIDE_PX, "width_px": SIDE_PX, "bin": 1.0, **both})


@pytest.mark.parametrize("halves", [True, False])
def test_a_preview_is_more_like_the_truth_than_any_blur(bench: StepBench, halves: bool) -> None:
    found = denoise_preview(_micrograph(halves=halves), CTF, DenoiseParams(), ACQUISITION, bench)
    assert (found.method, found.bin, found.height_px) == ("halves" if halves else "ctf", 2.0, SIDE_PX // 2)
    image = read_image(bench.path(found.image))
    clean = reduce_to_pixel_2d(_clean(1), factor=2.0)
    noisy = reduce_to_pixel_2d(read_image(bench.path("session:sum.mrc")), factor=2.0)
    best_blur = max(_likeness(ndimage.gaussian_filter(noisy, sigma), clean) for sigma in (0.1, 0.5, 1.0, 1.5, 2.0, 3.0))
    assert _likeness(image, clean) > best_blur + 0.02
    assert found.seen_ang is not None
    assert 9 < found.seen_ang < 40
    assert bench.path(found.picture).is_file()


def test_without_halves_or_ctf_there_is_no_preview(bench: StepBench) -> None:
    with pytest.raises(ItemError, match="needs the sums of even and odd frames"):
        denoise_preview(_micrograph(halves=False), None, DenoiseParams(), ACQUISITION, bench)


def test_a_ctf_without_a_zero_in_reach_is_refused(bench: StepBench) -> None:
    focused = CTF.model_copy(update={"defocus_u_ang": 300.0, "defocus_v_ang": 300.0})
    with pytest.raises(ItemError, match="cannot be denoised: the CTF has no zero"):
        denoise_preview(_micrograph(halves=False), focused, DenoiseParams(), ACQUISITION, bench)


def test_noise_alone_is_nearly_flat_and_the_mean_stays() -> None:
    rng = np.random.default_rng(3)
    even, odd = rng.normal(50, 2, (2, 256, 256))
    kept = even.copy()
    found = denoise_halves_2d(even, odd)
    assert np.array_equal(even, kept)
    assert found.image.mean() == pytest.approx(100, abs=0.05)
    assert found.image.std() < 0.4 * (even + odd).std()
