"""Observations made by hand."""

from collections.abc import Sequence

from icestream.alarms.evaluate import evaluate
from icestream.alarms.observations import Gpu, Measured, Observations, Sample, Value
from icestream.alarms.rules import AnyRule
from icestream.alarms.state import AlarmState, Evaluated

T0 = 1_800_000_000.0


def measured(values: Sequence[float], *, better="low", whole=False, metric="ctf_defocus_micrometers", first=1) -> Measured:
    """One measure, a value a minute; ``first`` is the number of the first exposure."""
    listed = tuple(Value(first + n, T0 + 60 * (first + n), f"e{first + n:03d}", value) for n, value in enumerate(values))
    return Measured(f"ctf:{metric}", "ctf", "Defocus", "CTF", "µm", metric, better, whole, listed)


def sample(at: float, *, gpus: tuple[Gpu, ...] = (), **values: float) -> Sample:
    return Sample(at=at, host="node1", gpus=gpus, **values)


class Story:
    """Evaluations one after another, as an observer makes them."""

    def __init__(self, *rules: AnyRule) -> None:
        self.rules, self.state = rules, AlarmState()

    def see(self, seen: Observations, now: float) -> Evaluated:
        found = evaluate(self.rules, self.state, seen, now)
        self.state = found.state
        return found

    def words(self, seen: Observations, now: float) -> list[str]:
        """Return what happened, in two words each."""
        found = self.see(seen, now)
        return [f"+{one.subject}" for one in found.opened] + [f"-{one.subject}" for one in found.ended]
