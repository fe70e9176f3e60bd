"""The commands `serve` and `access`: what they refuse, and a server that starts, answers and ends."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.web.access import AccessFile, Person
from icestream.web.server import ACCESS_FILE
from toys.session import make_toy_session, toy_steps

SECRET = "a long enough secret"  # noqa: S105 - of a test


@pytest.fixture
def access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AccessFile:
    """The file that the commands use."""
    monkeypatch.setenv("ICESTREAM_STATE", str(tmp_path / "state"))
    return AccessFile(tmp_path / "state" / ACCESS_FILE)


def say(*words: str, given: str | None = None, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words), input=given)
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.output


def test_access_is_given_listed_and_withdrawn(access):
    assert "nobody" in say("access")
    say("access", "anna", given=f"{SECRET}\n")
    assert access.by_password("anna", SECRET) == Person("anna", "operate")
    token = json.loads(say("access", "wall screen", "--token", "--role", "look", "--json"))["token"]
    assert access.by_token(token) == Person("wall screen", "look")
    listed = json.loads(say("access", "--json"))
    assert listed == [
        {"name": "anna", "role": "operate", "by": "password"},
        {"name": "wall screen", "role": "look", "by": "token"},
    ]
    assert token not in say("access") and "wall screen" in say("access")
    say("access", "anna", "--remove")
    assert access.by_password("anna", SECRET) is None


def test_access_says_what_is_wrong(access):
    assert "must be look, operate or administrate" in say("access", "anna", "--role", "god", given=f"{SECRET}\n", code=1)
    assert "10 to 1000 characters" in say("access", "anna", given="short\n", code=1)
    assert "has no access" in say("access", "anna", "--remove", code=1)
    assert not access.path.exists()


def test_serve_refuses_what_would_stand_open_or_shows_nothing(access, tmp_path):
    assert "nobody has a password yet" in say("serve", str(tmp_path), "--host", "0.0.0.0", code=1).replace("\n", " ")  # noqa: S104
    behind = say("serve", str(tmp_path), "--name", "proxy.example", code=1)  # others ask a proxy that asks this machine
    assert "--name proxy.example: others can reach" in behind.replace("\n", " ")
    assert "is no folder" in say("serve", str(tmp_path / "nothing"), code=1)
    key = say("serve", str(tmp_path), "--certificate", str(tmp_path / "a.pem"), code=1)
    assert "both a certificate and its key" in key.replace("\n", " ")


@pytest.mark.parametrize(
    ("library", "words", "extra"),
    [("argon2", ["serve", "."], "web"), ("argon2", ["access"], "web"), ("joserfc", ["serve", ".", "--port", "0"], "oidc")],
)
def test_a_missing_library_is_said_with_what_to_install(access, tmp_path, library, words, extra):
    """In a process of its own, since a module that is read twice is two modules."""
    oidc = tmp_path / "oidc.yaml"
    oidc.write_text("{issuer: https://a.org, client_id: x, address: https://b.org, groups: {a: {role: look}}}", encoding="utf-8")
    command = f"import runpy, sys; sys.modules[{library!r}] = None; runpy.run_module('icestream', run_name='__main__')"
    environment = os.environ | {"COLUMNS": "200", **({"ICESTREAM_OIDC": str(oidc)} if extra == "oidc" else {})}
    run = [sys.executable, "-c", command, *words]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)
    assert (done.returncode, f"icestream-em[{extra}]" in done.stderr) == (1, True), done.stderr


def test_a_server_answers_until_it_is_interrupted_and_a_taken_port_is_said(access, tmp_path):
    session = make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    command = [sys.executable, "-m", "icestream", "serve", str(session.folder), "--port"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    with subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http://127\.0\.0\.1:(\d+)/", server.stdout.readline())
            assert address is not None
            with urllib.request.urlopen(f"{address.group(0)}api/v1/sessions", timeout=30) as answer:  # noqa: S310 - our own
                assert json.load(answer)[0]["overview"]["name"] == "toy"
            taken = subprocess.run([*command, address.group(1)], capture_output=True, text=True, env=environment, check=False)
            assert (taken.returncode, "Address already in use" in taken.stderr) == (1, True)
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=30) in (0, 130, -2)
        finally:
            server.kill()
