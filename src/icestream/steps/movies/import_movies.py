"""Import movies while the camera writes them."""

from collections.abc import Iterator
from pathlib import Path

from icestream.errors import FileFormatError, OtherKind
from icestream.flow import Field, Foreseen, SourceContext, Watch, step
from icestream.io.metadata import find_sidecar, merge_acquisition, merge_metadata, place_exposure, read_sidecar
from icestream.io.movie import movie_header
from icestream.records import Acquisition, ExposureMetadata, Movie
from icestream.steps.movies.file_source import FileSourceParams, foresee_files, watch_files

_SUFFIXES = frozenset({".mrc", ".mrcs", ".st", ".tif", ".tiff", ".eer"})


class ImportMoviesParams(FileSourceParams):
    """Which movies are taken, and when a movie counts as complete."""

    read_metadata: bool = Field(True, description="Read headers and EPU or SerialEM sidecars for acquisition values")


def foresee_movies(params: ImportMoviesParams, folder: Path) -> Iterator[Foreseen]:
    """Yield what is to be said of the folder of movies before it is watched."""
    return foresee_files(params, folder, suffixes=_SUFFIXES)


@step.source("import_movies", version=2, output=Movie, foresee=foresee_movies)
def import_movies(params: ImportMoviesParams, ctx: SourceContext) -> Watch:
    """Take movies from a folder as they are completed, with what their headers and sidecars say."""

    def read(path: Path, ref: str) -> tuple[Movie, Acquisition | None]:
        return read_movie(path, ref, read_metadata=params.read_metadata)

    return watch_files(params, ctx, read, suffixes=_SUFFIXES)


def read_movie(path: Path, ref: str, *, read_metadata: bool) -> tuple[Movie, Acquisition | None]:
    """Return the record of a movie, and the acquisition values its header and sidecar give.

    Raises
    ------
    FileFormatError, TruncatedFile
        The file is no movie, or is shorter than its header declares.
    OtherKind
        It is a single image: a sum, an overview, a gain reference.
    """
    header = movie_header(path)
    if header.n_frames == 1:
        raise OtherKind(path, "has one image, a movie has several; import micrographs with import_micrographs")
    metadata, acquisition = _metadata_of(path, header.metadata, header.acquisition) if read_metadata else (None, None)
    movie = Movie(
        file=ref,
        n_frames=header.n_frames,
        height_px=header.height_px,
        width_px=header.width_px,
        format=header.format,
        size_bytes=path.stat().st_size,
        metadata=metadata,
        told=acquisition,
    )
    return movie, acquisition


def _metadata_of(
    path: Path, in_header: ExposureMetadata | None, acquisition: Acquisition | None
) -> tuple[ExposureMetadata, Acquisition]:
    sidecar = find_sidecar(path)
    if sidecar is None:
        return place_exposure(merge_metadata(in_header, None), path), merge_acquisition(acquisition, None)
    try:
        beside, beside_acquisition = read_sidecar(sidecar, path)
    except FileFormatError as error:
        beside, beside_acquisition = ExposureMetadata(note=f"{sidecar.name} was not read: {error.reason}"), Acquisition()
    return merge_metadata(in_header, beside), merge_acquisition(acquisition, beside_acquisition)
