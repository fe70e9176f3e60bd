"""The micrograph that a program made of a movie, published as our own motion correction publishes its own."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.flow import Context, FileFormatError
from icestream.io.image import read_image, write_mrc
from icestream.io.preview import write_preview
from icestream.records import FileRef, FrameUse, Micrograph, Motion, Movie


def publish_corrected(
    image: Path, motion: Motion, use: FrameUse, movie: Movie, *, unweighted: Path | None, pixel_size_ang: float, ctx: Context
) -> Micrograph:
    """Publish the sum of a movie's frames, and that without dose weighting where ``image`` is weighted.

    Raises
    ------
    FileFormatError
        An image has another size than the movie.
    """
    ref, pixels = _publish(image, "_mic.mrc", movie, pixel_size_ang, ctx)
    with ctx.publish("_mic.png") as thumbnail:
        write_preview(thumbnail.path, pixels)
    return Micrograph(
        image=ref,
        unweighted=None if unweighted is None else _publish(unweighted, "_unweighted.mrc", movie, pixel_size_ang, ctx)[0],
        height_px=movie.height_px,
        width_px=movie.width_px,
        bin=1.0,
        dose_weighted=unweighted is not None,
        n_frames=movie.n_frames,
        motion=motion,
        frames=use,
        thumbnail=thumbnail.ref,
        metadata=movie.metadata,
    )


def _publish(path: Path, suffix: str, movie: Movie, pixel_size_ang: float, ctx: Context) -> tuple[FileRef, NDArray[np.float32]]:
    pixels = read_image(path)
    if pixels.shape != (movie.height_px, movie.width_px):
        raise FileFormatError(path, f"is {pixels.shape} px; the movie is {movie.height_px} x {movie.width_px}")
    with ctx.publish(suffix) as out:
        write_mrc(out.path, pixels, pixel_size_ang=pixel_size_ang)
    return out.ref, pixels
