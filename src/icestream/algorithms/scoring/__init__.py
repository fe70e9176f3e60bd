"""One scoring kernel: how well images agree with references, over rotations and shifts.

2D classes, template picking, initial volumes, 3D classes and refinement all ask the same question, so they share the answer.
`particles` prepares images (`contrast` has their CTF), `bank` prepares references, `search` looks everywhere, `windows` only
where each image is told to look, `cascade` coarsely everywhere and then finely where it matters, `polish` moves a committed pose
off the grid. All work on `polar` samples of the Fourier transform.
"""

from icestream.algorithms.scoring.bank import Bank, Level, make_bank, make_level
from icestream.algorithms.scoring.cascade import Cascade, search_cascade_2d
from icestream.algorithms.scoring.contrast import ctf_polar_2d
from icestream.algorithms.scoring.particles import (
    PolarParticles,
    half_sets_of,
    join_particles,
    prepare_images_2d,
    reference_orders_2d,
)
from icestream.algorithms.scoring.polar import (
    Polar,
    PolarGrid,
    Real,
    angular_orders,
    image_from_polar_2d,
    polar_from_orders,
    sample_polar_2d,
    shift_ramps,
    soft_disc_2d,
)
from icestream.algorithms.scoring.polish import polish_poses_2d
from icestream.algorithms.scoring.search import Poses, search_poses_2d
from icestream.algorithms.scoring.windows import PoseWindows, group_shifts, search_windows_2d

__all__ = [
    "Bank",
    "Cascade",
    "Level",
    "Polar",
    "PolarGrid",
    "PolarParticles",
    "PoseWindows",
    "Poses",
    "Real",
    "angular_orders",
    "ctf_polar_2d",
    "group_shifts",
    "half_sets_of",
    "image_from_polar_2d",
    "join_particles",
    "make_bank",
    "make_level",
    "polar_from_orders",
    "polish_poses_2d",
    "prepare_images_2d",
    "reference_orders_2d",
    "sample_polar_2d",
    "search_cascade_2d",
    "search_poses_2d",
    "search_windows_2d",
    "shift_ramps",
    "soft_disc_2d",
]
