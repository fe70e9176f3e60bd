"""``icestream monitor``: judge sessions by their rules and send alarms, where neither `serve` nor `watch` does."""

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.cli.console import output, print_json
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.facility.observing import Turn

_EVERY_S = 15.0


def monitor(
    folder: Path = typer.Argument(help="A session, or a folder of sessions."),
    every: float = typer.Option(_EVERY_S, min=0.05, help="Seconds between two looks."),
    once: bool = typer.Option(False, "--once", help="Look once and end, such as from cron."),
    json: bool = typer.Option(False, "--json", help="With --once: print JSON for another program."),
) -> None:
    """Watch sessions by their rules, and send alarms to the channels of the facility, until Ctrl-C.

    `icestream serve` and `icestream watch` do so by themselves; each alarm is sent once, however many of them are running.

    ```
    icestream monitor lysozyme
    icestream monitor /sessions --once --json
    ```
    """
    from icestream.cli.run import make_settings
    from icestream.facility.observing import Observer, observe_all, sessions_in
    from icestream.flow.runner.stopping import StopRequests, on_stop_signals

    if not folder.is_dir():
        raise SessionError(f"{folder}: is no folder; give a session, or a folder that has sessions in it")
    settings = make_settings(cores=None, newest_first=False)
    observer, account = Observer(settings.alarms, every_s=every), settings.state
    place = folder.absolute()
    if once:
        turns = observe_all(observer, lambda: sessions_in(place), account=account)
        observer.release()
        _finish_once(turns, json=json)
        return
    with closing(StopRequests()) as stop, on_stop_signals(stop.ask):
        output().print(f"watching {folder} by its rules; Ctrl-C ends this and no session", markup=False, soft_wrap=True)
        troubles: dict[str, str | None] = {}
        while not stop.count:
            for turn in observe_all(observer, lambda: sessions_in(place), lambda: bool(stop.count), account=account):
                _tell(turn, troubles)
            stop.wait(every)
    observer.release()


def _finish_once(turns: "list[Turn]", *, json: bool) -> None:
    if json:
        print_json([_plain(turn) for turn in turns])
    else:
        for turn in turns:
            _tell(turn, {})
    if any(turn.trouble is not None for turn in turns):
        raise SessionError("some sessions could not be looked at")


def _plain(turn: "Turn") -> dict[str, object]:
    return {
        "session": turn.session,
        "looked": turn.evaluated is not None,
        "opened": turn.opened,
        "ended": turn.ended,
        "sent": sum(one.error is None for one in turn.deliveries),
        "errors": [one.error for one in turn.deliveries if one.error is not None],
        "trouble": turn.trouble,
    }


def _tell(turn: "Turn", troubles: dict[str, str | None]) -> None:
    lines = [f"ALARM {alarm.number}, {alarm.severity}: {alarm.what}: {alarm.detail}" for alarm in turn.opened]
    lines += [f"alarm {alarm.number} is over: {alarm.what}: {alarm.ended_because}" for alarm in turn.ended]
    for one in turn.deliveries:
        if one.delivery.event != "refresh" or one.error is not None:
            how = "sent" if one.error is None else f"not sent{' yet' if one.again else ''}: {one.error}"
            lines.append(f"{one.delivery.channel}, {one.delivery.event}: {how}")
    if turn.trouble is not None and troubles.get(turn.session) != turn.trouble:
        lines.append(turn.trouble)
    troubles[turn.session] = turn.trouble
    for line in lines:
        output().print(f"{time.strftime('%H:%M:%S')}  {turn.session}: {line}", markup=False, soft_wrap=True)
