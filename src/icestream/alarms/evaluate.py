"""Evaluating rules: a pure function of state, observations and time; it returns the new state, and which alarms came and went."""

from collections.abc import Iterator, Sequence

from icestream.alarms import judging_machine, judging_measures, judging_session
from icestream.alarms.finding import Finding
from icestream.alarms.observations import Observations
from icestream.alarms.rules import (
    AgeingRule,
    AnyRule,
    BacklogRule,
    DiskRule,
    DriftRule,
    MeasureRule,
    RunnerLostRule,
    StalledRule,
    StepFailingRule,
    SummaryRule,
    SystemRule,
    TransferRule,
    WorkerLostRule,
)
from icestream.alarms.state import Alarm, AlarmState, Evaluated, Memory, Waiting

OVER = "it is well again"
STEADY = "the level is steady again"
RULE_GONE = "its rule does not hold any more"
SESSION_OVER = "the session is not running any more"
FEWEST_S = 60.0
"""How many exposures wait is remembered once in so long."""


def evaluate(rules: Sequence[AnyRule], state: AlarmState, seen: Observations, now: float, *, all_rules: bool = True) -> Evaluated:
    """Judge a session by its rules. One that is not running raises nothing, and its alarms end.

    Where these are not ``all_rules``, the alarms of others stay as they are: who knows these rules judges them.
    """
    if not seen.runner.at_work:
        ended = [_end(alarm, now, SESSION_OVER) for alarm in state.open.values()]
        return Evaluated(state.model_copy(update={"open": {}, "at": now}), (), tuple(ended))
    memory = _remember(rules, state.memory, seen, now)
    still: dict[str, Alarm] = {}
    opened, ended, number = [], [], state.next_number
    for rule in rules:
        for finding in _judge(rule, seen, memory, now):
            known = state.open.get(f"{rule.name}/{finding.subject}")
            if known is None and finding.raised:
                alarm = _open(rule, finding, number, now)
                opened.append(alarm)
                still[alarm.key] = alarm
                number += 1
            elif known is not None and (finding.raised or finding.holds):
                still[known.key] = _go_on(known, rule, finding, now)
            elif known is not None:
                ended.append(_end(known, now, STEADY if isinstance(rule, DriftRule) else OVER))
    named = {rule.name for rule in rules}
    settled = {*still, *(alarm.key for alarm in ended)}
    for key, alarm in state.open.items():
        if key in settled:
            continue
        if alarm.rule in named or not all_rules:  # nothing is seen of it at this moment, such as of a step that is computed again
            still[key] = alarm
        else:
            ended.append(_end(alarm, now, RULE_GONE))
    return Evaluated(AlarmState(next_number=number, open=still, memory=memory, at=now), tuple(opened), tuple(ended))


def _judge(rule: AnyRule, seen: Observations, memory: Memory, now: float) -> Iterator[Finding]:
    match rule:
        case MeasureRule():
            yield from judging_measures.judge_limits(rule, seen.measured)
        case DriftRule():
            yield from judging_measures.judge_drift(rule, seen.measured)
        case AgeingRule():
            yield from judging_measures.judge_ageing(rule, seen.measured, memory.lowest)
        case SystemRule():
            yield from judging_machine.judge_system(rule, seen.samples, now)
        case DiskRule():
            yield from judging_machine.judge_disk(rule, seen.samples, now)
        case SummaryRule():
            yield from judging_session.judge_summary(rule, seen, now)
        case StalledRule():
            yield from judging_session.judge_stalled(rule, seen, now)
        case StepFailingRule():
            yield from judging_session.judge_steps_failing(rule, seen)
        case BacklogRule():
            yield from judging_session.judge_backlog(rule, seen, memory.waiting, now)
        case WorkerLostRule():
            yield from judging_session.judge_workers_lost(rule, seen, now)
        case RunnerLostRule():
            yield from judging_session.judge_runner_lost(rule, seen, now)
        case TransferRule():
            yield from judging_session.judge_transfers(rule, seen, now)


def _remember(rules: Sequence[AnyRule], memory: Memory, seen: Observations, now: float) -> Memory:
    longest_s = max((60 * rule.minutes for rule in rules if isinstance(rule, BacklogRule)), default=0.0)
    waiting = {}
    for step in seen.steps:
        known = memory.waiting.get(step.name, ())
        if not known or now - known[-1].at >= FEWEST_S:
            known = (*known, Waiting(at=now, count=step.waiting))
        older = [one for one in known if one.at <= now - longest_s]
        waiting[step.name] = tuple(one for one in known if one.at > now - longest_s or one is older[-1])
    ageing = [rule for rule in rules if isinstance(rule, AgeingRule)]
    return Memory(waiting=waiting, lowest=judging_measures.lowest_of(ageing, seen.measured, memory.lowest))


def _open(rule: AnyRule, finding: Finding, number: int, now: float) -> Alarm:
    evidence = finding.evidence
    return Alarm(
        number=number,
        rule=rule.name,
        kind=rule.kind,
        subject=finding.subject,
        severity=rule.severity,
        what=finding.what,
        detail=finding.detail,
        look_at=rule.look_at or finding.look_at,
        page=finding.page,
        since=now if finding.since is None else min(now, finding.since),
        opened_at=now,
        newest_at=now,
        exposures=len(evidence) if finding.counts_exposures else None,
        first=evidence[0].exposure if evidence else None,
        newest=evidence[-1].exposure if evidence else None,
        first_unit=evidence[0].unit if evidence else None,
        newest_unit=evidence[-1].unit if evidence else None,
        counted_to=max((one.seq for one in evidence), default=0),
    )


def _go_on(alarm: Alarm, rule: AnyRule, finding: Finding, now: float) -> Alarm:
    """Return an open alarm with what was seen of it since; exposures are counted once."""
    fresh = [one for one in finding.evidence if one.seq > alarm.counted_to]
    if not finding.raised and not fresh:  # between the two limits: what it says stays
        return alarm
    return alarm.model_copy(
        update={
            "severity": rule.severity,
            "detail": finding.detail if finding.raised else alarm.detail,
            "newest_at": now,
            "exposures": None if alarm.exposures is None else alarm.exposures + len(fresh),
            "newest": fresh[-1].exposure if fresh else alarm.newest,
            "newest_unit": fresh[-1].unit if fresh else alarm.newest_unit,
            "counted_to": max([alarm.counted_to, *(one.seq for one in fresh)]),
        }
    )


def _end(alarm: Alarm, now: float, because: str) -> Alarm:
    return alarm.model_copy(update={"ended_at": now, "ended_because": because})
