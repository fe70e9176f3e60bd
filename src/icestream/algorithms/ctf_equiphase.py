"""A second, independent estimate of the CTF of a micrograph: the one whose equi-phase curve oscillates as it should.

It differs from `icestream.algorithms.ctf_fit` in its data (spectra of orthogonal tapers over the whole image instead of
overlapping tiles, their logarithm instead of the power) and in its objective (the curve along lines of equal phase, each ring
against its own surroundings, instead of least squares of the whole spectrum with smooth background and envelope). Common to both
is the search that proposes candidates, each on its own spectrum.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf_errors import errors_of_fit
from icestream.algorithms.ctf_fit import CtfEstimate, check_ranges, mode_confidence
from icestream.algorithms.ctf_quality import (
    average_equiphase,
    correlate_in_windows,
    correlate_profiles,
    limit_of_agreement,
    remove_smooth,
)
from icestream.algorithms.ctf_refine import CtfRefinement
from icestream.algorithms.ctf_samples import Optics, SpectrumSamples, bin_polar, sample_spectra
from icestream.algorithms.ctf_search import CtfRange, CtfSearch, prepare_search, search_ctf
from icestream.algorithms.equiphase import agreement, equiphase_curve, ring_amplitude
from icestream.algorithms.multitaper import MULTITAPER_NOISE_INFLATION

_N_CANDIDATES = 5
_SEARCH_SECTORS = 24
_REFINE_SECTORS = 64
_SEARCH_RESOLUTION_ANG = 5.0
_MAX_STEPS = 12
_STEP_RAD = 0.3
_WITH_PHASE_INFLATION = 2.0
"""With a free phase shift the wide first rings decide, and the surroundings that they are measured against are not quite smooth:
on simulated micrographs the errors of defocus and phase were twice those of noise alone."""


@dataclass(frozen=True)
class _Optimum:
    """A local optimum: its parameters ``(4,)``, agreement, matrix of second derivatives, and ring amplitude by ring."""

    parameters: NDArray[np.float64]
    agreement: float
    curvature: NDArray[np.float64]
    amplitude: NDArray[np.float64]


@dataclass(frozen=True)
class _Objective:
    """Agreement of the equi-phase curve of cells with rings of known amplitude."""

    cells: SpectrumSamples
    optics: Optics
    limits: CtfRange

    def constant_rad(self, parameters: NDArray[np.float64]) -> float:
        """Return the phase of contrast and phase plate."""
        return float(self.optics.contrast_rad + np.deg2rad(parameters[3]))

    def amplitude(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the amplitude of the rings that the cells show if the CTF is this one: ``(n_rings,)``."""
        curve = equiphase_curve(self.cells, parameters, optics=self.optics)
        found = ring_amplitude(curve, self.constant_rad(parameters))
        return np.interp(self.cells.ring_per_ang, curve.frequency_per_ang, found)

    def value(self, parameters: NDArray[np.float64], amplitude: NDArray[np.float64]) -> float:
        """Return the agreement for one CTF."""
        curve = equiphase_curve(self.cells, parameters, optics=self.optics)
        along = np.interp(curve.frequency_per_ang, self.cells.ring_per_ang, amplitude)
        return agreement(curve, self.constant_rad(parameters), along)

    @property
    def steps(self) -> NDArray[np.float64]:
        """Changes of the parameters that turn the phase by about the same: ``(4,)``; 0 for a phase shift that is fixed."""
        defocus_ang = _STEP_RAD / (2.0 * self.optics.defocus_rate * (0.6 * self.cells.ring_per_ang[-1]) ** 2)
        low, high = self.limits.phase_shift_deg
        return np.array([defocus_ang, 1.4 * defocus_ang, 1.4 * defocus_ang, np.rad2deg(0.5 * _STEP_RAD) if high > low else 0.0])


