"""Import class averages that another program made, as fixed references."""

from pathlib import Path

import numpy as np

from icestream.errors import FileFormatError
from icestream.flow import Field, SourceContext, Watch, step
from icestream.io.image import image_header, read_stack
from icestream.records import Acquisition, ClassAverages, ClassInfo
from icestream.steps.movies.file_source import FileSourceParams, watch_files
from icestream.units import Angstrom


class ImportAveragesParams(FileSourceParams):
    """Which file has the class averages."""

    root: str = Field("averages", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session to watch")
    pattern: str = Field("*classes.mrcs", min_length=1, description="Which files: a glob relative to the root")
    pixel_size_ang: Angstrom | None = Field(None, gt=0, description="Of the averages; unset: as the file says")
    diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Diameter of the round mask on the averages; unset: the whole box"
    )
    max_files: int | None = Field(
        1,
        ge=1,
        description="Stop looking after this many files; unset: take new ones throughout the session",
        json_schema_extra={"operational": True},
    )


@step.source("import_averages", version=1, output=ClassAverages)
def import_averages(params: ImportAveragesParams, ctx: SourceContext) -> Watch:
    """Take class averages from a stack of images, as fixed references; particles wait for them.

    The averages are bright on dark, as those of RELION, cryoSPARC and icestream are. Class ids count from 1, as RELION's do;
    empty images are left out.
    """

    def read(path: Path, ref: str) -> tuple[ClassAverages, Acquisition | None]:
        return read_averages(path, ref, pixel_size_ang=params.pixel_size_ang, diameter_ang=params.diameter_ang), None

    return watch_files(params, ctx, read, suffixes=frozenset({".mrcs", ".mrc", ".tif", ".tiff"}), refuse_broken=True)


def read_averages(path: Path, ref: str, *, pixel_size_ang: float | None, diameter_ang: float | None) -> ClassAverages:
    """Return the record of a stack of class averages.

    Raises
    ------
    FileFormatError
        The images are not square, all empty, or nobody says their pixel size.
    """
    header = image_header(path)
    if header.height_px != header.width_px:
        raise FileFormatError(path, f"class averages are square; these are {header.height_px} x {header.width_px} px")
    known = pixel_size_ang or header.pixel_size_ang
    if not known:
        raise FileFormatError(path, "does not say its pixel size; set pixel_size_ang")
    filled = np.ptp(read_stack(path), axis=(1, 2)) > 0  # (k,)
    if not filled.any():
        raise FileFormatError(path, f"all {header.n_images} class averages are empty")
    return ClassAverages(
        stack=ref,
        picture=None,
        count=0,
        box_px=header.width_px,
        bin=1.0,
        pixel_size_ang=known,
        diameter_ang=diameter_ang,
        classes=[ClassInfo(id=number + 1, count=int(there)) for number, there in enumerate(filled)],
    )
