"""Which protocol of Scipion stands for which step in an export, and how parameters are written that are several there."""

from collections.abc import Callable, Mapping
from typing import Any

CHOSEN: Mapping[str, str] = {
    "import_movies": "ProtImportMovies",
    "import_micrographs": "ProtImportMicrographs",
    "estimate_gain": "XmippProtMovieGain",
    "motion": "ProtMotionCorr",
    "max_shift": "XmippProtMovieMaxShift",
    "dose_check": "XmippProtMovieDoseAnalysis",
    "tilt_check": "XmippProtTiltAnalysis",
    "ctf": "CistemProtCTFFind",
    "ctf_filter": "XmippProtCTFConsensus",
    "pick_blob": "ProtRelionAutopickLoG",
    "pick_matched": "ProtRelionAutopickLoG",
    "pick_consensus": "XmippProtConsensusPicking",
    "remove_duplicates": "XmippProtPickingRemoveDuplicates",
    "pick_difference": "XmippProtPickingDifference",
    "import_picks": "ProtImportCoordinates",
    "extract": "XmippProtExtractParticles",
    "extract_coordinates": "ProtExtractCoords",
    "centre_particles": "XmippProtCenterParticles",
    "sample_defocus": "XmippProtMicDefocusSampler",
    "classify2d": "ProtRelionClassify2D",
    "classify2d_static": "XmippProtStrGpuCrrSimple",
    "import_averages": "ProtImportAverages",
    "select_classes": "ProtRelionSelectClasses2D",
    "good_classes": "ProtGoodClassesExtractor",
    "export_relion": "ProtRelionExportParticles",
}
"""Step → the protocol that says the most of it."""

PASSED = frozenset({"import_gain", "prepare_micrograph"})
"""Steps that an import protocol is as well."""

Write = Callable[[Any], dict[str, Any]]


def _where(flag: str, *names: str, scale: float = 1.0) -> Write:
    """Write a criterion with its switch; nothing switches it off."""

    def write(value: Any) -> dict[str, Any]:
        members = value if isinstance(value, list | tuple) else [value]
        if value is None:
            return {flag: False}
        return {flag: True, **{name: round(scale * one, 6) for name, one in zip(names, members, strict=True)}}

    return write


def _one_of(name: str, *choices: Any) -> Write:
    return lambda value: {name: choices.index(value)} if value in choices else {}


def _patches(value: Any) -> dict[str, Any]:
    return {} if value is None else {"patchY": value[0], "patchX": value[1]}


def _normalise(value: Any) -> dict[str, Any]:
    return {"doNormalize": value != "none", "normType": 2 if value == "ramp" else 1}


def _scaled_box(value: Any) -> dict[str, Any]:
    return {"doResize": False} if value is None else {"doResize": True, "resizeOption": 1, "resizeDim": value}


WRITERS: Mapping[str, Mapping[str, Write]] = {
    "motion": {
        "patches": _patches,
        "local": lambda value: {} if value else {"patchY": 1, "patchX": 1},
        "dose_weighting": lambda value: {"doApplyDoseFilter": value != "off"},
        "eer_upsampling": _one_of("eerSampling", 1, 2, 4),
    },
    "max_shift": {"rule": _one_of("rejType", "frame", "movie", "frame and movie", "frame or movie")},
    "ctf": {"phase_shift_deg": _where("findPhaseShift", "minPhaseShift", "maxPhaseShift")},
    "ctf_filter": {
        "defocus_um": _where("useDefocus", "minDefocus", "maxDefocus", scale=1e4),
        "max_astigmatism_ang": _where("useAstigmatism", "astigmatism"),
        "max_relative_astigmatism": _where("useAstigmatismPercentage", "astigmatismPer"),
        "max_resolution_ang": _where("useResolution", "resolution"),
    },
    "extract": {
        "box_px": lambda value: {} if value is None else {"boxSize": value},
        "invert": lambda value: {"doInvert": value},
        "normalise": _normalise,
        "at_border": lambda value: {"doBorders": value == "pad"},
        "scaled_box_px": _scaled_box,
        "dust_level": _where("doRemoveDust", "thresholdDust"),
    },
}
"""Step → parameter → how it is written, where one value of ours is several there or a choice by number."""
