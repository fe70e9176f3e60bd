"""Import micrographs that were summed elsewhere, and bring them into the session: one format, with a thumbnail."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from icestream.flow import Context, Field, Foreseen, ItemError, OtherKind, SourceContext, Watch, step
from icestream.io.image import image_header, read_image, write_mrc
from icestream.io.metadata import read_beside
from icestream.io.movie import movie_header
from icestream.io.other_images import name_of_other
from icestream.io.preview import write_preview
from icestream.io.said import Frames
from icestream.records import Acquisition, Micrograph
from icestream.steps.movies.file_source import FileSourceParams, foresee_files, watch_files

_SUFFIXES = frozenset({".mrc", ".map", ".tif", ".tiff", ".png", ".jpg", ".jpeg"})
_MOVIE_KINDS = ("mrc", "tiff")


class ImportMicrographsParams(FileSourceParams):
    """Which micrographs are taken, and when a file counts as complete."""

    root: str = Field("micrographs", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session to watch")
    bin: float = Field(1.0, gt=0, description="Pixel size of the micrographs relative to the session's pixel size")
    dose_weighted: bool = Field(False, description="The micrographs are dose-weighted already")


def foresee_micrographs(params: ImportMicrographsParams, folder: Path) -> Iterator[Foreseen]:
    """Yield what is to be said of the folder of micrographs before it is watched."""
    return foresee_files(params, folder, suffixes=_SUFFIXES)


@step.source("import_micrographs", version=1, output=Micrograph, foresee=foresee_micrographs)
def import_micrographs(params: ImportMicrographsParams, ctx: SourceContext) -> Watch:
    """Take micrographs (MRC, TIFF, PNG or JPEG) from a folder as they are completed."""

    def read(path: Path, ref: str) -> tuple[Micrograph, Acquisition | None]:
        return read_micrograph(path, ref, bin=params.bin, dose_weighted=params.dose_weighted)

    return watch_files(params, ctx, read, suffixes=_SUFFIXES, sidecars=True)


def read_micrograph(path: Path, ref: str, *, bin: float, dose_weighted: bool) -> tuple[Micrograph, Acquisition | None]:
    """Return the record of a micrograph, and the acquisition values in its header and sidecar.

    Raises
    ------
    FileFormatError
        The file is no image.
    OtherKind
        It holds more than one image, is an overview or a reference by its name, or a montage.
    """
    what = name_of_other(path)
    if what is not None:
        raise OtherKind(path, f"is {what} by its name, not a micrograph")
    header = image_header(path)
    if header.n_images != 1:
        raise OtherKind(path, f"has {header.n_images} images, a micrograph has one; import movies with import_movies")
    said = movie_header(path).said if header.format.startswith(_MOVIE_KINDS) else None
    frames = Frames(None, header.height_px, header.width_px)
    metadata, acquisition = read_beside(path, said, frames, pixel_size_ang=header.pixel_size_ang)
    micrograph = Micrograph(
        image=ref,
        height_px=header.height_px,
        width_px=header.width_px,
        bin=bin,
        dose_weighted=dose_weighted,
        metadata=metadata,
    )
    return micrograph, _of_raw_pixels(acquisition, bin=bin)


def _of_raw_pixels(acquisition: Acquisition, *, bin: float) -> Acquisition:
    """Turn the pixel size that files say, that of the micrograph, into that of the raw movie, which the session means."""
    if acquisition.pixel_size_ang is None:
        return acquisition
    return acquisition.model_copy(update={"pixel_size_ang": acquisition.pixel_size_ang / bin})


@step.map("prepare_micrograph", version=1, reads=("pixel_size_ang",))
def prepare_micrograph(micrograph: Micrograph, acquisition: Acquisition, ctx: Context) -> Micrograph:
    """Convert an imported micrograph to a 32-bit MRC file of the session and draw its thumbnail."""
    pixel_size_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    image = read_image(ctx.path(micrograph.image))  # (h, w)
    if not np.isfinite(image).all():
        raise ItemError(f"{micrograph.image}: has values that are not finite")
    if float(image.min()) == float(image.max()):
        raise ItemError(f"{micrograph.image}: is empty: every pixel is {float(image.min()):g}")
    with ctx.publish(".mrc") as converted:
        write_mrc(converted.path, image, pixel_size_ang=pixel_size_ang)
    with ctx.publish("_thumb.jpg") as thumbnail:
        write_preview(thumbnail.path, image)
    return micrograph.model_copy(update={"image": converted.ref, "thumbnail": thumbnail.ref})
