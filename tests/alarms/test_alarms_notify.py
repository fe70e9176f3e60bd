"""Who is told when: an event table of alarms, acknowledgements, quiet hours and what has been sent."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from alarms.seen import T0
from icestream.alarms.channels import AlertmanagerChannel, CommandChannel
from icestream.alarms.document import Policy, QuietHours
from icestream.alarms.notify import Sent, after_quiet, plan_messages
from icestream.alarms.rules import StalledRule
from icestream.alarms.state import Alarm, AlarmState, Evaluated

ZONE = ZoneInfo("Europe/Madrid")
RULE = StalledRule(name="stalled")
STAFF, PAGER = (
    CommandChannel(name="staff", command=("x",)),
    CommandChannel(name="pager", command=("x",), least="critical"),
)
MANAGER = AlertmanagerChannel(name="manager", url="http://localhost:9093", refresh_minutes=2)


def alarm(number: int = 1, *, severity="warning", ended: float | None = None) -> Alarm:
    return Alarm(
        number=number, rule="stalled", kind="stalled", subject=f"s{number}", severity=severity, what="w", detail="d", look_at="l",
        page="", since=T0, opened_at=T0, newest_at=T0, ended_at=ended, ended_because=None if ended is None else "well",
    )  # fmt: skip


def plan(one: Alarm, *, now=T0, new=False, sent=None, acknowledged=(), **policy):
    """Return what is planned, as channel → event and seconds from now; and what is dropped."""
    state = AlarmState(open={} if one.ended_at is not None else {one.key: one})
    evaluated = Evaluated(state, (one,) if new else (), (one,) if one.ended_at is not None else ())
    held = Policy(**{"rules": (RULE,), "channels": (STAFF, PAGER, MANAGER), "repeat_minutes": 60.0, **policy})
    told = {(one.number, name): Sent(*values) for name, values in (sent or {}).items()}
    made = plan_messages(held, evaluated, sent=told, acknowledged=frozenset(acknowledged), now=now)
    return {two.channel: (two.event, two.due_at - now) for two in made.messages}, {channel for _, channel in made.dropped}


def test_a_new_alarm_is_told_to_those_who_want_it():
    assert plan(alarm(), new=True) == ({"staff": ("raised", 0), "manager": ("raised", 0)}, set())
    told = plan(alarm(severity="critical"), new=True)[0]
    assert told == {"staff": ("raised", 0), "pager": ("raised", 0), "manager": ("raised", 0)}
    only = StalledRule(name="stalled", channels=("manager",))
    assert plan(alarm(), new=True, rules=(only,))[0] == {"manager": ("raised", 0)}


SENT = {"staff": ("raised", "sent", T0), "manager": ("raised", "sent", T0)}


@pytest.mark.parametrize(("minutes", "acknowledged", "expected"), [
    (1, (), {}),
    (2, (), {"manager": ("refresh", 0)}),
    (60, (), {"staff": ("reminder", 0), "manager": ("refresh", 0)}),
    (60, (1,), {"manager": ("refresh", 0)}),
])  # fmt: skip
def test_people_are_reminded_until_somebody_acknowledges(minutes, acknowledged, expected):
    assert plan(alarm(), now=T0 + 60 * minutes, sent=SENT, acknowledged=acknowledged)[0] == expected


def test_nobody_is_told_twice_while_a_message_waits():
    waits = {"staff": ("reminder", "pending", T0 - 9e4), "manager": ("refresh", "pending", T0 - 9e4)}
    assert plan(alarm(), sent=waits) == ({}, set())
    own = StalledRule(name="stalled", repeat_minutes=5)
    assert plan(alarm(), now=T0 + 301, sent=SENT, rules=(own,))[0]["staff"] == ("reminder", 0)


def test_the_end_is_told_to_those_who_know_of_the_beginning():
    over = alarm(ended=T0)
    assert plan(over, sent=SENT)[0] == {"staff": ("ended", 0), "manager": ("ended", 0)}
    assert plan(over, sent={"staff": ("raised", "pending", T0)}) == ({}, {"staff"})
    assert plan(over, sent={"staff": ("reminder", "pending", T0)}) == ({"staff": ("ended", 0)}, {"staff"})
    assert plan(over, sent={"staff": ("raised", "failed", T0)}) == ({}, set())


QUIET = (QuietHours.model_validate({"from": "22:00", "to": "07:00", "days": ["friday"]}),)


@pytest.mark.parametrize(("when", "until"), [
    ("2026-12-04T21:59", None),  # a Friday
    ("2026-12-04T22:00", "2026-12-05T07:00"),
    ("2026-12-05T06:59", "2026-12-05T07:00"),
    ("2026-12-05T07:00", None),
    ("2026-12-05T23:00", None),
])  # fmt: skip
def test_quiet_hours(when, until):
    now = datetime.fromisoformat(when).replace(tzinfo=ZONE).timestamp()
    expected = now if until is None else datetime.fromisoformat(until).replace(tzinfo=ZONE).timestamp()
    assert after_quiet(QUIET, now, ZONE) == expected


def test_quiet_hours_that_follow_one_another_and_the_change_of_clocks():
    chain = tuple(QuietHours.model_validate({"from": a, "to": b}) for a, b in (("20:00", "24:00"), ("00:00", "08:00")))
    night = datetime(2026, 3, 28, 21, tzinfo=ZONE).timestamp()  # the clocks go forward at two
    assert after_quiet(chain, night, ZONE) - night == 10 * 3600


def test_only_critical_alarms_disturb():
    now = datetime(2026, 12, 4, 23, tzinfo=ZONE).timestamp()
    quiet = {"quiet": QUIET, "zone": ZONE, "now": now, "new": True}
    assert plan(alarm(), **quiet)[0] == {"staff": ("raised", 8 * 3600), "manager": ("raised", 0)}
    assert plan(alarm(severity="critical"), **quiet)[0]["pager"] == ("raised", 0)
