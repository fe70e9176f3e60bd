"""Handing a message to a program of this machine."""

import json
import os
import subprocess

from icestream.alarms.channels import CommandChannel
from icestream.alarms.delivery.failing import DeliveryError
from icestream.alarms.message import Message

PREFIX = "ICESTREAM_ALARM_"
_NAMES = ("event", "session", "folder", "rule", "subject", "severity", "number", "exposures", "first")


def run_program(channel: CommandChannel, message: Message) -> None:
    """Run the program with the message as JSON on its standard input; no shell reads its arguments.

    Raises
    ------
    DeliveryError
        It cannot be started, takes too long, or ends with another status than 0.
    """
    body = {**message.fields, "heading": message.heading, "text": message.text}
    told = {f"{PREFIX}{name.upper()}": _plain(message.fields[name]) for name in _NAMES}
    told |= {f"{PREFIX}HEADING": _plain(message.heading), f"{PREFIX}TEXT": _plain(message.text)}
    where = f"channel {channel.name!r}: {channel.command[0]}"
    try:
        done = subprocess.run(
            channel.command,
            input=json.dumps(body).encode(),
            capture_output=True,
            timeout=channel.timeout_s,
            env=os.environ | told,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeliveryError(f"{where}: did not end within {channel.timeout_s:g} s") from None
    except OSError as error:
        raise DeliveryError(f"{where}: cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise DeliveryError(f"{where}: ended with status {done.returncode}: {said[-300:]}".rstrip(": "))


def _plain(value: object) -> str:
    return "" if value is None else str(value).replace("\0", " ")
