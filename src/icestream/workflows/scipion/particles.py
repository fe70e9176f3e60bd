"""What Scipion's protocols of picking, extraction and export are in icestream, as a table."""

from icestream.workflows.scipion.convert import (
    Convert,
    around,
    as_box_diameters,
    as_box_px,
    as_dust_level,
    as_even,
    as_flag,
    as_integer,
    as_normalisation,
    as_not,
    as_number,
    as_positive,
    as_range,
    as_scaled_box,
    as_share,
    times_pixel,
    twice_pixel,
    where,
)
from icestream.workflows.scipion.rules import PIXEL, First, Lost, Mapping, Rule, Via

_NO_TRAINING = "particles are found by their size, without a template or a trained model"


def _pick(*rules: Rule, lost: tuple[Lost, ...] = ()) -> Mapping:
    more = (Lost("threshold", (), "another scale there; here it is decided for each micrograph"),)
    return Mapping("pick_blob", "picks", {"micrograph": ("inputMicrographs",)}, rules, (*more, *lost), changed=_NO_TRAINING)


def _diameter(parameter: str, convert: Convert, what: str) -> Rule:
    return Rule("diameter_ang", (parameter,), around(convert), f"±10 % around {what}")


_LOG = _pick(
    Rule("diameter_ang", ("minDiameter", "maxDiameter"), as_range),
    Rule("dark", ("areParticlesWhite",), as_not),
    lost=(Lost("threshold2", (999,), "picks have no upper limit of score"),),
)
_CRYOLO = _pick(_diameter("boxSize", times_pixel, f"the box, {PIXEL}"))
_BY_DIAMETER = _pick(_diameter("diameter", as_positive, "the diameter"))
_RELION_AUTOPICK = _pick(_diameter("particleDiameter", as_positive, "the diameter of the mask"))
_GAUTOMATCH = _pick(_diameter("particleSize", as_positive, "the particle's size"))

_EXTRACT_PORTS: dict[str, tuple[str | Via, ...]] = {
    "micrograph": ("inputMicrographs", Via("inputCoordinates", "micrograph")),
    "picks": ("inputCoordinates",),
    "ctf": ("ctfRelations",),
}
_EXTRACT_RULES = (
    Rule("box_px", ("boxSize",), as_box_px),
    Rule("box_diameters", ("boxSize",), as_box_diameters, "the factor of the box size protocol, times the picked diameter"),
    Rule("invert", ("doInvert",), as_flag),
    Rule("normalise", ("doNormalize", "normType"), as_normalisation),
    Rule("at_border", ("doBorders",), lambda reader, names: "pad" if reader.flag(names[0]) else "leave_out"),
)
_EXTRACT_LOST = (
    Lost("boxSizeForced", (-1,), "the scaled box follows from the box and the factor"),
    Lost("doEvalVar", (False,), "variance and Gini coefficient are not computed"),
)
_XMIPP_EXTRACT = Mapping(
    "extract",
    "particles",
    _EXTRACT_PORTS,
    (
        *_EXTRACT_RULES,
        Rule(
            "scaled_box_px",
            ("doResize", "resizeOption", "boxSize", "downFactor", "resizeDim", "resizeSamplingRate"),
            as_scaled_box,
        ),
        Rule("phase_flip", ("doFlip",), as_flag),
        Rule("dust_level", ("doRemoveDust", "thresholdDust"), where(as_number, otherwise=None)),
        Rule("background_diameter_ang", ("backRadius",), twice_pixel, PIXEL),
    ),
    (*_EXTRACT_LOST, Lost("normType", (1, 2), "the background is normalised, not the whole image")),
)
_RELION_EXTRACT = Mapping(
    "extract",
    "particles",
    _EXTRACT_PORTS,
    (
        *_EXTRACT_RULES,
        Rule("scaled_box_px", ("doRescale", "rescaledSize"), where(as_even)),
        Rule("dust_level", ("stddevWhiteDust", "stddevBlackDust"), as_dust_level),
        Rule("background_diameter_ang", ("backDiameter",), times_pixel, PIXEL),
        Rule("stored_as", ("saveFloat16",), lambda reader, names: "float16" if reader.flag(names[0]) else "float32"),
    ),
    _EXTRACT_LOST,
)

