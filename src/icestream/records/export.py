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
    n_picks: int | None = Field(None, description="Unset where no picks are connected")
    n_optics_groups: int = 1
    list_locked: bool | None = Field(None, description="RELION's lock kept new jobs out of default_pipeline.star; else unset")
    motion_error_px: Pixel | None = Field(None, description="Largest difference of RELION's local motion from ours, over all")


class RelionClasses(Snapshot):
    """2D classes in a RELION project, as a Class2D job."""

    stored_name: ClassVar[str] = "RelionClasses"

    folder: FileRef = Field(description="Of the job")
    n_classes: int
    n_particles: int = Field(description="Particles with a class that the project has")
    n_unknown: int = Field(0, description="Particles with a class that the project does not have, or not yet")
    version: int | None = Field(None, description="Of the class averages")


class CryosparcGroups(Snapshot):
    """Exposures and particles for cryoSPARC, kept up to date."""

    stored_name: ClassVar[str] = "CryosparcGroups"

    folder: FileRef
    n_exposures: int
    n_particles: int
    n_left_out: int = Field(0, description="Exposures without a CTF, where the first ones had one")
    n_exposure_groups: int = Field(1, description="Groups of exposures with nearly the same beam shift")
