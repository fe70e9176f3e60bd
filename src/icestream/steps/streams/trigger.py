"""The trigger: hold a stream until there is enough, until a time, or until a person lets it go."""

import math
from typing import Literal, Self

from pydantic import model_validator

from icestream.counting import counted
from icestream.flow import Field, Params, Progress, Verdict, keep, reject, step, wait
from icestream.steps.streams.batches import Counted, hours, number_of, say_counted
from icestream.steps.streams.membership import draw_lot


class TriggerParams(Params):
    """What a trigger waits for, what it passes on then, and what it closes."""

    mode: Literal["growing", "static"] = Field(
        "growing", description="Pass on everything from then on, or only what is waiting, once, and then close"
    )
    count: int | None = Field(None, ge=1, description="Open when this many are waiting")
    counted: Counted = Field("exposures", description="What is counted; an item without particles counts as one")
    after_h: float | None = Field(None, gt=0, description="Open this many hours of running after the first arrived")
    manual: bool = Field(False, description="Wait for a person to release it, whatever the number")
    release_after_h: float | None = Field(
        None, gt=0, description="Manual trigger: open by itself after this many hours of running"
    )
    if_short: Literal["pass", "hold"] = Field(
        "pass", description="If the stream closes first: pass on what is waiting, or keep it until the stream is open again"
    )
    sample_fraction: float = Field(1.0, gt=0, le=1, description="Share of the exposures that is let in, chosen at random")
    seed: int = Field(0, description="Another seed chooses other exposures")
    closes: list[str] = Field(
        default_factory=list,
        description="Steps that are drained when this opens: they take nothing new",
        json_schema_extra={"drains": True, "operational": True},
    )

    @model_validator(mode="after")
    def _check_conditions(self) -> Self:
        if self.manual and (self.count is not None or self.after_h is not None):
            raise ValueError("a manual trigger opens for a person or after release_after_h; leave count and after_h out")
        if not self.manual and self.release_after_h is not None:
            raise ValueError("release_after_h belongs to a manual trigger; set manual: true, or use after_h")
        if not self.manual and self.count is None and self.after_h is None:
            raise ValueError("a trigger waits for something: set count, after_h or manual")
        return self


def admit_sample(exposure_id: str, params: TriggerParams) -> Verdict:
    """Let a share of the exposures in."""
    if params.sample_fraction == 1 or draw_lot("trigger", params.seed, exposure_id) < params.sample_fraction:
        return keep()
    return reject(f"not in the sample of {params.sample_fraction:g}")


@step.gate("trigger", version=1, admit=admit_sample)
def hold_until_enough(progress: Progress, params: TriggerParams) -> Verdict:
    """Hold the stream until enough exposures or particles are waiting, a time has passed, or a person releases it.

    Numbers are cut between exposures: the one that makes the number full passes with all its particles.
    """
    time_s = _time_limit_s(params)
    reason = _why_now(progress, params, time_s)
    if reason is not None:
        return Verdict(accepted=True, reason=reason, last=params.mode == "static")
    waits_on = params.manual or not progress.stream_closed
    return wait(_what_for(progress, params, time_s), until_s=time_s if waits_on and (params.manual or params.after_h) else None)


def _time_limit_s(params: TriggerParams) -> float:
    hours_set = params.release_after_h if params.manual else params.after_h
    return math.inf if hours_set is None else hours_set * 3600


def _why_now(progress: Progress, params: TriggerParams, time_s: float) -> str | None:
    number, things = number_of(progress, params.counted), say_counted(progress, params.counted)
    told = counted(number, things.removesuffix("s"))
    if progress.released:
        return "released by a person"
    if params.count is not None and number >= params.count:
        return f"{number} of {params.count} {things}"
    if progress.elapsed_s >= time_s:
        return f"{'nobody released it for ' if params.manual else ''}{hours(time_s)}, with {told}"
    if progress.stream_closed and params.if_short == "pass" and not params.manual:
        return f"the stream closed with {told}"
    return None


def _what_for(progress: Progress, params: TriggerParams, time_s: float) -> str:
    number, things = number_of(progress, params.counted), say_counted(progress, params.counted)
    thing = things.removesuffix("s")
    if params.manual:
        told = f"{counted(number, thing, 'is/are')} waiting for a person to release {'it' if number == 1 else 'them'}"
    else:
        told = counted(number, thing) if params.count is None else f"{number} of {params.count} {things}"
    return told if math.isinf(time_s) else f"{told}, or {hours(time_s)} after the first arrived"
