"""A tilted specimen is told from a level one by the spectra of its windows."""

from typing import Any

import numpy as np
import pytest
from tilt_truth import tilted_image

from icestream.algorithms.ctf.tilt import TiltStatistics, choose_window_px, correlate_windows

PIXEL_ANG = 2.0
SIDE_PX = 1536


def _measure(tilt_deg: float, *, snr: float = 2.0, seed: int = 1) -> TiltStatistics:
    image = tilted_image(side_px=SIDE_PX, pixel_size_ang=PIXEL_ANG, tilt_deg=tilt_deg, snr=snr, seed=seed)
    return correlate_windows(image, window_px=512, pixel_size_ang=PIXEL_ANG, objective_resolution_ang=3.0)


def _told(found: TiltStatistics) -> tuple[float, float]:
    assert found.correlation is not None
    assert found.spread is not None
    return float(found.correlation.mean()), found.spread


@pytest.mark.parametrize("seed", [1, 2])
def test_the_windows_of_a_level_specimen_are_alike(seed: int) -> None:
    mean, spread = _told(_measure(0.0, seed=seed))
    assert mean == pytest.approx(1.0, abs=0.1)
    assert spread < 0.06


@pytest.mark.parametrize("seed", [1, 2])
def test_a_tilt_of_20_degrees_is_seen(seed: int) -> None:
    mean, spread = _told(_measure(20.0, seed=seed))
    assert mean < 0.8
    assert spread > 0.15


def test_windows_become_less_alike_with_the_tilt() -> None:
    means, spreads = zip(*(_told(_measure(tilt)) for tilt in (0.0, 10.0, 20.0, 35.0)), strict=True)
    assert all(np.diff(means) < 0)
    assert all(np.diff(spreads) > 0)


def test_noise_alone_is_too_faint_to_tell() -> None:
    found = _measure(0.0, snr=0.0)
    assert found.significance < 5
    assert found.correlation is None
    assert found.spread is None


def test_the_far_ends_of_a_slope_are_least_alike() -> None:
    found = _measure(25.0)
    assert found.correlation is not None
    matrix = np.ones((9, 9))
    matrix[np.triu_indices(9, 1)] = found.correlation
    assert matrix[0, 8] < matrix[0, 4]  # down the slope
    assert matrix[2, 6] > matrix[0, 8] + 0.3  # along a contour line


def test_the_result_does_not_depend_on_grey_values_and_the_image_stays() -> None:
    image = tilted_image(side_px=768, pixel_size_ang=PIXEL_ANG, tilt_deg=0.0, snr=4.0, seed=5)
    arguments: dict[str, Any] = {"window_px": 256, "pixel_size_ang": PIXEL_ANG, "objective_resolution_ang": 4.0}
    before = image.copy()
    one, other = correlate_windows(image, **arguments), correlate_windows(40 * image + 1000, **arguments)
    np.testing.assert_array_equal(image, before)
    assert other.significance == pytest.approx(one.significance, rel=1e-2)
    assert one.spectra.shape == (9, 128, 65)


@pytest.mark.parametrize(
    ("shape", "window_px"),
    [((4096, 4096), 1024), ((5760, 4092), 1024), ((10240, 10300), 4096), ((1280, 9000), 512), ((320, 320), 128)],
)
def test_the_window_fits_two_and_a_half_times(shape: tuple[int, int], window_px: int) -> None:
    assert choose_window_px(shape) == window_px


@pytest.mark.parametrize(
    ("image", "window_px", "said"),
    [
        (np.ones((512, 256)), 256, "2 windows of 256 px"),
        (np.ones((512, 512)), 170, "a side divisible by 4"),
        (np.ones((512, 512)), 256, "constant"),
        (np.full((512, 512), np.nan), 256, "not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(image: np.ndarray, window_px: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        correlate_windows(image, window_px=window_px, pixel_size_ang=2.0, objective_resolution_ang=4.0)


def test_images_too_small_for_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 320 x 320"):
        choose_window_px((319, 4000))
