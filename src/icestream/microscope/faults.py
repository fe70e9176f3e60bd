"""Which exposures go wrong, and what that does to a file."""

from icestream.microscope.settings import Fault, SimulationSettings

TRUNCATED_FRACTION = 0.6
UNFINISHED_FRACTION = 0.7
HUGE_DRIFT_FACTOR = 12.0
EMPTY_ELECTRONS_PER_PIXEL = 0.002
WEAK_BEAM_FRACTION = 0.7

_FAULT_KEY = 1


def assign_faults(settings: SimulationSettings) -> dict[int, Fault]:
    """Return the fault of each faulty exposure: those asked for by index, and a random share of the others."""
    generator = settings.generator(_FAULT_KEY)
    others = [index for index in range(settings.n_movies) if index not in settings.faults]
    count = round(settings.fault_fraction * len(others))
    chosen = generator.permutation(others)[:count]
    kinds = list(Fault)
    drawn = {int(index): kinds[int(generator.integers(len(kinds)))] for index in chosen}
    return dict(sorted({**drawn, **settings.faults}.items()))


def electrons_per_pixel(settings: SimulationSettings, fault: Fault | None) -> float:
    """Return the dose of a pixel in one frame of an exposure."""
    if fault is Fault.EMPTY:
        return EMPTY_ELECTRONS_PER_PIXEL
    return settings.dose_per_pixel * (WEAK_BEAM_FRACTION if fault is Fault.WEAK_BEAM else 1.0)


def written_bytes(size_bytes: int, fault: Fault | None) -> int:
    """Return how many bytes of a movie ever reach the disk."""
    if fault is Fault.TRUNCATED:
        return int(size_bytes * TRUNCATED_FRACTION)
    if fault is Fault.UNFINISHED:
        return int(size_bytes * UNFINISHED_FRACTION)
    return size_bytes
