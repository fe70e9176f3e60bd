"""Sending what is due: each message by the sender of its channel, again later where it was not taken."""

import http.client
import smtplib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from icestream.alarms.alarm_rows import Mark
from icestream.alarms.alarm_store import AlarmStore, Delivery
from icestream.alarms.channels import AlertmanagerChannel, AnyChannel, CommandChannel, EmailChannel, WebhookChannel
from icestream.alarms.delivery.failing import FIRST_DELAY_S, DeliveryError, next_delay_s
from icestream.alarms.delivery.mail import send_mail
from icestream.alarms.delivery.program import run_program
from icestream.alarms.delivery.web import post_alerts, post_webhook
from icestream.alarms.document import Policy
from icestream.alarms.message import Message, make_message, make_test_alarm
from icestream.errors import SessionError, StoreUnavailable

_OF_LIBRARIES = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    smtplib.SMTPException,
    http.client.HTTPException,
)
MOST_SENT = 50
"""How many messages of one session are sent in one turn."""


@dataclass(frozen=True)
class Delivered:
    """What became of one message at this attempt; ``error`` is unset where it was taken."""

    delivery: Delivery
    heading: str
    error: str | None
    again: bool = False


@dataclass(frozen=True)
class Addressed:
    """How messages name the session."""

    session: str
    folder: str
    served_as: str


def send(channel: AnyChannel, message: Message, mail_to: Sequence[str] = ()) -> None:
    """Send one message.

    Raises
    ------
    DeliveryError
        It was not taken.
    SessionError
        A secret is not where it should be.
    """
    match channel:
        case EmailChannel():
            send_mail(channel, message, mail_to)
        case WebhookChannel():
            post_webhook(channel, message)
        case CommandChannel():
            run_program(channel, message)
        case AlertmanagerChannel():
            post_alerts(channel, message)


@dataclass
class Resting:
    """Channels that did not take a message a moment ago: the others must not wait for them again and again."""

    until: dict[str, float] = field(default_factory=dict)

    def names(self, now: float) -> list[str]:
        """Return those that rest now."""
        return [name for name, until in self.until.items() if now < until]


def send_due(
    store: AlarmStore,
    policy: Policy,
    addressed: Addressed,
    clock: Callable[[], float],
    *,
    only: Sequence[int] | None = None,
    resting: Resting | None = None,
    mark: Mark = Mark(),  # noqa: B008 - cannot be changed
) -> Iterator[Delivered]:
    """Send what is due and say what became of it; each message is claimed first, so that no other process sends it.

    What was in the database before ``mark`` is not sent.
    """
    channels = {one.name: one for one in policy.channels}
    rest = Resting() if resting is None else resting
    for _ in range(MOST_SENT):
        now = clock()
        awake = channels.keys() - set(rest.names(now))
        found = store.claim_due(now=now, channels=awake, most=1, only=only, mark=mark)
        if not found:
            return
        delivery = found[0]
        try:
            alarm = make_test_alarm(delivery.at) if delivery.number == 0 else store.alarm(delivery.number)
        except StoreUnavailable:
            raise
        except SessionError as error:  # the others are sent
            store.mark(delivery.id, "failed", now=clock(), error=str(error))
            continue
        channel = channels[delivery.channel]
        if alarm is None:
            store.mark(delivery.id, "failed", now=clock(), error="nothing is known any more of its alarm")
            continue
        if alarm.ended_at is not None and delivery.event in ("raised", "reminder"):  # it is told that it is over
            store.mark(delivery.id, "dropped", now=clock())
            continue
        message = make_message(
            alarm,
            event=delivery.event,
            session=addressed.session,
            folder=addressed.folder,
            served_as=addressed.served_as,
            address=policy.address,
            delivery=delivery.id,
        )
        done = _try(store, channel, message, delivery, policy, clock)
        if done.again:
            rest.until[channel.name] = clock() + FIRST_DELAY_S
        yield done


def _send_guarded(channel: AnyChannel, message: Message, mail_to: Sequence[str]) -> None:
    """Send a message; whatever a library raises about an address, a password or an answer is a message that was not taken."""
    try:
        send(channel, message, mail_to)
    except _OF_LIBRARIES as error:
        raise DeliveryError(f"channel {channel.name!r}: {type(error).__name__}: {str(error)[:300]}") from error


def _try(
    store: AlarmStore, channel: AnyChannel, message: Message, delivery: Delivery, policy: Policy, clock: Callable[[], float]
) -> Delivered:
    try:
        _send_guarded(channel, message, policy.mail_to)
    except SessionError as error:
        delay_s = None if isinstance(error, DeliveryError) and error.lasting else next_delay_s(delivery.attempts + 1)
        told = str(error)
        now = clock()
        if delay_s is None or delivery.event == "test":
            store.mark(delivery.id, "failed", now=now, error=told)
            return Delivered(delivery, message.heading, told)
        store.mark(delivery.id, "pending", now=now, error=told, due_at=now + delay_s)
        return Delivered(delivery, message.heading, told, again=True)
    store.mark(delivery.id, "sent", now=clock())
    return Delivered(delivery, message.heading, None)
