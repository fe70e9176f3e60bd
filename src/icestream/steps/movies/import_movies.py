"""Import movies while the camera writes them."""

from collections.abc import Iterator
from pathlib import Path

from icestream.flow import Field, Foreseen, OtherKind, SourceContext, Watch, step
from icestream.io.metadata import read_beside
from icestream.io.movie import movie_header
from icestream.records import Acquisition, Movie
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

    return watch_files(params, ctx, read, suffixes=_SUFFIXES, sidecars=params.read_metadata)


def read_movie(path: Path, ref: str, *, read_metadata: bool) -> tuple[Movie, Acquisition | None]:
    """Return the record of a movie, and the acquisition values its header and sidecar give.

    Raises
    ------
    FileFormatError, TruncatedFile
        The file is no movie, or is shorter than its header declares.
    OtherKind
        It is a single image (a sum, an overview, a gain reference), or a montage.
    """
    header = movie_header(path)
    if header.n_frames == 1:
        raise OtherKind(path, "has one image, a movie has several; import micrographs with import_micrographs")
    metadata, acquisition = read_beside(path, header.said, header.frames) if read_metadata else (None, None)
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
