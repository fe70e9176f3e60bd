"""How the specimen moved, which frames were used, and how far two corrections agree."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.shown import Card, Measure, Number, Panel, Shown
from icestream.records.vocabulary import FileRef, Record
from icestream.units import Pixel


class Motion(Record):
    """How the specimen moved during one movie; positions are displacements of the specimen, frame 0 at zero."""

    stored_name: ClassVar[str] = "Motion"

    global_yx_px: list[tuple[Pixel, Pixel]] = Field(description="Per frame, in raw pixels")
    local_coefficients: list[list[float]] | None = Field(None, description="(2, n), y then x; terms: algorithms.motion.model")
    local_reference: list[float] | None = Field(
        None, description="Time terms (3,) from which the micrograph counts its local motion; unset: those of frame 0"
    )
    local_rms_px: Pixel | None = Field(None, description="Spread of the patch tracks about the local model")
    total_px: Pixel = Field(description="Length of the global path")
    early_px: Pixel = Field(description="Path length in the first quarter of the frames")
    note: str | None = Field(None, description="Why a simpler model than requested was used, if it was")


class FrameUse(Record):
    """Which frames of which movie a micrograph was made of, and how their pixels were corrected."""

    movie: FileRef
    movie_frames: int = Field(ge=1, description="Frames of the movie as it was read (EER: after camera frames were added up)")
    first_frame: int = Field(0, ge=0, description="First frame used, counted from 0")
    height_px: int
    width_px: int = Field(description="Of the frames as they were read")
    crop_px: tuple[int, int, int, int] | None = Field(None, description="Part used: top, left, height, width; all if unset")
    eer_group: int | None = Field(None, description="EER: camera frames added up to one frame")
    eer_upsampling: int | None = Field(None, description="EER: pixels for each pixel of the camera, along each axis")
    gain: FileRef | None = None
    gain_operation: Literal["multiply", "divide"] | None = None
    gain_orientation: str | None = Field(None, description="How the gain was turned: a name of algorithms.gain.orientation")
    gain_slope: float | None = Field(None, description="How much of the gain is in the movie: 1 all of it, 0 none")
    gain_residual: float | None = Field(None, description="The same after correction; 0 if nothing is left")
    gain_note: str | None = Field(None, description="What the data could not show about the gain, or what is unusual about it")
    n_known_defects: int = Field(0, ge=0, description="Pixels that a list or the gain declares defective")
    n_hot_px: int = Field(0, ge=0, description="Further pixels found to be hot or dead")
    hot_pixels: FileRef | None = Field(None, description="Those further pixels, one line 'x y 1 1' for each")

    @property
    def stored_frames(self) -> int:
        """How many frames of the file make one of the frames that were used."""
        return self.eer_group or 1


class MotionAgreement(Record):
    """How far two motion corrections of one movie agree, in raw pixels, a constant offset taken out."""

    stored_name: ClassVar[str] = "MotionAgreement"
    former_names: ClassVar[tuple[str, ...]] = ("icestream.steps.quality_records:MotionAgreement",)

    n_frames: int = Field(ge=1, description="Frames that were compared")
    rms_px: Pixel = Field(ge=0, description="Distance of the two tracks, rms over the frames")
    largest_px: Pixel = Field(ge=0, description="The same in the frame where it is largest")
    largest_frame: float | None = Field(None, description="That frame, counted from 0 in the movie as it is stored")
    field_rms_px: Pixel = Field(
        ge=0, description="Distance of the whole motions, including the local part, over the field of view"
    )
    field_largest_px: Pixel = Field(ge=0, description="The same where and when it is largest")
    correlation: float | None = Field(None, description="Of the two tracks; 0 if only one moves, unset if neither does")
    range_px: Pixel = Field(ge=0, description="Largest distance between two positions of the track that moves more")
    path_px: Pixel = Field(0.0, ge=0, description="Length of the first path over these frames")
    second_path_px: Pixel = Field(0.0, ge=0, description="Length of the second path over these frames")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Two motions",
            measures=(
                Measure("Distance of the two tracks", "rms_px", pixels="raw", metric="motion_agreement_angstroms", better="low"),
                Measure(
                    "Distance over the field",
                    "field_rms_px",
                    pixels="raw",
                    metric="motion_field_agreement_angstroms",
                    better="low",
                ),
                Measure("Correlation of the two tracks", "correlation", metric="motion_agreement_correlation", better="high"),
            ),
            cards=(
                Card(
                    numbers=(
                        Number("Rms", "rms_px", pixels="raw"),
                        Number("Largest", "largest_px", pixels="raw"),
                        Number("First path", "path_px", pixels="raw"),
                        Number("Second path", "second_path_px", pixels="raw"),
                    )
                ),
            ),
        )
    )
