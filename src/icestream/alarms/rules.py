"""Rules of alarms: what is watched and from where on it is worth waking somebody."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

Severity = Literal["warning", "critical"]
Direction = Literal["worse", "low", "high", "any"]
SystemValue = Literal[
    "cpu",
    "memory",
    "swap",
    "gpu",
    "gpu_memory",
    "gpu_temperature",
    "disk",
    "disk_free",
    "disk_read",
    "disk_write",
    "network_in",
    "network_out",
]
SummaryValue = Literal["exposures_per_hour", "failed_percent", "rejected_percent", "failed", "rejected", "exposures"]

MOST_VALUES = 500
"""How many of the newest values of a measure are looked at."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Minutes = Annotated[float, Field(gt=0, le=60 * 24 * 30)]
LONGEST_SAMPLED_MINUTES = 60 * 24
"""Samples of the machine are kept for a day, and a little longer."""
SampledMinutes = Annotated[float, Field(gt=0, le=LONGEST_SAMPLED_MINUTES)]


class Rule(BaseModel):
    """What all rules have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="Its name; a rule of the same name in the session replaces one of the facility or a default")
    severity: Severity = Field("warning", description="Critical alarms are delivered in quiet hours as well")
    look_at: str | None = Field(None, max_length=500, description="What to look at, instead of what icestream says itself")
    repeat_minutes: Minutes | None = Field(None, description="Remind people after this long; unset: as the document says")
    channels: tuple[str, ...] | None = Field(None, description="Names of the channels to send to; unset: all")

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write the kind always, as it decides what else there is, and begin with name and kind."""
        told = write(self)
        kind = getattr(self, "kind", None)
        return {"name": self.name, **({} if kind is None else {"kind": kind}), **told}


