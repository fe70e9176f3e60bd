"""Defocus, astigmatism and phase shift of one micrograph, fitted to its power spectrum.

The fit is made three times: to the spectrum of all tiles, and to either half of them. How well the CTF of one half predicts the
spectrum of the other gives the score and the resolution limit. A CTF fitted to noise predicts nothing, so it cannot score well,
however many parameters were tried. The result is then refined against a spectrum that has lost nothing of the image.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.errors import CtfErrors
from icestream.algorithms.ctf.form_factor import confidence_against_form_factor
from icestream.algorithms.ctf.maximum_likelihood import refine_with_errors
from icestream.algorithms.ctf.quality import (
    CtfProfile,
    average_equiphase,
    correlate_in_windows,
    correlate_profiles,
    limit_of_agreement,
    remove_smooth,
)
from icestream.algorithms.ctf.refine import CtfRefinement, refine_ctf
from icestream.algorithms.ctf.samples import (
    Optics,
    SpectrumSamples,
    bin_polar,
    bin_polar_sets,
    coarsen_cells,
    sample_spectra,
    sample_variance,
)
from icestream.algorithms.ctf.search import CtfRange, CtfSearch, prepare_search, search_ctf
from icestream.algorithms.spectra.periodogram import PERIODOGRAM_NOISE_INFLATION
from icestream.algorithms.spectra.spectrum import HANN_NOISE_INFLATION

_N_CANDIDATES = 4
_SEARCH_SECTORS = 24
_REFINE_SECTORS = 48
_FINAL_SECTORS = 96
_N_TRIED = 600_000


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
        Normalised cross-correlation of equi-phase profile and fit over the fitted range, in [-1, 1]; cross-validated: the profile
        of one half of the tiles with the fit to the other, of either only what no smooth background explains.
    resolution_ang
        `icestream.algorithms.ctf.quality.limit_of_agreement` of ``correlation``.
    defocus_error_ang
        Standard error of the mean defocus, from how the likelihood falls and the noise of the spectrum.
    astigmatism_error_ang, angle_error_deg, phase_shift_error_deg
        Standard errors of the difference of the defocus values, of its angle (52° if it could be any), and of the phase shift
        (unset where it was not fitted).
    confidence
        Probability that the right one of all local optima was taken, and that there are rings at all: from how much worse the
        others, and none, explain the spectrum. 0 where defocus or astigmatism ended at a limit of its search range.
    significance
        Height of the best match in the search, in standard deviations of pure noise.
    frequency_per_ang, profile, profile_fit
        ``(n_rings,)``: frequencies, equi-phase average with its background removed, and its fit.
    correlation
        ``(n_rings,)``: cross-validated correlation of profile and fit in a window of about two rings.
    """

    defocus_u_ang: float
    defocus_v_ang: float
    astigmatism_angle_deg: float
    phase_shift_deg: float
    score: float
    resolution_ang: float
    defocus_error_ang: float
    astigmatism_error_ang: float
    angle_error_deg: float
    phase_shift_error_deg: float | None
    confidence: float
    significance: float
    frequency_per_ang: NDArray[np.float64]
    profile: NDArray[np.float64]
    profile_fit: NDArray[np.float64]
    correlation: NDArray[np.float64]


def fit_ctf(
    spectra: NDArray[Any],
    *,
    pixel_size_ang: float,
    voltage_kv: float,
    cs_mm: float,
    amplitude_contrast: float,
    defocus_um: tuple[float, float] = (0.3, 5.0),
    astigmatism_ang: float = 3000.0,
    resolution_ang: tuple[float, float] = (30.0, 4.0),
    phase_shift_deg: tuple[float, float] | None = None,
    fine_spectrum: NDArray[Any] | None = None,
) -> CtfEstimate:
    """Fit the CTF of a micrograph to its power spectrum.

    Every defocus and astigmatism of the range is tried; the best few are refined by least squares, and the one with the smallest
    residual wins.

    Parameters
    ----------
    spectra
        ``(2, tile, tile // 2 + 1)``: of two sets of tiles, from `icestream.algorithms.spectra.spectrum.power_spectra`.
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
    fine_spectrum
        ``(fine, fine // 2 + 1)``: of the same image, from `icestream.algorithms.spectra.periodogram.periodogram`; the result is
        refined against it. Without, against the mean of ``spectra``, which has lost some of the image.

    Raises
    ------
    ValueError
        If a range is empty, or the spectra are not two, too small or not positive.
    """
    check_ranges(spectra, defocus_um=defocus_um, resolution_ang=resolution_ang)
    optics = Optics.of(voltage_kv=voltage_kv, cs_mm=cs_mm, amplitude_contrast=amplitude_contrast)
    limits = CtfRange((defocus_um[0] * 1e4, defocus_um[1] * 1e4), astigmatism_ang, phase_shift_deg or (0.0, 0.0))
    sets = sample_spectra(spectra, pixel_size_ang=pixel_size_ang, resolution_ang=resolution_ang)
    cells = bin_polar_sets(sets, n_sectors=_REFINE_SECTORS)
    search = prepare_search(_search_cells(cells[0]), n_sectors=_SEARCH_SECTORS, optics=optics, limits=limits)
    noises = [float(np.sqrt(sample_variance(each) * HANN_NOISE_INFLATION)) for each in sets]
    fits, significances, confidences = zip(
        *(_fit_cells(each, noise, search, optics) for each, noise in zip(cells, noises, strict=True)), strict=True
    )
    final, inflation = cells[0], HANN_NOISE_INFLATION
    if fine_spectrum is not None:
        fine = sample_spectra(fine_spectrum[None], pixel_size_ang=pixel_size_ang, resolution_ang=resolution_ang)
        final, inflation = bin_polar(fine[0], n_sectors=_FINAL_SECTORS), PERIODOGRAM_NOISE_INFLATION
    residual = fits[0].residual
    best, errors = refine_with_errors(final, fits[0].parameters, inflation=inflation, optics=optics, limits=limits)
    fits = (replace(fits[0], parameters=best), *fits[1:])
    whole = average_equiphase(cells[0], fits[0], optics=optics)
    crossed = cross_profiles(cells, fits, optics=optics)
    confidence = 0.0 if limits.is_at_end(best) else confidences[0]
    confidence = confidence_against_form_factor(confidence, residual=residual, cells=cells[0], variance=noises[0] ** 2)
    return describe_ctf(best, errors, crossed, whole=whole, trust=(significances[0], confidence))


