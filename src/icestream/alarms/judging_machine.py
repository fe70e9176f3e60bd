"""Judging the machine: loads over some minutes, and when the disk will be full."""

from collections.abc import Iterator, Sequence

from icestream.alarms.change import fit_slope
from icestream.alarms.finding import Finding, limits_text, minutes_text, with_unit
from icestream.alarms.observations import Sample
from icestream.alarms.rules import SYSTEM_UNITS, AnyRule, DiskRule, SystemRule

LABELS = {
    "cpu": "Processor load",
    "memory": "Memory in use",
    "swap": "Swap in use",
    "gpu": "GPU load",
    "gpu_memory": "GPU memory in use",
    "gpu_temperature": "GPU temperature",
    "disk": "Disk in use",
    "disk_free": "Free space on the disk",
    "disk_read": "Reading from disks",
    "disk_write": "Writing to disks",
    "network_in": "Receiving from the network",
    "network_out": "Sending to the network",
}
SEEN_SHARE = 0.8
"""So much of the wanted time must be covered by samples."""
CLEARS_AFTER = 1.25
"""The disk is well again when it would be full in so many times the limit."""
NEED_SHARE = 0.2


def sampled_s(rules: Sequence[AnyRule]) -> float:
    """Return of how long samples are needed to judge by rules."""
    minutes = [rule.for_minutes for rule in rules if isinstance(rule, SystemRule)]
    minutes += [rule.fit_minutes for rule in rules if isinstance(rule, DiskRule)]
    return 60 * max(minutes, default=0.0)


def judge_system(rule: SystemRule, samples: Sequence[Sample], now: float) -> Iterator[Finding]:
    """Look whether a value was outside its limits in all samples of some minutes."""
    if not samples:
        return
    unit, began = SYSTEM_UNITS[rule.value], now - 60 * rule.for_minutes
    recent = [one for one in samples if one.at >= began]
    for subject, newest in samples[-1].values(rule.value).items():
        told = [(one.at, value) for one in recent if (value := one.values(rule.value).get(subject)) is not None]
        covered = bool(told) and told[-1][0] - told[0][0] >= SEEN_SHARE * 60 * rule.for_minutes
        yield Finding(
            subject=f"{rule.value} {subject}",
            raised=covered and all(rule.outside(value) for _, value in told),
            holds=any(rule.outside(value, margin=rule.margin) for _, value in told),
            what=f"{LABELS[rule.value]} is outside its limits",
            detail=f"{subject}: {with_unit(newest, unit)} for {minutes_text(60 * rule.for_minutes)}, "
            f"allowed is {limits_text(rule.low, rule.high, unit)}",
            look_at=f"what else runs on {samples[-1].host}",
            page="monitors",
            since=_began_outside(rule, samples, subject),
        )


def _began_outside(rule: SystemRule, samples: Sequence[Sample], subject: str) -> float | None:
    """Return since when the value has been outside its limits without a break."""
    since = None
    for one in reversed(samples):
        value = one.values(rule.value).get(subject)
        if value is None or not rule.outside(value):
            break
        since = one.at
    return since


def judge_disk(rule: DiskRule, samples: Sequence[Sample], now: float) -> Iterator[Finding]:
    """Extrapolate the free space of the session's disk by a straight line."""
    points = [
        (one.at, one.disk_free_gb) for one in samples if one.at >= now - 60 * rule.fit_minutes and one.disk_free_gb is not None
    ]
    if len(points) < 3 or points[-1][0] - points[0][0] < NEED_SHARE * 60 * rule.fit_minutes:
        return
    slope = fit_slope(points)
    free_gb = points[-1][1]
    full_in_s = free_gb / -slope if slope is not None and slope < 0 else None
    limit_s = 3600 * rule.hours
    rate = 0.0 if slope is None else max(0.0, -slope * 3600)
    when = "never" if full_in_s is None else f"in {minutes_text(full_in_s)}"
    yield Finding(
        subject="disk",
        raised=full_in_s is not None and full_in_s < limit_s,
        holds=full_in_s is not None and full_in_s < CLEARS_AFTER * limit_s,
        what="The disk of the session will be full soon",
        detail=f"{with_unit(free_gb, 'GB')} are free and {with_unit(rate, 'GB/h')} are written: full {when}",
        look_at="what can be moved away or deleted; `icestream clean --dry-run` says what the session can do without",
        page="monitors",
        since=points[0][0],
    )
