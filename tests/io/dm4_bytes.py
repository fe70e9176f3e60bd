"""A minimal Digital Micrograph file, written from the public description of its tag tree."""

import struct

import numpy as np

CODES = {"f4": (6, 2), "f8": (7, 12), "u2": (4, 10), "i4": (3, 7), "i2": (2, 1)}


def dm_bytes(image, version=4, thumbnail=True):
    long = ">q" if version == 4 else ">i"

    def entry(kind, label, body):
        size = struct.pack(">q", len(body)) if version == 4 else b""
        return struct.pack(">BH", kind, len(label)) + label.encode() + size + body

    def value(label, info, data):
        return entry(21, label, b"%%%%" + b"".join(struct.pack(long, v) for v in (len(info), *info)) + data)

    def folder(label, *children):
        return entry(20, label, b"\1\0" + struct.pack(long, len(children)) + b"".join(children))

    def picture(array):
        simple, pixels = CODES[array.dtype.str[1:]]
        data = folder(
            "ImageData",
            value("Data", [20, simple, array.size], array.astype(array.dtype.newbyteorder("<")).tobytes()),
            value("DataType", [5], struct.pack("<I", pixels)),
            folder("Dimensions", *(value("", [5], struct.pack("<I", side)) for side in array.shape[::-1])),
        )
        return folder("", data, value("Name", [20, 4, 4], "gain".encode("utf-16-le")))

    pictures = [picture(np.zeros((2, 2), np.int32))] if thumbnail else []
    structure = value("Bounds", [15, 0, 2, 0, 3, 0, 3], struct.pack("<2i", 1, 2))
    structures = value("Points", [20, 15, 0, 2, 0, 6, 0, 6, 3], bytes(24))
    root = b"\1\0" + struct.pack(long, 3) + structure + structures + folder("ImageList", *pictures, picture(image))
    return struct.pack(">i", version) + struct.pack(long, len(root)) + struct.pack(">i", 1) + root
