"""Fitting the local motion model to noisy steps of patches, no richer than the data allow."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.motion.model import N_SPACE, N_TERMS, N_TIME, space_terms, time_terms

_LINEAR = (1, 3)
_QUADRATIC = (1, 2, 3, 4, 5)
_REJECT_RMS_PX = 10.0
_PENALTY = 3.0
_LEAST_BEND = 0.3


@dataclass(frozen=True)
class ModelFit:
    """A motion: shift of the whole field per frame ``(n, 2)``, coefficients of the local model ``(2, 18)``, and how it fits."""

    global_yx_px: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    rms_px: float
    n_terms: int
    note: str | None = None
    track_variance_px2: NDArray[np.float64] | None = None

    @classmethod
    def still(cls, global_yx_px: NDArray[np.float64]) -> "ModelFit":
        """Return a motion without a local part."""
        return cls(global_yx_px, np.zeros((2, N_TERMS)), 0.0, 0)


@dataclass(frozen=True)
class _Problem:
    """One axis: measured positions and weights ``(p, n)``, and the terms ``(p, n, 18)``, without shift per frame or patch.

    ``normal`` ``(18, 18)`` and ``moment`` ``(18,)`` are the weighted products of terms with terms and with positions.
    """

    measured: NDArray[np.float64]
    weight: NDArray[np.float64]
    terms: NDArray[np.float64]
    normal: NDArray[np.float64]
    moment: NDArray[np.float64]


def candidate_models(*, n_times: int, grid_side: int) -> list[tuple[str, list[int]]]:
    """Return name and terms of every model that ``n_times`` images and patches on a grid could determine, simplest first."""
    return [
        (f"{name} in space, t^{powers}", [N_TIME * p + q for p in space for q in range(powers)])
        for name, space, smallest in (("linear", _LINEAR, 2), ("quadratic", _QUADRATIC, 3))
        for powers in range(1, N_TIME + 1)
        if grid_side >= smallest and n_times > powers + 1
    ]


def fit_model(
    measured_yx_px: NDArray[Any],
    *,
    information: NDArray[Any],
    centres_yx_px: NDArray[Any],
    times: NDArray[Any],
    n_frames: int,
    shape: tuple[int, int],
) -> ModelFit:
    """Fit shift per frame, offset per patch and local model to the positions that patches ask for.

    There is local motion if some model lowers the expected error (Mallows 1973, Technometrics 15, 661, with a stricter penalty).
    Then what each model adds to the simpler ones is shrunk by how much of it noise explains (Efron & Morris 1973,
    J. Am. Stat. Assoc. 68, 117). Patches far from the fit lose weight (Huber).

    Parameters
    ----------
    measured_yx_px, information
        ``(p, n, 2)``: position of each patch in each image, and how well it is known.
    """
    space = space_terms(centres_yx_px[:, 0], centres_yx_px[:, 1], shape=shape)  # (p, 6)
    terms = np.einsum("ps,nq->pnsq", space, time_terms(times, n_frames=n_frames)).reshape(*measured_yx_px.shape[:2], N_TERMS)
    grid_side = min(len(np.unique(centres_yx_px[:, 0])), len(np.unique(centres_yx_px[:, 1])))
    models = candidate_models(n_times=len(times), grid_side=grid_side)
    weight = np.asarray(information, dtype=np.float64)
    if not models or not np.all(weight.sum(axis=(0, 1)) > 0):
        return ModelFit.still(_anchored(_frame_mean(measured_yx_px, weight)))
    for _ in range(3):
        problems = [_reduce(measured_yx_px[..., axis], weight[..., axis], terms) for axis in range(2)]
        chosen, coefficients, residual, note = _choose(problems, models)
        weight = information * _huber(residual, weight)
    track = _frame_mean(measured_yx_px - np.einsum("ac,pnc->pna", coefficients, terms), weight)
    rms = float(np.sqrt(np.sum(weight * residual**2) / np.sum(weight)))
    if rms >= _REJECT_RMS_PX:
        return ModelFit(
            _anchored(_frame_mean(measured_yx_px, weight)), np.zeros((2, N_TERMS)), rms, 0, f"patches disagree by {rms:.1f} px"
        )
    fit = _centred(_anchored(track), coefficients, rms=rms, n_terms=len(chosen), note=note, terms_of=(times, n_frames, shape))
    freedom = max((len(weight) - 1) * (len(times) - 1) - len(chosen), 1)
    unit = np.sum(weight * residual**2, axis=(0, 1)) / freedom  # (2,): variance of a measurement of weight 1
    return replace(fit, track_variance_px2=unit / weight.sum(axis=0))


def smooth_track(track_yx_px: NDArray[Any], variance_px2: NDArray[Any]) -> NDArray[np.float64]:
    """Return the most probable track: noise that the patches tell of is taken out, as far as the track is smooth around it.

    Second differences of the track are Gaussian (Whittaker 1923, Proc. Edinburgh Math. Soc. 41, 63) with the variance seen
    within three frames, less that of the noise; so a track that is clearly jerky stays as it was measured.

    Parameters
    ----------
    track_yx_px, variance_px2
        ``(n, 2)``: positions and the variance of each.
    """
    n = len(track_yx_px)
    if n < 9:  # fewer second differences than the window is long
        return np.asarray(track_yx_px, dtype=np.float64)
    bends = np.diff(np.eye(n), n=2, axis=0)  # (n - 2, n)
    noise = np.maximum(variance_px2, 1e-12).mean(axis=1)  # (n,)
    seen = np.mean((bends @ track_yx_px) ** 2, axis=1) - (bends**2) @ noise  # (n - 2,)
    window = np.array([1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0])
    count = np.convolve(np.ones(n - 2), window, mode="same")
    spread = np.maximum(np.convolve(seen, window, mode="same") / count, _LEAST_BEND * noise.mean())
    normal = np.diag(1 / noise) + bends.T @ (bends / spread[:, None])  # (n, n)
    smooth: NDArray[np.float64] = np.linalg.solve(normal, track_yx_px / noise[:, None])
    return smooth


def _frame_mean(values: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weighted mean over patches, each patch's own offset taken out: ``(n, 2)``."""
    offset = np.sum(weight * values, axis=1, keepdims=True) / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
    total: NDArray[np.float64] = np.sum(weight * (values - offset), axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
    return total


def _anchored(track: NDArray[np.float64]) -> NDArray[np.float64]:
    anchored: NDArray[np.float64] = track - track[0]
    return anchored


def _reduce(measured: NDArray[Any], weight: NDArray[Any], terms: NDArray[Any]) -> _Problem:
    """Take shift per frame and offset per patch out of measurements and terms (exact for weights (patch) × (frame))."""
    of_patch, of_frame = weight.sum(axis=1), weight.sum(axis=0)  # (p,), (n,)
    outer = np.outer(of_patch, of_frame) / weight.sum()  # (p, n)
    patch_share, frame_share = of_patch / of_patch.sum(), of_frame / of_frame.sum()

    def centre(values: NDArray[Any]) -> NDArray[np.float64]:
        rows = np.einsum("n,pn...->p...", frame_share, values)[:, None]
        columns = np.einsum("p,pn...->n...", patch_share, values)[None]
        mean = np.einsum("p,p...->...", patch_share, rows[:, 0])
        centred: NDArray[np.float64] = values - rows - columns + mean
        return centred

    positions, columns = centre(measured), centre(terms)
    flat = columns.reshape(-1, N_TERMS)  # (p * n, 18)
    weighted = flat * outer.reshape(-1, 1)
    return _Problem(positions, outer, columns, flat.T @ weighted, positions.ravel() @ weighted)


def _solve(problem: _Problem, columns: list[int]) -> tuple[NDArray[np.float64], float]:
    """Return the coefficients of some terms and the weighted sum of squared residuals."""
    solution = np.asarray(
        np.linalg.lstsq(problem.normal[np.ix_(columns, columns)], problem.moment[columns], rcond=1e-14)[0], dtype=np.float64
    )
    whole = float(np.sum(problem.weight * problem.measured**2))
    return solution, max(whole - float(solution @ problem.moment[columns]), 0.0)


def _choose(
    problems: list[_Problem], models: list[tuple[str, list[int]]]
) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64], str | None]:
    """Return terms, coefficients ``(2, 18)`` and residuals ``(p, n, 2)``; a note if the model is not the richest."""
    n_patches, n_times = problems[0].measured.shape
    none = np.array([np.sum(problem.weight * problem.measured**2) for problem in problems])  # (2,)
    fits = np.array([[_solve(problem, columns)[1] for problem in problems] for _, columns in models])  # (models, 2)
    freedom = (n_patches - 1) * (n_times - 1)
    variance = np.maximum(fits[-1] / max(freedom - len(models[-1][1]), 1), 1e-300)  # (2,)
    costs = np.sum(fits / variance, axis=1) + _PENALTY * 2 * np.array([len(columns) for _, columns in models])
    coefficients = np.zeros((2, N_TERMS))
    chosen: list[int] = []
    note: str | None = "no local motion above the noise"
    if costs.min() < float(np.sum(none / variance)):
        coefficients, chosen = _shrink(problems, [columns for _, columns in models], variance)
        name = next(name for name, columns in models if set(chosen) <= set(columns))
        note = None if name == models[-1][0] else f"local model is {name}"
    residual = np.stack(
        [problem.measured - problem.terms @ coefficients[axis] for axis, problem in enumerate(problems)], axis=-1
    )  # (p, n, 2)
    return chosen, coefficients, residual, note


