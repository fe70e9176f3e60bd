"""Posting JSON to web addresses: of chats, of programs, of Alertmanager."""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from icestream.alarms.channels import AlertmanagerChannel, Secret, WebhookChannel, WebhookFormat
from icestream.alarms.delivery.failing import DeliveryError
from icestream.alarms.message import Message

_TOO_MANY = 429
_LASTING = (400, 500)
_STANDS_FOR = 5.0
"""Alertmanager takes an alert for resolved when it has not heard of it for so many times the refresh."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry a token elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


def post_webhook(channel: WebhookChannel, message: Message) -> None:
    """Post a message in the form that the other side takes.

    Raises
    ------
    DeliveryError
        It was not taken. The address is not part of the message: it is a secret.
    """
    body = write_body(channel.format, message)
    _post(f"channel {channel.name!r}", channel.url.read(), body, token=channel.token, timeout_s=channel.timeout_s)


def write_body(kind: WebhookFormat, message: Message) -> dict[str, Any]:
    """Return the JSON of a message."""
    if kind == "json":
        return {**message.fields, "heading": message.heading, "text": message.text}
    if kind == "slack":  # text is mrkdwn, in which three characters mean something
        return {"text": f"*{_slack(message.heading)}*\n{_slack(message.text)}"}
    if kind == "mattermost":
        return {"text": f"**{_markdown(message.heading)}**\n\n" + "\n".join(f"- {_markdown(line)}" for line in message.lines)}
    blocks = [{"type": "TextBlock", "text": _markdown(message.heading), "weight": "Bolder", "wrap": True}]
    blocks += [{"type": "TextBlock", "text": _markdown(line), "wrap": True} for line in message.lines]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": blocks,
    }
    content = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [content]}


def post_alerts(channel: AlertmanagerChannel, message: Message) -> None:
    """Tell Alertmanager of an alarm, by its version 2 interface; one that is over by its end.

    Raises
    ------
    DeliveryError
        It was not taken.
    """
    address = f"{channel.url.rstrip('/')}/api/v2/alerts"
    stands = timedelta(minutes=_STANDS_FOR * channel.refresh_minutes)
    alert = write_alert(message, ends_at=datetime.now(UTC) + stands)
    _post(f"Alertmanager at {channel.url}", address, [alert], token=channel.token, timeout_s=channel.timeout_s)


def write_alert(message: Message, *, ends_at: datetime) -> dict[str, Any]:
    """Return an alert; ``ends_at`` is when one that is still wrong is forgotten if nothing more is heard."""
    alarm = message.alarm
    ended = alarm.ended_at if message.event != "test" else None
    return {
        "labels": {
            "alertname": alarm.rule,
            "session": message.session,
            "subject": alarm.subject,
            "severity": alarm.severity,
            "source": "icestream",
        },
        "annotations": {
            "summary": message.heading,
            "description": message.text,
            "exposures": "" if alarm.exposures is None else str(alarm.exposures),
            "first": alarm.first or "",
            "look_at": alarm.look_at,
        },
        "startsAt": datetime.fromtimestamp(alarm.since, UTC).isoformat(),
        "endsAt": (ends_at if ended is None else datetime.fromtimestamp(ended, UTC)).isoformat(),
        **({} if message.link is None else {"generatorURL": message.link}),
    }


def _post(where: str, address: str, body: object, *, token: Secret | None, timeout_s: float) -> None:
    if urlsplit(address).scheme not in ("http", "https"):
        raise DeliveryError(f"{where}: its address does not begin with http:// or https://", lasting=True)
    headers = {"Content-Type": "application/json", "User-Agent": "icestream"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token.read()}"
    content = json.dumps(body).encode()
    handlers = (_NoRedirects(), urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    try:
        asked = urllib.request.Request(address, data=content, headers=headers, method="POST")  # noqa: S310 - checked above
        with urllib.request.build_opener(*handlers).open(asked, timeout=timeout_s) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(300).decode(errors="replace").strip()
        lasting = _LASTING[0] <= error.code < _LASTING[1] and error.code != _TOO_MANY
        raise DeliveryError(f"{where}: answered {error.code} {error.reason}: {said}".rstrip(": "), lasting=lasting) from None
    except urllib.error.URLError as error:
        raise DeliveryError(f"{where}: {error.reason}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DeliveryError(f"{where}: {type(error).__name__}") from None


def _slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _markdown(text: str) -> str:
    """Keep names from being read as markup."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|~@" else char for char in text)
