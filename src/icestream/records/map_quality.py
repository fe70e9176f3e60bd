"""How good a map is."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.shown import Card, Curve, Density, Measure, Number, Panel, Picture, Shown, Text, When
from icestream.records.vocabulary import FileRef, Record, Snapshot
from icestream.units import Angstrom


class SymmetryScore(Record):
    """How well half maps bear out a point group."""

    group: str = Field(description="As C7, D2, T, O, I")
    agreement: float = Field(
        description="Agreement of one half with the other after an operation, over that after none: 1 for a symmetry"
    )
    least_agreement: float = Field(description="The same of the worst operation")
    z: float = Field(description="Score of its main axis above that of phase-randomised halves, in their standard deviations")
    accepted: bool


class MapQuality(Snapshot):
    """A map after post-processing, and how good it is."""

    stored_name: ClassVar[str] = "MapQuality"

    map: FileRef | None = Field(description="Sharpened, weighted by the agreement of the halves; unset: there is no map")
    mask: FileRef = Field(description="Soft mask within which the halves were compared")
    local_resolution: FileRef | None = Field(None, description="Map of the local resolution in Å, 0 outside the mask")
    picture: FileRef = Field(description="Three sections above three projections")
    local_picture: FileRef | None = Field(None, description="Three sections coloured by local resolution")
    views_picture: FileRef | None = Field(None, description="How often each direction was seen")
    count: int = Field(ge=0, description="Particles of the map; 0: imported")
    version: int | None = Field(None, description="Of the volume, where a step made several")
    box_px: int = Field(ge=2)
    pixel_size_ang: Angstrom = Field(gt=0)
    symmetry: str = Field(description="Point group with which the map was made")
    diameter_ang: Angstrom = Field(description="Of the ball that holds the particle, from the mask")
    bar_ang: Angstrom = Field(description="Length of the bar in the picture")

    verdict: Literal["map", "pixel_limit", "noise", "not_independent"] = Field(
        description="Whether the halves show a particle; pixel_limit: they agree up to the Nyquist frequency"
    )
    reason: str | None = Field(None, description="Why it is no map, or what limits it")
    evidence: float = Field(description="Agreement of the shape in both halves, in standard deviations")
    resolution_ang: Angstrom | None = Field(None, description="Where the corrected correlation falls below 0.143; unset: no map")
    resolution_half_ang: Angstrom | None = Field(None, description="Where it falls below 0.5")
    resolution_coarse_ang: Angstrom | None = Field(None, description="Where it falls below 0.143 one standard deviation lower")
    resolution_fine_ang: Angstrom | None = Field(None, description="Where it falls below 0.143 one standard deviation higher")
    b_factor_ang2: float | None = Field(None, description="With which the map was sharpened, Å²; unset: not sharpened")
    frequency_per_ang: list[float] = Field(description="Of the shells")
    fsc: list[float] = Field(description="Correlation of the halves within the mask, corrected for it")
    fsc_error: list[float] = Field(description="Its standard deviation")
    fsc_masked: list[float] = Field(description="Without the correction")
    fsc_unmasked: list[float] = Field(description="Without the mask")
    fsc_randomised: list[float] = Field(description="With phases randomised, within the mask")

    local_fine_ang: Angstrom | None = Field(None, description="Local resolution: 5 % of the particle are finer")
    local_median_ang: Angstrom | None = Field(None, description="Local resolution, median")
    local_coarse_ang: Angstrom | None = Field(None, description="Local resolution: 5 % of the particle are coarser")
    efficiency: float | None = Field(None, description="Of the views: 1 where all directions are seen alike; unset: no poses")
    area_ratio: float | None = Field(None, description="Least over largest area under correlations within cones")
    worst_cone_ang: Angstrom | None = Field(None, description="Resolution along the worst direction")
    best_cone_ang: Angstrom | None = Field(None, description="Resolution along the best direction")
    suggested_symmetry: str | None = Field(None, description="Point group that the halves suggest; unset: not looked for")
    subgroups: list[str] = Field(default_factory=list, description="Other groups that the halves bear out")
    groups: list[SymmetryScore] = Field(default_factory=list, description="Groups that came into question")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Map quality",
            measures=(
                Measure(
                    "Resolution, corrected for the mask",
                    "resolution_ang",
                    metric="map_corrected_resolution_angstroms",
                    better="low",
                ),
                Measure("Efficiency of the views", "efficiency", metric="map_view_efficiency_ratio", better="high"),
            ),
            cards=(
                Card(
                    "Map",
                    subtitle=Text("of {count} particles, made with symmetry {symmetry}"),
                    numbers=(
                        Number("Resolution (0.143)", "resolution_ang"),
                        Number("Coarse end of its error", "resolution_coarse_ang"),
                        Number("Fine end of its error", "resolution_fine_ang"),
                        Number("Resolution (0.5)", "resolution_half_ang"),
                        Number("B factor", "b_factor_ang2", "Å²"),
                        Number("Diameter", "diameter_ang"),
                    ),
                    picture=Picture(
                        "picture",
                        "Sections and projections",
                        "Above sections through the centre, below projections: across z, y and x; the bar is the scale",
                    ),
                    density=Density("map", "Map, sharpened"),
                    curve=Curve(
                        "frequency_per_ang",
                        "fsc_masked",
                        "fsc",
                        title="Fourier shell correlation of the halves",
                        x_unit="1/Å",
                        mark="resolution_ang",
                        error="fsc_error",
                        caption="Within the mask, and corrected for it (line, with its standard deviation); the mark is at 0.143",
                    ),
                    texts=(
                        Text("The bar is {bar_ang} Å long."),
                        Text("The halves suggest the symmetry {suggested_symmetry}."),
                        Text("They bear out {subgroups:list} too."),
                    ),
                    warnings=(
                        Text("There is no map: {reason}", When("verdict", equals="noise")),
                        Text("There is no map: {reason}", When("verdict", equals="not_independent")),
                        Text("{reason:sentence}", When("verdict", equals="pixel_limit")),
                    ),
                ),
                Card(
                    "Local resolution",
                    numbers=(
                        Number("Finest 5 %", "local_fine_ang"),
                        Number("Median", "local_median_ang"),
                        Number("Coarsest 5 %", "local_coarse_ang"),
                    ),
                    picture=Picture(
                        "local_picture",
                        "Local resolution",
                        "Sections across z, y and x; from violet (finest 5 %) to yellow (coarsest)",
                    ),
                ),
                Card(
                    "Views",
                    numbers=(
                        Number("Efficiency", "efficiency"),
                        Number("Area ratio of the cones", "area_ratio"),
                        Number("Best direction", "best_cone_ang"),
                        Number("Worst direction", "worst_cone_ang"),
                    ),
                    picture=Picture(
                        "views_picture",
                        "Directions seen",
                        "Half the sphere, z in the middle, x to the right; yellow is twice as often as even views, black never",
                    ),
                ),
            ),
        )
    )
