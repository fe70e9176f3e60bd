"""Thickness of the specimen from the nodes of its Thon rings.

A scatterer at height ``z`` in a specimen of thickness ``t`` is imaged with ``z`` more defocus, so the phase of its CTF is
``chi + pi lambda g² z``. Scatterers at different heights are independent, so their powers add; over all heights the mean of
``2 sin²`` is

    ``1 - sinc(lambda g² t) cos(2 chi)``,  ``sinc(x) = sin(pi x) / (pi x)``.

The rings vanish at the nodes ``lambda g² t = 1, 2 …`` and are reversed between the first and the second (the formula of Elferich,
Kong, Zottig & Grigorieff 2024, CTFFIND5, eLife 13, RP97227, by the derivation above). A decay alone proves nothing: any envelope
decays. What no envelope can do is reverse the rings, so a thickness is stated only where reversed rings are seen beyond noise,
and where they are reversed rather than turned by a wrong phase: turned rings pass through a quarter turn, and are seen there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from icestream.algorithms.ctf.windows import WindowRings

_LEAST_REVERSAL = 4.0
_RIVAL_GAIN = 9.0
_LARGEST_THICKNESS_ANG = 6000.0
_STEPS_PER_NODE = 12
_NODE_WIDTH = 0.15
_LARGEST_TURN = 0.5
_FINE = 41


@dataclass(frozen=True)
class RingAmplitudes:
    """Signed amplitude of the Thon rings over frequency, ``(n_rings,)`` each.

    Attributes
    ----------
    frequency_per_ang
        Of the rings.
    in_phase, variance
        Amplitude ring by ring, positive where rings lie where the CTF says and negative where they are reversed, and its
        variance; infinite where a ring says nothing.
    smooth, quadrature, quadrature_error
        Smooth amplitudes of rings in phase and of rings a quarter turn off, found together, and the standard error of the latter.
    envelope
        ``(n_envelope, n_rings)``: the smooth functions.
    """

    frequency_per_ang: NDArray[np.float64]
    in_phase: NDArray[np.float64]
    variance: NDArray[np.float64]
    smooth: NDArray[np.float64]
    quadrature: NDArray[np.float64]
    quadrature_error: NDArray[np.float64]
    envelope: NDArray[np.float64]


@dataclass(frozen=True)
class SampleThickness:
    """What the nodes say.

    Attributes
    ----------
    thickness_ang, error_ang
        Thickness and its standard error; unset where the rings do not show a node.
    node_ang
        Resolution of the first node: finer, the rings are reversed and no CTF without thickness holds.
    reversal
        How strongly the rings between the first and the second node are reversed, in standard deviations of noise.
    note
        Why there is no thickness.
    fitted
        ``(n_rings,)``: amplitude by the model, with the thickness or without one.
    """

    thickness_ang: float | None
    error_ang: float | None
    node_ang: float | None
    reversal: float
    note: str | None
    fitted: NDArray[np.float64]


def measure_ring_amplitudes(rings: WindowRings, offset_ang: NDArray[np.float64]) -> RingAmplitudes:
    """Regress the windows on rings in phase and a quarter turn off, each window at its own defocus.

    Parameters
    ----------
    rings
        Of the windows.
    offset_ang
        ``(n,)``: what the place of each window adds to the defocus.
    """
    n_rings = rings.cells.ring_per_ang.size
    basis = rings.envelope  # (n_envelope, n_cells)
    n = len(basis)
    square, match = np.zeros(n_rings), np.zeros(n_rings)
    normal, right = np.zeros((2 * n, 2 * n)), np.zeros(2 * n)
    for value, precision, offset in zip(rings.value, rings.precision, offset_ang, strict=True):
        phase = rings.phase_rad + rings.turn_rad_per_ang * offset
        cosine, sine = -np.cos(phase), np.sin(phase)
        weight = rings.weight * precision
        single = rings.rid_of_smooth(cosine)
        square += (weight * single**2).reshape(-1, n_rings).sum(axis=0)
        match += (weight * single * value).reshape(-1, n_rings).sum(axis=0)
        model = rings.rid_of_smooth(np.concatenate([basis * cosine, basis * sine]))  # (2 * n_envelope, n_cells)
        normal += (model * weight) @ model.T
        right += (model * weight) @ value
    inverse = np.linalg.pinv(normal, rcond=1e-10, hermitian=True)
    found = inverse @ right
    each = basis[:, :n_rings]
    seen = square > 1e-3 * float(square.max())
    return RingAmplitudes(
        frequency_per_ang=rings.cells.ring_per_ang,
        in_phase=np.where(seen, match / np.maximum(square, 1e-300), 0.0),
        variance=np.where(seen, 1.0 / np.maximum(square, 1e-300), np.inf),
        smooth=found[:n] @ each,
        quadrature=found[n:] @ each,
        quadrature_error=np.sqrt(np.maximum(np.einsum("ir,ij,jr->r", each, inverse[n:, n:], each), 0.0)),
        envelope=each,
    )


def measure_thickness(amplitudes: RingAmplitudes, *, wavelength_ang: float) -> SampleThickness:
    """Find the thickness whose nodes the rings show, or say why they show none.

    The amplitude is a smooth envelope, nowhere negative, times ``sinc(lambda g² t)``; every thickness whose first node
    lies in the range of frequencies is tried.

    Parameters
    ----------
    amplitudes
        Of the rings.
    wavelength_ang
        Of the electrons.
    """
    g2 = amplitudes.frequency_per_ang**2
    reach = g2[np.isfinite(amplitudes.variance)].max() * wavelength_ang
    count = int(np.ceil(_STEPS_PER_NODE * _LARGEST_THICKNESS_ANG * reach))
    tried = np.linspace(1.0 / reach, _LARGEST_THICKNESS_ANG, max(count, 2 * _STEPS_PER_NODE))
    misfit = np.array([_misfit(amplitudes, wavelength_ang * t * g2)[0] for t in tried.tolist()])
    best = int(np.argmin(misfit))
    near = np.linspace(tried[max(best - 1, 0)], tried[min(best + 1, tried.size - 1)], _FINE)
    finer = np.array([_misfit(amplitudes, wavelength_ang * t * g2)[0] for t in near.tolist()])
    thickness, least = float(near[np.argmin(finer)]), float(finer.min())
    freedom = max(int(np.isfinite(amplitudes.variance).sum()) - len(amplitudes.envelope), 1)
    scale = max(least / freedom, 1.0)
    fitted = _misfit(amplitudes, wavelength_ang * thickness * g2)[1]
    reversal = _reversal(amplitudes, fitted, wavelength_ang * thickness * g2) / scale**0.5
    note = _why_not(amplitudes, fitted, wavelength_ang * thickness * g2, reversal)
    away = np.abs(tried / thickness - 1.0) > _NODE_WIDTH
    if note is None and away.any() and (misfit[away].min() - least) / scale < _RIVAL_GAIN:
        note = f"{tried[away][np.argmin(misfit[away])]:.0f} Å explains the rings nearly as well as {thickness:.0f} Å"
    if note is not None:
        return SampleThickness(None, None, None, reversal, note, _misfit(amplitudes, 0.0 * g2)[1])
    error = _error(amplitudes, thickness, wavelength_ang=wavelength_ang, scale=scale)
    return SampleThickness(thickness, error, float(np.sqrt(wavelength_ang * thickness)), reversal, None, fitted)


def _reversal(amplitudes: RingAmplitudes, fitted: NDArray[np.float64], ratio: NDArray[np.float64]) -> float:
    """Return how much the rings between the first two nodes look like the fit, in standard deviations of noise.

    The rings themselves are asked, not the envelope, which may be too stiff for them and be helped by a node that is not there.
    """
    between = (ratio > 1.0) & (ratio < 2.0) & np.isfinite(amplitudes.variance)
    matched = fitted[between] / amplitudes.variance[between]
    norm = float(np.sqrt(np.sum(fitted[between] * matched)))
    return float(np.sum(matched * amplitudes.in_phase[between])) / norm if norm > 0 else 0.0


def _misfit(amplitudes: RingAmplitudes, node: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the weighted sum of squares about the best envelope times ``sinc(node)``, and that model: ``(n_rings,)``."""
    root = np.where(np.isfinite(amplitudes.variance), amplitudes.variance, np.inf) ** -0.5
    design = amplitudes.envelope * np.sinc(node)  # (n_envelope, n_rings)
    coefficients, rest = nnls((design * root).T, amplitudes.in_phase * root)
    fitted: NDArray[np.float64] = coefficients @ design
    return float(rest) ** 2, fitted


