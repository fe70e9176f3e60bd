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
    n_picks: int = 0
    n_optics_groups: int = 1
    jobs_listed: bool = Field(True, description="Unset while RELION's lock kept new jobs out of default_pipeline.star")
    motion_error_px: Pixel | None = Field(None, description="Largest difference of RELION's local motion from ours, over all")
