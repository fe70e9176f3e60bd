"""Screening particles: the empty ones, and those unlike the others, are set aside."""

import numpy as np

from icestream.algorithms.particles.screen import screen_particles_2d
from icestream.flow import Angstrom, Context, Field, ItemError, Params, step
from icestream.io.particles import remove_particles
from icestream.records import Acquisition, Particles
from icestream.steps.particles.reading import read_particles

EMPTY, LOW_VARIANCE, OUTLIER, WORST = "empty", "low variance", "unlike the others", "least signal"
_FEWEST_FOR_ZSCORE = 20
_USUAL_SHARE = 2 / 3


class ScreenParticlesParams(Params):
    """What a particle must have, and how unlike the others it may be."""

    min_signal: float | None = Field(
        1.1,
        ge=0,
        description="Least power at 1 to 8 cycles per diameter, within the particle over around it; noise has 1; unset: any",
    )
    min_variance: float | None = Field(
        None, ge=0, description="Least variance within the particle over that around it; noise has 1; unset: any"
    )
    max_zscore: float | None = Field(
        8.0, gt=0, description="Largest deviation of any feature, in robust standard deviations of the micrograph; unset: any"
    )
    worst_percent: float = Field(
        0.0,
        ge=0,
        lt=100,
        description="Of those left, also remove this part with the least signal",
        json_schema_extra={"unit": "%"},
    )
    diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Diameter of the particle; unset: that of the particles, or 2/3 of the box"
    )


@step.map("screen_particles", version=2, reads=("pixel_size_ang",), memory_gb=1.0)
def screen_particles(particles: Particles, params: ScreenParticlesParams, acquisition: Acquisition, ctx: Context) -> Particles:
    """Remove particles without signal and those unlike the others, and keep them beside the others with the reason of each.

    Deviations are judged where a micrograph has at least 20 particles.

    Raises
    ------
    ItemError
        If the pixel size is needed and unset, or the particle does not fit its box.
    """
    diameter_ang = params.diameter_ang or particles.diameter_ang
    if diameter_ang is None:
        diameter_px = _USUAL_SHARE * particles.box_px
    else:
        diameter_px = diameter_ang / (acquisition.need("pixel_size_ang") * particles.bin)
    images = read_particles(particles, ctx)  # (n, box, box)
    try:
        found = screen_particles_2d(images, diameter_px=diameter_px)
    except ValueError as error:
        raise ItemError(f"the particles cannot be screened: {error}") from error
    removed = {}
    if params.min_signal is not None:
        removed[EMPTY] = found.signal < params.min_signal
    if params.min_variance is not None:
        removed[LOW_VARIANCE] = found.variance < params.min_variance
    if params.max_zscore is not None:
        removed[OUTLIER] = (found.zscore > params.max_zscore) & (particles.count >= _FEWEST_FOR_ZSCORE)
    if params.worst_percent > 0:
        left = ~np.any(list(removed.values()), axis=0) if removed else np.ones(particles.count, bool)
        limit = np.percentile(found.signal[left], params.worst_percent) if left.any() else 0.0
        removed[WORST] = found.signal < limit
    return remove_particles(particles, removed, no_particle=[EMPTY])
