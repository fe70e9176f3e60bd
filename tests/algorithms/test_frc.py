"""The Fourier ring correlation."""

import numpy as np
import pytest

from icestream.algorithms.fourier import frequency_radius_2d
from icestream.algorithms.frc import fourier_ring_correlation_2d, frequency_at_threshold, resolution_at_threshold_ang


def test_an_image_agrees_with_itself_at_any_scale_and_sign() -> None:
    image = np.random.default_rng(0).normal(size=(48, 48))
    for factor, sign in ((2.5, 1), (-0.1, -1)):
        _, correlation = fourier_ring_correlation_2d(image, factor * image)
        np.testing.assert_allclose(correlation, sign, atol=1e-9)


def test_common_low_frequencies_and_independent_high_ones_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    common, first, second = rng.normal(size=(3, 96, 96))
    low = frequency_radius_2d(96, 96) < 0.2

    def mix(own: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(np.where(low, np.fft.rfft2(common), np.fft.rfft2(own)), s=(96, 96))

    frequency, correlation = fourier_ring_correlation_2d(mix(first), mix(second))
    limit = resolution_at_threshold_ang(frequency, correlation, threshold=0.5, pixel_size_ang=2.0)
    assert limit == pytest.approx(2.0 / 0.2, rel=0.05)
    assert abs(correlation[frequency > 0.22].mean()) < 0.05


def test_white_noise_of_known_ratio_gives_the_expected_correlation() -> None:
    rng = np.random.default_rng(2)
    signal, first, second = rng.normal(size=(3, 128, 128))
    _, correlation = fourier_ring_correlation_2d(signal + first, signal + second)
    assert correlation[10:].mean() == pytest.approx(0.5, abs=0.03)


def test_a_batch_equals_a_loop_and_arguments_stay() -> None:
    a, b = np.random.default_rng(3).normal(size=(2, 3, 32, 33))
    kept = a.copy()
    _, batch = fourier_ring_correlation_2d(a, b)
    loop = [fourier_ring_correlation_2d(x, y)[1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_array_equal(batch, loop)
    np.testing.assert_array_equal(a, kept)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        fourier_ring_correlation_2d(np.zeros((8, 8)), np.zeros((8, 10)))


def test_threshold_crossing_is_interpolated_and_open_ends_are_named() -> None:
    frequency = np.array([0.0, 0.1, 0.2, 0.3])
    assert frequency_at_threshold(frequency, np.array([1, 0.9, 0.4, 0.9]), threshold=0.65) == pytest.approx(0.15)
    assert frequency_at_threshold(frequency, np.array([1, 0.9, 0.9, 0.9]), threshold=0.5) == pytest.approx(0.3)
    assert resolution_at_threshold_ang(frequency, np.array([1, 0.1, 0.9, 0.9]), threshold=0.5, pixel_size_ang=1.0) is None
