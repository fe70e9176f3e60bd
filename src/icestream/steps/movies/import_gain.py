"""Import the gain reference, also when it comes late."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from icestream.flow import Field, Foreseen, ItemError, SourceContext, Watch, step
from icestream.io.gain import read_gain
from icestream.io.raw_folder import RawFolder
from icestream.records import Acquisition, GainReference
from icestream.steps.movies.file_source import FileSourceParams, foresee_files, watch_files


class ImportGainParams(FileSourceParams):
    """Which file is the gain reference."""

    root: str = Field("gain", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session to watch")
    pattern: str = Field("*gain*", min_length=1, description="Which files: a glob relative to the root")
    operation: Literal["multiply", "divide"] | None = Field(
        None,
        description="How to apply it; unset: found from the data, or, where they cannot decide, multiply, "
        "but divide EER movies by anything other than a .gain file",
    )
    max_files: int | None = Field(
        1,
        ge=1,
        description="Stop looking after this many gain references; unset: take new ones throughout the session",
        json_schema_extra={"operational": True},
    )


def foresee_gain(params: ImportGainParams, folder: Path) -> Iterator[Foreseen]:
    """Yield why the gain references that are there already would be refused, if none of them can be used."""
    yield from foresee_files(params, folder, suffixes=None)
    refused = []
    for path in RawFolder(folder, params.pattern).scan().files:
        try:
            read_gain(path)
        except (ItemError, OSError) as error:
            refused.append(Foreseen(f"the gain reference is refused: {error}", refused=True))
        else:
            return
    yield from refused


@step.source("import_gain", version=1, output=GainReference, foresee=foresee_gain)
def import_gain(params: ImportGainParams, ctx: SourceContext) -> Watch:
    """Take the gain reference as soon as it appears; movies wait for it, and each uses the newest at its first use."""

    def read(path: Path, ref: str) -> tuple[GainReference, Acquisition | None]:
        return read_gain_reference(path, ref, operation=params.operation)

    return watch_files(params, ctx, read, suffixes=None, refuse_broken=True)


def read_gain_reference(
    path: Path, ref: str, *, operation: Literal["multiply", "divide"] | None
) -> tuple[GainReference, Acquisition | None]:
    """Return the record of a gain reference.

    Raises
    ------
    FileFormatError
        The file is no gain reference: not an image, or with values that no gain has.
    """
    gain, _ = read_gain(path)
    height_px, width_px = gain.shape
    return GainReference(file=ref, height_px=height_px, width_px=width_px, operation=operation), None
