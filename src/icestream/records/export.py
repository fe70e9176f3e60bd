"""What is kept up to date for other programs."""

from typing import ClassVar

from pydantic import Field

from icestream.records.vocabulary import FileRef, Snapshot
from icestream.units import Pixel


class RelionProject(Snapshot):
    """A RELION project folder kept up to date."""

    stored_name: ClassVar[str] = "RelionProject"

    folder: FileRef
    n_micrographs: int
    n_particles: int
    n_optics_groups: int = 1
    motion_error_px: Pixel | None = Field(None, description="By how much RELION's local motion misses ours at worst, over all")