def _shrink(
    problems: list[_Problem], models: list[list[int]], variance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[int]]:
    """Return the coefficients ``(2, 18)`` that are most probable, and the terms that are not zero.

    What each model adds to the simpler ones is a group with a Gaussian prior, of the variance that makes the group most probable.
    """
    groups: list[list[int]] = []
    for columns in models:
        known = {term for group in groups for term in group}
        groups.append([term for term in columns if term not in known])
    order = [term for group in groups for term in group]
    roots = [_root(problem.normal[np.ix_(order, order)]) for problem in problems]
    parts = np.stack(
        [np.linalg.solve(root, problem.moment[order]) for root, problem in zip(roots, problems, strict=True)]
    )  # (2, terms): uncorrelated, each orthogonal to the terms before it, of variance ``variance``
    start, chosen = 0, []
    for group in groups:
        some = slice(start, start + len(group))
        strength = float(np.sum(parts[:, some] ** 2 / variance[:, None]))
        share = max(0.0, 1.0 - 2 * len(group) / strength) if strength > 0 else 0.0
        parts[:, some] *= share
        chosen += group if share > 0 else []
        start += len(group)
    coefficients = np.zeros((2, N_TERMS))
    for axis, root in enumerate(roots):
        coefficients[axis, order] = np.linalg.solve(root.T, parts[axis])
    return coefficients, chosen


