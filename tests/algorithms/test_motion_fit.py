"""The fit of the local model: exact without noise, modest with it, deaf to a bad patch."""

from typing import Any

import numpy as np
import pytest

from icestream.algorithms.motion.fit import candidate_models, fit_model, smooth_track
from icestream.algorithms.motion.model import N_TERMS, local_shift_px

SHAPE, N = (600, 800), 12
CENTRES = np.array([(y, x) for y in (100.0, 250.0, 400.0, 550.0) for x in (100.0, 300.0, 500.0, 700.0)])
TIMES = np.arange(N, dtype=float)


def _positions(track, coefficients):
    local = local_shift_px(
        coefficients, frame=TIMES[None], y_px=CENTRES[:, :1], x_px=CENTRES[:, 1:], shape=SHAPE, n_frames=N
    )  # (2, p, n)
    return track[None] + np.moveaxis(local, 0, -1)


def _random_model(seed):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(2, 6, 3)) * 4
    table[:, 0] = 0
    track = np.concatenate([np.zeros((1, 2)), np.cumsum(rng.normal(size=(N - 1, 2)), axis=0)])
    return track, table.reshape(2, N_TERMS)


def _fit(measured, **options):
    given: dict[str, Any] = {
        "information": np.ones(measured.shape),
        "centres_yx_px": CENTRES,
        "times": TIMES,
        "n_frames": N,
        "shape": SHAPE,
    }
    return fit_model(measured, **(given | options))


def _whole(fit):
    return _positions(fit.global_yx_px, fit.coefficients)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_exact_positions_give_the_exact_model_up_to_an_offset_per_patch(seed):
    truth = _positions(*_random_model(seed))
    offsets = np.random.default_rng(seed).normal(size=(len(CENTRES), 1, 2))
    fit = _fit(truth + offsets)
    np.testing.assert_allclose(_whole(fit), truth, atol=1e-6)
    assert fit.note is None and fit.rms_px < 1e-6


def test_global_track_is_the_mean_over_the_field():
    fit = _fit(_positions(*_random_model(4)))
    y, x = np.mgrid[: SHAPE[0] : 5, : SHAPE[1] : 5] + 2.0
    local = local_shift_px(fit.coefficients, frame=N - 1, y_px=y, x_px=x, shape=SHAPE, n_frames=N)
    np.testing.assert_allclose(local.mean(axis=(1, 2)), 0, atol=2e-3)


def test_noise_alone_gives_no_local_model():
    notes = []
    for seed in range(10):
        fit = _fit(np.random.default_rng(seed).normal(size=(len(CENTRES), N, 2)))
        assert np.abs(fit.coefficients).max() < 3
        notes.append(fit.note)
    assert sum(note == "no local motion above the noise" for note in notes) >= 8


def test_weak_local_motion_takes_a_simpler_model_and_says_so():
    table = np.zeros((2, 6, 3))
    table[0, 1, 0], table[1, 3, 0] = 3.0, -3.0
    truth = _positions(np.zeros((N, 2)), table.reshape(2, N_TERMS))
    fit = _fit(truth + np.random.default_rng(5).normal(size=truth.shape) * 0.5)
    assert fit.note == "local model is linear in space, t^1"
    error = _whole(fit) - truth
    assert np.std(error - error.mean(axis=1, keepdims=True)) < 0.25


def test_a_patch_that_runs_away_is_not_believed():
    rng = np.random.default_rng(6)
    truth = _positions(*_random_model(6))
    measured = truth + 0.1 * rng.normal(size=truth.shape)
    measured[5] += np.linspace(0, 8, N)[:, None]
    error = _whole(_fit(measured)) - truth
    assert np.abs(error - error.mean(axis=1, keepdims=True)).max() < 2.5
    wild = _fit(truth + 40 * rng.normal(size=truth.shape))
    assert not wild.coefficients.any() and "patches disagree" in wild.note


def test_models_need_enough_patches_and_times():
    assert candidate_models(n_times=3, grid_side=1) == []
    assert [name for name, _ in candidate_models(n_times=3, grid_side=2)] == ["linear in space, t^1"]
    assert len(candidate_models(n_times=40, grid_side=5)) == 6


def test_smoothing_takes_noise_out_of_a_smooth_track_and_leaves_a_jerky_one():
    rng = np.random.default_rng(7)
    variance = np.full((40, 2), 0.1**2)
    time = np.arange(40) / 40
    smooth = np.stack([8 * (1 - np.exp(-4 * time)), 3 * time**2], axis=1)
    noisy = smooth + 0.1 * rng.normal(size=smooth.shape)
    assert np.std(smooth_track(noisy, variance) - smooth) < 0.75 * np.std(noisy - smooth)
    jerky = np.cumsum(rng.normal(size=(40, 2)), axis=0)
    np.testing.assert_allclose(smooth_track(jerky, variance), jerky, atol=0.25)
    np.testing.assert_array_equal(smooth_track(jerky[:5], variance[:5]), jerky[:5])
