"""Keeping micrographs whose CTF is as it should be."""

from icestream.flow import Angstrom, Field, Micrometer, Params, Verdict, keep, limits, reject, step
from icestream.records import CtfFit, Micrograph


class CtfFilterParams(Params):
    """What a CTF must be like for its micrograph to be kept; a criterion that is unset is not applied."""

    defocus_um: tuple[Micrometer, Micrometer] | None = Field(
        (0.4, 4.0),
        description="Both defocus values must be in this range",
        json_schema_extra={"unit": "µm", **limits("ctf_defocus_micrometers", "range")},
    )
    max_astigmatism_ang: Angstrom | None = Field(
        None,
        gt=0,
        description="Largest difference of the two defocus values",
        json_schema_extra=limits("ctf_astigmatism_angstroms", "most"),
    )
    max_relative_astigmatism: float | None = Field(0.1, gt=0, description="Largest difference relative to the mean defocus")
    max_resolution_ang: Angstrom | None = Field(
        17.0,
        gt=0,
        description="Coarsest resolution up to which the fit may agree",
        json_schema_extra=limits("ctf_resolution_angstroms", "most"),
    )
    min_score: float | None = Field(None, ge=-1, le=1, description="Smallest correlation of spectrum and fit")
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="Smallest probability of the fit; one that is not stated is too small"
    )


@step.filter("ctf_filter", version=1)
def filter_by_ctf(micrograph: Micrograph, ctf: CtfFit, params: CtfFilterParams) -> Verdict:  # noqa: ARG001 - the micrograph is passed on
    """Keep micrographs whose CTF is within limits; a rejection names every criterion that failed."""
    failures = [*_defocus_failures(ctf, params), *_quality_failures(ctf, params)]
    return reject("; ".join(failures)) if failures else keep()


def _defocus_failures(ctf: CtfFit, params: CtfFilterParams) -> list[str]:
    failures = []
    difference_ang = abs(ctf.defocus_u_ang - ctf.defocus_v_ang)
    mean_ang = 0.5 * (ctf.defocus_u_ang + ctf.defocus_v_ang)
    if params.defocus_um is not None:
        low, high = params.defocus_um
        for name, value_ang in (("U", ctf.defocus_u_ang), ("V", ctf.defocus_v_ang)):
            if not low <= value_ang * 1e-4 <= high:
                failures.append(f"defocus {name} {value_ang * 1e-4:.3f} µm is outside {low:g} to {high:g} µm")
    if params.max_astigmatism_ang is not None and not difference_ang <= params.max_astigmatism_ang:
        failures.append(f"astigmatism {difference_ang:.0f} Å is above {params.max_astigmatism_ang:g} Å")
    limit = params.max_relative_astigmatism
    if limit is not None and not difference_ang <= limit * abs(mean_ang):
        share = difference_ang / abs(mean_ang) if mean_ang else float("inf")
        failures.append(f"relative astigmatism {share:.3f} is above {limit:g}")
    return failures


def _quality_failures(ctf: CtfFit, params: CtfFilterParams) -> list[str]:
    failures = []
    if params.max_resolution_ang is not None and not ctf.resolution_ang <= params.max_resolution_ang:
        failures.append(f"resolution {ctf.resolution_ang:.2f} Å is coarser than {params.max_resolution_ang:g} Å")
    if params.min_score is not None and not ctf.score >= params.min_score:
        failures.append(f"score {ctf.score:.3f} is below {params.min_score:g}")
    if params.min_confidence is not None and not (ctf.confidence is not None and ctf.confidence >= params.min_confidence):
        stated = "is not stated, but must be at least" if ctf.confidence is None else f"{ctf.confidence:.3f} is below"
        failures.append(f"confidence {stated} {params.min_confidence:g}")
    return failures
