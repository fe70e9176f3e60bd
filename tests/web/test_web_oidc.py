"""Signing in at a provider of accounts: a real one in a process of its own, and everything that must not get in."""

import json
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from starlette.testclient import TestClient

from icestream.errors import SessionError
from icestream.web import oidc_signing_in
from icestream.web.oidc import Oidc, OidcDocument
from icestream.web.oidc_provider import OidcError, OidcUnavailable, Provider
from icestream.web.oidc_signing_in import PENDING, WITHIN_S, SignIns, is_own_place, oidc_routes
from icestream.web.server import Listening, check_listening
from icestream.web.sign_in import FREE_TRIES
from web.parts import Served, serve_folder
from web.provider import CLIENT, SECRET

ADDRESS = "http://127.0.0.1:8765"
START, CALLBACK = "/api/v1/oidc/start", "/api/v1/oidc/callback"
BROWSER = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
"""What a browser says of itself when a provider sends it back."""


def write_settings(folder: Path, issuer: str, **more: object) -> Path:
    secret = folder / "client.secret"
    secret.touch(mode=0o600)
    secret.write_text(f"{SECRET}\n", encoding="utf-8")
    lines = {"issuer": issuer, "client_id": CLIENT, "client_secret_file": "client.secret", "address": ADDRESS, "label": "the lab"}
    text = "".join(f"{key}: {value}\n" for key, value in {**lines, **more}.items())
    text += "groups:\n  cryoem-staff: {role: administrate}\n  ribosome-users:\n  - {role: look, sessions: ['ev*']}\n"
    path = folder / "oidc.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a provider that runs."""
    told = tmp_path_factory.mktemp("provider") / "port"
    tests = Path(__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-m", "web.provider", str(told)], cwd=tests)
    try:
        while not (told.is_file() and told.read_text(encoding="utf-8")):
            assert process.poll() is None
            time.sleep(0.05)
        yield f"http://127.0.0.1:{told.read_text(encoding='utf-8')}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@dataclass
class Lab:
    """The application, and the provider at which people sign in."""

    served: Served
    provider: Provider
    now: float

    def begin(self, *, to: str = "/s/every") -> tuple[TestClient, str]:
        """Return a browser that has been sent to the provider, and where it was sent."""
        browser = self.served.client()
        answer = browser.get(START, params={"to": to}, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        return browser, answer.headers["location"]

    def sign_in(self, name: str, *, to: str = "/s/every") -> tuple[TestClient, httpx2.Response]:
        """Return a browser in which somebody has signed in, and where that ended."""
        browser, address = self.begin(to=to)
        back = go_to_provider(address, name)
        return browser, browser.get(back, headers=BROWSER, follow_redirects=False)


def go_to_provider(address: str, name: str) -> str:
    """Sign in at the provider, and return the path that it sends the browser back to."""
    answer = httpx2.get(address, params={**dict(parse_qsl(urlsplit(address).query)), "as": name})
    assert answer.status_code == 302, answer.text
    back = urlsplit(answer.headers["location"])
    assert f"{back.scheme}://{back.netloc}" == ADDRESS
    return f"{back.path}?{back.query}"


@pytest.fixture
def lab(shown_folder: Path, issuer: str, granted: Path, tmp_path: Path) -> Lab:
    shutil.copy(granted, tmp_path / "access.json")
    oidc = Oidc.read(write_settings(tmp_path, issuer))
    made = Lab(None, Provider(oidc), time.time())  # type: ignore[arg-type]
    made.provider.clock = lambda: made.now
    made.served = serve_folder(shown_folder, tmp_path / "access.json", local=False, oidc=oidc, more=(oidc_routes(made.provider),))
    return made


def place(answer: httpx2.Response) -> str:
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def test_a_person_signs_in_at_the_provider_and_may_do_what_the_group_may(lab: Lab):
    browser, answer = lab.sign_in("anna")
    assert place(answer) == "/s/every"
    cookies = answer.headers.get_list("set-cookie")
    (cookie,) = [one for one in cookies if one.startswith("icestream=")]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert any(one.startswith(f'{PENDING}=""') for one in cookies)
    me = browser.get("/api/v1/me").json()
    assert (me["name"], me["role"], me["provider"], me["account"]) == ("anna (the lab)", "administrate", "the lab", True)
    (row, *_) = browser.get("/api/v1/audit").json()
    assert (row["who"], row["action"], row["status"]) == ("anna (the lab)", "oidc/callback", 200)
    assert browser.get("/api/v1/sessions/every").status_code == 200


def test_groups_give_roles_by_session(lab: Lab):
    browser, _ = lab.sign_in("berta")  # whose token is signed by a key of another kind
    assert [one["id"] for one in browser.get("/api/v1/sessions").json()] == ["every"]
    assert browser.get("/api/v1/sessions/every").headers["x-icestream-role"] == "look"
    assert browser.get("/api/v1/sessions/old").status_code == 404
    csrf = browser.get("/api/v1/me").json()["csrf"]
    pause = {"kind": "pause", "arguments": {}}
    assert browser.post("/api/v1/sessions/every/actions", json=pause, headers={"x-icestream-csrf": csrf}).status_code == 403


def test_groups_may_be_told_elsewhere_and_be_one_text(lab: Lab):
    browser, _ = lab.sign_in("dora")
    me = browser.get("/api/v1/me").json()
    assert (me["name"], me["role"]) == ("dora (the lab)", "administrate")
    _, answer = lab.sign_in("other-person dora")
    assert place(answer) == "/#sign-in=untrusted"


def test_who_is_in_no_group_is_not_let_in(lab: Lab):
    browser, answer = lab.sign_in("carl")
    assert place(answer) == "/#sign-in=no-group"
    assert browser.get("/api/v1/sessions").status_code == 401
    assert lab.served.callers.database is not None
    (row, *_) = lab.served.callers.database.audit(limit=1)
    assert (row.who, row.status, "id of carl" in row.detail) == ("carl", 403, True)


@pytest.mark.parametrize(
    "fault",
    ["wrong-nonce", "no-nonce", "wrong-issuer", "wrong-audience", "many-audiences", "other-party", "expired", "endless",
     "from-the-future", "alg-none", "shared-secret", "strange-key", "unknown-key", "changed", "no-token"],
)  # fmt: skip
def test_a_token_that_is_wrong_lets_nobody_in(lab: Lab, fault: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, "icestream")
    browser, answer = lab.sign_in(f"{fault} anna")
    assert place(answer) == "/#sign-in=untrusted"
    assert browser.get("/api/v1/sessions").status_code == 401
    assert not any(one.startswith("icestream=") for one in answer.headers.get_list("set-cookie"))
    assert "sign-in at the provider" in caplog.text
    assert SECRET not in caplog.text and "eyJ" not in caplog.text


def test_the_tests_of_faults_would_notice(lab: Lab):
    """The same token without a fault is taken."""
    assert place(lab.sign_in("right anna")[1]) == "/s/every"


def test_an_answer_is_taken_once_from_the_browser_that_asked(lab: Lab):
    browser, address = lab.begin()
    back = go_to_provider(address, "anna")
    pending = browser.cookies[PENDING]
    stranger = lab.served.client()
    assert place(stranger.get(back, headers=BROWSER, follow_redirects=False)) == "/#sign-in=late"  # a victim of somebody's link
    other, _ = lab.begin()
    assert place(other.get(back, headers=BROWSER, follow_redirects=False)) == "/#sign-in=late"  # another sign-in of its own
    changed = back.replace("state=", "state=x")
    assert (
        place(browser.get(changed, headers=BROWSER | {"cookie": f"{PENDING}={pending}"}, follow_redirects=False))
        == "/#sign-in=late"
    )
    mine = BROWSER | {"cookie": f"{PENDING}={pending}"}
    assert place(lab.served.client().get(back, headers=mine, follow_redirects=False)) == "/s/every"
    assert place(lab.served.client().get(back, headers=mine, follow_redirects=False)) == "/#sign-in=late"  # replayed


@pytest.mark.parametrize("cookie", ["", "x", "x.y", "e30=.", "\xff.\xff"])
def test_a_forged_sign_in_is_none(cookie: str):
    assert SignIns().end(cookie, "state") is None
    ours, theirs = SignIns(), SignIns()
    text, pending = theirs.begin("/")
    assert theirs.end(text, pending.state) is not None
    assert ours.end(text, pending.state) is None
    text, pending = ours.begin("/")
    body, _, signature = text.partition(".")
    assert ours.end(f"{body[:-4]}AAAA.{signature}", pending.state) is None


def test_a_sign_in_that_takes_too_long_is_over(lab: Lab):
    browser, address = lab.begin()
    back = go_to_provider(address, "anna")
    lab.now += WITHIN_S + 1
    assert place(browser.get(back, headers=BROWSER, follow_redirects=False)) == "/#sign-in=late"


def test_another_issuer_in_the_answer_is_refused(lab: Lab):
    browser, address = lab.begin()
    back = go_to_provider(address, "anna").replace("iss=http", "iss=https")
    assert place(browser.get(back, headers=BROWSER, follow_redirects=False)) == "/#sign-in=untrusted"


def test_answers_that_are_not_to_be_trusted_are_braked(lab: Lab):
    for _ in range(FREE_TRIES):
        assert place(lab.sign_in("changed anna")[1]) == "/#sign-in=untrusted"
    assert place(lab.sign_in("anna")[1]) == "/#sign-in=busy"


def test_who_says_no_or_meets_trouble_of_the_provider_is_told_and_not_braked(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    def failing(trouble: Exception) -> Callable[..., None]:
        def fail(*_: object, **__: object) -> None:
            raise trouble

        return fail

    for _ in range(FREE_TRIES + 1):
        assert place(lab.sign_in("nobody")[1]) == "/#sign-in=denied"
    for trouble, said in ((OidcUnavailable("the provider does not answer"), "unavailable"), (oidc_signing_in.TooBusy(), "busy")):
        with monkeypatch.context() as away:
            away.setattr(Provider, "redeem", failing(trouble))
            for _ in range(FREE_TRIES + 1):
                assert place(lab.sign_in("anna")[1]) == f"/#sign-in={said}"
    assert place(lab.sign_in("anna")[1]) == "/s/every"


def test_who_has_the_name_of_somebody_before_is_told_apart(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    def names() -> set[str | None]:
        browser, answer = lab.sign_in("anna")
        assert place(answer) == "/s/every"
        (row, *_) = browser.get("/api/v1/audit").json()
        assert json.loads(row["detail"])["subject"].endswith("id of anna")
        return {row["who"], browser.get("/api/v1/me").json()["name"]}

    assert names() == {"anna (the lab)"}
    real = Provider.redeem
    with monkeypatch.context() as later:
        later.setattr(Provider, "redeem", lambda *a, **k: replace(found := real(*a, **k), subject=f"new {found.subject}"))
        (other,) = names()
        assert other is not None and re.fullmatch(r"anna #[0-9a-f]{8} \(the lab\)", other)
        assert names() == {other}
    assert names() == {"anna (the lab)"}


@pytest.mark.parametrize(
    ("to", "ours"),
    [
        ("/s/every/exposures", True),
        ("/", True),
        ("//evil.example", False),
        ("/\\evil.example", False),
        ("https://evil.example/", False),
        ("/\t/evil.example", False),
        ("evil.example", False),
        ("javascript:alert(1)", False),
        ("", False),
        ("/api/v1/oidc/start", False),
    ],
)
def test_people_come_back_to_a_page_of_ours_and_nowhere_else(lab: Lab, to: str, ours: bool):
    assert is_own_place(to) == ours
    assert place(lab.sign_in("anna", to=to)[1]) == (to if ours else "/")


def test_the_provider_is_asked_with_pkce_state_and_nonce_and_for_our_address_alone(lab: Lab):
    browser = lab.served.client(host="localhost:8765")
    answer = browser.get(START, follow_redirects=False)
    asked = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
    assert (asked["response_type"], asked["code_challenge_method"], asked["scope"]) == ("code", "S256", "openid profile")
    assert asked["redirect_uri"] == f"{ADDRESS}{CALLBACK}"
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) == 43
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax", "Path=/api/v1/oidc"} <= {part.strip() for part in cookie.split(";")}
    assert asked["state"] not in cookie and SECRET not in answer.headers["location"]


def test_only_the_way_back_may_come_from_another_site(lab: Lab):
    browser = lab.served.client()
    for path in (START, "/api/v1/me", f"{CALLBACK}/", f"{CALLBACK}x"):
        assert browser.get(path, headers=BROWSER, follow_redirects=False).status_code == 403, path
    assert browser.post(CALLBACK, json={}, headers=BROWSER).status_code == 403


def test_signing_out_ends_the_cookie_here_and_says_where_to_end_it_there(lab: Lab, issuer: str):
    browser, _ = lab.sign_in("anna")
    copied = browser.cookies["icestream"]
    browser.headers["x-icestream-csrf"] = browser.get("/api/v1/me").json()["csrf"]
    there = browser.post("/api/v1/oidc/sign-out", json={}).json()["next"]
    asked = dict(parse_qsl(urlsplit(there).query))
    assert there.startswith(f"{issuer}/end?")
    assert (asked["client_id"], asked["post_logout_redirect_uri"]) == (CLIENT, f"{ADDRESS}/")
    assert asked["id_token_hint"].count(".") == 2
    assert lab.served.client().get("/api/v1/sessions", headers={"cookie": f"icestream={copied}"}).status_code == 401
    anna = lab.served.signed_in("anna")
    assert anna.post("/api/v1/oidc/sign-out", json={}).json() == {"next": None}


def test_a_sign_in_lasts_as_long_as_the_file_says(lab: Lab):
    browser, _ = lab.sign_in("anna")
    for hours in (11, 0.9):
        lab.served.clock.now += 3600 * hours
        assert browser.get("/api/v1/sessions").status_code == 200
    lab.served.clock.now += 3600
    assert browser.get("/api/v1/sessions").status_code == 401


def test_a_provider_that_does_not_answer_or_is_another_is_told(lab: Lab, tmp_path: Path, shown_folder: Path, issuer: str):
    for wrong, said in (
        (f"{issuer}/", "calls itself otherwise"),
        ("http://127.0.0.1:1", "does not answer"),
        (f"{issuer}/x", "404"),
    ):
        provider = Provider(Oidc.read(write_settings(tmp_path, wrong)))
        with pytest.raises(OidcError, match=said):
            provider.authorization_address(state="s", nonce="n", verifier="v")
    served = serve_folder(shown_folder, tmp_path / "none.json", local=False, oidc=provider.oidc, more=(oidc_routes(provider),))
    assert place(served.client().get(START, follow_redirects=False)) == "/#sign-in=unavailable"


def test_a_provider_that_hangs_uses_up_no_threads(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    sign_ins = SignIns()
    held = [sign_ins.one_of_few() for _ in range(oidc_signing_in.ASKED_AT_ONCE)]
    for one in held:
        one.__enter__()
    with pytest.raises(oidc_signing_in.TooBusy), sign_ins.one_of_few():
        pass
    held[0].__exit__(None, None, None)
    with sign_ins.one_of_few():
        pass


def test_without_a_provider_nothing_is_there(closed_site: Served):
    assert closed_site.client().get(START, follow_redirects=False).status_code == 404
    assert closed_site.client().get(CALLBACK, follow_redirects=False).status_code == 404
    assert closed_site.client().get("/api/v1/me").json()["provider"] is None


def test_with_a_provider_nobody_is_let_in_without_signing_in(shown_folder: Path, issuer: str, tmp_path: Path):
    oidc = Oidc.read(write_settings(tmp_path, issuer))
    served = serve_folder(shown_folder, tmp_path / "none.json", local=True, oidc=oidc, more=(oidc_routes(Provider(oidc)),))
    assert served.client().get("/api/v1/sessions").status_code == 401
    check_listening(Listening(host="0.0.0.0"), served.access, others_sign_in=True)  # noqa: S104 - only checked
    with pytest.raises(SessionError, match="nobody has a password"):
        check_listening(Listening(host="0.0.0.0"), served.access)  # noqa: S104


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"issuer": "http://login.lab.org"}, "https://"),
        ({"issuer": "https://login.lab.org/?a=b"}, "without"),
        ({"address": "https://icestream.lab.org/below"}, "no path"),
        ({"address": "ftp://x"}, "https://"),
        ({"groups": {}}, "at least 1"),
        ({"groups": {"a": {"role": "god"}}}, "look"),
        ({"client_secret": "typed here"}, "client_secret"),
        ({"hours": 0}, "greater than 0"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(change: dict[str, object], said: str, tmp_path: Path):
    right = {
        "issuer": "https://login.lab.org",
        "client_id": "x",
        "address": "https://i.lab.org",
        "groups": {"a": {"role": "look"}},
    }
    assert OidcDocument.model_validate(right).provider == "login.lab.org"
    (tmp_path / "oidc.yaml").write_text(str({**right, **change}).replace("'", '"'), encoding="utf-8")
    with pytest.raises(SessionError, match=said) as raised:
        Oidc.read(tmp_path / "oidc.yaml")
    assert "typed here" not in str(raised.value)


def test_a_secret_is_private_and_never_shown(tmp_path: Path):
    path = write_settings(tmp_path, "https://login.lab.org")
    oidc = Oidc.read(path)
    assert oidc.secret is not None and oidc.secret.get_secret_value() == SECRET
    assert SECRET not in repr(Provider(oidc)) + str(oidc) + oidc.model_dump_json()
    (tmp_path / "client.secret").chmod(0o640)
    with pytest.raises(SessionError, match="chmod 600"):
        Oidc.read(path)
    (tmp_path / "client.secret").unlink()
    with pytest.raises(SessionError, match="cannot be read"):
        Oidc.read(path)
