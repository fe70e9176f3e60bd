"""Refinement of a volume and of the poses of its particles.

`model` is what is known, `search` and `climb` find poses, `refine` is the loop, `again` goes on with more particles in the same
`frame`, and `verdict` says whether it shows a particle.
"""

from icestream.algorithms.refine3d.again import Last, bring_back, frame_since, refine_again
from icestream.algorithms.refine3d.frame import Frame, find_frame, into_frame
from icestream.algorithms.refine3d.model import Maps, Model, Setting, make_maps, update_model
from icestream.algorithms.refine3d.refine import Portion, PoseTable, Progress, Refined, begin, iterate, judge, refine_volume
from icestream.algorithms.refine3d.search import Reference, find_poses, make_reference
from icestream.algorithms.refine3d.verdict import Verdict

__all__ = [
    "Frame",
    "Last",
    "Maps",
    "Model",
    "Portion",
    "PoseTable",
    "Progress",
    "Reference",
    "Refined",
    "Setting",
    "Verdict",
    "begin",
    "bring_back",
    "find_frame",
    "find_poses",
    "frame_since",
    "into_frame",
    "iterate",
    "judge",
    "make_maps",
    "make_reference",
    "refine_again",
    "refine_volume",
    "update_model",
]
