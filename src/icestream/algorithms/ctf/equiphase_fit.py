"""A second, independent estimate of the CTF of a micrograph: the one whose equi-phase curve oscillates as it should.

It differs from `icestream.algorithms.ctf.fit` in its data (spectra of orthogonal tapers over the whole image instead of
overlapping tiles, their logarithm instead of the power) and in its objective (the curve along lines of equal phase, each ring
against its own surroundings, instead of least squares of the whole spectrum with smooth background and envelope). Common to both
is the search that proposes candidates, each on its own spectrum.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.equiphase_climb import EquiphaseObjective, Optimum, climb, optimum_at
from icestream.algorithms.ctf.errors import errors_of_fit
from icestream.algorithms.ctf.fit import CtfEstimate, check_ranges, cross_profiles, describe_ctf, mode_confidence
from icestream.algorithms.ctf.form_factor import confidence_against_form_factor
from icestream.algorithms.ctf.quality import CtfProfile, average_equiphase, remove_smooth
from icestream.algorithms.ctf.refine import CtfRefinement, refine_ctf
from icestream.algorithms.ctf.samples import (
    Optics,
    SpectrumSamples,
    bin_polar_sets,
    coarsen_cells,
    sample_spectra,
    sample_variance,
)
from icestream.algorithms.ctf.scan import bound_covariance, scan_likelihood
from icestream.algorithms.ctf.search import CtfRange, CtfSearch, prepare_search, search_ctf
from icestream.algorithms.spectra.multitaper import MULTITAPER_NOISE_INFLATION

_N_CANDIDATES = 5
_SEARCH_SECTORS = 24
_REFINE_SECTORS = 72
_SEARCH_RESOLUTION_ANG = 5.0
_N_CLIMBS = 3
_LEAST_SHARE = 1.0 / 3.0
_ROUGH_MOVE, _SMALLEST_MOVE = 0.3, 0.02


@dataclass(frozen=True)
class _View:
    """One spectrum in polar cells, fine and coarse, with the noise variance of a sample that smooth sums of either see."""

    cells: SpectrumSamples
    coarse: SpectrumSamples
    variance: float
    coarse_variance: float

    @classmethod
    def of(cls, samples: SpectrumSamples, cells: SpectrumSamples, *, n_coarse: int) -> "_View":
        """Coarsen the cells, to the first ``n_coarse`` rings, and measure the noise."""
        return cls(
            cells=cells,
            coarse=coarsen_cells(cells, factor=_REFINE_SECTORS // _SEARCH_SECTORS, n_rings=n_coarse),
            variance=sample_variance(samples) * MULTITAPER_NOISE_INFLATION,
            coarse_variance=sample_variance(samples, n_rings=n_coarse) * MULTITAPER_NOISE_INFLATION,
        )


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

    The best candidates of an exhaustive search (to 5 Å) climb to their optimum by Newton steps on the agreement; how it falls
    from there and the noise of the spectrum give the errors. Between steps the amplitude of the rings is measured again.

    Parameters
    ----------
    spectra
        ``(2, tile, tile // 2 + 1)``: from `icestream.algorithms.spectra.multitaper.multitaper_spectra`.
    pixel_size_ang, voltage_kv, cs_mm, amplitude_contrast, defocus_um, astigmatism_ang, resolution_ang, phase_shift_deg
        As for `icestream.algorithms.ctf.fit.fit_ctf`.

    Raises
    ------
    ValueError
        If a range is empty, or the spectra are not two, too small or not positive.
    """
    check_ranges(spectra, defocus_um=defocus_um, resolution_ang=resolution_ang)
    optics = Optics.of(voltage_kv=voltage_kv, cs_mm=cs_mm, amplitude_contrast=amplitude_contrast)
    limits = CtfRange((defocus_um[0] * 1e4, defocus_um[1] * 1e4), astigmatism_ang, phase_shift_deg or (0.0, 0.0))
    low, high = resolution_ang
    coarse_ang = high if high * 2.0 > low else max(high, _SEARCH_RESOLUTION_ANG)
    sets = [_log(each) for each in sample_spectra(spectra, pixel_size_ang=pixel_size_ang, resolution_ang=resolution_ang)]
    n_coarse = int(np.searchsorted(sets[0].ring_per_ang, 1.0 / coarse_ang, side="right"))
    views = [
        _View.of(each, cells, n_coarse=n_coarse)
        for each, cells in zip(sets, bin_polar_sets(sets, n_sectors=_REFINE_SECTORS), strict=True)
    ]
    search = prepare_search(views[0].coarse, n_sectors=_SEARCH_SECTORS, optics=optics, limits=limits)
    whole = _climb_all(search, views[0], optics=optics, n_fine=_N_CLIMBS)
    halves = [_climb_all(search, each, optics=optics, n_fine=1)[0] for each in views[1:]]
    return _describe(views, (whole[0], *halves), optics=optics, limits=limits, trust=whole[1:])


def _log(samples: SpectrumSamples) -> SpectrumSamples:
    """Take the logarithm of flattened power: single bright frequencies count little, and the noise is the same everywhere."""
    return replace(samples, value=np.log(np.maximum(1.0 + samples.value, 1e-6)))


