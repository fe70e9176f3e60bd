"""Messages arrive: at a real mail server with TLS and a password, at a web server, at a program."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from alarms.receivers import PASSWORD, USER, mail_server, web_receiver, write_certificate
from alarms.seen import T0
from icestream.alarms.alarm_store import AlarmStore
from icestream.alarms.channels import CommandChannel, EmailChannel, Secret, WebhookChannel
from icestream.alarms.delivery.failing import GIVES_UP_AFTER, DeliveryError, next_delay_s
from icestream.alarms.delivery.sending import Addressed, send, send_due
from icestream.alarms.document import Policy
from icestream.alarms.message import Message, make_message, make_test_alarm
from icestream.alarms.state import Alarm
from icestream.errors import SessionError

HOSTILE = "a\r\nBcc: everybody@lab.org\u202e <b>*x*</b>"


@pytest.fixture
def message() -> Message:
    alarm = Alarm(
        number=7, rule="ctf-defocus", kind="measure", subject="ctf:defocus", severity="critical", what="Defocus is outside",
        detail="5 of the newest 20", look_at="the exposure e1", page="exposures/e1", since=T0, opened_at=T0 + 1, newest_at=T0 + 2,
        exposures=5, first=HOSTILE, newest="e9",
    )  # fmt: skip
    return make_message(
        alarm, event="raised", session="Ribosome", folder="/sessions/r", served_as="r 1", address="https://lab.org/", delivery=3
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("certificate"))


def email(port: int, certificate: tuple[Path, Path], *, security: str, secret: Path) -> EmailChannel:
    signing = {} if security == "none" else {"user": USER, "password": {"file": secret}, "ca_file": certificate[0]}
    given = {"name": "mail", "host": "127.0.0.1", "port": port, "security": security, "sender": "ice@lab.org"}
    return EmailChannel.model_validate({**given, "to": ["anna@lab.org"], "timeout_s": 10, **signing})


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n", encoding="utf-8")
    return path


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # the whole connection is TLS
@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_mail_arrives_as_it_is_meant(message, certificate, secret, security):
    with mail_server(certificate, security=security) as server:
        channel = email(server.port, certificate, security=security, secret=secret)
        send(channel, message, mail_to=("night@lab.org", "anna@lab.org"))
    (mail,), (envelope,) = server.mails, server.envelopes
    assert envelope.rcpt_tos == ["anna@lab.org", "night@lab.org"]
    assert mail["Subject"] == "[icestream] CRITICAL Ribosome: Defocus is outside"
    assert mail["Message-ID"] == "<r_1-7-3@lab.org>"
    assert mail["Bcc"] is None
    text = mail.get_content()
    assert "since 2027-01-15 08:00:00 UTC" in text
    assert "exposures affected: 5" in text
    assert "first: a  Bcc: everybody@lab.org  <b>*x*</b>; newest: e9" in text
    assert "look at the exposure e1" in text
    assert "https://lab.org/s/r%201/exposures/e1" in text


def test_mail_that_is_not_taken_says_why(message, certificate, secret, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong", encoding="utf-8")
    with mail_server(certificate, security="starttls") as server:
        good = email(server.port, certificate, security="starttls", secret=secret)
        with pytest.raises(DeliveryError, match=r"port \d+: 535"):
            send(email(server.port, certificate, security="starttls", secret=wrong), message)
        with pytest.raises(DeliveryError, match="certificate verify failed"):
            send(good.model_copy(update={"ca_file": None}), message)
        server.refuse["anna@lab.org"] = "550 no such person"
        with pytest.raises(DeliveryError, match="550 no such person") as refused:
            send(good, message)
        assert refused.value.lasting
        server.refuse["anna@lab.org"] = "450 come again"
        with pytest.raises(DeliveryError, match="450 come again") as later:
            send(good, message)
        assert not later.value.lasting
        with pytest.raises(DeliveryError, match="nobody to send to"):
            send(good.model_copy(update={"to": ()}), message)
    assert server.mails == []
    with pytest.raises(DeliveryError, match="refused"):
        send(good, message)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_what_a_library_raises_is_a_message_that_was_not_taken(message, certificate, secret, tmp_path):
    secret.write_text("pässwort", encoding="utf-8")
    with mail_server(certificate, security="tls") as server:
        channel = email(server.port, certificate, security="tls", secret=secret)
        store, policy = AlarmStore(tmp_path / "s.alarms.db"), Policy(rules=(), channels=(channel,))
        odd = channel.model_copy(update={"name": "odd", "to": ("a@[b",), "user": None, "password": None})
        policy = replace(policy, channels=(channel, odd))
        store.add_test(["mail", "odd"], now=T0)
        done = list(send_due(store, policy, Addressed("Ribosome", "/sessions/r", "r"), lambda: T0))
    told = {one.delivery.channel: one.error or "" for one in done}
    assert "UnicodeEncodeError" in told["mail"]
    assert told["odd"].startswith("channel 'odd': ")
    assert {one.state for one in store.deliveries()} == {"failed"}


def test_a_password_is_never_sent_in_the_clear(message, certificate, secret):
    with mail_server(certificate, security="none") as server:
        channel = email(server.port, certificate, security="starttls", secret=secret)
        with pytest.raises(DeliveryError, match="STARTTLS"):
            send(channel, message)
    assert server.mails == []
    with pytest.raises(ValueError, match="without encryption"):
        EmailChannel.model_validate({**channel.model_dump(), "security": "none"})


def webhook(tmp_path: Path, url: str, kind: str, **values: object) -> WebhookChannel:
    (tmp_path / "url").write_text(url, encoding="utf-8")
    return WebhookChannel.model_validate({"name": "chat", "format": kind, "url": {"file": tmp_path / "url"}, **values})


def test_each_chat_gets_its_own_form(message, tmp_path, monkeypatch):
    monkeypatch.setenv("CHAT_TOKEN", "abc")
    with web_receiver() as receiver:
        for kind in ("json", "slack", "mattermost", "teams"):
            send(webhook(tmp_path, receiver.url, kind, token={"env": "CHAT_TOKEN"}), message)
    plain, slack, mattermost, teams = receiver.bodies
    assert {header["Authorization"] for header in receiver.headers} == {"Bearer abc"}
    assert set(receiver.paths) == {"/hook/secret"}
    assert (plain["event"], plain["id"], plain["exposures"], plain["first"]) == ("raised", "r 1-7-3", 5, HOSTILE)
    assert plain["since"] == T0
    assert slack["text"].startswith("*[icestream] CRITICAL Ribosome: Defocus is outside*\n")
    assert "&lt;b&gt;" in slack["text"]
    assert "<b>" not in slack["text"]
    assert r"\<b\>\*x\*" in mattermost["text"]
    card = teams["attachments"][0]
    assert (teams["type"], card["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
    assert [block["type"] for block in card["content"]["body"]] == ["TextBlock"] * (1 + len(message.lines))


@pytest.mark.parametrize(("status", "lasting"), [(500, False), (503, False), (429, False), (404, True), (302, False)])
def test_a_web_server_that_refuses_is_told_without_its_address(message, tmp_path, status, lasting):
    with web_receiver() as receiver:
        receiver.answers = [status]
        with pytest.raises(DeliveryError, match=f"channel 'chat': answered {status}") as refused:
            send(webhook(tmp_path, receiver.url, "json"), message)
    assert refused.value.lasting is lasting
    assert "secret" not in str(refused.value)
    assert len(receiver.bodies) == 1


def test_what_cannot_be_reached_is_told(message, tmp_path):
    with pytest.raises(DeliveryError, match="Connection refused"):
        send(webhook(tmp_path, "http://127.0.0.1:9/x", "json"), message)
    with pytest.raises(DeliveryError, match="http:// or https://"):
        send(webhook(tmp_path, "file:///etc/passwd", "json"), message)
    with pytest.raises(SessionError, match="NO_SUCH_VARIABLE is not set"):
        send(WebhookChannel(name="chat", url=Secret(env="NO_SUCH_VARIABLE")), message)


def test_a_program_gets_the_message_and_no_shell(message, tmp_path):
    code = (
        "import json,os,sys; json.dump([json.load(sys.stdin), os.environ['ICESTREAM_ALARM_FIRST'], sys.argv[1:]], open('{}','w'))"
    )
    written = tmp_path / "heard.json"
    send(CommandChannel(name="run", command=(sys.executable, "-c", code.format(written), "$(id) ; x")), message)
    body, first, arguments = json.loads(written.read_text(encoding="utf-8"))
    assert (body["rule"], first, arguments) == ("ctf-defocus", HOSTILE, ["$(id) ; x"])
    with pytest.raises(DeliveryError, match="ended with status 3: it is full"):
        send(CommandChannel(name="run", command=(sys.executable, "-c", "import sys; print('it is full'); sys.exit(3)")), message)
    with pytest.raises(DeliveryError, match="did not end within"):
        slow = (sys.executable, "-c", "import time; time.sleep(60)")
        send(CommandChannel(name="run", command=slow, timeout_s=0.5), message)
    with pytest.raises(DeliveryError, match="cannot be run: No such file"):
        send(CommandChannel(name="run", command=("/no/such/program",)), message)


def test_trying_again_waits_longer_and_ends():
    delays = [next_delay_s(attempts) for attempts in (1, 2, 3, 10, GIVES_UP_AFTER - 1, GIVES_UP_AFTER)]
    assert delays == [15.0, 30.0, 60.0, 900.0, 900.0, None]


def test_what_an_ended_alarm_and_a_test_say(message):
    over = replace(message, event="ended", alarm=message.alarm.model_copy(update={"ended_at": T0 + 60, "ended_because": "well"}))
    assert over.heading == "[icestream] over: Ribosome: Defocus is outside"
    assert "over at 2027-01-15 08:01:00 UTC: well" in over.text
    tried = replace(message, event="test", alarm=make_test_alarm(T0))
    assert tried.heading == "[icestream] test: Ribosome: This is a test"
