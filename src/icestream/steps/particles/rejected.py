"""The particles that a step removed, as a stream of their own."""

from icestream.flow import Field, ItemError, Params, step
from icestream.io.particles import removed_particles_table, with_rows
from icestream.records import Particles


class RejectedParticlesParams(Params):
    """Which of them are wanted."""

    reasons: list[str] = Field(
        default_factory=list, description="Only those removed for one of these reasons, in the words of the step; empty: all"
    )


@step.map("rejected_particles", version=1, memory_gb=0.1)
def take_rejected_particles(particles: Particles, params: RejectedParticlesParams) -> Particles:
    """Take the particles that a step removed; they keep their numbers, and their images in the same stack.

    A step that removes nothing gives none.

    Raises
    ------
    ItemError
        The step gives reasons, but not all that are asked for.
    """
    table = removed_particles_table(particles)
    words = [one.reason for one in particles.removed]
    unknown = [reason for reason in params.reasons if reason not in words]
    if unknown and words:
        raise ItemError(f"no particles can be removed for the reason {unknown[0]!r}; the step gives: {', '.join(words)}")
    if params.reasons:
        wanted = [number for number, word in enumerate(words) if word in params.reasons]
        table = table[[code in wanted for code in table["reason"].tolist()]]
    return with_rows(particles, table)
