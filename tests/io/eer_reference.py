"""A slow EER encoder and decoder on strings of bits, written from the description of the format alone."""

import struct

import numpy as np


def bits_of(value, n):
    return "".join(str(value >> k & 1) for k in range(n))


def encode(events, height, width, skip_bits, sub_bits):
    """Events: sorted (y, x, sub_y, sub_x) with sub-pixel indices in their natural order 0 … 2**sub_bits - 1."""
    longest, text, here = 2**skip_bits - 1, "", 0
    flip = 2 ** (sub_bits - 1)
    for y, x, sub_y, sub_x in events:
        gap = y * width + x - here
        text += bits_of(longest, skip_bits) * (gap // longest) + bits_of(gap % longest, skip_bits)
        text += bits_of(sub_x ^ flip, sub_bits) + bits_of(sub_y ^ flip, sub_bits)
        here = y * width + x + 1
    gap = height * width - here
    text += bits_of(longest, skip_bits) * (gap // longest) + bits_of(gap % longest, skip_bits)
    text += "0" * (-len(text) % 8) + "0" * 8
    return bytes(int(text[k : k + 8][::-1], 2) for k in range(0, len(text), 8))


def decode(data, height, width, skip_bits, sub_bits):
    """Return the events of one frame as (y, x, sub_y, sub_x)."""
    text = "".join(bits_of(byte, 8) for byte in data)
    longest, flip = 2**skip_bits - 1, 2 ** (sub_bits - 1)
    at, here, events = 0, 0, []

    def take(n):
        nonlocal at
        at += n
        return int(text[at - n : at][::-1], 2)

    while at + skip_bits <= len(text):
        skip = take(skip_bits)
        here += skip
        if here >= height * width:
            break
        if skip == longest:
            continue
        sub_x, sub_y = take(sub_bits) ^ flip, take(sub_bits) ^ flip
        events.append((*divmod(here, width), sub_y, sub_x))
        here += 1
    return events


def render(frames, height, width, upsampling, sub_bits):
    """Sum events of some frames on a grid of ``upsampling`` pixels a detector pixel."""
    image = np.zeros((height * upsampling, width * upsampling), dtype=int)
    step = 2**sub_bits // upsampling
    for events in frames:
        for y, x, sub_y, sub_x in events:
            image[y * upsampling + sub_y // step, x * upsampling + sub_x // step] += 1
    return image


def container(streams, height, width, compression, tags=()):
    """A classic little-endian TIFF with one directory a stream; ``tags`` are extra (code, value) shorts."""
    out = bytearray(b"II*\0\0\0\0\0")
    link = 4
    for stream in streams:
        at = len(out)
        out += stream + b"\0" * (len(stream) % 2)
        entries = [(256, 4, width), (257, 4, height), (258, 3, 1), (259, 3, compression), (273, 4, at), (277, 3, 1)]
        entries += [(278, 4, height), (279, 4, len(stream)), *((code, 3, value) for code, value in tags)]
        struct.pack_into("<I", out, link, len(out))
        out += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", c, t, 1, v) for c, t, v in entries)
        link = len(out)
        out += b"\0\0\0\0"
    return bytes(out)
