"""What Scipion's protocols from import to CTF are in icestream, as a table."""

from dataclasses import replace

from icestream.workflows.scipion.convert import (
    always,
    as_flag,
    as_index,
    as_integer,
    as_local,
    as_number,
    as_patches,
    as_positive,
    as_range,
    as_range_um,
    as_resolution,
    as_seconds,
    one_of,
    per_raw_pixel,
    where,
    where_not,
)
from icestream.workflows.scipion.motion import MOTION_RULES, MOVIE_GAIN, as_dose_weighting
from icestream.workflows.scipion.rules import PIXEL, Lost, Mapping, Rule, Via

_IMPORT_RULES = (
    Rule("idle_s", ("timeout",), as_seconds),
    Rule("stable_s", ("fileTimeout",), as_seconds, "only for files whose writing is not announced by a close event"),
)
_IMPORT_LOST = (
    Lost("importFrom", (0,), "files are found by folder and pattern only"),
    Lost("dataStreaming", (True,), "files are taken as they arrive, until none has arrived for idle_s"),
    Lost("copyFiles", (False,), "raw data stay where they are"),
    Lost("haveDataBeenPhaseFlipped", (False,), "data are taken as not phase-flipped"),
    Lost("darkFile", (), "a dark reference is not applied"),
    Lost("moviesToExclude", (), "movies cannot be excluded"),
    Lost("blacklistSet", (), "files cannot be excluded; narrow the pattern"),
    Lost("blacklistDateFrom", (), "files cannot be excluded by date"),
    Lost("blacklistDateTo", (), "files cannot be excluded by date"),
    Lost("blacklistFile", (), "files cannot be excluded; narrow the pattern"),
    Lost("inputIndividualFrames", (False,), "a movie is one file"),
)
_IMPORT_MOVIES = Mapping("import_movies", "movies", {}, _IMPORT_RULES, _IMPORT_LOST)
_IMPORT_MICROGRAPHS = Mapping("import_micrographs", "micrographs", {}, _IMPORT_RULES, _IMPORT_LOST)

_FRAMES = (
    Rule("first_frame", ("alignFrame0",), as_index),
    Rule("last_frame", ("alignFrameN",), as_index),
    Rule("bin", ("binFactor",), as_positive),
)
_EER = (Rule("eer_group", ("eerGroup",), as_integer), Rule("eer_upsampling", ("eerSampling",), one_of(1, 2, 4)))
_MOTION_LOST = (
    Lost("doSaveMovie", (False,), "the aligned movie is not written"),
    Lost("doMagCor", (False,), "anisotropic magnification is not corrected"),
)
_MOTION_OUTPUTS = (("outputMicrographsEven", None), ("outputMicrographsOdd", None))


def _motion(*rules: Rule, lost: tuple[Lost, ...] = (), dose: str = "doApplyDoseFilter") -> Mapping:
    shared = (*_FRAMES, *MOTION_RULES, Rule("dose_weighting", (dose,), as_dose_weighting))
    return Mapping("motion", "aligned", {"movie": ("inputMovies",)}, (*shared, *rules), (*_MOTION_LOST, *lost), _MOTION_OUTPUTS)


_MOTIONCOR = _motion(
    Rule("local", ("patchY", "patchX"), as_local(2)),
    Rule("patches", ("patchY", "patchX"), as_patches(2)),
    Rule("group", ("group",), as_integer),
    *_EER,
)
_RELION_MOTION = _motion(
    Rule("local", ("patchY", "patchX"), as_local(3)),
    Rule("patches", ("patchY", "patchX"), as_patches(3)),
    Rule("group", ("groupFrames",), as_integer),
    Rule("write_unweighted", ("saveNonDW",), as_flag),
    *_EER,
    dose="doDW",
    lost=(Lost("bfactor", (150,), "it is given in px² here; the default is kept"),),
)
_FLEXALIGN = _motion(
    Rule("local", ("doLocalAlignment",), as_flag),
    Rule("patches", ("autoPatches", "patchesY", "patchesX"), where_not(as_patches(2))),
    Rule("max_shift_px", ("maxShift",), per_raw_pixel, f"distance from the mean position, in px of the movie, {PIXEL}"),
)

