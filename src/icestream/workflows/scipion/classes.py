"""What Scipion's protocols of 2D classification, and of choosing among classes, are in icestream, as a table."""

from collections.abc import Mapping as AnyMapping

from icestream.workflows.scipion.convert import AbsentError, Reader, as_integer, as_positive
from icestream.workflows.scipion.parse import Protocol
from icestream.workflows.scipion.rules import First, Lost, Mapping, Rule, Via
from icestream.workflows.scipion.sources import split_pattern

_STREAMING_2D = "classes grow with the stream instead of being made from one finished set"


def _classify(*rules: Rule, lost: tuple[Lost, ...] = (), changed: str = _STREAMING_2D) -> Mapping:
    outputs = (("outputParticles", None),)
    return Mapping("classify2d", "classes", {"particles": ("inputParticles",)}, rules, lost, outputs, changed)


_N_CLASSES = Rule("n_classes", ("numberOfClasses",), as_integer)
_RELION_2D = _classify(
    _N_CLASSES,
    Rule("diameter_ang", ("maskDiameterA",), as_positive),
    Rule("psi_step_deg", ("inplaneAngularSamplingDeg",), as_positive, "the coarsest step of the final search"),
    lost=(Lost("regularisationParamT", (), "another scale there; tau_fudge is left at its default"),),
)
_CRYOSPARC_2D = _classify(_N_CLASSES, Rule("limit_ang", ("maximunResolution",), as_positive))
_PCA_2D = _classify(
    _N_CLASSES,
    Rule("limit_ang", ("resolution",), as_positive),
    lost=(
        Lost("mode", (0,), "classes are always computed from scratch, not taken from another run"),
        Lost("classificationBatch", (), "the first classes come after first_particles, left at its default"),
    ),
)
_GL2D = _classify(
    lost=(
        Lost("numClasses", (), "an upper limit of a growing number there, the number of classes here, left at its default"),
        Lost("blockSize", (), "updates come after batch_particles, left at its default"),
    ),
)


def as_pattern(reader: Reader, names: tuple[str, ...]) -> str:
    """Return the glob of the files below the folder of an import."""
    try:
        below = reader.text(names[1])
    except AbsentError:
        below = None
    _, pattern = split_pattern(reader.text(names[0]), below)
    if pattern is None:
        raise AbsentError
    return pattern


_IMPORT_AVERAGES = Mapping(
    "import_averages",
    "averages",
    {},
    (
        Rule("pattern", ("filesPath", "filesPattern"), as_pattern),
        Rule("pixel_size_ang", ("samplingRate",), as_positive),
    ),
    (Lost("importFrom", (0,), "averages are read from the stack itself"),),
    changed="the averages are references for classify2d_static; nothing else reads them",
)
_GL2D_STATIC = Mapping(
    "classify2d_static",
    "assigned",
    {
        "particles": ("inputParticles",),
        "classes": ("inputRefs", Via("inputRefs", "classes")),
        "selection": ("inputRefs",),
    },
    lost=(
        Lost("maxShift", (10,), "a share of the image there; max_shift_ang is left at its default"),
        Lost("keepBest", (1,), "each particle is in one class"),
    ),
    changed="each exposure is assigned to the classes that are the newest when it comes",
)
_GL2D_STATIC_ALONE = _classify(
    changed="classes are found in the data, because inputRefs has no equivalent; for fixed references add an import_averages "
    "step and use classify2d_static"
)
_CL2D = _classify(_N_CLASSES)

_CLASSES: dict[str, tuple[str | Via, ...]] = {
    "classes": ("inputClasses", "inputRefs", Via("inputClasses", "classes"), Via("inputRefs", "classes"))
}
_BY_SCORE = "classes are chosen by the score of select_classes; look at its operating point"


def _select(*rules: Rule, lost: tuple[Lost, ...] = ()) -> Mapping:
    return Mapping("select_classes", "selected", _CLASSES, rules, lost, changed=_BY_SCORE)


