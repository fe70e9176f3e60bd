"""Comparing two estimates of the CTF of a micrograph, and taking their mean."""

import math

from icestream.algorithms.ctf.consensus import CtfShape, agreement_resolution_ang
from icestream.algorithms.ctf.consensus import average_ctf as average_shapes
from icestream.flow import Angstrom, Field, Verdict, before, keep, reject, step
from icestream.records import MARABINI_2015, TWO_CTFS, Acquisition, CtfAgreement, CtfFit, Method, Micrograph, Text
from icestream.steps.ctf.filter import CtfFilterParams, filter_by_ctf


class CtfConsensusParams(CtfFilterParams):
    """What the first CTF must be like, and how far the second must agree; a criterion that is unset is not applied."""

    min_agreement_ang: Angstrom | None = Field(
        7.0,
        gt=0,
        description="Coarsest resolution at which the two CTFs may begin to differ by 90° of phase",
        json_schema_extra=before(2, 15.0),
    )
    min_confidence_of_both: float | None = Field(
        0.1,
        ge=0,
        le=1,
        description="Smallest probability of either CTF, where there are two; one that states none passes",
        json_schema_extra=before(2, None),
    )


@step.filter(
    "ctf_consensus",
    version=2,
    reads=("voltage_kv",),
    compares=TWO_CTFS,
    method=Method(
        (
            Text("Micrographs were kept where both estimates of the CTF agreed to {min_agreement_ang} Å."),
            Text("Micrographs with a CTF resolution worse than {max_resolution_ang} Å were set aside."),
        ),
        (MARABINI_2015,),
    ),
)
def check_ctf_consensus(
    micrograph: Micrograph, ctf: CtfFit, second: CtfFit | None, params: CtfConsensusParams, acquisition: Acquisition
) -> Verdict:
    """Keep micrographs whose CTF is within limits and agrees with a second estimate.

    A rejection names every criterion that failed. The limits are those of `ctf_filter`, applied to the first CTF. Where a second
    one is connected, a micrograph is judged only if it has both. On simulated micrographs two right CTFs agreed to 7 Å, however
    thick the ice and however far from focus; wrong ones did not, or were not sure of themselves.

    Raises
    ------
    ItemError
        If there is a second CTF to compare with but the voltage is unset, or a value is no finite number.
    """
    first = filter_by_ctf(micrograph, ctf, params)
    failures = [] if first.reason is None else [first.reason]
    if second is not None:
        failures += _confidence_failures(ctf, second, limit=params.min_confidence_of_both)
    if second is not None and params.min_agreement_ang is not None:
        failures += _agreement_failures(
            ctf, second, limit_ang=params.min_agreement_ang, voltage_kv=acquisition.need("voltage_kv")
        )
    return reject("; ".join(failures)) if failures else keep()


def _confidence_failures(ctf: CtfFit, second: CtfFit, *, limit: float | None) -> list[str]:
    stated = [(name, fit.confidence) for name, fit in (("first", ctf), ("second", second)) if fit.confidence is not None]
    return [
        f"the confidence of the {name} CTF, {value:.3f}, is below {limit:g}"
        for name, value in stated
        if limit is not None and not value >= limit
    ]


def _agreement_failures(ctf: CtfFit, second: CtfFit, *, limit_ang: float, voltage_kv: float) -> list[str]:
    resolution_ang = agreement_resolution_ang(_shape(ctf), _shape(second), voltage_kv=voltage_kv)
    if resolution_ang <= limit_ang:
        return []
    if math.isinf(resolution_ang):
        return [f"the two CTFs differ by 90° at every resolution, but must agree to {limit_ang:g} Å or finer"]
    return [f"the two CTFs agree to {resolution_ang:.1f} Å only, coarser than {limit_ang:g} Å"]


@step.map("compare_ctfs", version=1, reads=("voltage_kv",), memory_gb=0.1, compares=TWO_CTFS)
def compare_ctfs(ctf: CtfFit, second: CtfFit, acquisition: Acquisition) -> CtfAgreement:
    """Measure how far two estimates of the CTF of a micrograph agree.

    Raises
    ------
    ItemError
        If the voltage is unset, or a value is no finite number.
    """
    one, other = _shape(ctf), _shape(second)
    agreement_ang = agreement_resolution_ang(one, other, voltage_kv=acquisition.need("voltage_kv"))
    stated = [fit.confidence for fit in (ctf, second) if fit.confidence is not None]
    return CtfAgreement(
        agreement_ang=None if math.isinf(agreement_ang) else round(agreement_ang, 3),
        defocus_difference_ang=round(abs(one.defocus_ang - other.defocus_ang), 2),
        astigmatism_difference_ang=round(2.0 * abs(one.astigmatism_ang - other.astigmatism_ang), 2),
        least_confidence=min(stated, default=None),
        least_score=min(ctf.score, second.score),
    )


@step.map("ctf_average", version=2, memory_gb=0.1, compares=TWO_CTFS)
def average_ctf(ctf: CtfFit, second: CtfFit) -> CtfFit:
    """Take the mean of two estimates of the CTF of a micrograph.

    Defocus, astigmatism (as a vector) and phase shift are averaged. Score and resolution are the worse of the two. The error of
    the defocus is that of the two estimates together with half their difference; the other errors are the larger ones. Curves and
    picture are those of the first.
    """
    mean = average_shapes(_shape(ctf), _shape(second))
    half_difference_ang = 0.5 * abs(_shape(ctf).defocus_ang - _shape(second).defocus_ang)
    errors = [fit.defocus_error_ang for fit in (ctf, second) if fit.defocus_error_ang is not None]
    return ctf.model_copy(
        update={
            "defocus_u_ang": round(mean.defocus_u_ang, 2),
            "defocus_v_ang": round(mean.defocus_v_ang, 2),
            "astigmatism_angle_deg": round(mean.astigmatism_angle_deg, 2),
            "phase_shift_deg": round(mean.phase_shift_deg, 2),
            "score": min(ctf.score, second.score),
            "resolution_ang": max(ctf.resolution_ang, second.resolution_ang),
            "defocus_error_ang": round(math.hypot(max(errors), half_difference_ang), 2) if errors else None,
            "astigmatism_error_ang": _worse(ctf.astigmatism_error_ang, second.astigmatism_error_ang),
            "angle_error_deg": _worse(ctf.angle_error_deg, second.angle_error_deg),
            "phase_shift_error_deg": _worse(ctf.phase_shift_error_deg, second.phase_shift_error_deg),
            "significance": None,
            "confidence": None,
            "estimator": "average",
        }
    )


def _worse(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return max(known) if known else None


def _shape(fit: CtfFit) -> CtfShape:
    return CtfShape(fit.defocus_u_ang, fit.defocus_v_ang, fit.astigmatism_angle_deg, fit.phase_shift_deg)
