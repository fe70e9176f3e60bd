"""Maps from files, as initial volumes."""

from pathlib import Path

from icestream.flow import Field, FileFormatError, SourceContext, Watch, step
from icestream.io.image import image_header
from icestream.records import Acquisition, Volume
from icestream.steps.movies.file_source import FileSourceParams, watch_files
from icestream.steps.volumes.gathered import Symmetry
from icestream.units import Angstrom


class ImportVolumeParams(FileSourceParams):
    """Which file is the map, and what its header does not say."""

    pattern: str = Field("**/*.mrc", min_length=1, description="Which file: a glob relative to the root; **/ matches any depth")
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
    cryoSPARC and icestream are.
    """

    def read(path: Path, ref: str) -> tuple[Volume, Acquisition | None]:
        return read_volume(path, ref, params=params), None

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
