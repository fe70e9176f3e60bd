"""Defocus, astigmatism and phase shift of one micrograph, fitted to its power spectrum."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf_quality import CtfProfile, average_equiphase, correlate, limit_of_agreement
from icestream.algorithms.ctf_refine import CtfRefinement, parameters_of, refine_ctf
from icestream.algorithms.ctf_samples import Optics, SpectrumSamples, bin_polar, sample_spectrum
from icestream.algorithms.ctf_search import search_ctf
from icestream.algorithms.spectrum import HANN_NOISE_INFLATION

_N_CANDIDATES = 5
_N_SECTORS = 48


@dataclass(frozen=True)
class CtfEstimate:
    """The fitted CTF and how far it can be trusted.

    Attributes
    ----------
    defocus_u_ang, defocus_v_ang, astigmatism_angle_deg
        Larger and smaller defocus; the angle of the larger, from the x axis towards y, in (-90, 90].
    phase_shift_deg
        Fitted or assumed phase shift.
    score
        Normalised cross-correlation of the equi-phase profile and the fit over the fitted range, in [-1, 1].
    resolution_ang
        `icestream.algorithms.ctf_quality.limit_of_agreement`.
    defocus_error_ang
        Standard error of the mean defocus, from the curvature of the fit and the noise of the spectrum.
    significance
        Height of the best match in the search, in standard deviations of pure noise.
    profile
        The curves behind score and resolution.
    """

    defocus_u_ang: float
    defocus_v_ang: float
    astigmatism_angle_deg: float
    phase_shift_deg: float
    score: float
    resolution_ang: float
    defocus_error_ang: float
    significance: float
    profile: CtfProfile


def fit_ctf(
    spectrum: NDArray[Any],
    *,
    pixel_size_ang: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    defocus_um: tuple[float, float] = (0.3, 5.0),
    resolution_ang: tuple[float, float] = (30.0, 4.0),
    phase_shift_deg: tuple[float, float] | None = None,
) -> CtfEstimate:
    """Fit the CTF of a micrograph to its power spectrum.

    Every defocus and astigmatism of the range is tried; the best few are refined by least squares, and the one with the smallest
    residual wins.

    Parameters
    ----------
    spectrum
        ``(tile, tile // 2 + 1)`` from `icestream.algorithms.spectrum.power_spectrum`.
    pixel_size_ang
        Of the image that was transformed.
    defocus_um
        Search range of the mean defocus.
    resolution_ang
        Low and high end of the fitted range; no finer than 95 % of Nyquist is used.
    phase_shift_deg
        Search range of an additional phase shift (phase plate); none is assumed where unset.

    Raises
    ------
    ValueError
        If a range is empty, or the spectrum is too small or not positive.
    """
    for name, (low, high) in {"defocus_um": defocus_um, "resolution_ang": resolution_ang[::-1]}.items():
        if not 0 < low < high:
            raise ValueError(f"{name} goes from {low} to {high}; the range must be positive and not empty")
    optics = Optics.of(voltage_kv=voltage_kv, cs_mm=cs_mm, amplitude_contrast=amplitude_contrast)
    samples = sample_spectrum(spectrum, pixel_size_ang=pixel_size_ang, resolution_ang=resolution_ang)
    defocus_ang = (defocus_um[0] * 1e4, defocus_um[1] * 1e4)
    phase_deg = phase_shift_deg or (0.0, 0.0)
    candidates = search_ctf(samples, optics=optics, defocus_ang=defocus_ang, phase_shift_deg=phase_deg, n_best=_N_CANDIDATES)
    cells = bin_polar(samples, n_sectors=_N_SECTORS)
    coarse = [
        refine_ctf(cells, parameters_of(each), optics=optics, defocus_ang=defocus_ang, phase_shift_deg=phase_deg)
        for each in candidates
    ]
    winner = min(coarse, key=lambda fit: fit.residual)
    fit = refine_ctf(samples, winner.parameters, optics=optics, defocus_ang=defocus_ang, phase_shift_deg=phase_deg)
    return _describe(samples, fit, optics=optics, significance=candidates[0].significance)


def _describe(samples: SpectrumSamples, fit: CtfRefinement, *, optics: Optics, significance: float) -> CtfEstimate:
    mean, a, b, phase_shift_deg = (float(value) for value in fit.parameters)
    half = float(np.hypot(a, b))
    angle = float(np.rad2deg(0.5 * np.arctan2(b, a)))
    profile = average_equiphase(samples, fit, optics=optics)
    return CtfEstimate(
        defocus_u_ang=mean + half,
        defocus_v_ang=mean - half,
        astigmatism_angle_deg=90.0 if angle <= -90.0 else angle,
        phase_shift_deg=phase_shift_deg,
        score=correlate(profile.measured, profile.fitted),
        resolution_ang=limit_of_agreement(profile),
        defocus_error_ang=float(np.sqrt(fit.covariance[0, 0] * HANN_NOISE_INFLATION)),
        significance=significance / float(np.sqrt(HANN_NOISE_INFLATION)),
        profile=profile,
    )
