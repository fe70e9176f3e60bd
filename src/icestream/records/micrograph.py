"""Micrographs, and the spectra that are averaged over the frames of their movies."""

from typing import ClassVar

from pydantic import Field

from icestream.records.acquisition import ON_THE_GRID, Acquisition, ExposureMetadata, told_of
from icestream.records.motion import FrameUse, Motion
from icestream.records.shown import (
    Card,
    Headline,
    Image,
    Measure,
    MotionField,
    Number,
    Panel,
    Path,
    Shown,
    Text,
    When,
)
from icestream.records.vocabulary import FileRef, Record
from icestream.units import WholePixels


class RawArea(Record):
    """Which part of the raw image a micrograph shows, in raw pixels, and into how many pixels it is divided.

    Micrographs are Fourier-cropped, so the centre of their first pixel is that of the first raw pixel of the area.
    """

    top_px: float
    left_px: float
    height_px: float
    width_px: float
    rows: int = Field(ge=1, description="Height of the micrograph")
    columns: int = Field(ge=1, description="Width of the micrograph")

    @property
    def bin_yx(self) -> tuple[float, float]:
        """Raw pixels for each pixel of the micrograph along y and x: sides are even, so they may differ a little."""
        return self.height_px / self.rows, self.width_px / self.columns


class Micrograph(Record):
    """One motion-corrected (or imported) image."""

    stored_name: ClassVar[str] = "Micrograph"

    image: FileRef = Field(description="The image to pick and extract from (dose-weighted where a dose is known)")
    unweighted: FileRef | None = Field(None, description="The sum without dose weighting, for the CTF")
    even: FileRef | None = Field(None, description="The sum of frames 0, 2, …; even and odd add up to the image")
    odd: FileRef | None = Field(None, description="The sum of frames 1, 3, …")
    height_px: int
    width_px: int
    bin: float = Field(gt=0, description="Pixel size relative to the raw pixel")
    dose_weighted: bool = False
    dose_note: str | None = Field(None, description="Why it is not weighted by dose, though that was not turned off")
    n_frames: int | None = None
    motion: Motion | None = None
    frames: FrameUse | None = None
    thumbnail: FileRef | None = None
    metadata: ExposureMetadata | None = None

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Motion",
            measures=(
                Measure("Total motion", "motion.total_px", pixels="raw", metric="motion_total_angstroms", better="low"),
                Measure("Early motion", "motion.early_px", pixels="raw", metric="motion_early_angstroms", better="low"),
                Measure(
                    "Gain left in the movie",
                    "frames.gain_residual",
                    "%",
                    factor=100.0,
                    metric="gain_left_percent",
                    better="low",
                    hidden_when=When("frames.gain", begins="session:"),  # learnt from these very movies: nothing can be left
                ),
            ),
            cards=(
                Card(
                    numbers=(
                        Number("Total", "motion.total_px", pixels="raw"),
                        Number("Early", "motion.early_px", pixels="raw"),
                        Number("Frames", "motion.global_yx_px", "frames", how="length"),
                    ),
                    path=Path(
                        "motion.global_yx_px",
                        title="Path of the specimen",
                        caption="Path of the specimen; the ring is the first frame",
                    ),
                    texts=(
                        Text("{motion.note:sentence}"),
                        Text("{frames.gain_note:sentence}"),
                        Text("{dose_note:sentence}"),
                    ),
                ),
            ),
        ),
        image=Image(
            "thumbnail",
            height="height_px",
            width="width_px",
            full="image",
            numbers=(Number("Motion", "motion.total_px", pixels="raw"),),
            path=Path("motion.global_yx_px", title="Path of the specimen"),
            motion_field=MotionField("motion.local_coefficients", "Local motion up to"),
        ),
        headlines=(Headline("Pace", "micrographs per hour", of="pace", place=1),),
        place=ON_THE_GRID,
        notes=(Text("{metadata.note}"),),
    )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with its header or sidecar."""
        return told_of(self.metadata)

    @property
    def raw_area(self) -> RawArea:
        """The part of the raw image that it shows."""
        size = {"rows": self.height_px, "columns": self.width_px}
        if self.frames is None:
            height, width = self.height_px * self.bin, self.width_px * self.bin
            return RawArea(top_px=0, left_px=0, height_px=height, width_px=width, **size)
        finer = self.frames.eer_upsampling or 1
        whole = (0, 0, self.frames.height_px, self.frames.width_px)
        top, left, height, width = self.frames.crop_px or whole
        first = ((start + 0.5) / finer - 0.5 for start in (top, left))  # a finer pixel is a corner of one of the camera
        return RawArea(
            **dict(zip(("top_px", "left_px"), first, strict=True)), height_px=height / finer, width_px=width / finer, **size
        )

    def dose_e_per_ang2(self, acquisition: Acquisition) -> float | None:
        """Return the dose of the whole image: of its frames, else what its file says; None where neither is known."""
        stored = None if self.frames is None else self.frames.stored_frames
        if self.n_frames is None:
            return None if self.metadata is None else self.metadata.total_dose_e_per_ang2
        return acquisition.dose_of(self.n_frames * (stored or 1))


class PowerSpectra(Record):
    """Power spectra of a movie, averaged over groups of its frames; frequencies are unshifted, half of them along x."""

    stored_name: ClassVar[str] = "PowerSpectra"
    former_names: ClassVar[tuple[str, ...]] = ("icestream.steps.movie_spectra_record:PowerSpectra",)

    spectra: FileRef = Field(description="Two images (tile, tile / 2 + 1): the spectra of two halves of the tiles")
    fine_spectrum: FileRef = Field(description="One image (fine, fine / 2 + 1): the spectrum of tiles as wide as possible")
    tile_px: WholePixels = Field(description="Side of the tiles of the two images, in pixels of the micrograph")
    fine_px: WholePixels = Field(description="Side of the tiles of the one image")
    bin: float = Field(gt=0, description="Size of these pixels relative to the raw pixel")
    n_groups: int = Field(ge=1, description="Groups of frames that were averaged")
    frames_per_group: float = Field(ge=1, description="Frames of a group, on average (EER: after camera frames were added up)")
    group_e_per_ang2: float | None = Field(None, description="Dose of a group, on average; unset where that of a frame is")
