"""The figures at the top of a page, as types of record declare them."""

from collections.abc import Sequence

from icestream.observe.answers import StepSummary
from icestream.observe.catalog import Catalog
from icestream.records.shown import Headline


def choose_headlines(catalog: Catalog, steps: Sequence[StepSummary]) -> list[tuple[Headline, StepSummary]]:
    """Return the figures with the steps they are of, in their places; of those with the same label, one of the highest rank."""
    chosen: dict[str, tuple[Headline, StepSummary]] = {}
    for step in steps:
        for one in catalog.shown(step.records.get("out")).headlines:
            known = chosen.get(one.label)
            first_stays = one.of == "median" and known is not None and one.rank <= known[0].rank
            if not first_stays and (known is None or one.rank >= known[0].rank):
                chosen[one.label] = (one, step)
    return sorted(chosen.values(), key=lambda pair: pair[0].place)
