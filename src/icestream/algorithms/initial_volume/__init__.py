"""Initial volumes: from random poses or from common lines, and how far particles that were left out believe them."""

from icestream.algorithms.initial_volume.alternate import InitialVolume, Start, find_initial_volume, improve, refine_initial
from icestream.algorithms.initial_volume.common_lines import volume_from_averages
from icestream.algorithms.initial_volume.evidence import (
    DETAIL_ANG,
    LEAST_EXPLAINED,
    Evidence,
    SignalPower,
    match_signal,
    measure_signal,
    randomise_phases,
    weigh_evidence,
)
from icestream.algorithms.initial_volume.setting import VolumeSetting, level_at, plan_volume, prepare_volume_particles
from icestream.algorithms.initial_volume.views import search_views, view_references, volume_from_views

__all__ = [
    "DETAIL_ANG",
    "LEAST_EXPLAINED",
    "Evidence",
    "InitialVolume",
    "SignalPower",
    "Start",
    "VolumeSetting",
    "find_initial_volume",
    "improve",
    "level_at",
    "match_signal",
    "measure_signal",
    "plan_volume",
    "prepare_volume_particles",
    "randomise_phases",
    "refine_initial",
    "search_views",
    "view_references",
    "volume_from_averages",
    "volume_from_views",
    "weigh_evidence",
]
