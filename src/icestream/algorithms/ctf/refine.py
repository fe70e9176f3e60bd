"""Least-squares refinement of a CTF against a power spectrum.

The model of a flattened spectrum is ``b(g) - e(g) cos(2 chi)`` with smooth ``b`` and ``e``, ``e`` not negative: the squared CTF
with any background and any envelope. For each CTF the best ``b`` and ``e`` follow from linear equations (variable projection,
Golub & Pereyra 1973, SIAM J. Numer. Anal. 10, 413); the CTF itself follows by Levenberg-Marquardt steps of the joint problem,
which also gives its covariance.
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.samples import Optics, SpectrumSamples
from icestream.algorithms.ctf.search import CtfRange

_MAX_STEPS = 25
_LEAST_POWER = 0.1
_ONE, _RINGS, _FIRST, _VALUE = 0, 1, 2, 6


@dataclass(frozen=True)
class CtfRefinement:
    """A refined CTF with what was fitted around it.

    Attributes
    ----------
    parameters
        ``(4,)``: mean defocus, astigmatism components a and b in Å, phase shift in degrees.
    covariance
        ``(4, 4)`` of the parameters, as if samples were independent with the residual variance; rows of fixed ones are zero.
    residual
        Weighted sum of squared residuals.
    background, envelope
        ``(n_rings,)`` fitted ``b`` and ``e``.
    """

    parameters: NDArray[np.float64]
    covariance: NDArray[np.float64]
    residual: float
    background: NDArray[np.float64]
    envelope: NDArray[np.float64]


@dataclass(frozen=True)
class _Linear:
    """The smooth functions that fit best for one CTF, and the inverse normal matrix of their coefficients."""

    design: NDArray[np.float64]  # (n_active, 2, n_rings): each coefficient's share of b and of e
    inverse: NDArray[np.float64]
    background: NDArray[np.float64]
    envelope: NDArray[np.float64]
    residual: float


def refine_ctf(
    samples: SpectrumSamples,
    start: NDArray[np.float64],
    *,
    optics: Optics,
    limits: CtfRange,
) -> CtfRefinement:
    """Refine the CTF parameters from ``start``; the phase shift stays fixed where its range has no width.

    Parameters
    ----------
    samples
        Single frequencies, or polar cells.
    start
        ``(4,)``: mean defocus, a, b (Å), phase shift (degrees).
    optics
        Rates of the CTF phase.
    limits
        The result stays inside these ranges.
    """
    free = np.array([True, True, True, limits.phase_shift_deg[1] > limits.phase_shift_deg[0]])
    now = limits.confine(start)
    moments = _moments(samples, now, optics)
    linear = _solve_linear(moments, samples)
    damping = 1e-3
    for _ in range(_MAX_STEPS):
        matrix, gradient = _normal_equations(moments, linear, free)
        change = np.zeros(4)
        change[free] = np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), gradient)
        trial = limits.confine(now + change)
        trial_moments = _moments(samples, trial, optics)
        trial_linear = _solve_linear(trial_moments, samples)
        if trial_linear.residual >= linear.residual:
            damping *= 10.0
            if damping > 1e3:
                break
            continue
        moved = np.abs(trial - now)
        now, moments, linear, damping = trial, trial_moments, trial_linear, damping * 0.1
        if np.max(moved[:3]) < 0.5 and moved[3] < 0.05:
            break
    matrix, _ = _normal_equations(moments, linear, free)
    variance = linear.residual / max(float(np.sum(samples.weight > 0)) - linear.design.shape[0] - 4, 1.0)
    covariance = np.zeros((4, 4))
    covariance[np.ix_(free, free)] = np.linalg.inv(matrix) * variance
    return CtfRefinement(now, covariance, linear.residual, linear.background, linear.envelope)


def residual_of_ctf(samples: SpectrumSamples, parameters: NDArray[np.float64], *, optics: Optics) -> float:
    """Return the weighted sum of squared residuals of one CTF, with the background and envelope that suit it best.

    Parameters
    ----------
    samples
        Polar cells, ordered by sector, then ring.
    parameters
        ``(4,)``: mean defocus, a, b (Å), phase shift (degrees).
    optics
        Rates of the CTF phase.
    """
    moments = _cell_moments(
        (samples.g2, samples.cos2, samples.sin2),
        samples.value,
        samples.weight,
        samples.ring_per_ang.size,
        (optics.defocus_rate, optics.sphere_rate, optics.contrast_rad),
        parameters,
    )
    return _solve_linear(moments, samples).residual


def weights_of_model(samples: SpectrumSamples, fit: CtfRefinement, *, optics: Optics) -> NDArray[np.float64]:
    """Return weights under which least squares is the most likely fit: ``(n,)``.

    The noise of a power spectrum is proportional to the power, so frequencies near the zeros of the CTF say more than those on
    its maxima (Whittle 1953, Ark. Mat. 2, 423).
    """
    mean, a, b, phase_deg = fit.parameters
    defocus = mean + a * samples.cos2 + b * samples.sin2
    chi = optics.defocus_rate * samples.g2 * defocus - optics.sphere_rate * samples.g2**2
    rings = np.cos(2.0 * (chi + optics.contrast_rad + np.deg2rad(phase_deg)))
    model = 1.0 + fit.background[samples.ring] - fit.envelope[samples.ring] * rings
    weights: NDArray[np.float64] = samples.weight / np.maximum(model, _LEAST_POWER) ** 2
    return weights


def _moments(samples: SpectrumSamples, parameters: NDArray[np.float64], optics: Optics) -> NDArray[np.float64]:
    moments: NDArray[np.float64] = _ring_moments(
        (samples.g2, samples.cos2, samples.sin2),
        samples.value,
        samples.weight,
        (samples.ring, samples.ring_per_ang.size),
        np.array([optics.defocus_rate, optics.sphere_rate, optics.contrast_rad]),
        parameters,
    )
    return moments


def _solve_linear(moments: NDArray[np.float64], samples: SpectrumSamples) -> _Linear:
    """Fit ``b`` and ``e`` for one CTF; envelope coefficients that would be negative are held at zero, one by one."""
    n_b, n_e = samples.background.shape[0], samples.envelope.shape[0]
    design = np.zeros((n_b + n_e, 2, samples.ring_per_ang.size))
    design[:n_b, 0], design[n_b:, 1] = samples.background, samples.envelope
    flat = design.reshape(n_b + n_e, -1)  # (n_b + n_e, 2 * n_rings)
    inner = moments[:, :2, :2].transpose(1, 2, 0)  # (2, 2, n_rings)
    normal = flat @ np.sum(design[:, :, None] * inner, axis=1).reshape(n_b + n_e, -1).T
    right = flat @ moments[:, :2, -1].T.ravel()
    active = np.ones(n_b + n_e, bool)
    while True:
        inverse = np.linalg.pinv(normal[np.ix_(active, active)], hermitian=True)
        coefficients = np.zeros(n_b + n_e)
        coefficients[active] = inverse @ right[active]
        worst = int(np.argmin(coefficients[n_b:])) + n_b
        if coefficients[worst] >= 0:
            break
        active[worst] = False
    background, envelope = (coefficients @ flat).reshape(2, -1)
    residual = float(np.sum(moments[:, -1, -1]) - coefficients @ right)
    return _Linear(design[active], inverse, background, envelope, residual)


def _normal_equations(
    moments: NDArray[np.float64], linear: _Linear, free: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return matrix and right side for the CTF parameters, with the linear ones eliminated."""
    index = _FIRST + np.flatnonzero(free)
    e = linear.envelope
    direct = np.einsum("k,kpq->pq", e * e, moments[:, index][:, :, index])
    sloped = (e[:, None, None] * moments[:, index, :2]).transpose(1, 2, 0)  # (n_free, 2, n_rings)
    cross = sloped.reshape(index.size, -1) @ linear.design.reshape(linear.design.shape[0], -1).T
    rest = (
        moments[:, index, _VALUE] - moments[:, index, _ONE] * linear.background[:, None] - moments[:, index, _RINGS] * e[:, None]
    )
    matrix = direct - cross @ linear.inverse @ cross.T
    matrix[np.diag_indices_from(matrix)] += 1e-9 * np.diag(direct) + 1e-30  # a spectrum without rings determines nothing
    return matrix, e @ rest


