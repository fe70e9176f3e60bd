"""Who may sign in: what the file keeps, how cookies end, and the brake on guessing."""

import json
import stat
from pathlib import Path

import pytest

from icestream.errors import SessionError
from icestream.web import sign_in
from icestream.web.access import AccessFile, Person
from icestream.web.callers import Callers
from icestream.web.guard import OwnNames
from icestream.web.server import Listening, check_listening
from icestream.web.sign_in import (
    FREE_TRIES,
    IDLE_S,
    LIFE_S,
    LONGEST_WAIT_FOR_A_NAME_S,
    LONGEST_WAIT_S,
    MOST_REMEMBERED,
    Brake,
    BrowserSessions,
)
from web.parts import Clock

SECRET = "a long enough secret"  # noqa: S105 - of a test


@pytest.fixture
def access(tmp_path: Path) -> AccessFile:
    return AccessFile(tmp_path / "state" / "access.json")


def test_nothing_is_granted_where_there_is_no_file(access):
    assert access.grants() == ()
    assert access.by_password("anna", SECRET) is None
    assert access.by_token("ice_x") is None


def test_the_file_keeps_hashes_and_is_private(access):
    access.add_password("anna", SECRET, "operate")
    token = access.add_token("script", "look")
    text = access.path.read_text(encoding="utf-8")
    assert SECRET not in text and token not in text
    assert "$argon2id$" in text
    assert stat.S_IMODE(access.path.stat().st_mode) == 0o600
    assert access.by_password("anna", SECRET) == Person("anna", "operate")
    assert access.by_password("anna", SECRET + "!") is None
    assert access.by_password("script", token) is None
    assert access.by_token(token) == Person("script", "look")
    assert access.by_token(token[:-1]) is None


def test_a_file_that_others_may_read_is_refused(access):
    access.add_password("anna", SECRET, "operate")
    access.path.chmod(0o640)
    with pytest.raises(SessionError, match="chmod 600"):
        access.grants()


def test_a_file_that_is_none_is_refused(access):
    access.add_token("script", "look")
    access.path.write_text(json.dumps({"grants": [{"name": "x", "role": "god"}]}), encoding="utf-8")
    with pytest.raises(SessionError, match="no list of grants"):
        access.grants()


def test_what_is_removed_ends_and_what_was_never_there_is_said(access):
    token = access.add_token("script", "operate")
    other = AccessFile(access.path)
    assert other.by_token(token) is not None
    access.remove("script")
    assert other.by_token(token) is None
    with pytest.raises(SessionError, match="'script': has no access"):
        access.remove("script")


@pytest.mark.parametrize("name", ["", "x" * 81, "new\nline", "nul\0"])
def test_names_are_short_and_printable(access, name):
    with pytest.raises(SessionError, match="1 to 80 characters"):
        access.add_token(name, "look")


@pytest.mark.parametrize("password", ["short", "x" * 1001])
def test_passwords_are_neither_short_nor_endless(access, password):
    with pytest.raises(SessionError, match="10 to 1000"):
        access.add_password("anna", password, "look")


def test_a_cookie_stands_for_who_signed_in_until_it_is_too_old():
    clock = Clock()
    browsers = BrowserSessions(clock)
    cookie, signed_in = browsers.begin("anna")
    assert browsers.find(cookie) is signed_in
    assert browsers.find(cookie[:-1]) is None
    assert browsers.find(None) is None
    clock.now += IDLE_S + 1
    assert browsers.find(cookie) is None


def test_a_cookie_ends_at_last_however_much_it_is_used():
    clock = Clock()
    browsers = BrowserSessions(clock)
    cookie, _ = browsers.begin("anna")
    for _ in range(int(LIFE_S / IDLE_S) + 1):
        clock.now += IDLE_S - 1
        found = browsers.find(cookie)
    assert found is None


def test_who_has_a_link_signs_out_nobody_but_its_own_guests(monkeypatch):
    monkeypatch.setattr(sign_in, "MOST_OF_ONE", 3)
    monkeypatch.setattr(sign_in, "MOST_SESSIONS", 8)
    browsers = BrowserSessions(Clock())
    admin = browsers.begin("admin")[0]
    guests = [browsers.begin("a guest of admin", share=number // 5)[0] for number in range(10)]
    assert browsers.find(admin) is not None
    assert [browsers.find(one) is not None for one in guests] == [False, False, True, True, True] * 2
    people = [browsers.begin(name)[0] for name in "abc"]  # 10 in all: the guests who came first go
    assert [browsers.find(one) is not None for one in (admin, *people)] == [True] * 4
    assert sum(browsers.find(one) is not None for one in guests) == 4
    for _ in range(20):
        browsers.begin("a")
    assert browsers.find(admin) is not None


def test_each_wrong_password_beyond_the_free_ones_waits_twice_as_long():
    clock = Clock()
    brake = Brake(clock)
    waits = []
    for _ in range(FREE_TRIES + 12):
        brake.failed("10.0.0.9", "anna")
        waits.append(brake.wait_s("10.0.0.9", "somebody else"))
    assert waits[: FREE_TRIES - 1] == [0.0] * (FREE_TRIES - 1)
    assert waits[FREE_TRIES - 1 : FREE_TRIES + 2] == [1.0, 2.0, 4.0]
    assert waits[-1] == LONGEST_WAIT_S
    assert brake.wait_s("10.0.0.1", "anna") == LONGEST_WAIT_FOR_A_NAME_S
    assert brake.wait_s("10.0.0.1", "berta") == 0.0
    brake.passed("10.0.0.9", "anna")
    assert brake.wait_s("10.0.0.9", "anna") == 0.0


def test_the_brake_forgets_the_oldest_rather_than_growing():
    brake = Brake(Clock())
    for number in range(MOST_REMEMBERED):
        brake.failed(str(number), str(number))
    assert len(brake._wrong) == MOST_REMEMBERED  # noqa: SLF001


def test_on_a_network_nobody_is_let_in_when_the_last_grant_is_gone(access):
    on_network, alone = Callers(access, "owner", local=False), Callers(access, "owner", local=True)
    assert not on_network.everybody
    assert alone.everybody


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - compared, not bound
        ("::", False),
        ("lab", False),
    ],
)
def test_only_the_loopback_is_served_without_a_password(access, host, local):
    listening = Listening(host)
    assert listening.local == local
    if local:
        check_listening(listening, access)
        return
    with pytest.raises(SessionError, match="nobody has a password yet"):
        check_listening(listening, access)
    access.add_token("script", "look")
    check_listening(listening, access)


def test_tls_needs_both_files(access, tmp_path):
    with pytest.raises(SessionError, match="both a certificate and its key"):
        check_listening(Listening(certificate=tmp_path / "a.pem"), access)
    with pytest.raises(SessionError, match="is no file"):
        check_listening(Listening(certificate=tmp_path / "a.pem", key=tmp_path / "a.key"), access)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost", True),
        ("LOCALHOST:8765", True),
        ("localhost.", True),
        ("127.0.0.1:80", True),
        ("[::1]:8765", True),
        ("192.168.0.7", True),
        ("icestream.lab.org:443", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[evil]", False),
    ],
)
def test_own_names_and_addresses_are_asked_for_and_no_others(host, ours):
    assert (host in OwnNames(frozenset({"localhost", "icestream.lab.org"}))) == ours
