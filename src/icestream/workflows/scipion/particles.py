"""What Scipion's protocols of picking, extraction and export are in icestream, as a table."""

from icestream.workflows.scipion.convert import (
    Convert,
    around,
    as_box_diameters,
    as_box_px,
    as_dust_level,
    as_even,
    as_flag,
    as_not,
    as_number,
    as_positive,
    as_range,
    as_scaled_box,
    times_pixel,
    twice_pixel,
    where,
)
from icestream.workflows.scipion.rules import PIXEL, Lost, Mapping, Rule, Via

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
)
_EXTRACT_LOST = (
    Lost("doNormalize", (True,), "particles are always normalised, by a ramp fitted to the background"),
    Lost("doBorders", (False,), "particles at the border are left out"),
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
    (*_EXTRACT_LOST, Lost("normType", (2,), "particles are always normalised, by a ramp fitted to the background")),
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
    "ProtRelionExportParticles": _EXPORT_PARTICLES,
    "ProtRelionExportCtf": _EXPORT_CTF,
}
"""Picking, extraction and export, by class name."""
