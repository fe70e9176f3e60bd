"""What the microscope did, and what the acquisition software wrote about an exposure."""

from functools import cache
from typing import Any

from pydantic import Field

from icestream.errors import ItemError
from icestream.records.shown import StagePlace
from icestream.records.vocabulary import Record
from icestream.units import Angstrom, Degree, ElectronsPerSquareAngstrom, Kilovolt, Micrometer, Millimeter, Second


class Acquisition(Record):
    """What the microscope did; every value is unset until a person or a file states it."""

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
            raise ItemError(f"{name} is unset: set it in the acquisition values of the session; the file does not state it")
        return float(value)

    def dose_of(self, n_stored_frames: float) -> float | None:
        """Return the dose of some frames as they are stored (EER: of camera frames) in e/Å²; None where that of one is unset.

        A frame that a step reads may be several stored ones: `FrameUse.stored_frames` says how many.
        """
        return None if self.dose_per_frame_e_per_ang2 is None else self.dose_per_frame_e_per_ang2 * n_stored_frames


class PossibleAcquisition(Acquisition):
    """Values that a microscope can have: a slip of the unit is none."""

    voltage_kv: Kilovolt | None = Field(None, ge=10, le=3000, description="Acceleration voltage")
    cs_mm: Millimeter | None = Field(None, ge=0, le=20, description="Spherical aberration")
    pixel_size_ang: Angstrom | None = Field(None, ge=0.05, le=50, description="Pixel size of the raw movie")
    dose_per_frame_e_per_ang2: ElectronsPerSquareAngstrom | None = Field(None, gt=0, le=500, description="Dose of one frame")
    pre_exposure_e_per_ang2: ElectronsPerSquareAngstrom | None = Field(
        None, ge=0, le=1000, description="Dose before the first frame"
    )


@cache
def possible_range(name: str) -> tuple[float, float, str]:
    """Return the lowest and the highest value that an acquisition value can have, and its unit."""
    schema = PossibleAcquisition.model_json_schema()["properties"][name]
    number: dict[str, Any] = next(branch for branch in schema["anyOf"] if branch["type"] != "null")
    return float(number.get("minimum", number.get("exclusiveMinimum", 0))), float(number["maximum"]), str(number.get("unit", ""))


class ExposureMetadata(Record):
    """What the acquisition software wrote about one exposure (file header, EPU XML, SerialEM mdoc)."""

    acquired_at: str | None = None
    stage_y_um: Micrometer | None = None
    stage_x_um: Micrometer | None = None
    stage_z_um: Micrometer | None = None
    tilt_deg: Degree | None = None
    beam_shift_y: float | None = None
    beam_shift_x: float | None = None
    image_shift_y_um: Micrometer | None = Field(None, description="Image shift as the software states it")
    image_shift_x_um: Micrometer | None = Field(None, description="Image shift as the software states it")
    applied_defocus_um: Micrometer | None = None
    exposure_s: Second | None = None
    total_dose_e_per_ang2: ElectronsPerSquareAngstrom | None = None
    grid_square: str | None = None
    foil_hole: str | None = None
    microscope: str | None = None
    camera: str | None = None
    note: str | None = Field(None, description="What could not be read or contradicts itself, and how that was resolved")


ON_THE_GRID = StagePlace(
    "metadata.stage_y_um",
    "metadata.stage_x_um",
    square="metadata.grid_square",
    hole="metadata.foil_hole",
    beam_y="metadata.beam_shift_y",
    beam_x="metadata.beam_shift_x",
    image_y="metadata.image_shift_y_um",
    image_x="metadata.image_shift_x_um",
)
"""Where a record with ``metadata`` was taken."""


def told_of(metadata: ExposureMetadata | None) -> tuple[str, ...]:
    """Return what people should know about the files that metadata come from."""
    return () if metadata is None or metadata.note is None else (metadata.note,)
