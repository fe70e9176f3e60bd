"""Small charts as inline SVG. Colours come from the page's style sheet; every text passes through escaping."""

from collections.abc import Sequence

from markupsafe import Markup

from icestream.observe.sampling import Series
from icestream.observe.scales import N_BINS, Axis, count_bins, limits_of, running_median, short_number

WIDTH, HEIGHT = 300.0, 118.0
LEFT, RIGHT, TOP, BOTTOM = 34.0, 6.0, 8.0, 20.0
N_PLAIN_DOTS = 60
N_NEWEST = 50
"""A histogram of twice as many values also shows so many of the newest."""

_FRAME = Markup('<svg class="chart" viewBox="0 0 {w:.0f} {h:.0f}" role="img" aria-label="{label}">{body}</svg>')


def draw_series(series: Series, *, label: str, word: str = "exposure ") -> Markup:
    """Draw a value against the exposure number (or what ``word`` says): a dot each, and the running median as a line."""
    x = _x_axis((min(series.exposures), max(series.exposures) + 1e-9))
    y = _y_axis(limits_of(series.values))
    dots = "".join(f"M{x(n):.1f} {y(value):.1f}h0" for n, value in zip(series.exposures, series.values, strict=True))
    smooth = running_median(series.values, width=max(5, len(series.values) // 40))
    body = _y_ticks(y) + _ends(word, series.exposures)
    body += Markup('<path class="{}" d="{}"/>').format(_dots_class(len(series.values)), dots)
    if len(smooth) > 4:
        body += Markup('<path class="line" d="{}"/>').format(_line(x, y, series.exposures, smooth))
    return _FRAME.format(w=WIDTH, h=HEIGHT, label=label, body=body)


def draw_histogram(values: Sequence[float], *, label: str, unit: str) -> Markup:
    """Draw how often which value occurs, and as a line the same of the newest 50, drawn as high.

    The outermost bars hold the outliers beyond them.
    """
    low, high = limits_of(values)
    x = _x_axis((low, high))
    counts = count_bins(values, low, high, N_BINS)
    y = _y_axis((0.0, max(counts) * 1.08))
    width = (WIDTH - LEFT - RIGHT) / N_BINS
    bars = "".join(
        f"M{LEFT + index * width + 0.5:.1f} {y(0):.1f}V{y(count):.1f}h{width - 1:.1f}V{y(0):.1f}z"
        for index, count in enumerate(counts)
        if count
    )
    body = _y_ticks(y, whole=True) + Markup('<path class="bars" d="{}"/>').format(bars) + _x_ticks(x, unit)
    if len(values) >= 2 * N_NEWEST:
        newest = count_bins(values[-N_NEWEST:], low, high, N_BINS)
        scale = max(counts) / max(newest)
        middles = [low + (index + 0.5) / N_BINS * (high - low) for index in range(N_BINS)]
        body += Markup('<path class="recent" d="{}"/>').format(_line(x, y, middles, [scale * count for count in newest]))
    return _FRAME.format(w=WIDTH, h=HEIGHT, label=label, body=body)


def draw_curve(
    xs: Sequence[float],
    measured: Sequence[float],
    fitted: Sequence[float],
    *,
    mark: float | None,
    x_unit: str,
    label: str,
    errors: Sequence[float] = (),
) -> Markup:
    """Draw a measured curve with its fit, from zero on, and a mark where it lies on the axis; ``errors`` are bars at the fit."""
    x = _x_axis((0.0, max(xs)))
    y = _y_axis(limits_of([*measured, *fitted]))
    body = _x_ticks(x, x_unit)
    if mark is not None and mark <= x.high:
        body += Markup('<path class="mark" d="M{0:.1f} {1:.1f}V{2:.1f}"/>').format(x(mark), TOP, HEIGHT - BOTTOM)
    body += Markup('<path class="faint" d="{}"/>').format(_line(x, y, xs, measured))
    body += Markup('<path class="line" d="{}"/>').format(_line(x, y, xs, fitted))
    if errors:
        bars = "".join(
            f"M{x(at):.1f} {y(value - error):.1f}V{y(value + error):.1f}"
            for at, value, error in zip(xs, fitted, errors, strict=True)
        )
        body += Markup('<path class="errors" d="{}"/>').format(bars)
    return _FRAME.format(w=WIDTH, h=HEIGHT, label=label, body=body)


def draw_trajectory(yx: Sequence[tuple[float, float]], *, unit: str, label: str) -> Markup:
    """Draw the path of the specimen, the first frame as a ring; up is towards higher rows, as in the pictures."""
    size, margin = 220.0, 24.0
    ys, xs = [y for y, _ in yx], [x for _, x in yx]
    reach = max(max(xs) - min(xs), max(ys) - min(ys), 1e-3) * 0.55
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    x = Axis(middle_x - reach, middle_x + reach, margin, size - margin)
    y = Axis(middle_y - reach, middle_y + reach, size - margin, margin)
    scale = Axis(0.0, 2 * reach, 0.0, 1.0).ticks(4)[1]
    bar = scale / (2 * reach) * (size - 2 * margin)
    body = Markup('<path class="line" d="{}"/>').format(_line(x, y, xs, ys))
    body += Markup('<path class="dots big" d="{}"/>').format(
        "".join(f"M{x(b):.1f} {y(a):.1f}h0" for a, b in zip(ys, xs, strict=True))
    )
    body += Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="6"/>').format(x(xs[0]), y(ys[0]))
    body += Markup('<path class="scale" d="M{:.1f} {:.1f}h{:.1f}"/>').format(margin, size - 8, bar)
    body += Markup('<text x="{:.1f}" y="{:.1f}">{} {}</text>').format(margin, size - 13, short_number(scale), unit)
    return _FRAME.format(w=size, h=size, label=label, body=body)


def draw_scatter(xs: Sequence[float], ys: Sequence[float], *, unit: str, label: str) -> Markup:
    """Draw one value against another in the same unit, a dot each; on the broken line both are equal."""
    low, high = limits_of([*xs, *ys])
    side = WIDTH * 0.72
    x, y = Axis(low, high, LEFT, side - RIGHT), Axis(low, high, side - BOTTOM, TOP)
    body = Markup("")
    for tick, text in x.labels():
        body += Markup('<path class="grid" d="M{0} {1:.1f}H{2:.1f}"/>').format(LEFT, y(tick), side - RIGHT)
        body += Markup('<text class="end" x="{}" y="{:.1f}">{}</text>').format(LEFT - 5, y(tick) + 3.5, text)
        if x(tick) < side - RIGHT - 16 - 5 * len(unit):
            body += Markup('<text class="middle" x="{:.1f}" y="{:.1f}">{}</text>').format(x(tick), side - 6, text)
    body += Markup('<text class="end" x="{:.1f}" y="{:.1f}">{}</text>').format(side - RIGHT, side - 6, unit)
    body += Markup('<path class="mark" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(x(low), y(low), x(high), y(high))
    dots = "".join(f"M{x(a):.1f} {y(b):.1f}h0" for a, b in zip(xs, ys, strict=True))
    body += Markup('<path class="{}" d="{}"/>').format(_dots_class(len(xs)), dots)
    return _FRAME.format(w=WIDTH, h=side, label=label, body=body)


def draw_scatter_of_two(xs: Sequence[float], ys: Sequence[float], *, x_unit: str, label: str) -> Markup:
    """Draw one value against another in a unit of its own, a dot each."""
    low, high = limits_of(xs)
    x, y = _x_axis((low, high)), _y_axis(limits_of(ys))
    dots = "".join(f"M{x(a):.1f} {y(b):.1f}h0" for a, b in zip(xs, ys, strict=True))
    body = _y_ticks(y) + _x_ticks(x, x_unit) + Markup('<path class="{}" d="{}"/>').format(_dots_class(len(xs)), dots)
    return _FRAME.format(w=WIDTH, h=HEIGHT, label=label, body=body)


def draw_share(parts: Sequence[tuple[str, int]]) -> Markup:
    """Draw how a whole is divided: (style class, count) from left to right."""
    total = sum(count for _, count in parts)
    body, start = Markup(""), 0.0
    for name, count in parts:
        width = 100.0 * count / total if total else 0.0
        if count:
            body += Markup('<rect class="{}" x="{:.2f}%" width="{:.2f}%" height="8"/>').format(name, start, width)
        start += width
    return Markup('<svg class="share" width="100%" height="8" aria-hidden="true">{}</svg>').format(body)


def _dots_class(count: int) -> str:
    """Return the style of so many dots: few are drawn plainly, many shine through each other."""
    return "dots few" if count <= N_PLAIN_DOTS else "dots"


def _x_axis(limits: tuple[float, float]) -> Axis:
    low, high = limits
    return Axis(low, high if high > low + 1e-6 else low + 1.0, LEFT, WIDTH - RIGHT)


def _y_axis(limits: tuple[float, float]) -> Axis:
    return Axis(*limits, HEIGHT - BOTTOM, TOP)


def _line(x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float]) -> str:
    return "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in zip(xs, ys, strict=True))


def _y_ticks(y: Axis, *, whole: bool = False) -> Markup:
    drawn = Markup("")
    for tick, text in y.labels():
        if whole and tick != int(tick):
            continue
        drawn += Markup('<path class="grid" d="M{0} {1:.1f}H{2}"/>').format(LEFT, y(tick), WIDTH - RIGHT)
        drawn += Markup('<text class="end" x="{}" y="{:.1f}">{}</text>').format(LEFT - 5, y(tick) + 3.5, text)
    return drawn


def _x_ticks(x: Axis, unit: str) -> Markup:
    drawn = Markup("")
    for tick, text in x.labels(5):
        if x(tick) >= WIDTH - RIGHT - 16 - 5 * len(unit):
            continue
        drawn += Markup('<text class="middle" x="{:.1f}" y="{}">{}</text>').format(x(tick), HEIGHT - 6, text)
    return drawn + Markup('<text class="end" x="{}" y="{}">{}</text>').format(WIDTH - RIGHT, HEIGHT - 6, unit)


def _ends(word: str, numbers: Sequence[int]) -> Markup:
    first = Markup('<text x="{}" y="{}">{}{}</text>').format(LEFT, HEIGHT - 6, word, f"{min(numbers):,}")
    return first + Markup('<text class="end" x="{}" y="{}">{}</text>').format(WIDTH - RIGHT, HEIGHT - 6, f"{max(numbers):,}")