_COORDINATES = Mapping(
    "extract_coordinates",
    "coordinates",
    {
        "micrograph": ("inputMicrographs", Via("inputParticles", "micrograph")),
        "particles": ("inputParticles", Via("inputParticles", "particles")),
        "assignments": (Via("inputParticles", "assignments"),),
    },
    (
        Rule(
            "apply_shifts",
            ("applyShifts",),
            lambda reader, names: reader.flag(names[0], default=False),
            "shifts are applied whole, not rounded to pixels",
        ),
    ),
)
_CENTRE = Mapping(
    "centre_particles",
    "centred",
    {
        "micrograph": ("inputMics",),
        "particles": (Via("inputClasses", "particles"),),
        "assignments": (Via("inputClasses", "assignments"),),
        "classes": ("inputClasses",),
    },
    outputs=(("outputClasses", None),),
    changed="particles are cut again about their new centres, which are not rounded to pixels",
)
_DEFOCUS_SAMPLE = Mapping(
    "sample_defocus",
    "sample",
    {"ctf": ("inputCTF",), "micrograph": (Via("inputCTF", "micrograph"),)},
    (Rule("fraction", ("numImages", "minImages"), as_share, "a share of all, from the sample and what it was drawn from"),),
    outputs=(("outputCTF", "ctf"), ("outputMicrographs", "micrograph")),
    first=(
        First(
            "distribution",
            "defocus_distribution",
            "defocus",
            {"ctf": "ctf"},
            (Rule("first_count", ("minImages",), as_integer),),
        ),
    ),
    changed="the stream goes on after the first sample",
)

_EXPORT_CHANGE = "a whole RELION project of micrographs, CTFs and particles, kept up to date"
_EXPORT_PARTICLES = Mapping(
    "export_relion",
    "relion",
    {
        "micrograph": (Via("inputParticles", "micrograph"),),
        "ctf": (Via("inputParticles", "ctf"),),
        "particles": ("inputParticles",),
    },
    changed=_EXPORT_CHANGE,
)
_EXPORT_CTF = Mapping(
    "export_relion", "relion", {"micrograph": (Via("inputCTF", "micrograph"),), "ctf": ("inputCTF",)}, changed=_EXPORT_CHANGE
)

PARTICLE_PROTOCOLS: dict[str, Mapping] = {
    "ProtRelionAutopickLoG": _LOG,
    **dict.fromkeys(("ProtRelion2Autopick", "ProtRelionAutopick"), _RELION_AUTOPICK),
    **dict.fromkeys(("SphireProtCRYOLOPicking", "SphireProtCRYOLOPickingTasks"), _CRYOLO),
    "DogPickerProtPicking": _BY_DIAMETER,
    "ProtCryoSparcBlobPicker": _pick(),
    "ProtGautomatch": _GAUTOMATCH,
    **dict.fromkeys(
        (
            "TopazProtPicking",
            "XmippParticlePickingAutomatic",
            "SparxGaussianProtPicking",
            "EmanProtAutopick",
            "CistemProtFindParticles",
        ),
        _pick(),
    ),
    "XmippProtExtractParticles": _XMIPP_EXTRACT,
    "ProtRelionExtractParticles": _RELION_EXTRACT,
    "ProtExtractCoords": _COORDINATES,
    "XmippProtCenterParticles": _CENTRE,
    "XmippProtMicDefocusSampler": _DEFOCUS_SAMPLE,
    "ProtRelionExportParticles": _EXPORT_PARTICLES,
    "ProtRelionExportCtf": _EXPORT_CTF,
}
"""Picking, extraction, sampling and export, by class name."""
