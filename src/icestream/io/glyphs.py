"""Digits of 3 x 5 dots, to label pictures without a font."""

import numpy as np
from numpy.typing import NDArray

_DIGITS = (0o75557, 0o26227, 0o71747, 0o71717, 0o55711, 0o74717, 0o74757, 0o71111, 0o75757, 0o75717)
_MINUS = 0o00700


def draw_number(image: NDArray[np.uint8], number: int, *, brightness: int) -> NDArray[np.uint8]:
    """Return ``image`` ``(h, w)`` with ``number`` in the corner that is drawn at the upper left (the end of the rows).

    Dots are doubled from 64 px on. What does not fit is cut off.
    """
    dot = 2 if min(image.shape) >= 64 else 1
    codes = [_MINUS if sign == "-" else _DIGITS[int(sign)] for sign in str(number)]
    signs = [[[code >> (3 * (4 - row) + 2 - column) & 1 for column in range(3)] + [0] for row in range(5)] for code in codes]
    text = np.concatenate([np.array(sign, dtype=bool) for sign in signs], axis=1)  # (5, 4 n)
    text = np.pad(text, ((1, 1), (1, 0)))  # (7, 4 n + 1)
    text = text.repeat(dot, axis=0).repeat(dot, axis=1)[: image.shape[0], : image.shape[1]]
    labelled = image[::-1].copy()
    corner = labelled[: text.shape[0], : text.shape[1]]
    corner[...] = np.where(text, brightness, corner // 3)
    return np.ascontiguousarray(labelled[::-1])
