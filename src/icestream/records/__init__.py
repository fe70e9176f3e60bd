"""The records that flow from step to step: frozen, typed, and readable for years.

A record is what one step says about one exposure (or, for a `Snapshot`, about the whole so far). Beside its fields a class
declares the name that the store gives it, the columns of its table, and what is shown of it.
"""

from icestream.records.acquisition import Acquisition, ExposureMetadata, PossibleAcquisition, possible_range
from icestream.records.classes import (
    POSE,
    ClassAssignments,
    ClassAverages,
    ClassConsensus,
    ClassEvent,
    ClassInfo,
    ClassSelection,
    SelectedClass,
    StableSet,
)
from icestream.records.ctf import CTF_COLUMNS, TWO_CTFS, CtfAgreement, CtfFit, DefocusDistribution
from icestream.records.ctf_local import CtfLocal
from icestream.records.denoised import DenoisedMicrograph
from icestream.records.export import RelionClasses, RelionProject
from icestream.records.gain import GainMonitor, GainReference, Unevenness
from icestream.records.grid import HOLE_COLUMNS, AtlasPlace, GridFiles, GridMap, GridSquare
from icestream.records.ice import BeamIntensity, IceRing, IceTransmission, VacuumOrigin, VacuumReference
from icestream.records.literature import (
    BEPLER_2019,
    ELFERICH_2024,
    GRANT_2015,
    KIMANIUS_2021,
    MARABINI_2015,
    ROHOU_2015,
    ROSEMAN_2003,
    SCHERES_2012,
    VOSS_2009,
    YANG_2012,
    ZHANG_2016,
    ZHENG_2017,
    ZIVANOV_2018,
    Method,
    Reference,
)
from icestream.records.masks import JUNK_BITS, JunkClass, JunkMask
from icestream.records.micrograph import Micrograph, PowerSpectra, RawArea
from icestream.records.motion import FrameUse, Motion, MotionAgreement
from icestream.records.movie import DoseReference, Movie, MovieDose, MovieShape
from icestream.records.particle_size import MeasuredDiameter, ParticleSize
from icestream.records.particles import Cutting, Particles
from icestream.records.picks import LearntPicker, PickConsensus, PickerFigures, PickerQuality, Picks, Removed, same_picks
from icestream.records.quality import MicrographKind, MicrographQuality, TiltMeasure
from icestream.records.shown import Text
from icestream.records.templates import PickerModel, PickerTrial, PickTemplates, TemplateFile, TemplateInfo
from icestream.records.vocabulary import (
    Block,
    Column,
    FileRef,
    FurtherBlock,
    Record,
    Snapshot,
    named_records,
    pack_tables,
    record_named,
    unpack_tables,
)
from icestream.records.volumes import POSE_3D, JudgedVolume, ParticlePoses, Volume, VolumeCandidate

__all__ = [
    "BEPLER_2019",
    "CTF_COLUMNS",
    "ELFERICH_2024",
    "GRANT_2015",
    "HOLE_COLUMNS",
    "JUNK_BITS",
    "KIMANIUS_2021",
    "MARABINI_2015",
    "POSE",
    "POSE_3D",
    "ROHOU_2015",
    "ROSEMAN_2003",
    "SCHERES_2012",
    "TWO_CTFS",
    "VOSS_2009",
    "YANG_2012",
    "ZHANG_2016",
    "ZHENG_2017",
    "ZIVANOV_2018",
    "Acquisition",
    "AtlasPlace",
    "BeamIntensity",
    "Block",
    "ClassAssignments",
    "ClassAverages",
    "ClassConsensus",
    "ClassEvent",
    "ClassInfo",
    "ClassSelection",
    "Column",
    "CtfAgreement",
    "CtfFit",
    "CtfLocal",
    "Cutting",
    "DefocusDistribution",
    "DenoisedMicrograph",
    "DoseReference",
    "ExposureMetadata",
    "FileRef",
    "FrameUse",
    "FurtherBlock",
    "GainMonitor",
    "GainReference",
    "GridFiles",
    "GridMap",
    "GridSquare",
    "IceRing",
    "IceTransmission",
    "JudgedVolume",
    "JunkClass",
    "JunkMask",
    "LearntPicker",
    "MeasuredDiameter",
    "Method",
    "Micrograph",
    "MicrographKind",
    "MicrographQuality",
    "Motion",
    "MotionAgreement",
    "Movie",
    "MovieDose",
    "MovieShape",
    "ParticlePoses",
    "ParticleSize",
    "Particles",
    "PickConsensus",
    "PickTemplates",
    "PickerFigures",
    "PickerModel",
    "PickerQuality",
    "PickerTrial",
    "Picks",
    "PossibleAcquisition",
    "PowerSpectra",
    "RawArea",
    "Record",
    "Reference",
    "RelionClasses",
    "RelionProject",
    "Removed",
    "SelectedClass",
    "Snapshot",
    "StableSet",
    "TemplateFile",
    "TemplateInfo",
    "Text",
    "TiltMeasure",
    "Unevenness",
    "VacuumOrigin",
    "VacuumReference",
    "Volume",
    "VolumeCandidate",
    "named_records",
    "pack_tables",
    "possible_range",
    "record_named",
    "same_picks",
    "unpack_tables",
]
