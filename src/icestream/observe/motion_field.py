"""How the specimen moved, drawn small: its path, and what of its motion differs over the field of view."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from icestream.observe.charts import draw_trajectory
from icestream.observe.scales import Axis, short_number

MOST_POINTS = 60
_N_ARROWS = 5
_SIZE, _MARGIN = 220.0, 24.0
_FRAME = Markup('<svg class="chart" viewBox="0 0 {0:.0f} {0:.0f}" role="img" aria-label="{1}">{2}</svg>')


@dataclass(frozen=True)
class Arrow:
    """Where a part of the specimen lies, from -0.5 to 0.5 along each axis, and how far it went beside the common path."""

    y: float
    x: float
    dy: float
    dx: float

    @property
    def length(self) -> float:
        """How far it went."""
        return math.hypot(self.dy, self.dx)


def draw_path(
    points: Sequence[tuple[float, float]] | None, *, scale: float, unit: str, label: str, most: int | None = MOST_POINTS
) -> Markup | None:
    """Draw a path, at most so many points of it, its ends among them; None where there is none."""
    if points is None or len(points) < 2:
        return None
    step = 1 if most is None else -(-(len(points) - 1) // (most - 1))
    shown = [*points[:-1:step], points[-1]]
    return draw_trajectory([(y * scale, x * scale) for y, x in shown], unit=unit, label=label)


def local_arrows(coefficients: Sequence[Sequence[float]] | None, *, scale: float) -> list[Arrow]:
    """Return how far the specimen went from the first frame to the last beside its common path, on a grid over the frames.

    The terms are those of `algorithms.motion.model` at the last frame, where all powers of time are 1.
    """
    if coefficients is None:
        return []
    by_axis = [[sum(axis[3 * term : 3 * term + 3]) * scale for term in range(6)] for axis in coefficients]
    places = [(index + 0.5) / _N_ARROWS - 0.5 for index in range(_N_ARROWS)]
    arrows = []
    for v in places:
        for u in places:
            dy, dx = (_dot(axis, (1.0, u, u * u, v, v * v, u * v)) for axis in by_axis)
            arrows.append(Arrow(v, u, dy, dx))
    return arrows


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def draw_arrows(arrows: Sequence[Arrow], *, unit: str, name: str) -> Markup | None:
    """Draw local motion as arrows over the frame, with their scale; up is towards higher rows. None where nothing moved."""
    longest = max((arrow.length for arrow in arrows), default=0.0)
    if not longest > 0:
        return None
    inner = _SIZE - 2 * _MARGIN
    per_unit = 0.9 * inner / _N_ARROWS / longest
    x, y = Axis(-0.5, 0.5, _MARGIN, _SIZE - _MARGIN), Axis(-0.5, 0.5, _SIZE - _MARGIN, _MARGIN)
    body = Markup('<path class="line" d="{}"/>').format(
        "".join(f"M{x(a.x):.1f} {y(a.y):.1f}l{a.dx * per_unit:.1f} {-a.dy * per_unit:.1f}" for a in arrows)
    )
    body += Markup('<path class="dots big" d="{}"/>').format("".join(f"M{x(a.x):.1f} {y(a.y):.1f}h0" for a in arrows))
    bar = Axis(0.0, 2 * longest, 0.0, 1.0).ticks(4)[1]
    body += Markup('<path class="scale" d="M{:.1f} {:.1f}h{:.1f}"/>').format(_MARGIN, _SIZE - 8, bar * per_unit)
    body += Markup('<text x="{:.1f}" y="{:.1f}">{} {}</text>').format(_MARGIN, _SIZE - 13, short_number(bar), unit)
    return _FRAME.format(_SIZE, f"Local motion over the field in {name}", body)