class _Limits(Rule):
    low: float | None = Field(None, description="Lowest allowed value")
    high: float | None = Field(None, description="Highest allowed value")
    margin: float = Field(0.0, ge=0, description="An alarm ends only once the value is inside the limits by this much")

    @model_validator(mode="after")
    def _has_limits(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("needs low, high or both")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and must be below high, which is {self.high:g}")
        return self

    def outside(self, value: float, *, margin: float = 0.0) -> bool:
        """Tell whether a value is outside the limits, narrowed by ``margin``."""
        return (self.low is not None and value < self.low + margin) or (self.high is not None and value > self.high - margin)


class MeasureRule(_Limits):
    """A measure of the newest exposures, or of the newest version of a whole, is outside its limits."""

    kind: Literal["measure"] = "measure"
    measure: str = Field(min_length=1, max_length=300, description="The measure, of all steps that have it, or as STEP:MEASURE")
    window: int = Field(20, ge=1, le=MOST_VALUES, description="How many of the newest exposures are looked at")
    count: int = Field(1, ge=1, description="Raise the alarm when this many of them are outside the limits")
    clear_count: int | None = Field(None, ge=0, description="End the alarm at this many or fewer; unset: half of count")

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.count > self.window:
            raise ValueError(f"count is {self.count} and must be at most window, which is {self.window}")
        if self.clear_count is not None and self.clear_count >= self.count:
            raise ValueError(f"clear_count is {self.clear_count} and must be below count, which is {self.count}")
        return self

    @property
    def ends_at(self) -> int:
        """How many exposures outside the limits still end the alarm."""
        return self.count // 2 if self.clear_count is None else self.clear_count


class DriftRule(Rule):
    """A measure is no longer what it was: the newest exposures against those before, or a change point among all of them."""

    kind: Literal["drift"] = "drift"
    measure: str = Field(min_length=1, max_length=300, description="The measure, of all steps that have it, or as STEP:MEASURE")
    by: Literal["window", "change_point"] = Field(
        "window", description="Compare the newest with those before, or find where the level changed (Pettitt's test)"
    )
    window: int = Field(20, ge=5, le=200, description="Newest exposures that are compared; the least beside a change point")
    reference: int = Field(100, ge=10, le=300, description="Exposures before them; there must be at least half of them")
    shift: float = Field(
        1.5, gt=0, description="Raise the alarm when the medians differ by this many times the scatter of single exposures"
    )
    least_change: float = Field(
        0.0, ge=0, description="Never raise it for a smaller difference of the medians, in the unit of the measure"
    )
    significance: float = Field(0.001, gt=0, lt=0.5, description="Of a change point: the largest probability that it is chance")
    direction: Direction = Field(
        "worse", description="Which change counts; worse: as the measure declares, any where it does not"
    )


class AgeingRule(Rule):
    """A measure of a whole, such as the unevenness left by the gain reference, has grown from the lowest it was."""

    kind: Literal["ageing"] = "ageing"
    measure: str = Field(min_length=1, max_length=300, description="The measure, of all steps that have it, or as STEP:MEASURE")
    factor: float = Field(1.5, gt=1, description="Raise the alarm when it is this many times the lowest value so far")
    window: int = Field(3, ge=1, le=50, description="Versions of which the median is taken")


class SystemRule(_Limits):
    """The machine: a load, a temperature, space on the session's disk."""

    kind: Literal["system"] = "system"
    value: SystemValue = Field(description="What is watched: percent, °C, MB/s, or GB of free space")
    for_minutes: SampledMinutes = Field(5.0, description="Raise the alarm when it has been outside the limits for this long")


class SummaryRule(_Limits):
    """The session as a whole: rates and shares."""

    kind: Literal["summary"] = "summary"
    value: SummaryValue = Field(description="What is watched; shares are of the exposures so far")
    after: int = Field(20, ge=1, description="Only once there are this many exposures")


class StalledRule(Rule):
    """No new exposure arrives although the session is running and its source is open."""

    kind: Literal["stalled"] = "stalled"
    minutes: Minutes = Field(15.0, description="Raise the alarm after this long without a new exposure")
    times: float = Field(5.0, ge=1, description="But not before this many times the usual time between two exposures")


class DiskRule(Rule):
    """The disk of the session will be full soon, if it fills as it did."""

    kind: Literal["disk_full"] = "disk_full"
    hours: float = Field(6.0, gt=0, le=1000, description="Raise the alarm when it would be full in less than this")
    fit_minutes: SampledMinutes = Field(60.0, description="The rate is that of this long, once a fifth of it has been seen")


class StepFailingRule(Rule):
    """A step fails for every exposure."""

    kind: Literal["step_failing"] = "step_failing"
    step: str | None = Field(None, description="The step; unset: any")
    count: int = Field(5, ge=2, le=100, description="Raise the alarm when this many exposures in a row have failed")


class BacklogRule(Rule):
    """More and more exposures wait for a step."""

    kind: Literal["backlog"] = "backlog"
    step: str | None = Field(None, description="The step; unset: any")
    exposures: int = Field(50, ge=1, description="Raise the alarm when at least this many wait")
    minutes: Minutes = Field(30.0, description="And more than this long ago")


class WorkerLostRule(Rule):
    """Workers die while they process exposures."""

    kind: Literal["worker_lost"] = "worker_lost"
    count: int = Field(1, ge=1, le=100, description="Raise the alarm when this many have died")
    minutes: Minutes = Field(10.0, description="Within this long")


class RunnerLostRule(Rule):
    """The runner of the session has died, or gives no sign of life."""

    kind: Literal["runner_lost"] = "runner_lost"
    minutes: Minutes = Field(2.0, description="Raise the alarm after this long without a sign of life")


class TransferRule(Rule):
    """A transfer that fills the session's raw data, or copies them to an archive, is stuck, has died, or fails for files."""

    kind: Literal["transfer"] = "transfer"
    minutes: Minutes = Field(
        15.0, description="Raise the alarm when it has been paused, or has given no sign of life, for this long"
    )
    failed: int = Field(5, ge=1, description="Raise the alarm when this many files fail, and are being retried")


AnyRule = Annotated[
    MeasureRule
    | DriftRule
    | AgeingRule
    | SystemRule
    | SummaryRule
    | StalledRule
    | DiskRule
    | StepFailingRule
    | BacklogRule
    | WorkerLostRule
    | RunnerLostRule
    | TransferRule,
    Field(discriminator="kind"),
]

RULE_KINDS: tuple[type[Rule], ...] = (
    MeasureRule,
    DriftRule,
    AgeingRule,
    SystemRule,
    SummaryRule,
    StalledRule,
    DiskRule,
    StepFailingRule,
    BacklogRule,
    WorkerLostRule,
    RunnerLostRule,
    TransferRule,
)

SYSTEM_UNITS: dict[SystemValue, str] = {
    "cpu": "%",
    "memory": "%",
    "swap": "%",
    "gpu": "%",
    "gpu_memory": "%",
    "gpu_temperature": "°C",
    "disk": "%",
    "disk_free": "GB",
    "disk_read": "MB/s",
    "disk_write": "MB/s",
    "network_in": "MB/s",
    "network_out": "MB/s",
}
SUMMARY_UNITS: dict[SummaryValue, str] = {
    "exposures_per_hour": "/h",
    "failed_percent": "%",
    "rejected_percent": "%",
    "failed": "",
    "rejected": "",
    "exposures": "",
}
