"""Two streams that a step joins, shown one against the other."""

from collections.abc import Sequence

from icestream.observe.answers import StepSummary
from icestream.observe.charts import draw_scatter
from icestream.observe.panels import Artist, DrawnCard, DrawnPanel, draw_measure
from icestream.observe.sampling import Series
from icestream.observe.values import series_of, unit_in
from icestream.records import Comparison


def compare_streams(artist: Artist, steps: Sequence[StepSummary]) -> list[DrawnPanel]:
    """Draw each two streams that a step of the workflow joins and declares to compare, once."""
    by_name = {step.name: step for step in steps}
    pairs: dict[tuple[str, str], DrawnPanel | None] = {}
    for spec in artist.view.session.document.steps.values():
        joined = [name for name in spec.inputs.values() if isinstance(name, str) and name in by_name]
        types = [by_name[name].records.get("out") for name in joined]
        if len(set(types)) == len(types):  # no two inputs are of one type
            continue
        comparison = artist.catalog.comparison(spec.use)
        if comparison is None:
            continue
        ends = spec.inputs.get(comparison.first), spec.inputs.get(comparison.second)
        first, second = (by_name.get(end) if isinstance(end, str) else None for end in ends)
        if first is not None and second is not None and (first.name, second.name) not in pairs:
            pairs[first.name, second.name] = _compare(artist, comparison, first, second)
    return [panel for panel in pairs.values() if panel is not None]


def _compare(artist: Artist, comparison: Comparison, first: StepSummary, second: StepSummary) -> DrawnPanel | None:
    number, size = comparison.number, artist.pixel_size_ang
    found = [artist.series(step, (number,)) for step in (first, second)]
    if not all(found):
        return None
    ours, theirs = (series_of(number, one, size) for one in found)
    known = dict(zip(theirs.exposures, theirs.values, strict=True))
    both = [(n, value, known[n]) for n, value in zip(ours.exposures, ours.values, strict=True) if n in known]
    if not both:
        return None
    unit = unit_in(number, size)
    chart = draw_scatter(
        [a for _, a, _ in both],
        [b for _, _, b in both],
        unit=unit,
        label=f"{comparison.quantity} of {second.label} against that of {first.label}",
    )
    card = DrawnCard(
        f"{comparison.quantity} of one against the other",
        (),
        subtitle=unit,
        chart=chart,
        note=f"Horizontal: {first.label}; vertical: {second.label}; equal on the dashed line.",
    )
    apart = Series(tuple(n for n, _, _ in both), tuple((a - b) * comparison.apart_factor for _, a, b in both), ours.stride)
    measure = draw_measure(apart, label=comparison.apart, unit=comparison.apart_unit)
    heading = f"{first.label} and {second.label}"
    return DrawnPanel(comparison.title, first, () if measure is None else (measure,), None, (card,), heading)
