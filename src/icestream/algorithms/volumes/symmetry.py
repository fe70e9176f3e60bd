"""Point groups as rotations of the particle, in the settings of RELION 3.1.

A volume of a group is the same at ``x`` and at ``g @ x`` for every ``g`` of it.
"""

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.volumes.rotations import Rotations, rotations_about

_GOLDEN = (1 + np.sqrt(5.0)) / 2
_LARGEST_GROUP = 400


@lru_cache(maxsize=64)
def symmetry_group(name: str) -> Rotations:
    """Return all rotations of a point group: ``(g, 3, 3)``, the identity first, read-only.

    ``Cn`` has its axis along z; ``Dn`` a twofold one along x as well; ``T`` a threefold one along z; ``O`` its fourfold ones
    along x, y and z; ``I1`` and ``I2`` (as RELION also calls ``I``) twofold ones along x, y and z, and fivefold ones in the plane
    of x and z.

    Raises
    ------
    ValueError
        No such group, or one of more than 400 rotations.
    """
    elements = [np.eye(3)]
    generators = _generators(name)
    known = {_mark(elements[0])}
    for element in elements:
        for generator in generators:
            product = element @ generator
            if _mark(product) not in known:
                known.add(_mark(product))
                elements.append(product)
    group = np.stack(elements)
    group.flags.writeable = False
    return group


def is_symmetry(name: str) -> bool:
    """Tell whether `symmetry_group` knows a group."""
    try:
        _generators(name)
    except ValueError:
        return False
    return True


def _generators(name: str) -> Rotations:
    text = name.strip().upper()
    found = re.fullmatch(r"([CD])([1-9]\d{0,2})", text)
    if found and int(found[2]) <= _LARGEST_GROUP // (2 if found[1] == "D" else 1):
        axes = [((0.0, 0.0, 1.0), int(found[2]))] + ([((1.0, 0.0, 0.0), 2)] if found[1] == "D" else [])
    elif text in _AXES:
        axes = _AXES[text]
    else:
        raise ValueError(f"{name!r} is no point group that is known; allowed: C1 to C400, D1 to D200, T, O, I, I1 and I2")
    return np.concatenate([_about(np.array(axis), fold) for axis, fold in axes])


def _about(axis: NDArray[np.float64], fold: int) -> Rotations:
    return rotations_about((axis / np.linalg.norm(axis) * (2 * np.pi / fold))[None])


def _mark(element: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(value) for value in np.rint(element.ravel() * 1e4) + 0.0)


_I2 = [((0.0, 0.0, 1.0), 2), ((1.0, 0.0, _GOLDEN), 5)]
_AXES = {
    "T": [((0.0, 0.0, 1.0), 3), ((0.0, np.sqrt(2.0), 1.0), 2)],
    "O": [((1.0, 1.0, 1.0), 3), ((0.0, 0.0, 1.0), 4)],
    "I": _I2,
    "I1": [((1.0, 0.0, 0.0), 2), ((_GOLDEN, 0.0, -1.0), 5)],
    "I2": _I2,
}
"""Axes and folds that generate a group."""
