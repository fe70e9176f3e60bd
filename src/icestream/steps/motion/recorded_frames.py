"""The frames of a movie once more, corrected as the record of its micrograph says: nothing is searched for again."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.gain.correction import prepare_gain_2d
from icestream.algorithms.gain.orientation import ORIENTATIONS, Orientation, fit_gain_size_2d, orient_gain_2d
from icestream.algorithms.motion.crop import Area, crop_detector
from icestream.algorithms.motion.frames import Detector
from icestream.flow import Context, ItemError
from icestream.io.defects import read_defects
from icestream.io.gain import read_gain
from icestream.io.movie import MovieReader
from icestream.records import FileRef, FrameUse


def recorded_area(use: FrameUse) -> Area:
    """Return the part of the frames that was used, in pixels as they are read."""
    return Area(0, 0, use.height_px, use.width_px) if use.crop_px is None else Area(*use.crop_px)


def read_recorded_frames(reader: MovieReader, use: FrameUse, *, n_frames: int) -> Iterator[NDArray[Any]]:
    """Yield the used part of each used frame as it is stored, ``(height, width)`` of the area, one after the other."""
    rows, columns = recorded_area(use).slices
    for frame in reader.frames(use.first_frame, use.first_frame + n_frames):
        yield np.ascontiguousarray(frame[rows, columns])


def rebuild_detector(use: FrameUse, *, defects: FileRef | None, movie_format: str, ctx: Context) -> Detector:
    """Return factor and defects of the used part of the frames, as motion correction had them.

    Parameters
    ----------
    defects
        The list of pixels that cannot be trusted that motion correction was given; the record does not name it.

    Raises
    ------
    ItemError
        Gain and list declare another number of pixels defect than is on record.
    FileFormatError, SourceGone
        The gain or a list of defects cannot be read, or is for frames of another size.
    """
    shape = (use.height_px, use.width_px)
    gain = None if use.gain is None else _read_gain(use, use.gain, movie_format=movie_format, ctx=ctx)
    factor, declared = prepare_gain_2d(gain, operation=use.gain_operation or "multiply", shape=shape)  # (h, w) each
    if defects is not None:
        declared = declared | read_defects(ctx.path(defects), shape=shape)
    n_declared = int(np.count_nonzero(declared))
    if n_declared != use.n_known_defects:
        raise ItemError(
            f"{use.movie}: gain and list declare {n_declared} pixels defect, {use.n_known_defects} when motion was corrected; "
            "give `defects` the list that motion has"
        )
    found = declared if use.hot_pixels is None else declared | read_defects(ctx.path(use.hot_pixels), shape=shape)
    whole = Detector(factor, found, np.argwhere(found), n_declared=n_declared)
    return whole if use.crop_px is None else crop_detector(whole, recorded_area(use))


def _read_gain(use: FrameUse, gain: FileRef, *, movie_format: str, ctx: Context) -> NDArray[np.float32]:
    """Return the gain in the pixels of the frames: ``(h, w)``."""
    stored, operation = read_gain(ctx.path(gain), movie_format=movie_format, operation=use.gain_operation)
    orientation: Orientation = next((name for name in ORIENTATIONS if name == use.gain_orientation), "as stored")
    shape = (use.height_px, use.width_px)
    values = fit_gain_size_2d(orient_gain_2d(stored, orientation=orientation), shape=shape, operation=operation)
    if values is None:
        raise ItemError(f"gain is {stored.shape[0]}×{stored.shape[1]}, movie is {shape[0]}×{shape[1]} (height × width)")
    return values
