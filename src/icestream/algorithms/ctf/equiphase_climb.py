"""The way up: from a CTF nearby to the one whose equi-phase curve agrees best with its rings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.equiphase import agreements, equiphase_curve, ring_amplitude
from icestream.algorithms.ctf.samples import Optics, SpectrumSamples
from icestream.algorithms.ctf.search import CtfRange

_MAX_STEPS = 12
_STEP_RAD = 0.3


@dataclass(frozen=True)
class Optimum:
    """A local optimum: its parameters ``(4,)``, agreement, matrix of second derivatives, and ring amplitude by ring."""

    parameters: NDArray[np.float64]
    agreement: float
    curvature: NDArray[np.float64]
    amplitude: NDArray[np.float64]


@dataclass(frozen=True)
class EquiphaseObjective:
    """Agreement of the equi-phase curve of cells with rings of known amplitude.

    With ``whole_curve`` what the running mean explains of the curve counts too, and only the defocus may change. Without, the
    part of the spectrum that the agreement speaks of changes a little with the length of a ring, which draws the defocus down
    where rings fade; with it, a defocus so high that its running mean follows the true rings would be best of all. So it is for
    the last steps alone.
    """

    cells: SpectrumSamples
    optics: Optics
    limits: CtfRange
    whole_curve: bool = False

    def constant_rad(self, parameters: NDArray[np.float64]) -> float:
        """Return the phase of contrast and phase plate."""
        return float(self.optics.contrast_rad + np.deg2rad(parameters[3]))

    def amplitude(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the amplitude of the rings that the cells show if the CTF is this one: ``(n_rings,)``."""
        curve = equiphase_curve(self.cells, parameters, optics=self.optics)
        found = ring_amplitude(curve, self.constant_rad(parameters))
        return np.interp(self.cells.ring_per_ang, curve.frequency_per_ang, found)

    def values(self, points: NDArray[np.float64], amplitude: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the agreement for each of several CTFs ``(n, 4)``."""
        return agreements(self.cells, points, amplitude, optics=self.optics, whole_curve=self.whole_curve)

    def value_with_own_amplitude(self, parameters: NDArray[np.float64]) -> float:
        """Return the agreement of a CTF with the rings that the cells show if the CTF is this one."""
        inside = self.limits.confine(parameters)
        constant_rad = self.constant_rad(inside)
        curve = equiphase_curve(self.cells, inside, optics=self.optics)
        model = curve.model(constant_rad, ring_amplitude(curve, constant_rad))
        return float(np.sum(curve.count * model * (curve.measured - 0.5 * model)))

    @property
    def steps(self) -> NDArray[np.float64]:
        """Changes of the parameters that turn the phase by about the same: ``(4,)``; 0 for a phase shift that is fixed."""
        defocus_ang = _STEP_RAD / (2.0 * self.optics.defocus_rate * (0.6 * self.cells.ring_per_ang[-1]) ** 2)
        if self.whole_curve:
            return np.array([defocus_ang, 0.0, 0.0, 0.0])
        low, high = self.limits.phase_shift_deg
        return np.array([defocus_ang, 1.4 * defocus_ang, 1.4 * defocus_ang, np.rad2deg(0.5 * _STEP_RAD) if high > low else 0.0])


def climb(objective: EquiphaseObjective, start: NDArray[np.float64], *, smallest: float) -> tuple[NDArray[np.float64], float]:
    """Follow the agreement to its next maximum; between steps the amplitude of the rings is measured again.

    Parameters
    ----------
    objective
        What is to become as high as can be.
    start
        ``(4,)``: mean defocus, a, b in Å, phase shift in degrees.
    smallest
        A move of less than this, in units of the steps of the objective, is the last.

    Returns
    -------
    parameters, agreement
        ``(4,)``, and the value there.
    """
    steps = objective.steps
    free = steps > 0
    now = objective.limits.confine(start)
    for _ in range(_MAX_STEPS):
        amplitude = objective.amplitude(now)
        value, gradient, curvature = _derivatives(objective, now, amplitude)
        change = np.zeros(4)
        change[free] = _newton_step(gradient[free], curvature[np.ix_(free, free)]) * steps[free]
        trials = (objective.limits.confine(now + share * change) for share in (1.0, 0.3, 0.1))
        better = next((each for each in trials if objective.values(each[None], amplitude)[0] > value), None)
        if better is None:
            break
        moved = np.max(np.abs((better - now)[free] / steps[free]))
        now = better
        if moved < smallest:
            break
    return now, float(objective.values(now[None], objective.amplitude(now))[0])


def optimum_at(objective: EquiphaseObjective, at: NDArray[np.float64]) -> Optimum:
    """Return what an optimum is like, at its parameters ``(4,)``."""
    amplitude = objective.amplitude(at)
    value, _, curvature = _derivatives(objective, at, amplitude)
    steps = objective.steps
    scale = np.divide(1.0, steps, out=np.zeros(4), where=steps > 0)
    return Optimum(at, value, curvature * np.outer(scale, scale), amplitude)


def _derivatives(
    objective: EquiphaseObjective, at: NDArray[np.float64], amplitude: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return value, gradient and second derivatives of the agreement, in units of the steps: central differences."""
    steps = objective.steps
    free = np.flatnonzero(steps).tolist()
    shift = np.diag(steps)
    pairs = [(i, j) for position, i in enumerate(free) for j in free[position + 1 :]]
    single = [(sign, i) for i in free for sign in (1, -1)]
    double = [(sign, i, j) for i, j in pairs for sign in (1, -1)]
    moves = [np.zeros(4), *(sign * shift[i] for sign, i in single), *(sign * (shift[i] + shift[j]) for sign, i, j in double)]
    points = at + np.array(moves)
    order = np.lexsort(points.T)  # those that differ in the phase shift alone follow each other
    values = np.empty(len(points))
    values[order] = objective.values(points[order], amplitude)
    at_single = dict(zip(single, values[1:].tolist(), strict=False))
    at_double = dict(zip(double, values[1 + len(single) :].tolist(), strict=True))
    middle = float(values[0])
    gradient, curvature = np.zeros(4), np.zeros((4, 4))
    for i in free:
        plus, minus = at_single[1, i], at_single[-1, i]
        gradient[i], curvature[i, i] = 0.5 * (plus - minus), plus + minus - 2.0 * middle
    for i, j in pairs:
        both = at_double[1, i, j] + at_double[-1, i, j] + 2.0 * middle
        curvature[i, j] = curvature[j, i] = 0.5 * (both - sum(at_single[sign, k] for sign in (1, -1) for k in (i, j)))
    return middle, gradient, curvature


def _newton_step(gradient: NDArray[np.float64], curvature: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the step uphill, at most four of the units along any eigenvector."""
    size, directions = np.linalg.eigh(curvature)
    along = directions.T @ gradient
    step: NDArray[np.float64] = directions @ np.clip(along / np.maximum(np.abs(size), 1e-12), -4.0, 4.0)
    return step
