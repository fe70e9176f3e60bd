"""Judging the session as a whole: its steps, its runner, its acquisition."""

from collections.abc import Iterator, Mapping

from icestream.alarms.finding import Evidence, Finding, counted_text, limits_text, minutes_text, with_unit
from icestream.alarms.observations import ABANDONED_S, Observations, StepSeen, TransferSeen
from icestream.alarms.rules import (
    SUMMARY_UNITS,
    BacklogRule,
    RunnerLostRule,
    StalledRule,
    StepFailingRule,
    SummaryRule,
    TransferRule,
    WorkerLostRule,
)
from icestream.alarms.state import Waiting

SHRINKS_TO = 0.8
"""A backlog ends when fewer than so much of the limit wait."""


def judge_stalled(rule: StalledRule, seen: Observations, now: float) -> Iterator[Finding]:
    """Compare the time since the newest exposure with the limit and with the usual time between two."""
    arrivals = seen.arrivals
    since = seen.runner.started_at if arrivals.newest_at is None else arrivals.newest_at
    if since is None:
        return
    quiet_s = now - since
    limit_s = max(60 * rule.minutes, rule.times * (arrivals.usual_s or 0.0))
    stalled = arrivals.expected and seen.runner.state == "running" and not seen.runner.paused and quiet_s >= limit_s
    usual = "" if arrivals.usual_s is None else f"; usually one arrives every {minutes_text(arrivals.usual_s)}"
    newest = "none has come; the session was started" if arrivals.newest_at is None else f"the newest, {arrivals.newest}, arrived"
    yield Finding(
        subject="acquisition",
        raised=stalled,
        holds=stalled,
        what="No new exposures arrive",
        detail=f"{newest} {minutes_text(quiet_s)} ago{usual}",
        look_at="the microscope, the transfer of its files, and whether the source still reads the folder",
        page="",
        since=since,
    )


def judge_steps_failing(rule: StepFailingRule, seen: Observations) -> Iterator[Finding]:
    """Look whether the newest outcomes of a step are all failures."""
    for step in _steps(rule.step, seen):
        failures = []
        for outcome in step.recent:
            if outcome.status != "failed":
                break
            failures.append(outcome)
        failing = len(failures) >= rule.count
        reason = failures[0].reason if failures else ""
        yield Finding(
            subject=step.name,
            raised=failing,
            holds=bool(failures),
            what=f"{step.label} fails for everything",
            detail=f"at least {counted_text(len(failures), 'exposure')} in a row; the newest: {reason}",
            look_at="the failures with their tracebacks; `icestream retry` computes them again",
            page="failures",
            since=failures[-1].at if failures else None,
            evidence=tuple(Evidence(one.seq, one.at, one.exposure, one.unit) for one in reversed(failures)),
            counts_exposures=True,
        )


def judge_backlog(
    rule: BacklogRule, seen: Observations, waiting: Mapping[str, tuple[Waiting, ...]], now: float
) -> Iterator[Finding]:
    """Compare how many exposures wait now with how many waited before."""
    for step in _steps(rule.step, seen):
        earlier = [one for one in waiting.get(step.name, ()) if one.at <= now - 60 * rule.minutes]
        before = earlier[-1] if earlier else None
        grown = before is not None and step.waiting > before.count
        shown = "" if before is None else f", {before.count} waited {minutes_text(now - before.at)} ago"
        yield Finding(
            subject=step.name,
            raised=step.waiting >= rule.exposures and grown,
            holds=step.waiting >= SHRINKS_TO * rule.exposures and (before is None or step.waiting >= before.count),
            what=f"The backlog of {step.label} grows",
            detail=f"{counted_text(step.waiting, 'exposure')} wait{shown}",
            look_at="the load of the machine and the rates of the steps: more cores, or fewer steps, keep up",
            page="",
            since=None if before is None else before.at,
        )


