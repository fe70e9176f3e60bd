"""What Scipion's protocols of initial volumes, refinement, 3D classes and their consensus are in icestream, as a table."""

from icestream.workflows.scipion.classes import as_pattern
from icestream.workflows.scipion.convert import Reader, UntranslatableError, always, as_integer, as_number, as_positive
from icestream.workflows.scipion.rules import Before, Lost, Mapping, Rule, Via

_ALL = 1_000_000_000
_CYCLIC_AND_DIHEDRAL = ("C", "D")
_WAITS = (
    "it begins when the stream of particles ends, as in Scipion; a milestones step in place of finished_set gives maps while "
    "data come"
)


def as_symmetry(reader: Reader, names: tuple[str, ...]) -> str:
    """Return a point group, from its name, or from cryoSPARC's number of a family and an order.

    Raises
    ------
    UntranslatableError
        The family is neither cyclic nor dihedral.
    """
    value = reader.value(names[0])
    if isinstance(value, str) and not value.strip().isdigit():
        return value.strip().upper()
    family = reader.integer(names[0])
    if family not in range(len(_CYCLIC_AND_DIHEDRAL)):
        raise UntranslatableError(f"{names[0]} is {family}, whose point group is not known here")
    return f"{_CYCLIC_AND_DIHEDRAL[family]}{reader.integer(names[1])}"


_SYMMETRY = Rule("symmetry", ("symmetryGroup", "symmetryOrder"), as_symmetry)
_DIAMETER = Rule("diameter_ang", ("maskDiameterA",), as_positive)
_INITIAL = Rule("initial_ang", ("initialLowPassFilterA",), as_positive)
_RADIUS = Lost("particleRadius", (-1,), "the diameter is that of the particles, or of the volume to begin with")
_ONE_SET = Before(
    "particles", "batches", "finished_set", {"items": "particles"}, frozenset({"batches", "milestones"}),
    {"count": _ALL, "counted": "particles"},
)  # fmt: skip


def _initial(particles: tuple[str | Via, ...], *rules: Rule, lost: tuple[Lost, ...] = ()) -> Mapping:
    ports: dict[str, tuple[str | Via, ...]] = {
        "particles": particles,
        "classes": ("inputSet", "inputClasses", Via("inputSet", "classes"), Via("inputClasses", "classes")),
        "selection": ("inputSet", "inputClasses"),
    }
    changed = f"volumes are found by icestream's own search; {_WAITS}"
    return Mapping("initial_volume", "volume", ports, (_SYMMETRY, *rules), lost, changed=changed, before=(_ONE_SET,))


_FROM_CLASSES = (Via("inputSet", "particles"), Via("inputClasses", "particles"), "inputSet", "inputClasses")
_ONE_VOLUME = "the best start is the volume, and what is known of all is in the report"
_FROM_AVERAGES = _initial(_FROM_CLASSES)
_RANSAC = _initial(
    _FROM_CLASSES,
    Rule("starts", ("numVolumes",), as_integer, _ONE_VOLUME),
    lost=(Lost("nRansac", (), "starts are not drawn so"),),
)
_EMAN = _initial(_FROM_CLASSES, Rule("starts", ("numberOfModels",), as_integer, _ONE_VOLUME))
_AB_INITIO = _initial(
    ("inputParticles",),
    _DIAMETER,
    lost=(Lost("numberOfClasses", (1,), "one volume is searched; classify3d sorts particles into 3D classes"),),
)

_SWARM = Mapping(
    "consensus_volumes",
    "agreed_volume",
    {"particles": ("inputParticles",), "volumes": ("inputVolumes", "inputVolume")},
    (
        _SYMMETRY,
        Rule("rounds", ("numberOfIterations",), as_integer, "the most; it ends when nothing gets better"),
        Rule("limit_ang", ("targetResolution",), as_positive),
        Rule("min_angle_deg", ("minAngle",), as_positive),
        Rule("train_particles", ("NimgTrain",), as_integer),
        Rule("test_particles", ("NimgTest",), as_integer),
    ),
    (_RADIUS,),
    changed=f"candidates that no particles believe are not merged, and there may be no consensus; {_WAITS}",
    before=(_ONE_SET,),
)


