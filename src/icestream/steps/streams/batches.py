"""Closed sets of exposures: one after the other, or each holding everything so far."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic import Field as PydanticField

from icestream.flow import Field, Params, Progress, Verdict, keep, step, wait

Counted = Literal["exposures", "particles"]
"""What triggers and batches count."""


def number_of(progress: Progress, counted: Counted) -> int:
    """Return how many exposures or particles wait."""
    return progress.waiting_weight if counted == "particles" else progress.waiting


def number_passed(progress: Progress, counted: Counted) -> int:
    """Return how many exposures or particles are in earlier batches."""
    return progress.passed_weight if counted == "particles" else progress.passed


def say_counted(progress: Progress, counted: Counted) -> str:
    """Return what a number counts, for people: exposures where none of those that arrived carries more than itself."""
    arrived, weight = progress.waiting + progress.passed, progress.waiting_weight + progress.passed_weight
    return "exposures" if arrived and arrived == weight else counted


def hours(seconds: float) -> str:
    """Return a time as people say it."""
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"


class BatchesParams(Params):
    """When a batch is complete."""

    count: int = Field(ge=1, description="Close a batch when this many are waiting")
    counted: Counted = Field("exposures", description="What is counted; an item without particles counts as one")
    after_h: float | None = Field(
        None, gt=0, description="Close a batch with what there is this many hours of running after its first arrived"
    )
    max_batches: int | None = Field(None, ge=1, description="Take nothing more after this many batches")


@step.collect("batches", version=1)
def close_batches(progress: Progress, params: BatchesParams) -> Verdict:
    """Close a batch whenever enough exposures or particles are waiting; what is left at the end is a batch too.

    Batches are cut between exposures. A closed one never changes; what comes after a stream was opened again begins a new one.
    """
    number = number_of(progress, params.counted)
    time_s = math.inf if params.after_h is None else params.after_h * 3600
    last = params.max_batches is not None and progress.batches + 1 >= params.max_batches
    if progress.released or number >= params.count or progress.elapsed_s >= time_s:
        return Verdict(accepted=True, last=last)
    limit = "" if params.after_h is None else f", or {hours(time_s)} after its first arrived"
    counted = say_counted(progress, params.counted)
    return wait(
        f"{number} of {params.count} {counted}{limit}",
        until_s=None if params.after_h is None else time_s,
    )


def _check_ascending(at: list[int]) -> list[int]:
    if at != sorted(set(at)):
        raise ValueError("write milestones in rising order, each once")
    return at


MilestoneNumbers = Annotated[list[Annotated[int, PydanticField(ge=1)]], AfterValidator(_check_ascending)]
"""Numbers in rising order, as a parameter."""


class MilestonesParams(Params):
    """At which numbers a set is closed."""

    at: MilestoneNumbers = Field(
        default=[25_000, 50_000, 100_000], min_length=1, description="Close a set at each of these numbers"
    )
    counted: Counted = Field("particles", description="What is counted; an item without particles counts as one")
    then: Literal["double", "end", "stop"] = Field(
        "double",
        description="After the last of them: continue at every doubling, only at the end of the stream, or take nothing more",
    )


@step.collect("milestones", version=1, cumulative=True)
def close_milestones(progress: Progress, params: MilestonesParams) -> Verdict:
    """Close a set at 25 000, 50 000, 100 000 … particles, each with everything so far; at the end one with all there is.

    For what is computed again from all data now and then, as a 3D classification.
    """
    passed = number_passed(progress, params.counted)
    number = passed + number_of(progress, params.counted)
    target, counted = next_milestone(passed, at=params.at, then=params.then), say_counted(progress, params.counted)
    if target is None:
        return keep() if progress.released else wait(f"{number} {counted}; the next set closes at the end")
    if progress.released or number >= target:
        last = params.then == "stop" and number >= params.at[-1]
        return Verdict(accepted=True, reason=f"{number} {counted}", last=last)
    return wait(f"{number} of {target} {counted}")


def next_milestone(passed: int, *, at: Sequence[int], then: str) -> int | None:
    """Return the first milestone above ``passed``; None if none is left before the end."""
    ahead = [target for target in at if target > passed]
    if ahead:
        return ahead[0]
    if then != "double":
        return None
    target = at[-1]
    while target <= passed:
        target *= 2
    return target
