"""Local defocus: a surface of defocus over one micrograph, no richer than the data support.

The spectrum of each window says, as a log-likelihood over defocus, what it would accept; the surface that all windows together
like best is found without asking any one of them for a decision, so faint windows do no harm. Amplitude and sign of the rings are
a smooth function of frequency that all windows share; it may change its sign, as it does beyond the node of a thick specimen
(`icestream.algorithms.ctf.thickness`). Which surface (constant, plane, quadratic, cubic) follows from the expected error
(Mallows 1973, Technometrics 15, 661, with a stricter penalty). That tiles are summed at the defocus of their place is the idea of
Elferich, Kong, Zottig & Grigorieff (2024), CTFFIND5, eLife 13, RP97227.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from icestream.algorithms.ctf.surface import MODEL_NAMES, DefocusSurface, surface_terms
from icestream.algorithms.ctf.windows import WindowRings

_PENALTY = 5.0
_ROUNDS = 4
_STEPS_PER_TURN = 10
_LARGEST_SHIFT_ANG = 600.0
_MAX_OFFSETS = 240
_MAX_STEPS = 30
_RIDGE = 1e-6


@dataclass(frozen=True)
class LocalDefocus:
    """The surface of defocus of one micrograph and how it was chosen.

    Attributes
    ----------
    surface
        What is added to the defocus of the micrograph; nothing at all where the data support no more than a constant.
    shift_ang, shift_error_ang
        What the windows would add to the defocus if it were the same everywhere, and its standard error.
    gain
        How much better than a constant each model explains the windows, as twice the log-likelihood; by name.
    note
        Why a simpler model than the richest was taken.
    window_offset_ang, window_error_ang
        ``(n,)``: what each window alone would add, near the surface, and its standard error.
    amplitude
        ``(n_rings,)``: signed, smooth amplitude of the rings.
    """

    surface: DefocusSurface
    shift_ang: float
    shift_error_ang: float
    gain: dict[str, float]
    note: str | None
    window_offset_ang: NDArray[np.float64]
    window_error_ang: NDArray[np.float64]
    amplitude: NDArray[np.float64]


@dataclass(frozen=True)
class _Fit:
    """Coefficients of one degree, with the amplitude that belongs to them: ``(n_rings,)``, and the information of the windows."""

    coefficients: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    log_likelihood: float
    information: NDArray[np.float64]  # (n,)


@dataclass(frozen=True)
class _Curves:
    """Log-likelihood of each window over offsets of defocus, and its Fisher information there: ``(n_offsets, n)`` each."""

    spline: CubicSpline
    information: NDArray[np.float64]

    def at(self, offsets_ang: NDArray[np.float64], *, derivative: int = 0) -> NDArray[np.float64]:
        """Return the log-likelihoods, or their derivative, each window at its own offset: ``(n,)``."""
        x, c = self.spline.x, self.spline.c  # (k,), (4, k - 1, n)
        index = np.clip(np.searchsorted(x, offsets_ang) - 1, 0, x.size - 2)
        step = offsets_ang - x[index]
        a, b, slope, value = c[:, index, np.arange(offsets_ang.size)]
        if derivative:
            return np.asarray((3.0 * a * step + 2.0 * b) * step + slope)
        return np.asarray(((a * step + b) * step + slope) * step + value)

    def information_at(self, offsets_ang: NDArray[np.float64]) -> NDArray[np.float64]:
        index = np.abs(self.spline.x[:, None] - offsets_ang).argmin(axis=0)
        return np.asarray(self.information[index, np.arange(offsets_ang.size)])


def fit_local_defocus(rings: WindowRings, *, shape: tuple[int, int], pixel_size_ang: float, max_tilt_deg: float) -> LocalDefocus:
    """Find the surface of defocus that the windows of a micrograph ask for.

    Parameters
    ----------
    rings
        Of the windows.
    shape
        Of the micrograph, in pixels.
    pixel_size_ang
        Of the micrograph.
    max_tilt_deg
        Steepest slope that is searched.

    Raises
    ------
    ValueError
        If the slope is not between 0 and 80 degrees.
    """
    if not 0 < max_tilt_deg <= 80:
        raise ValueError(f"max_tilt_deg is {max_tilt_deg}; it must be more than 0 and at most 80")
    steepest = 0.5 * max(shape) * pixel_size_ang * np.tan(np.deg2rad(max_tilt_deg))  # Å per unit of the coordinates
    offsets = _offset_grid(rings, shape, steepest_ang=float(steepest))
    fits: list[_Fit] = []
    for degree in _degrees(rings):
        terms = surface_terms(rings.centres_yx_px, shape=shape, degree=degree)  # (n, n_terms)
        fits.append(_fit_degree(rings, terms, offsets, start=fits[-1] if fits else None, steepest_ang=float(steepest)))
    costs = [_PENALTY * fit.coefficients.size - 2.0 * fit.log_likelihood for fit in fits]
    best = int(np.argmin(costs))
    chosen = fits[best]
    terms = surface_terms(rings.centres_yx_px, shape=shape, degree=best)
    covariance = np.linalg.pinv(terms.T @ (terms * chosen.information[:, None]), hermitian=True).astype(np.float64)
    coefficients = chosen.coefficients if best else np.zeros(1)
    own, own_error = _window_offsets(rings, chosen, terms @ chosen.coefficients, offsets)
    return LocalDefocus(
        surface=DefocusSurface(coefficients, covariance, shape),
        shift_ang=float(fits[0].coefficients[0]),
        shift_error_ang=float(fits[0].information.sum() ** -0.5),
        gain={MODEL_NAMES[i]: 2.0 * (fit.log_likelihood - fits[0].log_likelihood) for i, fit in enumerate(fits) if i},
        note=None if best == len(fits) - 1 else _explain(best, fits),
        window_offset_ang=own,
        window_error_ang=own_error,
        amplitude=chosen.amplitude,
    )


def _explain(best: int, fits: list[_Fit]) -> str:
    gain = 2.0 * (fits[best + 1].log_likelihood - fits[best].log_likelihood)
    needed = _PENALTY * (fits[best + 1].coefficients.size - fits[best].coefficients.size)
    return f"a {MODEL_NAMES[best + 1]} surface explains {gain:.1f} more, of which noise alone explains up to {needed:.0f}"


def _degrees(rings: WindowRings) -> range:
    """Return the degrees of surface that the windows could determine."""
    per_side = min(len(np.unique(rings.centres_yx_px[:, axis])) for axis in range(2))
    return range(min(len(MODEL_NAMES), per_side - 1))


def _offset_grid(rings: WindowRings, shape: tuple[int, int], *, steepest_ang: float) -> NDArray[np.float64]:
    """Return offsets of defocus, zero among them: fine enough for the finest ring, wide enough for the steepest plane."""
    step = 2.0 * np.pi / (_STEPS_PER_TURN * float(rings.turn_rad_per_ang[rings.weight > 0].max()))
    plane = surface_terms(rings.centres_yx_px, shape=shape, degree=1)[:, 1:]  # (n, 2)
    reach = steepest_ang * float(np.hypot(*plane.T).max()) + _LARGEST_SHIFT_ANG
    count = min(int(np.ceil(reach / step)), _MAX_OFFSETS)
    grid: NDArray[np.float64] = step * np.arange(-count, count + 1.0)
    return grid


def _fit_degree(
    rings: WindowRings, terms: NDArray[np.float64], offsets: NDArray[np.float64], *, start: _Fit | None, steepest_ang: float
) -> _Fit:
    """Alternate between the surface of one degree and the amplitude of the rings."""
    n_terms = terms.shape[1]
    coefficients = np.zeros(n_terms)
    if start is not None:
        coefficients[: start.coefficients.size] = start.coefficients
    amplitude = solve_amplitude(rings, terms @ coefficients)
    for turn in range(_ROUNDS):
        positive = np.maximum(amplitude, 0.0) if turn == 0 else amplitude  # rings that a slope has washed out may seem reversed
        curves = _likelihood_curves(rings, positive, offsets)
        if n_terms <= 3 and turn < 2:
            coefficients = _search_plane(curves, terms, coefficients, steepest_ang=steepest_ang)
        coefficients = _climb(curves, terms, coefficients)
        amplitude = solve_amplitude(rings, terms @ coefficients)
    curves = _likelihood_curves(rings, amplitude, offsets)
    coefficients = _climb(curves, terms, coefficients)
    at = _within(terms @ coefficients, offsets)
    return _Fit(coefficients, amplitude, float(curves.at(at).sum()), curves.information_at(at))


def solve_amplitude(rings: WindowRings, offset_ang: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smooth, signed amplitude of the rings for one offset of each window: ``(n_rings,)``."""
    n_rings = rings.cells.ring_per_ang.size
    basis = rings.envelope  # (n_envelope, n_cells)
    normal, right = np.zeros((len(basis), len(basis))), np.zeros(len(basis))
    for value, precision, offset in zip(rings.value, rings.precision, offset_ang, strict=True):
        model = rings.rid_of_smooth(-basis * np.cos(rings.phase_rad + rings.turn_rad_per_ang * offset))
        weighted = model * (rings.weight * precision)
        normal += weighted @ model.T
        right += weighted @ value
    normal[np.diag_indices_from(normal)] += _RIDGE * np.trace(normal) / len(normal) + 1e-300
    amplitude: NDArray[np.float64] = np.linalg.solve(normal, right) @ basis[:, :n_rings]
    return amplitude


