"""Consensus of initial volumes: how far candidates agree, what held-out particles say of each, and what the right ones make."""

from icestream.algorithms.volume_consensus.agreement import Agreement, compare_volumes
from icestream.algorithms.volume_consensus.consensus import VolumeConsensus, decide, find_consensus, place_volumes
from icestream.algorithms.volume_consensus.swarm import Swarm, SwarmSetting, move_swarm

__all__ = [
    "Agreement",
    "Swarm",
    "SwarmSetting",
    "VolumeConsensus",
    "compare_volumes",
    "decide",
    "find_consensus",
    "move_swarm",
    "place_volumes",
]
