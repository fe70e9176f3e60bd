"""Every protocol of Scipion that is known by name: those with an equivalent, and why the others have none yet."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from icestream.workflows.scipion.classes import CLASS_PROTOCOLS, class_mapping_of
from icestream.workflows.scipion.micrographs import MICROGRAPH_PROTOCOLS
from icestream.workflows.scipion.parse import Protocol
from icestream.workflows.scipion.particles import PARTICLE_PROTOCOLS
from icestream.workflows.scipion.picking import PICKING_PROTOCOLS
from icestream.workflows.scipion.quality import CTF_CONSENSUS, QUALITY_PROTOCOLS, compares_two
from icestream.workflows.scipion.rules import Lost, Mapping
from icestream.workflows.scipion.volumes import VOLUME_PROTOCOLS

MAPPED: dict[str, Mapping] = {
    **MICROGRAPH_PROTOCOLS,
    **QUALITY_PROTOCOLS,
    **PICKING_PROTOCOLS,
    **PARTICLE_PROTOCOLS,
    **CLASS_PROTOCOLS,
    **VOLUME_PROTOCOLS,
}
"""Every protocol that has an equivalent, by class name."""

_CONSENSUS_CLASSES = ("XmippProtCTFConsensus", "XmippProtCTFSelection")


def mapping_of(protocol: Protocol, others: Iterable[Protocol] = ()) -> Mapping:
    """Return what becomes of a protocol of `MAPPED`, as its parameters and those of the other protocols say."""
    if protocol.class_name in _CONSENSUS_CLASSES and compares_two(protocol):
        return CTF_CONSENSUS
    known = {other.id: other for other in others}
    if protocol.class_name in CLASS_PROTOCOLS:
        return class_mapping_of(protocol, known)
    mapping = MAPPED[protocol.class_name]
    if mapping.use == "ctf" and _is_second_opinion(protocol, known):
        return replace(mapping, use="ctf_equiphase", changed="fitted in another way than the first CTF, to compare the two")
    return mapping


def _is_second_opinion(protocol: Protocol, others: dict[str, Protocol]) -> bool:
    """Tell whether a CTF is only ever the second one of a consensus, and by another program than the first one."""
    judges = [other for other in others.values() if other.class_name in _CONSENSUS_CLASSES and compares_two(other)]
    firsts = {
        pointer.protocol
        for judge in judges
        if any(second.protocol == protocol.id for second in judge.pointers["inputCTF2"])
        for pointer in judge.pointers.get("inputCTF", ())
    }
    is_first = any(pointer.protocol == protocol.id for judge in judges for pointer in judge.pointers.get("inputCTF", ()))
    names = {others[first].class_name for first in firsts if first in others}
    return bool(names) and not is_first and protocol.class_name not in names


@dataclass(frozen=True)
class Unmapped:
    """Why a protocol has no equivalent; ``passes`` names the inputs that go on to the steps after it, as if it were not there."""

    reason: str
    passes: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()


_MICROGRAPHS, _MOVIES = ("inputMicrographs",), ("inputMovies",)
_COORDINATES, _PARTICLES, _CLASSES = ("inputCoordinates",), ("inputParticles", "inputSet"), ("inputClasses", "inputRefs")
_SOME_VOLUMES = ("inputVolumes", "inputVolume")
_BY_HAND = Unmapped("nothing is done by hand in a workflow; use an automatic picker")
_NO_IMPORT = Unmapped("only movies, micrographs, gain references, picks, class averages and volumes can be imported yet")

UNMAPPED: dict[str, Unmapped] = {
    # movies
    "XmippProtConsensusMovieAlignment": Unmapped(
        "both alignments become motion, which agrees with itself; compare_motion takes two with other parameters",
        ("inputMovies1",),
    ),
    "XmippProtOFAlignment": Unmapped("local motion is corrected by the motion step", _MOVIES),
    "XmippProtMovieAverage": Unmapped("frames are summed by the motion step", _MOVIES),
    "XmippProtSplitFrames": Unmapped("motion sums even and odd frames: set write_halves there", _MOVIES),
    **dict.fromkeys(
        ("ProtRelionCompressMovies", "ProtRelionCompressEstimateGain", "ProtRelionConvertMovies"),
        Unmapped("movies are read as they are; compressed ones too", _MOVIES),
    ),
    "ProtRelionAssignOpticsGroup": Unmapped(
        "exposures with other optics get an optics group of their own in export_relion",
        ("inputSet",),
        (
            Lost("gainFile", (), "give the gain to icestream new with --gain"),
            Lost("gainRot", (0,), "set gain_orientation of the motion step"),
            Lost("gainFlip", (0,), "set gain_orientation of the motion step"),
            Lost("defectFile", (), "set defects of the motion step"),
            Lost("beamTiltX", (0, 0.0), "beam tilt is not corrected"),
            Lost("beamTiltY", (0, 0.0), "beam tilt is not corrected"),
        ),
    ),
    "XmippProtExtractMovieParticles": Unmapped("particles are cut from micrographs, not from movies"),
    # micrographs and CTF
    "XmippProtPreprocessMicrographs": Unmapped(
        "inversion and scaling are done by the extract step",
        _MICROGRAPHS,
        (
            Lost("doInvert", (False,), "micrographs stay as they are; set invert of the extract step to true"),
            Lost("doDownsample", (False,), "micrographs stay as they are; set scaled_box_px of the extract step"),
            Lost("doCrop", (False,), "micrographs are not cropped"),
            Lost("doHighPass", (False,), "micrographs are not filtered"),
            Lost("doLowPass", (False,), "micrographs are not filtered"),
            Lost("doDenoise", (False,), "micrographs are not denoised"),
        ),
    ),
    "XmippProtCTFDiscrepancy": Unmapped("is not translated"),
    # picking
    "XmippProtParticlePicking": _BY_HAND,
    "XmippProtParticlePickingPairs": _BY_HAND,
    "XmippProtPickNoise": Unmapped("noise is not picked"),
    "XmippProtScreenDeepConsensus": Unmapped("picks are not scored by a trained model; the first are passed on", _COORDINATES),
    "XmippProtDeepMicrographScreen": Unmapped("carbon and ice are not masked yet", _COORDINATES),
    "XmippProtDeepMicrographCleaner": Unmapped("carbon and ice are not masked yet", _COORDINATES),
    "SphireProtCRYOLOTraining": Unmapped("pickers are not trained", _COORDINATES),
    "TopazProtTraining": Unmapped("pickers are not trained", _COORDINATES),
    "XmippProtParticleBoxsize": Unmapped("the box follows from the diameter: box_diameters of the extract step"),
    "ProtBoxSizeParameters": Unmapped("the box follows from the diameter: box_diameters of the extract step"),
    "ProtBoxSizeCheckpoint": Unmapped("the box follows from the diameter: box_diameters of the extract step"),
    # particles
    "XmippProtEliminateEmptyParticles": Unmapped("empty particles are not recognised yet", _PARTICLES),
    "XmippProtScreenParticles": Unmapped("particles are not screened yet", _PARTICLES),
    "XmippProtDenoiseParticles": Unmapped("particles are not denoised", _PARTICLES),
    # flow
    "ProtSetFilter": Unmapped("a formula is not translated; write it as the condition of a keep_if step", ("inputSet",)),
    "ProtSetEditor": Unmapped("values of items are not edited", ("inputSet",)),
    "ProtUserSubSet": Unmapped("a part that was chosen by hand is not translated; reject exposures by hand", ("inputObject",)),
    "ProtCreateStreamData": Unmapped("data for tests are written by icestream simulate"),
    # 2D
    "XmippProtCL2DClustering": Unmapped("classes are not clustered", _CLASSES),
    "XmippProtCL2DMap": Unmapped("classes are not chosen on a map; name them in keep of a select_classes step", _CLASSES),
    "ProtClassesSelector": Unmapped("the first classes by size are not chosen; use a select_classes step", _CLASSES),
    # 3D
    "XmippProtVolConsensus": Unmapped(
        "volumes are not fused voxel by voxel; consensus_volumes merges those that particles believe", _SOME_VOLUMES
    ),
    "XmippProtSplitvolume": Unmapped("volumes are not split; classify3d sorts the particles"),
    **dict.fromkeys(
        ("XmippProtAlignVolume", "XmippProtAlignVolumeForWeb"),
        Unmapped("consensus_volumes aligns its candidates itself", _SOME_VOLUMES),
    ),
    "XmippProtCropResizeVolumes": Unmapped("volumes of any box and pixel are read", _SOME_VOLUMES),
    # monitors and metadata
    "ProtMonitorISPyB": Unmapped("nothing is sent to ISPyB yet"),
    "UsedItemsTracker": Unmapped("needs no step: icestream trace shows what happened to every exposure"),
    "ProtOSCEM": Unmapped("OSC-EM metadata are not written yet"),
    # other imports
    **dict.fromkeys(("ProtImportCTF", "ProtImportParticles"), _NO_IMPORT),
}
"""Every other protocol that is known by name."""
