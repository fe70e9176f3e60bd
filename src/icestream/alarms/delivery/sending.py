"""Sending what is due: each message by the sender of its channel, again later where it was not taken."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from icestream.alarms.alarm_store import AlarmStore, Delivery
from icestream.alarms.channels import AlertmanagerChannel, AnyChannel, CommandChannel, EmailChannel, WebhookChannel
from icestream.alarms.delivery.failing import FIRST_DELAY_S, DeliveryError, next_delay_s
from icestream.alarms.delivery.mail import send_mail
from icestream.alarms.delivery.program import run_program
from icestream.alarms.delivery.web import post_alerts, post_webhook
from icestream.alarms.document import Policy
from icestream.alarms.message import Message, make_message, make_test_alarm
from icestream.errors import SessionError

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
) -> Iterator[Delivered]:
    """Send what is due and say what became of it; each message is claimed first, so that no other process sends it."""
    channels = {one.name: one for one in policy.channels}
    rest = Resting() if resting is None else resting
    for _ in range(MOST_SENT):
        found = store.claim_due(now=clock(), most=1, only=only, without=rest.names(clock()))
        if not found:
            return
        delivery = found[0]
        alarm = make_test_alarm(delivery.at) if delivery.number == 0 else store.alarm(delivery.number)
        channel = channels.get(delivery.channel)
        if channel is None or alarm is None:
            store.mark(delivery.id, "failed", now=clock(), error="the facility has no such channel any more")
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


def _try(
    store: AlarmStore, channel: AnyChannel, message: Message, delivery: Delivery, policy: Policy, clock: Callable[[], float]
) -> Delivered:
    try:
        send(channel, message, policy.mail_to)
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