def _refine(*rules: Rule, lost: tuple[Lost, ...] = ()) -> Mapping:
    reference = ("referenceVolume", "inputVolumes", "inputVolume", "input3DReference", "refVolume")
    ports: dict[str, tuple[str | Via, ...]] = {"particles": ("inputParticles",), "volume": reference}
    return Mapping("refine3d", "refined", ports, (_SYMMETRY, *rules), lost, changed=_WAITS, before=(_ONE_SET,))


_RELION_REFINE = _refine(_DIAMETER, _INITIAL)
_POSES = Before(
    "volume", "refine3d", "poses", {"particles": "particles", "volume": "volume"}, frozenset({"refine3d"}),
    rules=(_SYMMETRY, _DIAMETER, _INITIAL),
)  # fmt: skip
_CLASSIFY = Mapping(
    "classify3d",
    "classes_3d",
    {"particles": ("inputParticles",), "volume": ("referenceVolume", "inputVolumes", "inputVolume", "refVolume")},
    (Rule("n_classes", ("numberOfClasses", "class3D_N_K"), as_integer), _DIAMETER),
    (
        Lost("doImageAlignment", (False,), "particles keep the poses of the refinement before"),
        Lost("symmetryGroup", ("c1", "C1"), "it is that of the refinement before"),
    ),
    changed=f"sorts with the poses of a refinement, which is a step of its own; {_WAITS}",
    before=(_ONE_SET, _POSES),
)
_AS_SCIPION = Rule("rule", (), always("intersections"))


def _agree(port: str, *rules: Rule, lost: tuple[Lost, ...] = ()) -> Mapping:
    return Mapping("consensus_classes3d", "groups", {"classes": (port,)}, (_AS_SCIPION, *rules), lost)


VOLUME_PROTOCOLS: dict[str, Mapping] = {
    "ProtImportVolumes": Mapping(
        "import_volume",
        "known_volume",
        {},
        (
            Rule("root", (), always("volumes")),
            Rule("pattern", ("filesPath", "filesPattern"), as_pattern),
            Rule("pixel_size_ang", ("samplingRate",), as_positive),
        ),
        (
            Lost("importFrom", (0,), "the map is read from its file"),
            Lost("half1map", (), "set half_maps of the import_volume step to a pattern of both"),
            Lost("half2map", (), "set half_maps of the import_volume step to a pattern of both"),
        ),
    ),
    **dict.fromkeys(("XmippProtReconstructSignificant",), _FROM_AVERAGES),
    "XmippProtRansac": _RANSAC,
    "EmanProtInitModel": _EMAN,
    **dict.fromkeys(("ProtRelionInitialModel", "ProtCryoSparcInitialModel"), _AB_INITIO),
    "XmippProtReconstructSwarm": _SWARM,
    "ProtRelionRefine3D": _RELION_REFINE,
    "XmippProtReconstructHighRes": _refine(lost=(_RADIUS,)),
    "CistemProtRefine3D": _refine(Rule("limit_ang", ("highRes",), as_positive)),
    **dict.fromkeys(
        (
            "ProtCryoSparcRefine3D",
            "ProtCryoSparc3DHomogeneousRefine",
            "ProtCryoSparcNonUniformRefine3D",
            "ProtCryoSparcNewNonUniformRefine3D",
        ),
        _refine(),
    ),
    **dict.fromkeys(("ProtRelionClassify3D", "ProtCryoSparc3DClassification", "ProtCryoSparcNew3DClassification"), _CLASSIFY),
    "XmippProtConsensusClasses3D": _agree(
        "inputMultiClasses",
        Rule("n_groups", ("numClust",), as_integer),
        lost=(Lost("doConsensus", (0,), "intersections are always merged; they are listed too"),),
    ),
    "XmippProtConsensusClasses": _agree("inputClassifications", Rule("min_class_size", ("minClassSize",), as_number)),
    "ProtVolumeExtractor": Mapping(
        "class_volume",
        "class_volume",
        {"classes": ("inputClasses", "inputSet")},
        changed="the largest class is taken; set class_id",
    ),
    "ProtRelionPostprocess": Mapping(
        "map_quality", "quality", {"volume": ("protRefine", "inputVolume")}, changed="the mask is found by itself"
    ),
}
"""Initial volumes, 3D classification, refinement and their consensus, by class name."""
