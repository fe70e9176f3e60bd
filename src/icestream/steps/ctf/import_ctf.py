"""CTFs that another program has found, from its files."""

import numpy as np

from icestream.flow import Angstrom, Context, Field, ItemError, step
from icestream.io.ctf_files import CTF_SUFFIXES, read_ctf_file
from icestream.records import CtfFit, Micrograph
from icestream.steps.streams.foreign_files import ForeignFilesParams, find_rows

_OTHER_FILES = ("_avrot",)
"""CTFFIND's radial averages are beside its results."""


class ImportCtfParams(ForeignFilesParams):
    """Where the CTFs are, and what the files do not say."""

    root: str = Field("ctf", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session with the files")
    resolution_ang: Angstrom | None = Field(
        None,
        gt=0,
        description="To what resolution the CTFs fit, where a file does not say it; unset: such an exposure fails here",
    )
    flip_y: bool = Field(
        False,
        description="The images were read from the other end of their rows, so that their angles turn the other way: pictures "
        "are read from the top, MRC files from the first row of the file",
    )


@step.map("import_ctf", version=1, memory_gb=0.5)
def import_ctf(micrograph: Micrograph, params: ImportCtfParams, ctx: Context) -> CtfFit:  # noqa: ARG001 - only its name matters
    """Take the CTF of a micrograph from a file of another program: STAR, CTFFIND's text, `.cs`, Scipion's sqlite, or CSV.

    It is joined to the exposure by its name, and waited for, as `import_picks` does. The larger defocus comes first, whichever
    way the file has them; radians become degrees. A score that the file does not say is 0.

    Raises
    ------
    ItemError
        The file cannot be read, does not name the micrograph, or says neither its defocus nor to what resolution it fits.
    NotYet
        There is no file yet, or a growing file does not have the CTF of this micrograph yet.
    """
    found, rows = find_rows(params, ctx, read_ctf_file, suffixes=CTF_SUFFIXES, what="CTFs", not_named=_OTHER_FILES)
    if rows is None or not len(rows):
        raise ItemError(f"{params.file}: has no CTF of {ctx.exposure.name}")
    values = {name: float(column[rows[0]]) for name, column in found.numbers.items()}
    if not all(np.isfinite(values[name]) for name in ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg")):
        raise ItemError(f"the file has no defocus of {ctx.exposure.name}: the program that wrote it failed there")
    if not np.isfinite(values["resolution_ang"]) or values["resolution_ang"] <= 0:
        if params.resolution_ang is None:
            raise ItemError("the file does not say to what resolution the CTF fits; set resolution_ang")
        values["resolution_ang"] = params.resolution_ang
    values["score"] = values["score"] if np.isfinite(values["score"]) else 0.0
    if params.flip_y:
        values["astigmatism_angle_deg"] = -values["astigmatism_angle_deg"]
    return CtfFit(**values)
