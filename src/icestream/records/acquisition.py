"""What the microscope did, and what the acquisition software wrote about an exposure."""

from pydantic import Field

from icestream.errors import ItemError
from icestream.records.vocabulary import Record
from icestream.units import Angstrom, Degree, ElectronsPerSquareAngstrom, Kilovolt, Micrometer, Millimeter, Second


class Acquisition(Record):
    """What the microscope did; every value is unset until somebody or some file says it."""

    voltage_kv: Kilovolt | None = Field(None, gt=0, description="Acceleration voltage")
    cs_mm: Millimeter | None = Field(None, ge=0, description="Spherical aberration")
    amplitude_contrast: float | None = Field(None, ge=0, le=1, description="Fraction of amplitude contrast")
    pixel_size_ang: Angstrom | None = Field(None, gt=0, description="Pixel size of the raw movie")
    dose_per_frame_e_per_ang2: ElectronsPerSquareAngstrom | None = Field(None, gt=0, description="Dose of one frame")
    pre_exposure_e_per_ang2: ElectronsPerSquareAngstrom | None = Field(None, ge=0, description="Dose before the first frame")

    def need(self, name: str) -> float:
        """Return a value that a step cannot do without.

        Raises
        ------
        ItemError
            Neither the session nor the file says it.
        """
        value = getattr(self, name)
        if value is None:
            raise ItemError(f"{name} is unset: set it in the acquisition values of the session; the file does not say it")
        return float(value)


class ExposureMetadata(Record):
    """What the acquisition software wrote about one exposure (file header, EPU XML, SerialEM mdoc)."""

    acquired_at: str | None = None
    stage_y_um: Micrometer | None = None
    stage_x_um: Micrometer | None = None
    stage_z_um: Micrometer | None = None
    tilt_deg: Degree | None = None
    beam_shift_y: float | None = None
    beam_shift_x: float | None = None
    applied_defocus_um: Micrometer | None = None
    exposure_s: Second | None = None
    total_dose_e_per_ang2: ElectronsPerSquareAngstrom | None = None
    grid_square: str | None = None
    foil_hole: str | None = None
    microscope: str | None = None
    camera: str | None = None
    note: str | None = Field(None, description="What could not be read, and why")
