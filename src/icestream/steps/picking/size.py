"""The diameter of the particles, found on the first micrographs."""

from collections.abc import Sequence

import numpy as np

from icestream.algorithms.matched_picker.diameter import find_diameter_2d, pool_diameters
from icestream.algorithms.particles.extract import good_box_px
from icestream.counting import counted
from icestream.flow import (
    Accumulator,
    Angstrom,
    Context,
    Exposure,
    Field,
    ItemError,
    Params,
    Progress,
    Update,
    Verdict,
    step,
    wait,
)
from icestream.io.image import read_image
from icestream.records import Acquisition, MeasuredDiameter, Method, Micrograph, ParticleSize, Record, Text

_LEAST_PX = 8.0
_MASK_DIAMETERS = 1.2


class ParticleSizeParams(Params):
    """On how many micrographs the diameter is found, and within what range."""

    first_micrographs: int = Field(
        8, ge=1, le=1000, description="Micrographs before the first version; steps that need the diameter wait"
    )
    max_micrographs: int = Field(40, ge=1, description="Micrographs after which nothing more is measured")
    update_micrographs: int = Field(16, ge=1, description="Micrographs between later versions")
    diameter_ang: tuple[Angstrom, Angstrom] = Field((70.0, 400.0), description="Range in which the diameter is looked for")
    dark: bool = Field(True, description="Protein is darker than the ice, as in micrographs")
    box_diameters: float = Field(1.5, ge=1.1, le=4, description="Side of the box in particle diameters")


class ParticleSizeState(Record):
    """What the micrographs so far show."""

    n_micrographs: int = 0
    pixel_ang: Angstrom = 0.0
    found: tuple[MeasuredDiameter, ...] = ()


@step.accumulate(
    "particle_size",
    version=2,
    reads=("pixel_size_ang",),
    memory_gb=2.0,
    method=Method(
        (Text("The diameter of the particles was measured on the first {first_micrographs} micrographs or more."),), ()
    ),
)
class FindParticleSize(Accumulator[ParticleSizeState, ParticleSize]):
    """Find the diameter of the particles on the first micrographs, without being told anything about them.

    Round templates of all sizes are learned from each micrograph, and the size that explains it best is taken, if the same with
    inverted contrast explains far less; a micrograph without clear particles counts for nothing. The diameter is the one that
    most micrographs agree on. Box, mask and radius follow from it; other steps refer to them, as in ``{from: size.box_px}``.
    """

    portion = 8

    def when(self, progress: Progress, params: ParticleSizeParams) -> Verdict:
        """Wait for the first micrographs, then for whole portions, or the end."""
        target = params.update_micrographs if progress.passed else params.first_micrographs
        return progress.wait_for(target, "micrographs")

    def start(self, params: ParticleSizeParams, ctx: Context) -> ParticleSizeState:
        """Return the state before the first micrograph."""
        return ParticleSizeState()

    def add(
        self,
        state: ParticleSizeState,
        exposures: Sequence[Exposure],
        micrograph: Sequence[Micrograph],
        params: ParticleSizeParams,
        acquisition: Sequence[Acquisition],
        ctx: Context,
    ) -> Update[ParticleSizeState]:
        """Measure new micrographs.

        Raises
        ------
        ItemError
            The range of diameters is reversed or the pixel size is unset.
        """
        smallest_ang, largest_ang = params.diameter_ang
        if not 0 < smallest_ang < largest_ang:
            raise ItemError(f"diameter_ang {smallest_ang:g} to {largest_ang:g} is not a range of positive diameters")
        for index, exposure in enumerate(exposures):
            if state.found and state.n_micrographs >= params.max_micrographs:
                break
            ctx.progress(index / len(exposures), exposure.name)
            pixel_ang = acquisition[index].need("pixel_size_ang") * micrograph[index].bin
            image = read_image(ctx.path(micrograph[index].image))  # (h, w)
            found = find_diameter_2d(
                -image if params.dark else image,
                smallest_px=max(smallest_ang / pixel_ang, _LEAST_PX),
                largest_px=min(largest_ang / pixel_ang, 0.25 * min(image.shape)),
            )
            measured = state.found
            if found is not None:
                diameter_ang = found.diameter_px * pixel_ang
                measured = (*measured, MeasuredDiameter(exposure=exposure.name, diameter_ang=diameter_ang, gain=found.gain))
            state = ParticleSizeState(n_micrographs=state.n_micrographs + 1, pixel_ang=pixel_ang, found=measured)
        return Update(state)

    def emit(self, state: ParticleSizeState, params: ParticleSizeParams, ctx: Context) -> ParticleSize | Verdict:
        """Return the diameter that most micrographs agree on; nothing yet while none shows particles clearly."""
        if not state.found:
            return wait(
                f"none of {counted(state.n_micrographs, 'micrograph')} shows particles clearly enough to find their diameter; "
                "give diameter_ang to the picker, or a narrower range to this step"
            )
        pooled = pool_diameters(np.array([one.diameter_ang for one in state.found]), np.array([one.gain for one in state.found]))
        box_px = good_box_px(params.box_diameters * pooled.diameter / state.pixel_ang)
        box_ang = box_px * state.pixel_ang
        return ParticleSize(
            diameter_ang=round(pooled.diameter, 1),
            error_ang=round(pooled.error, 2),
            n_micrographs=state.n_micrographs,
            n_alike=pooled.n_alike,
            box_px=box_px,
            box_ang=box_ang,
            mask_diameter_ang=min(_MASK_DIAMETERS * pooled.diameter, 0.95 * box_ang),
            radius_px=0.5 * pooled.diameter / state.pixel_ang,
            micrographs=list(state.found),
        )


def searched_diameters_ang(
    given_ang: tuple[float, float] | None, size: ParticleSize | None, *, range_of_size: tuple[float, float] = (1.0, 1.0)
) -> tuple[float, float]:
    """Return the smallest and largest diameter that a picker looks for: those given, else ``range_of_size`` times the size.

    Raises
    ------
    ItemError
        There is neither, or they are no range.
    """
    if given_ang is not None:
        smallest_ang, largest_ang = given_ang
    elif size is not None:
        smallest_ang, largest_ang = (size.diameter_ang * factor for factor in range_of_size)
    else:
        raise ItemError(
            "the diameter of the particles is unknown; set diameter_ang, or link the input size to a particle_size step"
        )
    if not 0 < smallest_ang <= largest_ang:
        raise ItemError(f"diameter_ang {smallest_ang:g} to {largest_ang:g} is not a range of positive diameters")
    return smallest_ang, largest_ang