def _likelihood_curves(rings: WindowRings, amplitude: NDArray[np.float64], offsets: NDArray[np.float64]) -> _Curves:
    phase = rings.phase_rad + rings.turn_rad_per_ang * offsets[:, None]  # (n_offsets, n_cells)
    height = amplitude[rings.cells.ring]
    model = rings.rid_of_smooth(-height * np.cos(phase))
    slope = rings.rid_of_smooth(height * rings.turn_rad_per_ang * np.sin(phase))
    match = (model * rings.weight) @ rings.value.T - 0.5 * ((model**2) @ rings.weight)[:, None]  # (n_offsets, n)
    information = ((slope**2) @ rings.weight)[:, None] * rings.precision
    return _Curves(CubicSpline(offsets, match * rings.precision), information)


def _search_plane(
    curves: _Curves, terms: NDArray[np.float64], start: NDArray[np.float64], *, steepest_ang: float
) -> NDArray[np.float64]:
    """Return the best constant or plane of a grid, or ``start`` where nothing on the grid is better."""
    offsets = np.asarray(curves.spline.x)
    table = np.asarray(curves.spline(offsets))  # (n_offsets, n)
    step, middle = float(offsets[1] - offsets[0]), offsets.size // 2
    side = int(np.ceil(steepest_ang / (2.0 * step))) if terms.shape[1] == 3 else 0
    slopes = 2.0 * step * np.stack(np.meshgrid(*[np.arange(-side, side + 1.0)] * 2, indexing="ij"), -1).reshape(-1, 2)
    slopes = slopes[np.hypot(*slopes.T) <= steepest_ang] if side else slopes
    tilted = slopes @ terms[:, 1:3].T if side else np.zeros((1, len(terms)))  # (n_slopes, n)
    index = np.rint(tilted / step).astype(np.intp) + middle
    reach = int(_LARGEST_SHIFT_ANG / step)
    windows = np.arange(len(terms))
    best, found = float(curves.at(_within(terms @ start, offsets)).sum()), start
    for shift in range(-reach, reach + 1):
        total = table[np.clip(index + shift, 0, offsets.size - 1), windows].sum(axis=1)  # (n_slopes,)
        top = int(np.argmax(total))
        if total[top] > best:
            best, found = float(total[top]), np.r_[shift * step, slopes[top]][: start.size]
    return found