@numba.njit(cache=True, nogil=True, fastmath=True)
def _ring_moments(place: Any, value: Any, weight: Any, rings: Any, optics: Any, parameters: Any) -> Any:
    """Sum, ring by ring, the products of (1, c, dc/d parameters, value) with ``c = -cos(2 chi)``: ``(n_rings, 7, 7)``."""
    g2, cos2, sin2 = place
    ring, n_rings = rings
    moments = np.zeros((n_rings, 7, 7))
    row = np.empty(7)
    degree = np.pi / 180.0
    constant = optics[2] + parameters[3] * degree
    for i in range(g2.size):
        if weight[i] == 0.0:
            continue
        rate = optics[0] * g2[i]
        defocus = parameters[0] + parameters[1] * cos2[i] + parameters[2] * sin2[i]
        chi2 = 2.0 * (rate * defocus - optics[1] * g2[i] * g2[i] + constant)
        slope = 2.0 * np.sin(chi2)
        row[0] = 1.0
        row[1] = -np.cos(chi2)
        row[2] = slope * rate
        row[3] = row[2] * cos2[i]
        row[4] = row[2] * sin2[i]
        row[5] = slope * degree
        row[6] = value[i]
        k = ring[i]
        for p in range(7):
            scaled = weight[i] * row[p]
            for q in range(p, 7):
                moments[k, p, q] += scaled * row[q]
    for k in range(n_rings):
        for p in range(7):
            for q in range(p):
                moments[k, p, q] = moments[k, q, p]
    return moments


@numba.njit(cache=True, nogil=True, fastmath=True)
def _cell_moments(place: Any, value: Any, weight: Any, n_rings: Any, optics: Any, parameters: Any) -> Any:
    """Sum, ring by ring, the products of (1, c, value) over all sectors: ``(n_rings, 3, 3)``."""
    g2, cos2, sin2 = place
    moments = np.zeros((n_rings, 3, 3))
    constant = optics[2] + parameters[3] * np.pi / 180.0
    for i in range(g2.size):
        if weight[i] == 0.0:
            continue
        defocus = parameters[0] + parameters[1] * cos2[i] + parameters[2] * sin2[i]
        c = -np.cos(2.0 * (optics[0] * g2[i] * defocus - optics[1] * g2[i] * g2[i] + constant))
        k = i % n_rings
        moments[k, 0, 0] += weight[i]
        moments[k, 0, 1] += weight[i] * c
        moments[k, 1, 1] += weight[i] * c * c
        moments[k, 0, 2] += weight[i] * value[i]
        moments[k, 1, 2] += weight[i] * c * value[i]
        moments[k, 2, 2] += weight[i] * value[i] * value[i]
    moments[:, 1, 0] = moments[:, 0, 1]
    return moments
