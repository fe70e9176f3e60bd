"""Debian's Alertmanager: it takes our alerts, hands them on, and learns when one is over."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alarms.receivers import WebReceiver, web_receiver
from icestream.alarms.channels import AlertmanagerChannel
from icestream.alarms.delivery.failing import DeliveryError
from icestream.alarms.delivery.sending import send
from icestream.alarms.message import Message, make_message
from icestream.alarms.state import Alarm, Event

pytestmark = pytest.mark.services

PATIENCE_S = 60.0
CONFIGURATION = """
route: {{receiver: hook, group_wait: 0s, group_interval: 1s, group_by: [alertname, session]}}
receivers:
  - name: hook
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


def wait_for(what: Any) -> Any:
    """Ask again until there is an answer."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("there was no answer in time")


@contextmanager
def alertmanager(folder: Path, receiver: WebReceiver) -> Iterator[str]:
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("prometheus-alertmanager is missing (Debian: prometheus-alertmanager)")
    (folder / "am.yml").write_text(CONFIGURATION.format(url=receiver.url), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, f"--config.file={folder / 'am.yml'}", f"--storage.path={folder / 'data'}", "--cluster.listen-address="]
    with (folder / "am.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: process.poll() is not None or _is_ready(url))
        assert process.poll() is None, (folder / "am.log").read_text(encoding="utf-8")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:  # noqa: S310 - ours
            return answer.status == 200
    except OSError:
        return False


def alerts(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=5) as answer:  # noqa: S310 - ours
        found: list[dict[str, Any]] = json.load(answer)
        return found


def message(event: Event, *, ended: float | None = None, number: int = 1) -> Message:
    began = time.time() - 60
    alarm = Alarm(
        number=number, rule="ctf-defocus", kind="measure", subject="ctf_a:defocus", severity="critical", what="Outside",
        detail="5 of the newest 20", look_at="the series", page="series", since=began, opened_at=began, newest_at=began,
        exposures=5, first='<e1> "å"', newest="e9", ended_at=ended, ended_because=None if ended is None else "it is well again",
    )  # fmt: skip
    return make_message(
        alarm, event=event, session="Ribosome", folder="/s/r", served_as="r", address="https://lab.org", delivery=number
    )


def test_an_alarm_fires_is_refreshed_and_is_resolved(tmp_path):
    with web_receiver() as receiver, alertmanager(tmp_path, receiver) as url:
        channel = AlertmanagerChannel(name="manager", url=f"{url}/")
        send(channel, message("raised"))
        send(channel, message("refresh"))
        (alert,) = wait_for(lambda: alerts(url))
        expected = {"alertname": "ctf-defocus", "session": "Ribosome", "subject": "ctf_a:defocus", "severity": "critical"}
        assert alert["labels"] == {**expected, "source": "icestream"}
        assert alert["annotations"]["first"] == '<e1> "å"'
        assert alert["annotations"]["exposures"] == "5"
        assert alert["generatorURL"] == "https://lab.org/s/r/series"
        assert alert["status"]["state"] in ("active", "unprocessed")
        wait_for(lambda: receiver.bodies)
        assert receiver.bodies[0]["status"] == "firing"
        send(channel, message("ended", ended=time.time() - 1))
        wait_for(lambda: receiver.bodies[-1]["status"] == "resolved")
        assert wait_for(lambda: alerts(url) == [])
    with pytest.raises(DeliveryError, match="Connection refused"):
        send(channel, message("raised"))
