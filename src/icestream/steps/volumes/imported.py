"""Maps from files, as initial volumes."""

from pathlib import Path

from icestream.flow import Angstrom, Field, FileFormatError, OtherKind, SourceContext, SourceGone, Watch, step
from icestream.io.image import image_header
from icestream.io.ready import check_complete
from icestream.records import Acquisition, Volume
from icestream.steps.movies.file_source import FileSourceParams, watch_files
from icestream.steps.volumes.gathered import Symmetry


class ImportVolumeParams(FileSourceParams):
    """Which file is the map, and what its header does not say."""

    pattern: str = Field("**/*.mrc", min_length=1, description="Which file: a glob relative to the root; **/ matches any depth")
    half_maps: str | None = Field(
        None,
        pattern=r"^[^/]",
        description="Which two files are its half maps: a glob relative to the root, such as **/*_half?_*.mrc; unset: none",
    )
    pixel_size_ang: Angstrom | None = Field(None, gt=0, description="Size of a voxel; unset: what the file says")
    diameter_ang: Angstrom | None = Field(None, gt=0, description="Diameter of the particle; unset: not known")
    symmetry: Symmetry = Field("C1", description="Point group of the map, in RELION's setting")
    max_files: int | None = Field(
        1,
        ge=1,
        description="Stop looking after this many files; unset: take new ones throughout the session",
        json_schema_extra={"operational": True},
    )


@step.source("import_volume", version=1, output=Volume)
def import_volume(params: ImportVolumeParams, ctx: SourceContext) -> Watch:
    """Take a map as a volume to begin with; steps that need one wait for it.

    The map is bright on dark, in the orientation in which its symmetry is meant, and centred in its box, as those of RELION,
    cryoSPARC and icestream are. With half maps, it is taken when both are there; they are unfiltered and unmasked, from separate
    particles, and `map_quality` judges the map by them. If only half maps are replaced later, that is not noticed.
    """
    folder = ctx.path(f"{params.root}:.")

    def read(path: Path, ref: str) -> tuple[Volume, Acquisition | None]:
        volume = read_volume(path, ref, params=params)
        halves = [] if params.half_maps is None else find_half_maps(path, folder, pattern=params.half_maps)
        refs = [f"{params.root}:{half.relative_to(folder).as_posix()}" for half in halves]
        return volume.model_copy(update={"half_maps": refs}), None

    return watch_files(params, ctx, read, suffixes=frozenset({".mrc", ".map"}), refuse_broken=True)


def read_volume(path: Path, ref: str, *, params: ImportVolumeParams) -> Volume:
    """Return the record of a map.

    Raises
    ------
    FileFormatError
        It is no cube, or nobody says the size of its voxels.
    """
    header = image_header(path)
    if not header.n_images == header.height_px == header.width_px:
        size = f"{header.width_px} x {header.height_px} x {header.n_images}"
        raise FileFormatError(path, f"a map is a cube; this one is {size} px")
    known = params.pixel_size_ang or header.pixel_size_ang
    if not known:
        raise FileFormatError(path, "does not say the size of its voxels; set pixel_size_ang")
    return Volume(
        map=ref,
        count=0,
        box_px=header.width_px,
        bin=1.0,
        pixel_size_ang=known,
        symmetry=params.symmetry,
        diameter_ang=params.diameter_ang,
    )


def find_half_maps(path: Path, folder: Path, *, pattern: str) -> list[Path]:
    """Return the two half maps of a map: the files below a folder that a glob fits, by name.

    Raises
    ------
    OtherKind
        The file is one of the half maps itself.
    SourceGone
        They are not there yet, or not complete; look again later.
    FileFormatError
        More than two files fit, or one has another box than the map.
    """
    halves = sorted(folder.glob(pattern))
    if path in halves:
        raise OtherKind(path, "is a half map")
    if len(halves) < 2:
        raise SourceGone(f"{path}: {len(halves)} of its two half maps are there, of those that fit {pattern}")
    if len(halves) > 2:
        raise FileFormatError(path, f"has two half maps, but {len(halves)} files fit {pattern}; write a narrower pattern")
    size = image_header(path).height_px
    for half in halves:
        try:
            check_complete(half)
        except FileFormatError as error:
            raise SourceGone(f"{path}: a half map is not complete: {error}") from error
        header = image_header(half)
        if not header.n_images == header.height_px == header.width_px == size:
            raise FileFormatError(half, f"a half map has the box of its map, {size} px; this one is {header.width_px} px wide")
    return halves
