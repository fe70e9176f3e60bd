"""3D classification of particles whose poses are known.

`model` makes the volumes of classes, `search` compares particles with them by the scoring kernel, `em` is the loop.
"""

from icestream.algorithms.classify3d.em import Classes3D, PosedParticles, classify_particles_3d, fold_of, random_shares
from icestream.algorithms.classify3d.model import N_FOLDS, ClassVolumes, Setting
from icestream.algorithms.classify3d.search import prepare_centred

__all__ = [
    "N_FOLDS",
    "ClassVolumes",
    "Classes3D",
    "PosedParticles",
    "Setting",
    "classify_particles_3d",
    "fold_of",
    "prepare_centred",
    "random_shares",
]
