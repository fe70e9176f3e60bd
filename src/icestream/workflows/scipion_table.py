"""Every protocol of Scipion that is known by name: those with an equivalent, and why the others have none yet."""

from dataclasses import dataclass

from icestream.workflows.scipion_micrographs import MICROGRAPH_PROTOCOLS
from icestream.workflows.scipion_particles import PARTICLE_PROTOCOLS
from icestream.workflows.scipion_rules import Lost, Mapping

MAPPED: dict[str, Mapping] = {**MICROGRAPH_PROTOCOLS, **PARTICLE_PROTOCOLS}
"""Every protocol that has an equivalent, by class name."""


@dataclass(frozen=True)
class Unmapped:
    """Why a protocol has no equivalent; ``passes`` names the inputs that go on to the steps after it, as if it were not there."""

    reason: str
    passes: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()


_MICROGRAPHS, _MOVIES, _IMAGES = ("inputMicrographs",), ("inputMovies",), ("inputImages",)
_COORDINATES, _PARTICLES, _CLASSES = ("inputCoordinates",), ("inputParticles", "inputSet"), ("inputClasses", "inputRefs")
_NO_3D = Unmapped("there is no 3D reconstruction yet")
_NO_2D_CHOICE = Unmapped("classes are not chosen automatically yet", _CLASSES)
_BY_HAND = Unmapped("nothing is done by hand in a workflow; use an automatic picker")
_MONITOR = Unmapped("needs no step: icestream status and icestream report show it for every session")
_NO_IMPORT = Unmapped("only movies, micrographs and gain references can be imported yet")
_NO_ASSESSMENT = Unmapped("micrographs are not classified by quality yet", _MICROGRAPHS)

UNMAPPED: dict[str, Unmapped] = {
    # movies
    "XmippProtMovieGain": Unmapped("a gain reference is imported, not estimated", _MOVIES),
    "XmippProtMovieDoseAnalysis": Unmapped("is not translated; all movies go on", _MOVIES),
    "XmippProtConsensusMovieAlignment": Unmapped("two alignments are not compared yet", ("inputMovies1",)),
    "XmippProtOFAlignment": Unmapped("local motion is corrected by the motion step", _MOVIES),
    "XmippProtMovieAverage": Unmapped("frames are summed by the motion step", _MOVIES),
    "XmippProtSplitFrames": Unmapped("sums of even and odd frames are not made yet", _MOVIES),
    "XmippProtExtractMovieParticles": Unmapped("particles are cut from micrographs, not from movies"),
    # micrographs and CTF
    "XmippProtTiltAnalysis": Unmapped("is not translated; all micrographs go on", _MICROGRAPHS),
    "CryoassessProtMics": _NO_ASSESSMENT,
    "MiffiProtMicrographs": _NO_ASSESSMENT,
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
    "XmippProtMicDefocusSampler": Unmapped("there is no sampling by defocus yet", ("inputCTF",)),
    "XmippProtCTFDiscrepancy": Unmapped("is not translated"),
    # picking
    "XmippProtParticlePicking": _BY_HAND,
    "XmippProtParticlePickingPairs": _BY_HAND,
    "XmippProtConsensusPicking": Unmapped("picks are not compared yet; those of the first picker go on", _COORDINATES),
    "XmippProtPickingRemoveDuplicates": Unmapped("a picker keeps its own picks apart", _COORDINATES),
    "XmippProtPickingDifference": Unmapped("picks are not subtracted yet"),
    "XmippProtPickNoise": Unmapped("noise is not picked"),
    "XmippProtScreenDeepConsensus": Unmapped("picks are not scored by a trained model; the first ones go on", _COORDINATES),
    "XmippProtDeepMicrographScreen": Unmapped("carbon and ice are not masked yet", _COORDINATES),
    "XmippProtParticleBoxsize": Unmapped("the box follows from the diameter: box_diameters of the extract step"),
    "ProtBoxSizeParameters": Unmapped("the box follows from the diameter: box_diameters of the extract step"),
    "ProtBoxSizeCheckpoint": Unmapped("the box follows from the diameter: box_diameters of the extract step"),
    # particles
    "ProtExtractCoords": Unmapped("particles keep their place; coordinates need no step"),
    "XmippProtEliminateEmptyParticles": Unmapped("empty particles are not recognised yet", _PARTICLES),
    "XmippProtScreenParticles": Unmapped("particles are not screened yet", _PARTICLES),
    "XmippProtCenterParticles": Unmapped("particles are not centred again yet"),
    "XmippProtDenoiseParticles": Unmapped("particles are not denoised", _PARTICLES),
    # flow
    "XmippProtTriggerData": Unmapped("items go on as they come; add a trigger or batches by hand", _IMAGES),
    "ProtDataCounter": Unmapped("items go on as they come; add a trigger or batches by hand", _IMAGES),
    "ProtDataSampler": Unmapped("all items go on; add a sample by hand", _IMAGES),
    "ProtManualCheckpoint": Unmapped("nothing waits for a person; add a manual trigger by hand"),
    "ProtSubSet": Unmapped("a part of a set cannot be chosen by hand yet", ("inputFullSet",)),
    "ProtUnionSet": Unmapped("the first stream goes on; add a union by hand", ("inputSets",)),
    # 2D
    "XmippProtEliminateEmptyClasses": _NO_2D_CHOICE,
    "XmippProtCL2DClustering": _NO_2D_CHOICE,
    "XmippProtCL2DMap": _NO_2D_CHOICE,
    "CryoassessProt2D": _NO_2D_CHOICE,
    "ProtRelionSelectClasses2D": _NO_2D_CHOICE,
    "ProtClassesSelector": _NO_2D_CHOICE,
    "ProtGoodClassesExtractor": Unmapped("particles of good classes are not taken out yet"),
    "ProtMonitor2dStreamer": Unmapped("needs no step: classify2d itself works on the growing stream"),
    # 3D
    **dict.fromkeys(
        (
            "XmippProtReconstructSignificant",
            "XmippProtRansac",
            "XmippProtReconstructSwarm",
            "XmippProtReconstructHighRes",
            "XmippProtConsensusClasses",
            "XmippProtConsensusClasses3D",
            "XmippProtVolConsensus",
            "XmippProtSplitvolume",
            "XmippProtAlignVolume",
            "XmippProtAlignVolumeForWeb",
            "XmippProtCropResizeVolumes",
            "EmanProtInitModel",
            "ProtRelionInitialModel",
            "ProtRelionClassify3D",
            "ProtRelionRefine3D",
            "ProtRelionPostprocess",
            "ProtCryoSparcInitialModel",
            "ProtCryoSparc3DClassification",
            "ProtCryoSparcRefine3D",
            "ProtCryoSparcNonUniformRefine3D",
            "ProtVolumeExtractor",
        ),
        _NO_3D,
    ),
    # monitors and metadata
    **dict.fromkeys(("ProtMonitorSummary", "ProtMonitorCTF", "ProtMonitorMovieGain", "ProtMonitorSystem"), _MONITOR),
    "ProtMonitorISPyB": Unmapped("nothing is sent to ISPyB yet"),
    "UsedItemsTracker": Unmapped("needs no step: icestream trace shows what became of every exposure"),
    "ProtOSCEM": Unmapped("OSC-EM metadata are not written yet"),
    # other imports
    **dict.fromkeys(
        ("ProtImportCTF", "ProtImportCoordinates", "ProtImportParticles", "ProtImportAverages", "ProtImportVolumes"), _NO_IMPORT
    ),
}
"""Every other protocol that is known by name."""