def judge_workers_lost(rule: WorkerLostRule, seen: Observations, now: float) -> Iterator[Finding]:
    """Count the workers that died."""
    recent = [one for one in seen.lost_workers if one.at >= now - 60 * rule.minutes]
    steps = ", ".join(dict.fromkeys(one.step for one in recent))
    yield Finding(
        subject="workers",
        raised=len(recent) >= rule.count,
        holds=bool(recent),
        what="Workers die",
        detail=f"{counted_text(len(recent), 'worker')} died within {minutes_text(60 * rule.minutes)}, at {steps}",
        look_at="memory of the machine, the failures, and the log of the runner",
        page="failures",
        since=recent[0].at if recent else None,
        evidence=tuple(Evidence(one.seq, one.at, one.exposure, one.unit) for one in recent),
        counts_exposures=True,
    )


def judge_runner_lost(rule: RunnerLostRule, seen: Observations, now: float) -> Iterator[Finding]:
    """Look whether the runner lives."""
    runner = seen.runner
    silence_s = runner.silence_s or 0.0
    died = runner.state == "interrupted"
    lost = runner.at_work and silence_s >= 60 * rule.minutes
    what = "The runner has died" if died else "The runner gives no sign of life"
    yield Finding(
        subject="runner",
        raised=lost,
        holds=lost,
        what=what,
        detail=f"its last sign of life on {runner.host or 'an unknown machine'} was {minutes_text(silence_s)} ago",
        look_at="logs/runner.log in the session; `icestream run` continues where it ended",
        page="log",
        since=now - silence_s,
    )


def judge_transfers(rule: TransferRule, seen: Observations, now: float) -> Iterator[Finding]:
    """Look whether transfers are stuck or fail; one that a person stopped is left alone."""
    for one in seen.transfers:
        quiet_s, goes_on = now - one.since, one.doing != "stopped"
        stuck = one.doing in ("paused", "interrupted") and 60 * rule.minutes <= quiet_s < ABANDONED_S
        words = {"interrupted": "has died", "paused": "is stuck"} if stuck else {}
        yield Finding(
            subject=one.subject,
            raised=stuck or (goes_on and one.failed >= rule.failed),
            holds=stuck or (goes_on and one.failed > rule.failed // 2),
            what=f"A transfer {words.get(one.doing, 'fails for files')}",
            detail=f"from {one.source} to {one.target}: {_say_transfer(one, quiet_s)}",
            look_at="the files that failed, the disks at both ends, and whether `icestream transfer` is running",
            page="transfer",
            since=one.since if stuck else None,
        )


def _say_transfer(one: TransferSeen, quiet_s: float) -> str:
    told: list[str] = [one.doing]
    if one.doing == "paused":
        told = [f"paused for {minutes_text(quiet_s)}: {one.note or 'no reason is known'}"]
    elif one.doing == "interrupted":
        told = [f"its last sign of life was {minutes_text(quiet_s)} ago"]
    return "; ".join([*told, f"{counted_text(one.failed, 'file')} failed, to be retried"] if one.failed else told)


def judge_summary(rule: SummaryRule, seen: Observations, now: float) -> Iterator[Finding]:
    """Compare a figure of the session with its limits."""
    totals, unit = seen.totals, SUMMARY_UNITS[rule.value]
    coming = seen.arrivals.expected and not seen.runner.paused
    values = {
        "exposures_per_hour": seen.arrivals.per_hour(now if coming else seen.arrivals.newest_at or now),
        "failed_percent": 100 * totals.failed / totals.exposures if totals.exposures else None,
        "rejected_percent": 100 * totals.rejected / totals.exposures if totals.exposures else None,
        "failed": float(totals.failed),
        "rejected": float(totals.rejected),
        "exposures": float(totals.exposures),
    }
    value = values[rule.value]
    if value is None or totals.exposures < rule.after:
        return
    label = rule.value.removesuffix("_percent").replace("_", " ")
    yield Finding(
        subject=rule.value,
        raised=rule.outside(value),
        holds=rule.outside(value, margin=rule.margin),
        what=f"{label.capitalize()}: outside the limits",
        detail=f"{with_unit(value, unit)} of {counted_text(totals.exposures, 'exposure')}, allowed is {_limits(rule, unit)}",
        look_at="the page of the session",
        page="failures" if rule.value.startswith("failed") else "",
    )


def _limits(rule: SummaryRule, unit: str) -> str:
    return limits_text(rule.low, rule.high, unit)


def _steps(wanted: str | None, seen: Observations) -> Iterator[StepSeen]:
    return (step for step in seen.steps if wanted in (None, step.name))
