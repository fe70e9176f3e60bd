"""What the spectrum of a micrograph says beyond one defocus."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.ice import FROM_NODES
from icestream.records.shown import Card, Measure, Number, Panel, Picture, Shown
from icestream.records.vocabulary import FileRef, Record
from icestream.units import Angstrom, Degree, WholePixels


class CtfLocal(Record):
    """Local defocus, tilt, thickness and rings of ice of one micrograph; what the data do not show is unset; a note says why."""

    stored_name: ClassVar[str] = "CtfLocal"
    former_names: ClassVar[tuple[str, ...]] = ("icestream.steps.ctf_local_record:CtfLocal",)

    model: Literal["constant", "plane", "quadratic", "cubic"] = Field(description="The surface of defocus that the data support")
    coefficients_ang: list[float] = Field(description="Of the surface, see algorithms.ctf.surface; one zero for a constant")
    height_px: WholePixels = Field(description="Of the micrograph")
    width_px: WholePixels
    range_ang: Angstrom = Field(description="Largest minus smallest defocus over the field")
    error_ang: Angstrom = Field(description="Standard error of the defocus, mean over the field")
    model_note: str | None = Field(None, description="Why no richer surface was chosen")
    plane_gain: float | None = Field(
        None, description="How much better a plane explains the windows than a constant; noise alone gives about 2"
    )
    shift_ang: Angstrom = Field(description="What a constant would add to the defocus of the CTF; it is not added")
    shift_error_ang: Angstrom
    tilt_deg: Degree | None = Field(None, description="Slope of the specimen; unset where the defocus is constant")
    tilt_error_deg: Degree | None = None
    tilt_axis_deg: Degree | None = Field(
        None, description="Direction of the axis, from x towards y; defocus grows a quarter turn (x to y) from it"
    )
    tilt_axis_error_deg: Degree | None = None
    ice_ring_ang: Angstrom | None = Field(None, description="The most significant ring of crystalline ice")
    ice_ring_excess: float | None = Field(None, description="Its power over that of the background, minus 1")
    ice_ring_significance: float | None = Field(None, description="The same in standard deviations of the background")
    ice_note: str | None = Field(None, description="Why no ring was measured")
    thickness_ang: Angstrom | None = Field(None, description="Thickness of the specimen, from the nodes of its rings")
    thickness_error_ang: Angstrom | None = None
    node_ang: Angstrom | None = Field(
        None, description="Finer than this resolution the rings are reversed: the CTF does not hold"
    )
    reversal: float = Field(description="How strongly rings are reversed, in standard deviations of noise")
    thickness_note: str | None = Field(None, description="Why there is no thickness")
    n_windows: int = Field(ge=1)
    picture: FileRef | None = Field(None, description="Local defocus: the surface, and the value of each window")
    frequency_per_ang: list[float] = Field(default_factory=list)
    amplitude: list[float] = Field(default_factory=list, description="Amplitude of the rings, negative where they are reversed")
    amplitude_fit: list[float] = Field(default_factory=list)

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Local defocus",
            measures=(
                Measure("Range of defocus over the field", "range_ang", metric="ctf_local_range_angstroms"),
                Measure("Tilt, where there is one", "tilt_deg", metric="ctf_local_tilt_degrees"),
                Measure(
                    "Ice by the nodes of the Thon rings",
                    "thickness_ang",
                    metric="ctf_local_thickness_angstroms",
                    better="low",
                    origin=FROM_NODES,
                ),
                Measure(
                    "Ring of crystalline ice", "ice_ring_significance", "σ", metric="ctf_local_ice_ring_sigmas", better="low"
                ),
            ),
            cards=(
                Card(
                    numbers=(
                        Number("Tilt", "tilt_deg"),
                        Number("Error of the defocus", "error_ang"),
                        Number("Thickness by nodes", "thickness_ang"),
                    ),
                    picture=Picture(
                        "picture", "Local defocus", "Left, the surface of defocus; right, the value of each window. Red is more."
                    ),
                ),
            ),
        )
    )
