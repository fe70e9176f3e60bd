"""What Scipion's protocols that judge movies and micrographs by dose, tilt, looks and two CTFs are in icestream, as a table."""

from icestream.workflows.scipion.convert import always, as_fraction, as_integer, as_number, as_positive, where_not
from icestream.workflows.scipion.micrographs import CTF_FILTER
from icestream.workflows.scipion.parse import DynamicField, Protocol
from icestream.workflows.scipion.rules import First, Lost, Mapping, Rule, Via

_TILT = Mapping(
    "tilt_check",
    "level",
    {"micrograph": ("inputMicrographs",)},
    (
        Rule("min_mean", ("meanCorr_threshold",), as_number),
        Rule("max_std", ("stdCorr_threshold",), as_positive),
    ),
    first=(
        First(
            "tilt",
            "measure_tilt",
            "tilt",
            {"micrograph": "micrograph"},
            (
                Rule("window_px", ("autoWindow", "window_size"), where_not(as_integer)),
                Rule("objective_resolution_ang", ("objective_resolution",), as_positive),
            ),
        ),
    ),
    changed="a micrograph whose rings are too faint to tell is kept (keep_faint)",
)

_DOSE = Mapping(
    "dose_check",
    "dosed",
    {"movie": ("inputMovies",)},
    (Rule("max_deviation", ("percentage_threshold",), as_fraction, "a fraction"),),
    first=(
        First("dose", "measure_dose", "dose", {"movie": "movie"}),
        First(
            "reference",
            "dose_reference",
            "dose_reference",
            {"dose": "dose"},
            (
                Rule("n_samples", ("n_samples",), as_integer),
                Rule("window", ("window",), as_integer),
                Rule("max_deviation", ("percentage_threshold",), as_fraction),
                Rule("max_deviating_share", ("percentage_window",), as_fraction),
            ),
        ),
    ),
    changed="movies wait until the first n_samples have given the reference",
)

_TRIAGE = Mapping(
    "triage",
    "clean",
    {"micrograph": ("inputMicrographs",)},
    lost=(Lost("threshold", (), "a probability of a trained model there; here the limits of triage"),),
    first=(First("quality", "measure_quality", "quality", {"micrograph": "micrograph"}),),
    changed="micrographs are judged by documented features and rules, not by a trained model",
)

QUALITY_PROTOCOLS: dict[str, Mapping] = {
    "XmippProtTiltAnalysis": _TILT,
    "XmippProtMovieDoseAnalysis": _DOSE,
    **dict.fromkeys(("CryoassessProtMics", "MiffiProtMicrographs"), _TRIAGE),
}
"""Tilt, dose and what a micrograph shows, by class name."""

CTF_CONSENSUS = Mapping(
    "ctf_consensus",
    "good",
    {"micrograph": (Via("inputCTF", "micrograph"),), "ctf": ("inputCTF",), "second": ("inputCTF2",)},
    (
        *CTF_FILTER.rules,
        Rule("min_agreement_ang", ("minConsResol",), as_positive),
        Rule("min_confidence_of_both", (), always(None)),
    ),
    (
        Lost("useCritXmipp", (False,), "Xmipp's own criteria are not computed"),
        Lost("includeSecondary", (False,), "values of the second CTF are in its own records"),
    ),
    CTF_FILTER.outputs,
    decided_by=("calculateConsensus", "averageDefocus"),
)
"""The consensus of two CTFs; with one CTF it is a filter."""


def compares_two(protocol: Protocol) -> bool:
    """Tell whether a CTF consensus has a second CTF and looks at it."""
    return _says_yes(protocol, "calculateConsensus") and "inputCTF2" in protocol.pointers


def averages_two(protocol: Protocol) -> bool:
    """Tell whether a CTF consensus passes on the mean of its two CTFs."""
    return compares_two(protocol) and _says_yes(protocol, "averageDefocus")


def _says_yes(protocol: Protocol, name: str) -> bool:
    value = protocol.values.get(name)
    told = value.default if isinstance(value, DynamicField) else value
    return str(told).lower() in ("true", "yes", "1")
