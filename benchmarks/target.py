"""One line of docs/benchmarks.md: what is to be reached, and where in a script's JSON line its figure is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One line of the page. ``figure`` and ``peer`` are paths in the JSON line, with dots."""

    part: str
    what: str
    result: str
    """Name of the file in ``results/``, without its suffix."""
    figure: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    peer: str | None = None
    beat_peer: bool = False
    """The figure must be better than that of the peer: above it where ``at_least`` is given (0: nothing else is asked), below it
    otherwise."""
    of_peer: float | None = None
    """The figure must be at most this part of that of the peer."""
    tried: str = ""
    """What was tried; a target that is missed must say it."""

    def allowed(self) -> str:
        """Return the target as people read it."""
        unit = f" {self.unit}" if self.unit else ""
        limits = [f"≤ {self.at_most:g}{unit}"] if self.at_most is not None else []
        limits += [f"≥ {self.at_least:g}{unit}"] if self.at_least or (self.at_least == 0 and not self.beat_peer) else []
        limits += [self._better] if self.beat_peer else []
        return ", ".join(limits + ([f"≤ {self.of_peer:g} of the peer"] if self.of_peer is not None else []))

    @property
    def _better(self) -> str:
        return "above the peer" if self.at_least is not None else "below the peer"

    def is_met(self, value: float, peer: float | None) -> bool:
        """Tell whether a figure reaches the target."""
        if (self.beat_peer or self.of_peer is not None) and peer is None:
            return False
        if peer is not None and (
            (self.beat_peer and not (value > peer if self.at_least is not None else value < peer))
            or (self.of_peer is not None and value > self.of_peer * peer)
        ):
            return False
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)