_MAX_SHIFT = Mapping(
    "max_shift",
    "steady",
    {"micrograph": ("inputMovies",)},
    (
        Rule("rule", ("rejType",), one_of("frame", "movie", "frame and movie", "frame or movie")),
        Rule("max_frame_shift_ang", ("maxFrameShift",), as_positive),
        Rule("max_movie_shift_ang", ("maxMovieShift",), as_positive),
    ),
)

_DEFOCUS = Rule("defocus_um", ("minDefocus", "maxDefocus"), as_range_um)
_CTF_LOST = (
    Lost("recalculate", (False,), "a CTF is not fitted again by hand"),
    Lost("usePowerSpectra", (False,), "spectra are those of the micrographs, not of movie frames"),
    Lost("astigmatism", (), "a restraint there, a hard limit here; max_astigmatism_ang is left at its default"),
    Lost("windowSize", (), "in px there; here tile_ang in Å, left at its default"),
)


def _ctf(*rules: Rule, lost: tuple[Lost, ...] = ()) -> Mapping:
    return Mapping("ctf", "ctf", {"micrograph": ("inputMicrographs", "inputMovies")}, (_DEFOCUS, *rules), (*_CTF_LOST, *lost))


_RESOLUTION = Rule("resolution_ang", ("lowRes", "highRes", "ctfDownFactor"), as_resolution)
_CTFFIND = _ctf(
    _RESOLUTION,
    Rule("phase_shift_deg", ("findPhaseShift", "minPhaseShift", "maxPhaseShift"), where(as_range)),
)
_GCTF = _ctf(_RESOLUTION, Rule("phase_shift_deg", ("doPhShEst", "phaseShiftL", "phaseShiftH"), where(as_range)))
_CRYOSPARC_CTF = replace(_ctf(), changed="one CTF for the micrograph; a ctf_local step makes a surface of defocus over it")
_XMIPP_CTF = _ctf(_RESOLUTION, lost=(Lost("findPhaseShift", (False,), "needs a range here: set phase_shift_deg"),))

CTF_FILTER = Mapping(
    "ctf_filter",
    "good",
    {"micrograph": (Via("inputCTF", "micrograph"),), "ctf": ("inputCTF",)},
    (
        Rule("defocus_um", ("useDefocus", "minDefocus", "maxDefocus"), where(as_range_um, otherwise=None)),
        Rule("max_astigmatism_ang", ("useAstigmatism", "astigmatism"), where(as_number, otherwise=None)),
        Rule(
            "max_relative_astigmatism",
            ("useAstigmatismPercentage", "astigmatismPer"),
            where(as_number, otherwise=None, absent=None),
        ),
        Rule("max_resolution_ang", ("useResolution", "resolution"), where(as_number, otherwise=None)),
        Rule("min_confidence", (), always(None)),
    ),
    (
        Lost("useCritXmipp", (False,), "Xmipp's own criteria are not computed"),
        Lost("calculateConsensus", (False,), "only the first CTF is judged; the two are not compared"),
        Lost("averageDefocus", (False,), "the CTF is passed on as it is, not as an average of two"),
    ),
    (
        ("outputCTFDiscarded", "rejected.ctf"),
        ("outputMicrographsDiscarded", "rejected.micrograph"),
        ("outputCTF", "ctf"),
        ("outputMicrographs", "micrograph"),
    ),
)

MICROGRAPH_PROTOCOLS: dict[str, Mapping] = {
    "ProtImportMovies": _IMPORT_MOVIES,
    "ProtImportMicrographs": _IMPORT_MICROGRAPHS,
    "CistemProtUnblur": _motion(),
    **dict.fromkeys(("ProtMotionCorr", "ProtMotionCorrNewStreaming", "ProtMotionCorrTasks"), _MOTIONCOR),
    "ProtRelionMotioncor": _RELION_MOTION,
    **dict.fromkeys(("XmippProtFlexAlign", "XmippProtMovieCorr"), _FLEXALIGN),
    "XmippProtMovieGain": MOVIE_GAIN,
    "XmippProtMovieMaxShift": _MAX_SHIFT,
    **dict.fromkeys(("CistemProtCTFFind", "ProtCTFFind"), _CTFFIND),
    "ProtGctf": _GCTF,
    "XmippProtCTFMicrographs": _XMIPP_CTF,
    "ProtCryoSparcPatchCTFEstimate": _CRYOSPARC_CTF,
    **dict.fromkeys(("XmippProtCTFConsensus", "XmippProtCTFSelection"), CTF_FILTER),
}
"""Import, motion correction, CTF, and the filters among them, by class name."""
