"""What the movies of a session have in common, and how one differs: another camera or read-out, or frames that are missing."""

from collections import Counter
from collections.abc import Sequence

from icestream.records import MovieShape

_TOLERANCE = 0.01
_TOLD = (
    ("pixel_size_ang", "pixels", "Å"),
    ("voltage_kv", "an acceleration voltage", "kV"),
    ("cs_mm", "a spherical aberration", "mm"),
)


def most_usual(shapes: Sequence[MovieShape]) -> MovieShape | None:
    """Return the commonest shape, of equally common ones the earlier; None if there is none."""
    counts = Counter(shapes)
    return max(counts, key=lambda shape: counts[shape]) if counts else None  # the first of equals


def differences(shape: MovieShape, usual: MovieShape, *, max_deviation: float) -> list[str]:
    """Return in words how a movie is unlike the usual one.

    Parameters
    ----------
    max_deviation
        How far the number of frames may lie from the usual (a fraction): EER movies differ by a few.
    """
    found = []
    if (shape.height_px, shape.width_px) != (usual.height_px, usual.width_px):
        found.append(
            f"frames are {shape.height_px}×{shape.width_px}, those of this session are {usual.height_px}×{usual.width_px} "
            "(height × width): another camera or read-out"
        )
    kinds = shape.format.partition(".")[0], usual.format.partition(".")[0]  # without the compression
    if kinds[0] != kinds[1]:
        found.append(f"the movie is {kinds[0].upper()}, those of this session are {kinds[1].upper()}: another camera or read-out")
    for name, what, unit in _TOLD:
        one, other = getattr(shape, name), getattr(usual, name)
        if one is not None and other is not None and abs(one - other) > _TOLERANCE * max(one, other):
            found.append(f"its header or sidecar gives {what} of {one:.4g} {unit}, those of this session {other:.4g} {unit}")
    if abs(shape.n_frames - usual.n_frames) > max_deviation * usual.n_frames:
        found.append(f"it has {shape.n_frames} frames, those of this session have {usual.n_frames}")
    return found
