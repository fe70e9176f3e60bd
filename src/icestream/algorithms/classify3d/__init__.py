"""3D classification of particles whose poses are known.

`model` makes the volumes of classes, `search` compares particles with them by the scoring kernel, `em` is the loop, `starts`
where it begins, and `identity` who is who among the classes of two versions.
"""

from icestream.algorithms.classify3d.em import (
    Classes3D,
    PosedParticles,
    compare,
    fill_empty,
    fold_of,
    make_passes,
    share_by_likelihood,
    sharpness_of,
    sum_up,
)
from icestream.algorithms.classify3d.identity import correlate_classes_3d
from icestream.algorithms.classify3d.model import N_FOLDS, ClassVolumes, Setting, make_volumes, sum_classes
from icestream.algorithms.classify3d.search import prepare_centred
from icestream.algorithms.classify3d.starts import classify_particles_3d, evidence, random_shares

__all__ = [
    "N_FOLDS",
    "ClassVolumes",
    "Classes3D",
    "PosedParticles",
    "Setting",
    "classify_particles_3d",
    "compare",
    "correlate_classes_3d",
    "evidence",
    "fill_empty",
    "fold_of",
    "make_passes",
    "make_volumes",
    "prepare_centred",
    "random_shares",
    "share_by_likelihood",
    "sharpness_of",
    "sum_classes",
    "sum_up",
]