def _climb_all(search: CtfSearch, view: _View, *, optics: Optics, n_fine: int) -> tuple[Optimum, float, float]:
    """Return the best optimum, the significance of the best candidate, and the confidence in the optimum.

    All candidates climb on coarse cells, the ``n_fine`` highest on fine ones.
    """
    found = search_ctf(search, view.coarse, n_sectors=_SEARCH_SECTORS, noise=view.coarse_variance**0.5, n_best=_N_CANDIDATES)
    rough = EquiphaseObjective(view.coarse, optics, search.limits)
    fine = EquiphaseObjective(view.cells, optics, search.limits)
    starts = sorted((climb(rough, each.parameters, smallest=_ROUGH_MOVE) for each in found), key=lambda each: -each[1])
    ends = sorted((climb(fine, each[0], smallest=_SMALLEST_MOVE) for each in starts[:n_fine]), key=lambda each: -each[1])
    confidence = mode_confidence(
        [each[0] for each in ends],
        [each[1] / view.variance for each in ends],
        separation_ang=float(2.0 * fine.steps[0]),
        null=0.0,
    )
    end = _last_steps(fine, ends[0][0])
    if search.limits.is_at_end(end):
        confidence = 0.0
    return optimum_at(fine, end), found[0].significance, confidence


def _last_steps(fine: EquiphaseObjective, end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the optimum freed of what the running mean over one ring does to it.

    Without a phase shift, one more climb of the defocus alone is enough. A phase shift that is free can make up for nearly any
    change of the defocus, and then the little that the running mean bends the rings is too much: defocus and phase shift are
    those of least squares with a smooth background.
    """
    low, high = fine.limits.phase_shift_deg
    if low == high:
        return climb(replace(fine, whole_curve=True), end, smallest=_SMALLEST_MOVE)[0]
    smooth = refine_ctf(fine.cells, end, optics=fine.optics, limits=fine.limits).parameters
    return fine.limits.confine(np.array([smooth[0], end[1], end[2], smooth[3]]))


def _describe(
    views: list[_View], optima: tuple[Optimum, ...], *, optics: Optics, limits: CtfRange, trust: tuple[float, float]
) -> CtfEstimate:
    sets, (cells, variance), best = [each.cells for each in views], (views[0].cells, views[0].variance), optima[0].parameters
    none = np.zeros(cells.ring_per_ang.size)
    fits = tuple(CtfRefinement(each.parameters, each.curvature, 0.0, none, each.amplitude) for each in optima)
    crossed = cross_profiles(sets, fits, optics=optics)
    share = _share_of_rings(crossed)
    objective = EquiphaseObjective(coarsen_cells(cells, factor=2, n_rings=none.size), optics, limits)
    smooth = refine_ctf(cells, best, optics=optics, limits=limits)
    covariance = _covariance(optima[0].curvature, variance) / share**2
    covariance = bound_covariance(covariance, smooth.covariance * MULTITAPER_NOISE_INFLATION)
    scan = scan_likelihood(lambda at: share**2 * objective.value_with_own_amplitude(at) / variance, best, covariance)
    confidence = confidence_against_form_factor(trust[1], residual=smooth.residual, cells=cells, variance=variance)
    whole = remove_smooth(average_equiphase(cells, fits[0], optics=optics), cells.background)
    return describe_ctf(best, errors_of_fit(best, scan.covariance), crossed, whole=whole, trust=(trust[0], confidence))


def _share_of_rings(crossed: list[CtfProfile]) -> float:
    """Return how much of the curvature of the optimum is that of rings; the rest is that of noise, taken for rings.

    It is the regression of one half of the data on the fit to the other, of either half, weighted as frequencies count for the
    defocus. All of the data holds less noise than a half, but what draws it aside is the same. It is never less than a third:
    where high frequencies without rings decide, it only says that rings are faint.
    """
    weights = [each.count * each.frequency_per_ang**4 for each in crossed]
    both = sum(float(np.sum(w * each.fitted * each.measured)) for w, each in zip(weights, crossed, strict=True))
    fitted = sum(float(np.sum(w * each.fitted**2)) for w, each in zip(weights, crossed, strict=True))
    return min(max(both / max(fitted, 1e-30), _LEAST_SHARE), 1.0)


def _covariance(curvature: NDArray[np.float64], variance: float) -> NDArray[np.float64]:
    """Invert minus the second derivatives of the fitted parameters; directions that nothing holds get a huge variance."""
    free = np.flatnonzero(np.any(curvature != 0.0, axis=1))
    scale = np.sqrt(np.abs(np.diag(curvature)[free])) + 1e-30
    size, directions = np.linalg.eigh(-curvature[np.ix_(free, free)] / np.outer(scale, scale))
    inverse = (directions / np.maximum(size, 1e-3)) @ directions.T / np.outer(scale, scale)
    covariance = np.zeros((4, 4))
    covariance[np.ix_(free, free)] = inverse * variance
    return covariance
