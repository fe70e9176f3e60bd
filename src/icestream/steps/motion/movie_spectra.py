"""Power spectra of a movie from groups of its frames, for the CTF."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.motion.movie_spectra import MovieSpectra, average_group_spectra, group_sizes
from icestream.algorithms.motion.sum import binned_shape
from icestream.algorithms.spectra.periodogram import periodogram_tile_px
from icestream.algorithms.spectra.spectrum import spectrum_tile_px
from icestream.flow import Angstrom, Context, ElectronsPerSquareAngstrom, Field, ItemError, Params, step
from icestream.io.image import read_image, read_stack, write_mrc
from icestream.io.movie import open_movie
from icestream.records import Acquisition, FileRef, FrameUse, Micrograph, Motion, Movie, PowerSpectra
from icestream.steps.motion.reading import frame_range
from icestream.steps.motion.recorded_frames import read_recorded_frames, rebuild_detector, recorded_area


class MovieSpectraParams(Params):
    """How many frames are added up, and how wide the tiles are."""

    group_e_per_ang2: ElectronsPerSquareAngstrom = Field(
        4.0, gt=0, description="Dose of a group of frames, about; rings of ice at 3.7 Å are strongest at 4"
    )
    group_frames: int = Field(4, ge=1, description="Frames in a group where the dose of a frame is unset")
    tile_ang: Angstrom = Field(1000.0, ge=100, le=4000, description="Side of the spectrum tiles; wider resolves finer Thon rings")
    defects: FileRef | None = Field(
        None, description="The pixels that cannot be trusted, as `motion` was given them (root:path); unset where it had no list"
    )


_FINE_TILE_ANG = 2000.0
"""As that of `ctf`."""


@step.map("movie_spectra", version=1, reads=("pixel_size_ang", "dose_per_frame_e_per_ang2"), memory_gb=2.0)
def average_movie_spectra(
    movie: Movie, micrograph: Micrograph, params: MovieSpectraParams, acquisition: Acquisition, ctx: Context
) -> PowerSpectra:
    """Average the power spectra of groups of frames, which keep Thon rings that a sum of all frames has lost.

    The record of the micrograph says which frames were used and how they were corrected: gain, defects, crop, bin and motion
    are those. In a group of a few frames the motion of the whole field is enough; local motion hardly differs between them.

    Raises
    ------
    ItemError
        The micrograph was not made of this movie by motion correction, or otherwise than told; or the pixel size is unset.
    """
    use, motion = _records_of(movie, micrograph)
    group, dose = _choose_group(use, params, acquisition)
    pixel_size_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    try:
        found = _average(movie, micrograph, use, motion, group=group, tile_ang=params.tile_ang, defects=params.defects,
                         pixel_size_ang=pixel_size_ang, ctx=ctx)  # fmt: skip
    except ValueError as error:
        raise ItemError(f"{movie.file}: no power spectrum of groups of {group} frames: {error}") from error
    sizes = group_sizes(len(motion.global_yx_px), group=group)
    mean_size = sum(sizes) / len(sizes)
    return PowerSpectra(
        spectra=_publish(found.spectra, "_spectra.mrc", pixel_size_ang=pixel_size_ang, ctx=ctx),
        fine_spectrum=_publish(found.fine_spectrum, "_fine_spectrum.mrc", pixel_size_ang=pixel_size_ang, ctx=ctx),
        tile_px=found.spectra.shape[1],
        fine_px=found.fine_spectrum.shape[0],
        bin=micrograph.bin,
        n_groups=len(sizes),
        frames_per_group=round(mean_size, 3),
        group_e_per_ang2=None if dose is None else round(mean_size * dose, 3),
    )


def _records_of(movie: Movie, micrograph: Micrograph) -> tuple[FrameUse, Motion]:
    use, motion = micrograph.frames, micrograph.motion
    if use is None or motion is None:
        raise ItemError(f"{micrograph.image}: no motion and frames are on record; connect what `motion` made of the movie")
    if use.movie != movie.file:
        raise ItemError(f"{micrograph.image}: was made of {use.movie}, not of {movie.file}")
    return use, motion


def _choose_group(use: FrameUse, params: MovieSpectraParams, acquisition: Acquisition) -> tuple[int, float | None]:
    """Return how many frames a group has, about, and the dose of a frame as it is read, where it is known."""
    dose = acquisition.dose_of(use.stored_frames)
    if dose is None:
        return params.group_frames, None
    return max(1, round(params.group_e_per_ang2 / dose)), dose


def _average(
    movie: Movie,
    micrograph: Micrograph,
    use: FrameUse,
    motion: Motion,
    *,
    group: int,
    tile_ang: float,
    defects: FileRef | None,
    pixel_size_ang: float,
    ctx: Context,
) -> MovieSpectra:
    finer, n_frames, area = use.eer_upsampling or 1, len(motion.global_yx_px), recorded_area(use)
    bin = area.width / micrograph.width_px
    shape = binned_shape((area.height, area.width), bin=bin)
    with open_movie(ctx.path(movie.file), eer_group=use.eer_group or 1, eer_upsampling=finer) as reader:
        frame_range(reader, movie, first=use.first_frame, last=use.first_frame + n_frames - 1, expected=None)
        detector = rebuild_detector(use, defects=defects, movie_format=reader.format, ctx=ctx)
        return average_group_spectra(
            _told(read_recorded_frames(reader, use, n_frames=n_frames), n_frames, ctx),
            detector,
            global_yx_px=np.array(motion.global_yx_px) * finer,
            group=group,
            tile_px=spectrum_tile_px(shape, pixel_size_ang=pixel_size_ang, tile_ang=tile_ang),
            fine_px=periodogram_tile_px(shape, pixel_size_ang=pixel_size_ang, tile_ang=max(_FINE_TILE_ANG, tile_ang)),
            bin=bin,
        )


def _told(frames: Iterator[NDArray[Any]], n_frames: int, ctx: Context) -> Iterator[NDArray[Any]]:
    for number, frame in enumerate(frames):
        ctx.progress(number / n_frames, "adding up groups of frames")
        yield frame


def _publish(spectra: NDArray[np.float32], suffix: str, *, pixel_size_ang: float, ctx: Context) -> FileRef:
    """Write spectra; the header has the pixel size of the micrograph, as a frequency has no size in Å."""
    with ctx.publish(suffix) as out:
        write_mrc(out.path, spectra, pixel_size_ang=pixel_size_ang)
    return out.ref


def read_power_spectra(
    spectra: PowerSpectra, micrograph: Micrograph, ctx: Context
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the two spectra ``(2, tile, tile // 2 + 1)`` and the fine one ``(fine, fine // 2 + 1)`` of a micrograph.

    Raises
    ------
    ItemError
        They have other pixels than the micrograph.
    """
    if spectra.bin != micrograph.bin:
        raise ItemError(f"{spectra.spectra}: pixels are binned by {spectra.bin:g}, those of the micrograph by {micrograph.bin:g}")
    return read_stack(ctx.path(spectra.spectra)), read_image(ctx.path(spectra.fine_spectrum))
