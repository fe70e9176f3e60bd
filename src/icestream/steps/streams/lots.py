"""Drawing lots: a number from 0 to 1 for each exposure that depends on its content and a seed alone.

The same exposure draws the same number in every run, on every machine, in whatever order it comes.
"""

import hashlib
import math

_BITS = 53


def draw_lot(purpose: str, seed: int, exposure_id: str) -> float:
    """Return a number from 0 to 1 (never 1 itself), uniform over exposures; different purposes and seeds are independent."""
    drawn = hashlib.sha256(f"{purpose}\0{seed}\0{exposure_id}".encode()).digest()[:8]
    return math.ldexp(int.from_bytes(drawn, "big") >> (64 - _BITS), -_BITS)
