"""2D classification of a closed set of particles."""

from icestream.errors import ItemError
from icestream.flow import Context, step
from icestream.records import Acquisition, ClassAverages, Particles
from icestream.steps.classify2d.averages import publish_averages
from icestream.steps.classify2d.engine import classify
from icestream.steps.classify2d.params import Classify2DParams
from icestream.steps.classify2d.state import Classify2DState
from icestream.steps.classify2d.streaming import READS, begin_call, take_in


@step.map("classify2d_batch", version=1, reads=READS, memory_gb=2)
def classify_batch(particles: list[Particles], params: Classify2DParams, acquisition: Acquisition, ctx: Context) -> ClassAverages:
    """Sort a closed set of particles into 2D classes, to convergence.

    Every set is a classification of its own, from the start, by the same engine and parameters as `classify2d`; the numbers of
    particles to wait for do not apply. Voltage, spherical aberration, amplitude contrast and pixel size must be values of the
    session, because a set has none of its own.

    Raises
    ------
    ItemError
        The set has no particles, their boxes differ, or an acquisition value is unset.
    """
    if not any(one.count for one in particles):
        raise ItemError(f"{ctx.exposure.name}: the set has no particles")
    start = Classify2DState(seed=ctx.seed, settled=[0] * params.n_classes)
    names = [("", f"{ctx.exposure.name}, micrograph {number}") for number in range(1, len(particles) + 1)]
    state, fresh = take_in(start, names, particles, acquisition=[acquisition] * len(particles), params=params, ctx=ctx)
    call = begin_call(state, params, ctx, version=1, closing=True)
    return publish_averages(classify(state, fresh, call), params, ctx, version=1)
