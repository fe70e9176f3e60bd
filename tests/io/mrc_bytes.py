"""MRC files made by hand, byte by byte."""

import struct

import numpy as np


def mrc_bytes(stored, mode, *, width=None, order="<", extended=b"", imod_flags=None, with_map=True, pixel_ang=1.5):
    """``stored`` is the raw array (n, h, row); ``width`` differs from the row for packed data."""
    n, height = stored.shape[:2]
    width = stored.shape[2] if width is None else width
    block = bytearray(1024)
    struct.pack_into(order + "10i", block, 0, width, height, n, mode, 0, 0, 0, width, height, n)
    struct.pack_into(order + "3f", block, 40, width * pixel_ang, height * pixel_ang, n * pixel_ang)
    struct.pack_into(order + "i", block, 92, len(extended))
    if imod_flags is not None:
        struct.pack_into(order + "2i", block, 152, 1146047817, imod_flags)
    if with_map:
        block[208:216] = b"MAP " + (b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0")
    return bytes(block) + extended + stored.astype(stored.dtype.newbyteorder(order)).tobytes()


def ramp(shape, dtype, low=0, high=100):
    """An array without any symmetry."""
    rng = np.random.default_rng(5)
    return rng.integers(low, high, shape).astype(dtype)