_ELIMINATE_EMPTY = _select(
    lost=(
        Lost("threshold", (), "another measure there"),
        Lost("minPopulation", (), "a share of the mean there; set min_particles"),
    )
)
_RELION_SELECT = _select(
    Rule("max_resolution_ang", ("minResolution",), as_positive),
    Rule("min_particles", ("minParts",), as_integer),
    lost=(
        Lost("minThreshold", (), "a score of RELION's ranker there, on another scale"),
        Lost("minCls", (-1, 0), "no least number of classes is kept"),
    ),
)
_CRYOASSESS = _select(lost=(Lost("threshold", (), "a probability of a trained model there"),))

_GOOD_PORTS: dict[str, tuple[str | Via, ...]] = {
    "particles": (Via("inputClasses", "particles"),),
    "assignments": (Via("inputClasses", "assignments"),),
    "classes": ("inputClasses", Via("inputClasses", "classes")),
}
_GOOD_OUTPUTS = (("outputParticlesDiscarded", None), ("outputDiscardedParticles", None))
_GOOD_CHANGED = "what is discarded is kept beside the particles; the step rejected_particles makes a stream of it"
_GOOD = Mapping(
    "good_classes",
    "good_particles",
    {**_GOOD_PORTS, "selection": ("inputGoodClasses",)},
    outputs=_GOOD_OUTPUTS,
    changed=_GOOD_CHANGED,
    decided_by=("mode",),
)
_GOOD_ALONE = Mapping(
    "good_classes",
    "good_particles",
    _GOOD_PORTS,
    lost=(Lost("inputGoodListIds", ("",), "numbers of Scipion's classes mean nothing here; their score selects classes"),),
    outputs=_GOOD_OUTPUTS,
    changed=_GOOD_CHANGED,
    first=(First("selection", "select_classes", "selected", {"classes": "classes"}),),
    decided_by=("mode",),
)

CLASS_PROTOCOLS: dict[str, Mapping] = {
    "ProtRelionClassify2D": _RELION_2D,
    "CistemProtRefine2D": _CL2D,
    "ProtCryo2D": _CRYOSPARC_2D,
    **dict.fromkeys(("XmippProtClassifyPca", "XmippProtClassifyPcaStreaming"), _PCA_2D),
    **dict.fromkeys(("XmippProtStrGpuCrrCL2D", "XmippProtGpuCrrCL2D"), _GL2D),
    "XmippProtStrGpuCrrSimple": _GL2D_STATIC,
    "ProtImportAverages": _IMPORT_AVERAGES,
    "XmippProtCL2D": _CL2D,
    "XmippProtEliminateEmptyClasses": _ELIMINATE_EMPTY,
    "ProtRelionSelectClasses2D": _RELION_SELECT,
    "CryoassessProt2D": _CRYOASSESS,
    "ProtGoodClassesExtractor": _GOOD,
}
"""2D classification and selection of classes, by class name."""


_NONE = Mapping("", "", {})


def class_mapping_of(protocol: Protocol, others: AnyMapping[str, Protocol]) -> Mapping:
    """Return what becomes of a protocol of `CLASS_PROTOCOLS`, as what it reads says."""

    def reads(parameter: str, *uses: str) -> bool:
        sources = [others.get(pointer.protocol) for pointer in protocol.pointers.get(parameter, ())]
        return any(one is not None and CLASS_PROTOCOLS.get(one.class_name, _NONE).use in uses for one in sources)

    mapping = CLASS_PROTOCOLS[protocol.class_name]
    if mapping is _GL2D_STATIC and not reads("inputRefs", "classify2d", "select_classes", "import_averages"):
        return _GL2D_STATIC_ALONE
    if mapping is _GOOD and not reads("inputGoodClasses", "select_classes"):
        return _GOOD_ALONE
    return mapping
