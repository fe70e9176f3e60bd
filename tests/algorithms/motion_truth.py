"""Movies with known motion, for tests."""

import numpy as np
from scipy import fft, ndimage

from icestream.algorithms.motion.model import local_shift_px


def make_specimen(seed, side, *, contrast=0.12):
    """A random specimen of mean 1 on a grid twice as fine, as spline coefficients, with 32 px of margin."""
    n = 2 * (side + 64)
    k = np.hypot(np.fft.fftfreq(n, 0.5)[:, None], np.fft.rfftfreq(n, 0.5)[None])
    noise = np.random.default_rng(seed).standard_normal((n, n), dtype=np.float32)
    field = fft.irfft2(fft.rfft2(noise) * (np.exp(-10 * k**2) / (1 + (k / 0.05) ** 1.5) * (k < 0.45) * (k > 0.01)), s=(n, n))
    return ndimage.spline_filter(1 + contrast * field / field.std(), order=3, output=np.float32)


def ideal_frame(specimen, side, shift_yx, coefficients=None, *, frame=0, n_frames=2):
    y, x = np.mgrid[:side, :side].astype(np.float64)
    p_y, p_x = y - shift_yx[0], x - shift_yx[1]
    if coefficients is not None:
        for _ in range(2):
            d = local_shift_px(coefficients, frame=frame, y_px=p_y, x_px=p_x, shape=(side, side), n_frames=n_frames)
            p_y, p_x = y - shift_yx[0] - d[0], x - shift_yx[1] - d[1]
    return ndimage.map_coordinates(specimen, [2 * (p_y + 32), 2 * (p_x + 32)], order=3, prefilter=False, mode="mirror")


def make_movie(seed, *, side, track, coefficients=None, dose=1.0):
    rng = np.random.default_rng([seed, 7])
    specimen = make_specimen(seed, side)
    n = len(track)
    frames = [ideal_frame(specimen, side, track[i], coefficients, frame=i, n_frames=n) for i in range(n)]
    return np.stack([rng.poisson(np.maximum(frame, 0) * dose).astype(np.uint8) for frame in frames])


def make_track(seed, n_frames, *, length):
    rng = np.random.default_rng([seed, 9])
    steps = (np.array([0.6, -0.8]) + 0.3 * rng.normal(size=(n_frames - 1, 2))) * np.exp(-np.arange(n_frames - 1) / 6)[:, None]
    track = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    return track * (length / np.linalg.norm(track[-1]))


def field_errors(estimate, track, coefficients, *, side):
    """RMS errors over frames and field of: the whole model, and the global track alone; a common offset per place removed."""
    n = len(track)
    y, x = (grid.ravel() for grid in np.meshgrid(*[(np.arange(7) + 0.5) / 7 * side] * 2, indexing="ij"))
    place = {"frame": np.arange(n)[:, None], "y_px": y[None], "x_px": x[None], "shape": (side, side), "n_frames": n}
    truth = track[:, :, None] + np.moveaxis(local_shift_px(coefficients, **place), 0, 1)
    alone = np.broadcast_to(estimate.global_yx_px[:, :, None], truth.shape)
    local = 0 if estimate.local_coefficients is None else np.moveaxis(local_shift_px(estimate.local_coefficients, **place), 0, 1)
    found = []
    for model in (alone + local, alone):
        error = model - truth
        error = error - error.mean(axis=0)
        found.append(float(np.sqrt(np.mean(np.sum(error**2, axis=1)))))
    return tuple(found)
