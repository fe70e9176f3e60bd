"""Mail: one message to all addresses, over an encrypted connection unless the facility says otherwise."""

import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate

from icestream.alarms.channels import EmailChannel
from icestream.alarms.delivery.failing import DeliveryError
from icestream.alarms.message import Message

_LASTING_FROM = 500


def send_mail(channel: EmailChannel, message: Message, also: Sequence[str]) -> None:
    """Send a message to the addresses of the channel and of the session.

    Raises
    ------
    DeliveryError
        The server cannot be reached, does not take the password, or refuses the message.
    """
    to = list(dict.fromkeys((*channel.to, *also)))
    if not to:
        raise DeliveryError(f"channel {channel.name!r}: nobody to send to; add `to`, or `mail_to` in the session", lasting=True)
    password = None if channel.password is None else channel.password.read()
    try:
        with _connect(channel) as server:
            if channel.user is not None and password is not None:
                server.login(channel.user, password)
            refused = server.send_message(_write(channel, message, to))
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
        raise DeliveryError(f"{_where(channel)}: {error.smtp_code} {said[:300]}") from None
    except smtplib.SMTPRecipientsRefused as error:
        told = "; ".join(
            f"{address}: {code} {said.decode(errors='replace')}" for address, (code, said) in error.recipients.items()
        )
        lasting = all(code >= _LASTING_FROM for code, _ in error.recipients.values())
        raise DeliveryError(f"{_where(channel)}: refuses {told[:300]}", lasting=lasting) from None
    except (smtplib.SMTPException, OSError) as error:
        raise DeliveryError(f"{_where(channel)}: {str(error)[:300] or type(error).__name__}") from None
    if refused:
        raise DeliveryError(f"{_where(channel)}: refuses {', '.join(refused)}; the others have got it", lasting=True)


def _connect(channel: EmailChannel) -> smtplib.SMTP:
    host, port, timeout = channel.host, channel.port_number, channel.timeout_s
    if channel.security == "none":
        return smtplib.SMTP(host, port, timeout=timeout)
    context = ssl.create_default_context(cafile=None if channel.ca_file is None else str(channel.ca_file))
    if channel.security == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=timeout, context=context)
    server = smtplib.SMTP(host, port, timeout=timeout)
    try:
        server.starttls(context=context)  # raises where the server does not offer it: nothing is sent in the clear
    except BaseException:
        server.close()
        raise
    return server


def _write(channel: EmailChannel, message: Message, to: Sequence[str]) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = channel.sender, ", ".join(to), message.heading
    mail["Date"] = formatdate()
    domain = channel.sender.rpartition("@")[2]
    mail["Message-ID"] = f"<{_safe(message.id)}@{domain}>"  # the same when it is sent again, so that a mailbox can tell
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text + "\n")
    return mail


def _safe(text: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in text)


def _where(channel: EmailChannel) -> str:
    return f"mail server {channel.host}, port {channel.port_number}"
