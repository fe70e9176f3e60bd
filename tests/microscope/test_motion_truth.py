import numpy as np
import pytest

from icestream.microscope.motion import (
    displacement_at,
    local_at_frame,
    make_drift,
    make_local_motion,
    space_terms,
    spline_prefilter_2d,
    warp_splines_2d,
)


def test_drift_starts_at_zero_has_its_length_and_slows():
    drift = make_drift(20, length_px=8.0, generator=np.random.default_rng(2))
    steps = np.linalg.norm(np.diff(drift, axis=0), axis=1)
    assert drift[0].tolist() == [0.0, 0.0]
    assert steps.sum() == pytest.approx(8.0)
    assert steps[:4].mean() > 1.5 * steps[-8:].mean()


def test_local_motion_has_its_size_and_no_mean():
    coefficients = make_local_motion(rms_px=1.5, generator=np.random.default_rng(2))
    grid = (np.arange(400) + 0.5) / 400 - 0.5
    v, u = np.meshgrid(grid, grid, indexing="ij")
    end = np.einsum("as,syx->ayx", local_at_frame(coefficients, 9, n_frames=10), space_terms(u, v))
    assert np.sqrt((end**2).sum(0).mean()) == pytest.approx(1.5, rel=0.05)
    assert np.abs(end.mean((1, 2))).max() < 1e-4
    assert not local_at_frame(coefficients, 0, n_frames=10).any()


def test_displacement_is_the_drift_plus_the_local_motion():
    drift = make_drift(6, length_px=4.0, generator=np.random.default_rng(5))
    still = np.zeros((2, 3, 5))
    assert displacement_at(
        3, np.array(10.0), np.array(20.0), global_yx_px=drift, coefficients=still, shape=(64, 64)
    ) == pytest.approx(drift[3])
    between = displacement_at(3.5, np.array(10.0), np.array(20.0), global_yx_px=drift, coefficients=still, shape=(64, 64))
    assert between == pytest.approx((drift[3] + drift[4]) / 2)
    stretch = still.copy()
    stretch[1, 0, 0] = 6.4  # x displacement grows along x
    moved = displacement_at(5, np.zeros(2), np.array([0.0, 63.0]), global_yx_px=0 * drift, coefficients=stretch, shape=(64, 64))
    assert moved == pytest.approx(np.array([[0, -3.15], [0, 3.15]]))


def test_warp_moves_an_analytic_image_as_the_displacement_says():
    height = width = 96
    canvas, origin = (120, 120), (12, 12)

    def image(y, x):
        return np.cos(2 * np.pi * (7 * y + 4 * x) / 120) + np.sin(2 * np.pi * (3 * y - 16 * x) / 120)

    drift = np.array([[0.0, 0.0], [1.7, -2.4]])
    coefficients = make_local_motion(rms_px=2.0, generator=np.random.default_rng(7))
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    source = np.stack([y, x], -1).astype(float)
    for _ in range(30):  # where each pixel of frame 1 was in frame 0
        moved = displacement_at(
            1, source[..., 0], source[..., 1], global_yx_px=drift, coefficients=coefficients, shape=(height, width)
        )
        source = np.stack([y, x], -1) - moved
    expected = image(source[..., 0] + origin[0], source[..., 1] + origin[1])

    cy, cx = np.meshgrid(np.arange(canvas[0]), np.arange(canvas[1]), indexing="ij")
    along_y, along_x = spline_prefilter_2d(*canvas)
    drifted = image(cy - drift[1, 0], cx - drift[1, 1])
    splines = np.fft.irfft2(np.fft.rfft2(drifted) * along_y * along_x, s=canvas).astype(np.float32)
    bent = warp_splines_2d(
        splines,
        local_at_frame(coefficients, 1, n_frames=2),
        drift_yx_px=(1.7, -2.4),
        origin_yx=origin,
        shape=(height, width),
    )
    assert bent.shape == canvas
    detector = bent[origin[0] : origin[0] + height, origin[1] : origin[1] + width]
    assert np.abs(detector - expected).max() < 0.01
