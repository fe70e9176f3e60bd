"""The picks that a step removed, as a stream of their own."""

from icestream.errors import ItemError
from icestream.flow import Field, Params, step
from icestream.io.picks import make_picks, removed_table
from icestream.records import Picks


class RejectedPicksParams(Params):
    """Which of them are wanted."""

    reasons: list[str] = Field(
        default_factory=list, description="Only those removed for one of these reasons, in the words of the step; empty: all"
    )


@step.map("rejected_picks", version=1, memory_gb=0.1)
def take_rejected_picks(picks: Picks, params: RejectedPicksParams) -> Picks:
    """Take the picks that a step removed: masks, borders, duplicates, outliers or a consensus.

    They keep the numbers that they had, so what is made of them says which picks it is of.

    Raises
    ------
    ItemError
        The step knows none of the reasons that are asked for.
    """
    table = removed_table(picks)
    words = [one.reason for one in picks.removed]
    unknown = [reason for reason in params.reasons if reason not in words]
    if unknown:
        raise ItemError(f"no picks can be removed for the reason {unknown[0]!r}; the step gives: {', '.join(words) or 'none'}")
    if params.reasons:
        wanted = [number for number, word in enumerate(words) if word in params.reasons]
        table = table[[code in wanted for code in table["reason"].tolist()]]
    return make_picks(table, diameter_ang=picks.diameter_ang)
