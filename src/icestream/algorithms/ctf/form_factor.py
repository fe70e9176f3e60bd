"""Rings that are not those of a CTF: how well the form factor of equal objects explains a spectrum.

The power spectrum of many equal objects (balls of contamination, beads, shells) has rings too, but equally far apart; those of a
CTF come closer and closer, as its phase grows with the square of the frequency. A ball of diameter ``D`` scatters as
``(sin x - x cos x)² / x⁶`` with ``x = pi g D`` (Rayleigh 1911, Proc. R. Soc. A 84, 25). As ``sin x - x cos x`` is
``sqrt(1 + x²) sin(x - arctan x)``, its rings are ``-e(g) cos(2 chi)``, like those of a CTF, with ``chi = x - arctan x``. Those
of discs, rods and shells differ from it by little more than a constant phase, so the constant is free here.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from icestream.algorithms.ctf.samples import SpectrumSamples

_SMALLEST_ANG = 20.0
"""Smaller objects are groups of atoms; a ring or two of any CTF could be theirs."""
_LARGEST_ANG = 400.0
_FEWEST_TURNS, _TURNS_A_STEP, _MOST_TURNS_A_RING = 1.5, 0.25, 0.4
_N_PHASES = 12


def confidence_against_form_factor(confidence: float, *, residual: float, cells: SpectrumSamples, variance: float) -> float:
    """Return the confidence in a CTF when the form factor of equal objects, of any size and phase, competes too.

    Parameters
    ----------
    confidence
        Probability of the CTF among other CTFs and noise.
    residual
        Weighted sum of squares that the CTF leaves of the cells, with any smooth background and envelope.
    cells
        Polar cells of the spectrum.
    variance
        Of one sample, as smooth sums of samples see it.
    """
    if confidence <= 0.0:
        return 0.0
    rival = 0.5 * (residual - form_factor_residual(cells)) / variance
    return float(1.0 / (1.0 / confidence + np.exp(min(rival, 50.0))))


def form_factor_residual(cells: SpectrumSamples) -> float:
    """Return the weighted sum of squares that the best form factor leaves, with any smooth background and envelope."""
    n_rings = cells.ring_per_ang.size
    weight = np.bincount(cells.ring, cells.weight, n_rings)
    total = np.bincount(cells.ring, cells.weight * cells.value, n_rings)
    root = np.sqrt(weight)
    average = np.divide(total, root, out=np.zeros(n_rings), where=root > 0)  # times the root of the weight
    smooth, _ = np.linalg.qr((cells.background * root).T)  # (n_rings, n_background)
    rest = average - smooth @ (smooth.T @ average)
    normal, right = _normal_equations(cells, rest, root=root, smooth=smooth)
    left = float(np.sum(cells.weight * cells.value**2) - np.sum((smooth.T @ average) ** 2))
    return left - _best_gain(normal, right)


def _normal_equations(
    cells: SpectrumSamples, rest: NDArray[np.float64], *, root: NDArray[np.float64], smooth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return matrix and right side for the envelope of each diameter and phase: ``(n, n_envelope, n_envelope)``, ``(n, ...)``."""
    frequency, n_envelope = cells.ring_per_ang, cells.envelope.shape[0]
    span = frequency[-1] - frequency[0]
    first = max(_FEWEST_TURNS / span, _SMALLEST_ANG)
    last = min(_MOST_TURNS_A_RING / cells.step_per_ang, _LARGEST_ANG)
    diameters = np.arange(first, last, _TURNS_A_STEP / span)
    inner, along = [], []
    for diameter in diameters.tolist():
        x = np.pi * frequency * diameter
        twice = 2.0 * (x - np.arctan(x))
        waves = np.concatenate([cells.envelope * np.cos(twice), cells.envelope * np.sin(twice)]) * root
        waves -= (waves @ smooth) @ smooth.T  # (2 * n_envelope, n_rings)
        inner.append(waves @ waves.T)
        along.append(waves @ rest)
    turn = 2.0 * np.pi * np.arange(_N_PHASES) / _N_PHASES
    mix = np.stack([-np.cos(turn), np.sin(turn)])  # -cos(2 chi + turn) by cosine and sine
    products = np.reshape(inner, (-1, 2, n_envelope, 2, n_envelope))
    normal = np.einsum("ap,daibj,bp->dpij", mix, products, mix).reshape(-1, n_envelope, n_envelope)
    right = np.einsum("ap,dai->dpi", mix, np.reshape(along, (-1, 2, n_envelope))).reshape(-1, n_envelope)
    size = np.trace(normal, axis1=1, axis2=2)[:, None, None]
    return normal + (1e-9 * size + 1e-30) * np.eye(n_envelope), right


def _best_gain(normal: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return the largest drop of the sum of squares by an envelope that is nowhere negative; 0 if there is nothing to try."""
    if right.shape[0] == 0:
        return 0.0
    bound = np.einsum("ni,ni->n", right, np.linalg.solve(normal, right[..., None])[..., 0])  # with an envelope of either sign
    best = 0.0
    for i in np.argsort(-bound).tolist():
        if bound[i] <= best:
            break
        factor = np.linalg.cholesky(normal[i])
        target = np.linalg.solve(factor, right[i])
        left = nnls(factor.T, target)[1]
        best = max(best, float(target @ target - left**2))
    return best