def fit_ctf_equiphase(
    spectra: NDArray[Any],
    *,
    pixel_size_ang: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    defocus_um: tuple[float, float] = (0.3, 5.0),
    astigmatism_ang: float = 3000.0,
    resolution_ang: tuple[float, float] = (30.0, 3.0),
    phase_shift_deg: tuple[float, float] | None = None,
) -> CtfEstimate:
    """Fit the CTF of a micrograph by making its equi-phase curve oscillate as strongly as possible in step with the CTF.

    The best candidates of an exhaustive search (to 5 Å) climb to their optimum by Newton steps on the agreement, whose curvature
    and the noise of the spectrum give the errors. Between steps the amplitude of the rings is measured again.

    Parameters
    ----------
    spectra
        ``(2, tile, tile // 2 + 1)``: from `icestream.algorithms.multitaper.multitaper_spectra`.
    pixel_size_ang
        Of the image that was transformed.
    voltage_kv, cs_mm, amplitude_contrast
        Of the microscope.
    defocus_um
        Search range of the mean defocus.
    astigmatism_ang
        Largest difference of the two defocus values.
    resolution_ang
        Low and high end of the fitted range; no finer than 95 % of Nyquist is used.
    phase_shift_deg
        Search range of an additional phase shift (phase plate); none is assumed where unset.

    Raises
    ------
    ValueError
        If a range is empty, or the spectra are not two, too small or not positive.
    """
    check_ranges(spectra, defocus_um=defocus_um, resolution_ang=resolution_ang)
    optics = Optics.of(voltage_kv=voltage_kv, cs_mm=cs_mm, amplitude_contrast=amplitude_contrast)
    limits = CtfRange((defocus_um[0] * 1e4, defocus_um[1] * 1e4), astigmatism_ang, phase_shift_deg or (0.0, 0.0))
    low, high = resolution_ang
    coarse_ang = (low, high if high * 2.0 > low else max(high, _SEARCH_RESOLUTION_ANG))
    coarse = [_log(each) for each in sample_spectra(spectra, pixel_size_ang=pixel_size_ang, resolution_ang=coarse_ang)]
    sets = [_log(each) for each in sample_spectra(spectra, pixel_size_ang=pixel_size_ang, resolution_ang=resolution_ang)]
    cells = [bin_polar(each, n_sectors=_SEARCH_SECTORS) for each in coarse]
    search = prepare_search(cells[0], n_sectors=_SEARCH_SECTORS, optics=optics, limits=limits)
    whole = _climb_all(search, coarse[0], cells[0], sets[0], optics=optics)
    halves = [_climb_all(search, *each, optics=optics)[0] for each in zip(coarse[1:], cells[1:], sets[1:], strict=True)]
    return _describe(sets, (whole[0], *halves), optics=optics, trust=whole[1:])


def _log(samples: SpectrumSamples) -> SpectrumSamples:
    """Take the logarithm of flattened power: single bright frequencies count little, and the noise is the same everywhere."""
    return replace(samples, value=np.log(np.maximum(1.0 + samples.value, 1e-6)))


def _noise_variance(samples: SpectrumSamples) -> float:
    """Return the variance of a sample about its ring average, times the factor by which neighbours are alike."""
    average = np.bincount(samples.ring, samples.value) / np.bincount(samples.ring)
    variance = float(np.mean((samples.value - average[samples.ring]) ** 2))
    if variance == 0.0:
        raise ValueError("the power spectrum is the same everywhere on each ring: it is not that of an image")
    return variance * MULTITAPER_NOISE_INFLATION


def _climb_all(
    search: CtfSearch, coarse: SpectrumSamples, cells: SpectrumSamples, samples: SpectrumSamples, *, optics: Optics
) -> tuple[_Optimum, float, float]:
    """Return the best optimum, the significance of the best candidate, and the confidence in the optimum."""
    variance = _noise_variance(samples)
    noise = float(np.sqrt(_noise_variance(coarse)))
    found = search_ctf(search, cells, n_sectors=_SEARCH_SECTORS, noise=noise, n_best=_N_CANDIDATES)
    rough = _Objective(cells, optics, search.limits)
    fine = _Objective(bin_polar(samples, n_sectors=_REFINE_SECTORS), optics, search.limits)
    starts = sorted((_climb(rough, each.parameters) for each in found), key=lambda each: -each.agreement)
    optima = sorted((_climb(fine, each.parameters) for each in starts[:3]), key=lambda each: -each.agreement)
    confidence = mode_confidence(
        [each.parameters for each in optima],
        [each.agreement / variance for each in optima],
        separation_ang=float(2.0 * fine.steps[0]),
        null=0.0,
    )
    return optima[0], found[0].significance, confidence


def _climb(objective: _Objective, start: NDArray[np.float64]) -> _Optimum:
    """Follow the agreement to its next maximum; between steps the amplitude of the rings is measured again."""
    steps = objective.steps
    free = steps > 0
    now = objective.limits.confine(start)
    for _ in range(_MAX_STEPS):
        amplitude = objective.amplitude(now)
        value, gradient, curvature = _derivatives(objective, now, amplitude)
        change = np.zeros(4)
        change[free] = _newton_step(gradient[free], curvature[np.ix_(free, free)]) * steps[free]
        trials = [objective.limits.confine(now + share * change) for share in (1.0, 0.3, 0.1)]
        better = next((each for each in trials if objective.value(each, amplitude) > value), None)
        if better is None:
            break
        moved = np.max(np.abs((better - now)[free] / steps[free]))
        now = better
        if moved < 0.02:
            break
    amplitude = objective.amplitude(now)
    value, _, curvature = _derivatives(objective, now, amplitude)
    scale = np.where(free, 1.0 / np.where(free, steps, 1.0), 0.0)
    return _Optimum(now, value, curvature * np.outer(scale, scale), amplitude)


