"""``icestream alarms``: what is wrong, who has seen it, and whether the channels work."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from icestream.account import user_name
from icestream.cli.asking import JSON, SESSION
from icestream.cli.console import make_table, output, print_json
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.alarms.alarm_store import AlarmStore, Delivery, KeptAlarm
    from icestream.alarms.document import Policy
    from icestream.flow.storage import Session

_MOST = 50


def alarms(
    session: Path = SESSION,
    acknowledge: list[int] = typer.Option([], metavar="NUMBER", help="Acknowledge this alarm: nobody is reminded of it."),
    note: str = typer.Option("", help="With --acknowledge: what is known or done about it."),
    past: bool = typer.Option(False, "--past", help="List alarms that are over as well."),
    rules: bool = typer.Option(False, "--rules", help="List the rules that hold for this session instead."),
    test: str | None = typer.Option(None, metavar="CHANNEL", help="Send a test message to this channel, or to `all`."),
    json: bool = JSON,
) -> None:
    """List the alarms of a session, acknowledge them, or try its channels.

    Rules are in alarms.yaml in the session's folder, and in the file of the facility that ICESTREAM_ALARMS names.

    ```
    icestream alarms lysozyme
    icestream alarms lysozyme --acknowledge 3 --note "liquid nitrogen is being refilled"
    icestream alarms lysozyme --test all
    ```
    """
    from icestream.cli.run import make_settings
    from icestream.facility.observing import alarm_store_of, policy_of
    from icestream.flow.storage import open_session

    opened = open_session(session)
    store = alarm_store_of(opened)
    policy = policy_of(opened, make_settings(cores=None, newest_first=False).alarms)
    if rules:
        _show_rules(policy, json=json)
    elif test is not None:
        _test(opened, store, policy, test, json=json)
    elif acknowledge:
        done = store.acknowledge(acknowledge, by=user_name(), note=note, now=time.time())
        _tell_acknowledged(acknowledge, done, json=json)
    else:
        _show(store, past=past, json=json)


def _tell_acknowledged(wanted: list[int], done: list[int], *, json: bool) -> None:
    if json:
        print_json({"acknowledged": done})
    elif done:
        output().print(f"acknowledged: {', '.join(map(str, done))}")
    left = [number for number in wanted if number not in done]
    if left:
        raise SessionError(f"alarm {', '.join(map(str, left))}: is unknown, over, or was acknowledged before")


def _show(store: "AlarmStore", *, past: bool, json: bool) -> None:
    found, observer = store.alarms(most=_MOST, only_open=not past), store.observer()
    deliveries = store.deliveries(most=_MOST)
    if json:
        print_json({"alarms": found, "deliveries": deliveries, "observer": observer})
        return
    console = output()
    if observer.looked_at is None:
        console.print("nobody has watched this session yet: run `icestream monitor`, or look at it with `icestream serve`")
        return
    state = f", and could not: {observer.trouble}" if observer.trouble is not None else ""
    console.print(f"last looked at {_time(observer.looked_at)}{state}", markup=False, soft_wrap=True)
    if not found:
        console.print("no alarms")
    for kept in found:
        _print_alarm(kept)
    _print_troubles([one for one in deliveries if one.error is not None and one.state in ("pending", "failed")])


def _print_alarm(kept: "KeptAlarm") -> None:
    alarm, console = kept.alarm, output()
    over = "" if alarm.ended_at is None else f", over at {_time(alarm.ended_at)}: {alarm.ended_because}"
    style = "bold red" if alarm.severity == "critical" and alarm.ended_at is None else "bold"
    console.print(f"{alarm.number}  {alarm.what} ({alarm.subject})", style=style, markup=False, soft_wrap=True)
    lines = [alarm.detail, f"since {_time(alarm.since)}, raised {_time(alarm.opened_at)}{over}"]
    if alarm.exposures is not None:
        lines.append(f"exposures: {alarm.exposures}, first {alarm.first}, newest {alarm.newest}")
    lines.append(f"look at {alarm.look_at}")
    if kept.acknowledged_by is not None:
        said = f": {kept.note}" if kept.note else ""
        lines.append(f"acknowledged by {kept.acknowledged_by} at {_time(kept.acknowledged_at or 0.0)}{said}")
    for line in lines:
        console.print(f"   {line}", markup=False, soft_wrap=True)


def _print_troubles(failed: "list[Delivery]") -> None:
    if not failed:
        return
    table = make_table("alarm", "channel", "message", "state", "attempts", "error", title="messages that were not taken")
    for one in failed:
        told = "is tried again" if one.state == "pending" else "given up"
        table.add_row(str(one.number), one.channel, one.event, told, str(one.attempts), escape(one.error or ""))
    output().print(table)


def _show_rules(policy: "Policy", *, json: bool) -> None:
    from icestream.alarms.document import settings_of

    if json:
        told = [rule.model_dump(mode="json", exclude_none=True) for rule in policy.rules]
        print_json(
            {
                "rules": told,
                "channels": [{"name": one.name, "kind": one.kind} for one in policy.channels],
                "not_mailed": policy.not_mailed,
            }
        )
        return
    table = make_table("rule", "kind", "severity", "settings")
    for rule in policy.rules:
        own = ", ".join(f"{name} {value}" for name, value in settings_of(rule).items())
        table.add_row(rule.name, rule.kind, rule.severity, escape(own))
    output().print(table)
    names = ", ".join(f"{one.name} ({one.kind})" for one in policy.channels)
    if policy.note is not None:
        output().print(policy.note, markup=False, soft_wrap=True)
    output().print(f"channels: {names or 'none; ICESTREAM_ALARMS names the file that has them'}", markup=False, soft_wrap=True)


def _test(session: "Session", store: "AlarmStore", policy: "Policy", wanted: str, *, json: bool) -> None:
    from icestream.facility.observing import send_test

    results = send_test(session, store, policy, wanted)
    if json:
        print_json([{"channel": one.delivery.channel, "error": one.error} for one in results])
    else:
        for one in results:
            output().print(f"{one.delivery.channel}: {one.error or 'taken'}", markup=False, soft_wrap=True)
    if any(one.error is not None for one in results):
        raise SessionError("not every channel took the test message")


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
