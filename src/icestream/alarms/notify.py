"""Who is told of which alarm, and when: a pure function of the alarms, of what has been sent, and of time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from icestream.alarms.channels import AlertmanagerChannel, AnyChannel
from icestream.alarms.document import DAYS, Policy, QuietHours
from icestream.alarms.rules import AnyRule
from icestream.alarms.state import Alarm, Evaluated, Event

DeliveryState = Literal["pending", "sent", "failed", "dropped"]


@dataclass(frozen=True)
class Sent:
    """The newest delivery of an alarm to a channel, refreshes left out where there is another."""

    event: Event
    state: DeliveryState
    at: float
    """When it was sent, or is due."""


@dataclass(frozen=True)
class Planned:
    """A message to send, not before ``due_at``."""

    number: int
    channel: str
    event: Event
    due_at: float


@dataclass(frozen=True)
class Plan:
    """What to send, and of which alarms (number, channel) pending messages are dropped."""

    messages: tuple[Planned, ...]
    dropped: tuple[tuple[int, str], ...]


def plan_messages(
    policy: Policy,
    evaluated: Evaluated,
    *,
    sent: Mapping[tuple[int, str], Sent],
    acknowledged: frozenset[int],
    now: float,
) -> Plan:
    """Decide what is sent after an evaluation.

    An alarm is told once when it is raised, reminded of until somebody acknowledges it, and told again when it ends, to those
    who were told that it began. In quiet hours all but critical alarms wait; one that ends meanwhile is never told.
    """
    rules = {rule.name: rule for rule in policy.rules}
    messages: list[Planned] = []
    dropped: list[tuple[int, str]] = []
    new = {alarm.number for alarm in evaluated.opened}
    for alarm in evaluated.state.open.values():
        for channel in _channels_of(policy, rules.get(alarm.rule), alarm):
            last = sent.get((alarm.number, channel.name))
            if isinstance(channel, AlertmanagerChannel):
                if last is None or (last.state != "pending" and now - last.at >= 60 * channel.refresh_minutes):
                    messages.append(Planned(alarm.number, channel.name, "raised" if last is None else "refresh", now))
            elif alarm.number in new or last is None:
                messages.append(Planned(alarm.number, channel.name, "raised", _when(policy, alarm, now)))
            elif _remind(policy, rules.get(alarm.rule), last, now) and alarm.number not in acknowledged:
                messages.append(Planned(alarm.number, channel.name, "reminder", _when(policy, alarm, now)))
    for alarm in evaluated.ended:
        for channel in policy.channels:
            last = sent.get((alarm.number, channel.name))
            if last is None:
                continue
            if last.state == "pending":
                dropped.append((alarm.number, channel.name))
            if last.state == "sent" or last.event != "raised":
                due = now if isinstance(channel, AlertmanagerChannel) else _when(policy, alarm, now)
                messages.append(Planned(alarm.number, channel.name, "ended", due))
    return Plan(tuple(messages), tuple(dropped))


def after_quiet(quiet: Sequence[QuietHours], now: float, zone: ZoneInfo | None) -> float:
    """Return when something that should not disturb may be told: now, or when the quiet hours end."""
    moment = now
    for _ in range(2 * len(quiet) + 1):  # one may begin where another ends
        ends = [end for one in quiet if (end := _end_of(one, moment, zone)) is not None]
        if not ends:
            return moment
        moment = max(ends)
    return moment


def _end_of(quiet: QuietHours, now: float, zone: ZoneInfo | None) -> float | None:
    """Return when quiet hours that hold now will end; None where they do not hold."""
    here = datetime.fromtimestamp(now, zone) if zone is not None else datetime.fromtimestamp(now).astimezone()
    for began in (here.date() - timedelta(days=1), here.date()):
        if DAYS[began.weekday()] not in quiet.days:
            continue
        start, end = _at(began, quiet.start, zone), _at(began, quiet.end, zone)
        if end <= start:
            end = _at(began + timedelta(days=1), quiet.end, zone)
        if start <= now < end:
            return end
    return None


def _at(day: object, clock: str, zone: ZoneInfo | None) -> float:
    """Return the time of a clock on a day, as that day's clocks show it."""
    hour, minute = int(clock[:2]), int(clock[3:])
    later, hour = divmod(hour, 24)
    naive = datetime.fromisoformat(f"{day}T{hour:02d}:{minute:02d}:00") + timedelta(days=later)
    return (naive.replace(tzinfo=zone) if zone is not None else naive.astimezone()).timestamp()


def _when(policy: Policy, alarm: Alarm, now: float) -> float:
    return now if alarm.severity == "critical" else after_quiet(policy.quiet, now, policy.zone)


def _remind(policy: Policy, rule: AnyRule | None, last: Sent, now: float) -> bool:
    minutes = policy.repeat_minutes if rule is None or rule.repeat_minutes is None else rule.repeat_minutes
    return minutes is not None and last.state != "pending" and now - last.at >= 60 * minutes


def _channels_of(policy: Policy, rule: AnyRule | None, alarm: Alarm) -> Iterator[AnyChannel]:
    for channel in policy.channels:
        wanted = rule is None or rule.channels is None or channel.name in rule.channels
        if wanted and (channel.least == "warning" or alarm.severity == "critical"):
            yield channel
