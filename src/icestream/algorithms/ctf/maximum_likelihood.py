"""The last refinement of a CTF: the most likely one, as the noise of a spectrum grows with its power, and its errors."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.errors import CtfErrors, errors_of_fit
from icestream.algorithms.ctf.refine import refine_ctf, residual_of_ctf, weights_of_model
from icestream.algorithms.ctf.samples import Optics, SpectrumSamples
from icestream.algorithms.ctf.scan import scan_likelihood
from icestream.algorithms.ctf.search import CtfRange

_WORTH_A_CLIMB = 0.5


def refine_with_errors(
    cells: SpectrumSamples, start: NDArray[np.float64], *, inflation: float, optics: Optics, limits: CtfRange
) -> tuple[NDArray[np.float64], CtfErrors]:
    """Refine with the weights that the first result gives; return parameters ``(4,)`` and their errors.

    Where the scan for the errors meets a more likely CTF, the refinement goes on from there.

    Parameters
    ----------
    cells
        Polar cells.
    start
        ``(4,)``: mean defocus, a, b (Å), phase shift (degrees).
    inflation
        By how much the variance of smooth sums of samples exceeds that of independent ones.
    optics
        Rates of the CTF phase.
    limits
        The result stays inside these ranges.
    """
    rough = refine_ctf(cells, start, optics=optics, limits=limits)
    weighted = replace(cells, weight=weights_of_model(cells, rough, optics=optics))
    fit = refine_ctf(weighted, rough.parameters, optics=optics, limits=limits)
    variance = inflation * fit.residual / max(int(np.count_nonzero(weighted.weight)), 1) + 1e-30

    def log_likelihood(parameters: NDArray[np.float64]) -> float:
        return -0.5 * residual_of_ctf(weighted, limits.confine(parameters), optics=optics) / variance

    scan = scan_likelihood(log_likelihood, fit.parameters, fit.covariance * inflation)
    if scan.gain > _WORTH_A_CLIMB:
        fit = refine_ctf(weighted, scan.highest, optics=optics, limits=limits)
        scan = scan_likelihood(log_likelihood, fit.parameters, fit.covariance * inflation)
    return fit.parameters, errors_of_fit(fit.parameters, scan.covariance)
