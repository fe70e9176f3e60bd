"""Maps in three dimensions as a browser turns them: a small cube of bytes behind a line of JSON that says their scale."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError

MOST_HEADER_BYTES = 1000
SURFACE_SIGMA = 3.0
"""Where a surface is drawn first: so many standard deviations of the box above its mean."""


def write_density(path: Path, volume: NDArray[Any], *, voxel_ang: float | None) -> None:
    """Write a cube ``(z, y, x)`` as bytes; 0 is its mean, or less, because what is darker than the solvent is not shown."""
    low, deviation = float(volume.mean()), float(volume.std())
    high = max(float(np.quantile(volume, 0.9999)), low + deviation, low + 1e-12)
    scaled = np.clip((volume - low) / (high - low), 0, 1)  # (z, y, x)
    level = min(0.9, SURFACE_SIGMA * deviation / (high - low))
    header = {"side": len(volume), "voxel_ang": voxel_ang, "low": low, "high": high, "level": round(255 * level)}
    path.write_bytes(json.dumps(header).encode() + b"\n" + np.rint(255 * scaled).astype(np.uint8).tobytes())


def read_density(path: Path) -> bytes:
    """Return a cube as it was written.

    Raises
    ------
    FileFormatError
        The file is damaged.
    """
    content = path.read_bytes()
    header, _, voxels = content.partition(b"\n")
    try:
        side = int(json.loads(header[:MOST_HEADER_BYTES])["side"])
    except (ValueError, KeyError, TypeError):
        raise FileFormatError(path, "has no line that says what it holds") from None
    if len(voxels) != side**3:
        raise FileFormatError(path, "does not hold as many voxels as it says")
    return content