def _root(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lower triangular root of a matrix, made regular where terms cannot be told apart."""
    return np.asarray(np.linalg.cholesky(normal + np.diag(1e-10 * np.diag(normal) + 1e-300)), dtype=np.float64)


def _huber(residual: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a factor per patch, ``(p, 1, 1)``: 1, or less where a patch fits more than twice as badly as the others."""
    badness = np.sqrt(np.mean(weight * residual**2, axis=(1, 2)))  # (p,)
    typical = float(np.median(badness))
    factor = np.minimum(1.0, 2.0 * typical / np.maximum(badness, 1e-300)) if typical > 0 else np.ones_like(badness)
    per_patch: NDArray[np.float64] = factor[:, None, None]
    return per_patch


def _centred(
    track: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    *,
    rms: float,
    n_terms: int,
    note: str | None,
    terms_of: tuple[NDArray[Any], int, tuple[int, int]],
) -> ModelFit:
    """Move the mean over the field from the local model to the global track, so that each says what its name says."""
    times, n_frames, (height, width) = terms_of
    table = coefficients.reshape(2, N_SPACE, N_TIME).copy()
    mean = (table[:, 2] * (1 - 1 / width**2) + table[:, 4] * (1 - 1 / height**2)) / 12  # (2, 3)
    table[:, 0] = -mean
    moved = track + time_terms(times, n_frames=n_frames) @ mean.T  # (n, 2)
    return ModelFit(_anchored(moved), table.reshape(2, N_TERMS), rms, n_terms, note)
