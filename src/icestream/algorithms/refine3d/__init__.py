"""Refinement of a volume and of the poses of its particles.

`model` is what is known, `search` and `climb` find poses, `refine` is the loop, `verdict` says whether it shows a particle.
"""

from icestream.algorithms.refine3d.model import Maps, Model, Setting
from icestream.algorithms.refine3d.refine import Portion, PoseTable, Progress, Refined, begin, iterate, judge, refine_volume
from icestream.algorithms.refine3d.verdict import Verdict

__all__ = [
    "Maps",
    "Model",
    "Portion",
    "PoseTable",
    "Progress",
    "Refined",
    "Setting",
    "Verdict",
    "begin",
    "iterate",
    "judge",
    "refine_volume",
]