def _why_not(amplitudes: RingAmplitudes, fitted: NDArray[np.float64], ratio: NDArray[np.float64], reversal: float) -> str | None:
    """Return why the nodes prove nothing, or None."""
    if reversal < _LEAST_REVERSAL:
        finest = 1.0 / float(amplitudes.frequency_per_ang[np.isfinite(amplitudes.variance)].max())
        return f"no reversed rings beyond noise down to {finest:.1f} Å ({max(reversal, 0.0):.1f} standard deviations)"
    about = np.abs(ratio - 1.0) < _NODE_WIDTH
    aside = (np.abs(ratio - 1.0) < 3.0 * _NODE_WIDTH) & ~about
    beside = float(np.mean(np.abs(fitted[aside]))) if aside.any() else 0.0
    turned, error = (float(np.mean(each[about])) for each in (np.abs(amplitudes.quadrature), amplitudes.quadrature_error))
    if turned > _LARGEST_TURN * beside and turned > 3.0 * error:
        return "the rings are turned rather than reversed where the node would be: pixel size, Cs or defocus is wrong"
    return None


def _error(amplitudes: RingAmplitudes, thickness: float, *, wavelength_ang: float, scale: float) -> float:
    """Return half the width of the range of thickness that explains the rings up to one standard deviation as well."""
    g2 = amplitudes.frequency_per_ang**2
    span = thickness * np.linspace(-_NODE_WIDTH, _NODE_WIDTH, 2 * _FINE + 1)
    misfit = np.array([_misfit(amplitudes, wavelength_ang * (thickness + d) * g2)[0] for d in span.tolist()])
    rise = (misfit - misfit.min()) / scale
    inside = span[rise <= 1.0]
    step = float(span[1] - span[0])
    return max(0.5 * float(inside[-1] - inside[0]), 0.5 * step)