def _search_cells(cells: SpectrumSamples) -> SpectrumSamples:
    return coarsen_cells(cells, factor=_REFINE_SECTORS // _SEARCH_SECTORS, n_rings=cells.ring_per_ang.size)


def check_ranges(spectra: NDArray[Any], *, defocus_um: tuple[float, float], resolution_ang: tuple[float, float]) -> None:
    """Check what a CTF is to be fitted to.

    Raises
    ------
    ValueError
        If a range is empty, or the spectra are not two.
    """
    if spectra.ndim != 3 or spectra.shape[0] != 2:
        raise ValueError(f"spectra have the shape {spectra.shape}; two independent ones are needed: (2, tile, tile // 2 + 1)")
    for name, (low, high) in {"defocus_um": defocus_um, "resolution_ang": resolution_ang[::-1]}.items():
        if not 0 < low < high:
            raise ValueError(f"{name} goes from {low} to {high}; the range must be positive and not empty")


def mode_confidence(
    parameters: list[NDArray[np.float64]], log_likelihoods: list[float], *, separation_ang: float, null: float
) -> float:
    """Return the probability of the first of several optima, by their likelihoods.

    Optima closer than ``separation_ang`` in defocus and 10° in phase shift to the first are the same one. Pure noise competes
    too, with the log-likelihood ``null`` and one chance for each of the about 600000 CTFs that were tried.
    """
    best = parameters[0]
    others = [
        value
        for each, value in zip(parameters[1:], log_likelihoods[1:], strict=True)
        if np.hypot(each[0] - best[0], np.hypot(*(each[1:3] - best[1:3]))) > separation_ang or abs(each[3] - best[3]) > 10.0
    ]
    rivals = np.array([*others, null + np.log(_N_TRIED)]) - log_likelihoods[0]
    return float(1.0 / (1.0 + np.sum(np.exp(np.minimum(rivals, 50.0)))))


def _fit_cells(cells: SpectrumSamples, noise: float, search: CtfSearch, optics: Optics) -> tuple[CtfRefinement, float, float]:
    """Fit the CTF to averages over polar cells; return it with the significance of the best match, and the confidence."""
    candidates = search_ctf(search, _search_cells(cells), n_sectors=_SEARCH_SECTORS, noise=noise, n_best=_N_CANDIDATES)
    refined = (refine_ctf(cells, each.parameters, optics=optics, limits=search.limits) for each in candidates)
    fits = sorted(refined, key=lambda fit: fit.residual)
    confidence = mode_confidence(
        [fit.parameters for fit in fits],
        [(fits[0].residual - fit.residual) / (2.0 * noise**2) for fit in fits],
        separation_ang=4.0 * float(search.grid[1] - search.grid[0]),
        null=-0.5 * max(candidates[0].significance, 0.0) ** 2,
    )
    return fits[0], candidates[0].significance, confidence


def cross_profiles(sets: list[SpectrumSamples], fits: tuple[CtfRefinement, ...], *, optics: Optics) -> list[CtfProfile]:
    """Return the profile of one half of the data with the CTF of the other, and the reverse, without what is smooth."""
    return [remove_smooth(average_equiphase(sets[i], fits[j], optics=optics), sets[0].background) for i, j in ((1, 2), (2, 1))]


def describe_ctf(
    parameters: NDArray[np.float64],
    errors: CtfErrors,
    crossed: list[CtfProfile],
    *,
    whole: CtfProfile,
    trust: tuple[float, float],
) -> CtfEstimate:
    """Judge a CTF: how well that of one half of the data predicts the other, and up to where.

    Parameters
    ----------
    parameters
        ``(4,)``: mean defocus, a, b in Å, phase shift in degrees.
    errors
        Of these.
    crossed
        From `cross_profiles`.
    whole
        The profile of all data, to look at.
    trust
        Significance and confidence of the fit.
    """
    mean, a, b, phase_shift_deg = (float(value) for value in parameters)
    half = float(np.hypot(a, b))
    angle = float(np.rad2deg(0.5 * np.arctan2(b, a)))
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