def _climb(curves: _Curves, terms: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Climb to the nearest optimum by scored steps, shortened where they would lead down."""
    now = start
    offsets = np.asarray(curves.spline.x)
    best = float(curves.at(_within(terms @ now, offsets)).sum())
    damping = 1e-3
    for _ in range(_MAX_STEPS):
        at = _within(terms @ now, offsets)
        matrix = terms.T @ (terms * curves.information_at(at)[:, None])
        matrix[np.diag_indices_from(matrix)] += damping * np.diag(matrix) + 1e-300
        trial = now + np.linalg.solve(matrix, terms.T @ curves.at(at, derivative=1))
        height = float(curves.at(_within(terms @ trial, offsets)).sum())
        if height > best:
            gained, best, now, damping = height - best, height, trial, damping * 0.3
            if gained < 1e-4:
                break
        elif damping > 1e6:
            break
        else:
            damping *= 10.0
    return now


def _window_offsets(
    rings: WindowRings, fit: _Fit, expected: NDArray[np.float64], offsets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what each window alone would add to the defocus, in the optimum next to the surface, and its error."""
    curves = _likelihood_curves(rings, fit.amplitude, offsets)
    own = _within(expected, offsets)
    for _ in range(_MAX_STEPS):
        step = curves.at(own, derivative=1) / np.maximum(curves.information_at(own), 1e-300)
        own = _within(own + np.clip(0.5 * step, -50.0, 50.0), offsets)
    return own, np.maximum(curves.information_at(own), 1e-300) ** -0.5


def _within(values: NDArray[np.float64], offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    inside: NDArray[np.float64] = np.clip(values, offsets[0], offsets[-1])
    return inside
