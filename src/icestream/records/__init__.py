"""The records that flow from step to step: frozen, typed, and readable for years.

A record is what one step says about one exposure (or, for a `Snapshot`, about the whole so far). Beside its fields a class
declares the name that the store gives it, the columns of its table, and what is shown of it.
"""

from icestream.records.acquisition import Acquisition, ExposureMetadata, PossibleAcquisition, possible_range
from icestream.records.classes import ClassAssignments, ClassAverages, ClassInfo
from icestream.records.ctf import CTF_COLUMNS, TWO_CTFS, CtfAgreement, CtfFit
from icestream.records.ctf_local import CtfLocal
from icestream.records.export import RelionProject
from icestream.records.gain import GainMonitor, GainReference, Unevenness
from icestream.records.micrograph import Micrograph, PowerSpectra
from icestream.records.motion import FrameUse, Motion, MotionAgreement
from icestream.records.movie import DoseReference, Movie, MovieDose, MovieShape
from icestream.records.particle_size import MeasuredDiameter, ParticleSize
from icestream.records.particles import Particles
from icestream.records.picks import Picks
from icestream.records.quality import MicrographKind, MicrographQuality, TiltMeasure
from icestream.records.vocabulary import Block, Column, FileRef, Record, Snapshot, named_records, record_named

__all__ = [
    "CTF_COLUMNS",
    "TWO_CTFS",
    "Acquisition",
    "Block",
    "ClassAssignments",
    "ClassAverages",
    "ClassInfo",
    "Column",
    "CtfAgreement",
    "CtfFit",
    "CtfLocal",
    "DoseReference",
    "ExposureMetadata",
    "FileRef",
    "FrameUse",
    "GainMonitor",
    "GainReference",
    "MeasuredDiameter",
    "Micrograph",
    "MicrographKind",
    "MicrographQuality",
    "Motion",
    "MotionAgreement",
    "Movie",
    "MovieDose",
    "MovieShape",
    "ParticleSize",
    "Particles",
    "Picks",
    "PossibleAcquisition",
    "PowerSpectra",
    "Record",
    "RelionProject",
    "Snapshot",
    "TiltMeasure",
    "Unevenness",
    "named_records",
    "possible_range",
    "record_named",
]