def _derivatives(
    objective: _Objective, at: NDArray[np.float64], amplitude: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return value, gradient and second derivatives of the agreement, in units of the steps: central differences."""
    steps = objective.steps
    free = np.flatnonzero(steps)
    middle = objective.value(at, amplitude)
    gradient, curvature = np.zeros(4), np.zeros((4, 4))
    shift = np.diag(steps)
    plus, minus = (np.array([objective.value(at + sign * shift[i], amplitude) for i in range(4)]) for sign in (1, -1))
    gradient[free] = 0.5 * (plus - minus)[free]
    curvature[free, free] = (plus + minus - 2.0 * middle)[free]
    for position, i in enumerate(free.tolist()):
        for j in free[position + 1 :].tolist():
            both = sum(objective.value(at + sign * (shift[i] + shift[j]), amplitude) for sign in (1, -1))
            mixed = 0.5 * (both + 2.0 * middle - plus[i] - minus[i] - plus[j] - minus[j])
            curvature[i, j] = curvature[j, i] = mixed
    return middle, gradient, curvature


def _newton_step(gradient: NDArray[np.float64], curvature: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the step uphill, at most four of the units along any eigenvector."""
    size, directions = np.linalg.eigh(curvature)
    along = directions.T @ gradient
    step: NDArray[np.float64] = directions @ np.clip(along / np.maximum(np.abs(size), 1e-12), -4.0, 4.0)
    return step


def _describe(
    sets: list[SpectrumSamples], optima: tuple[_Optimum, ...], *, optics: Optics, trust: tuple[float, float]
) -> CtfEstimate:
    fits = [CtfRefinement(each.parameters, each.curvature, 0.0, np.zeros_like(each.amplitude), each.amplitude) for each in optima]
    mean, a, b, phase_shift_deg = (float(value) for value in optima[0].parameters)
    half = float(np.hypot(a, b))
    angle = float(np.rad2deg(0.5 * np.arctan2(b, a)))
    covariance = _covariance(optima[0].curvature, _noise_variance(sets[0]))
    if covariance[3, 3] > 0:
        scale = np.array([_WITH_PHASE_INFLATION, 1.0, 1.0, _WITH_PHASE_INFLATION])
        covariance *= np.outer(scale, scale)
    errors = errors_of_fit(optima[0].parameters, covariance)
    whole = remove_smooth(average_equiphase(sets[0], fits[0], optics=optics), sets[0].background)
    crossed = [remove_smooth(average_equiphase(sets[i], fits[j], optics=optics), sets[0].background) for i, j in ((1, 2), (2, 1))]
    correlation = correlate_in_windows(crossed)
    return CtfEstimate(
        defocus_u_ang=mean + half,
        defocus_v_ang=mean - half,
        astigmatism_angle_deg=90.0 if angle <= -90.0 else angle,
        phase_shift_deg=phase_shift_deg,
        score=correlate_profiles(crossed),
        resolution_ang=limit_of_agreement(crossed, correlation),
        defocus_error_ang=errors.defocus_ang,
        astigmatism_error_ang=errors.astigmatism_ang,
        angle_error_deg=errors.angle_deg,
        phase_shift_error_deg=errors.phase_shift_deg,
        confidence=trust[1],
        significance=trust[0],
        frequency_per_ang=whole.frequency_per_ang,
        profile=whole.measured,
        profile_fit=whole.fitted,
        correlation=correlation,
    )


def _covariance(curvature: NDArray[np.float64], variance: float) -> NDArray[np.float64]:
    """Invert minus the second derivatives of the fitted parameters; directions that nothing holds get a huge variance."""
    free = np.flatnonzero(np.any(curvature != 0.0, axis=1))
    scale = np.sqrt(np.abs(np.diag(curvature)[free])) + 1e-30
    size, directions = np.linalg.eigh(-curvature[np.ix_(free, free)] / np.outer(scale, scale))
    inverse = (directions / np.maximum(size, 1e-3)) @ directions.T / np.outer(scale, scale)
    covariance = np.zeros((4, 4))
    covariance[np.ix_(free, free)] = inverse * variance
    return covariance
