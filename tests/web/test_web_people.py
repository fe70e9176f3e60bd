"""Who may do what: roles by group of sessions, links that expire, what a proxy may say, and what is written down."""

import asyncio
import json
import shutil
import sqlite3
import threading
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from icestream.errors import SessionError, StoreUnavailable
from icestream.facility import database as database_module
from icestream.facility.database import FacilityDatabase
from icestream.web import guard, streams
from icestream.web.access import AccessFile, Person
from icestream.web.callers import TrustedProxies
from icestream.web.events import EventStream, Watchers
from icestream.web.places import Places, UnknownSession
from icestream.web.server import Listening, check_listening, trusted_proxies
from icestream.web.sign_in import FREE_TRIES, IDLE_S
from icestream.web.site import Site
from web.parts import PASSWORD, Served, serve_folder

PROXY = "10.9.9.9"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of access in which people may do different things; made once, since hashes of passwords are slow."""
    path = tmp_path_factory.mktemp("people") / "access.json"
    file = AccessFile(path)
    file.add_password("admin", PASSWORD, "administrate")
    file.add_password("ruth", PASSWORD, "operate", sessions=["ev*"])
    file.allow("ruth", "look", ["old"])
    file.add_for_proxy("paul", "operate")
    return path


@pytest.fixture
def site(shown_folder: Path, people: Path, tmp_path: Path) -> Served:
    """Sessions on a network, some of them for some people, behind a proxy."""
    shutil.copy(people, tmp_path / "access.json")
    proxies = TrustedProxies((ip_network(f"{PROXY}/32"),), "x-remote-user")
    return serve_folder(shown_folder, tmp_path / "access.json", local=False, proxies=proxies)


PAUSE = {"kind": "pause", "arguments": {"author": "nobody takes this"}}
"""It is refused where it is carried out, so that sessions stay as they are."""


def test_roles_are_by_group_of_sessions():
    ruth = Person("ruth", None, (("ev*", "operate"), ("old", "look"), ("every", "administrate")))
    roles = {name: ruth.role_in(name) for name in ("every", "evening", "old", "older", "EVERY", "")}
    assert roles == {"every": "administrate", "evening": "operate", "old": "look", "older": None, "EVERY": None, "": None}
    assert Person("anna", "operate", (("x", "look"),)).role_in("x") == "operate"  # the one that may do more counts
    assert [ruth.may("operate", name) for name in ("every", "old", "older")] == [True, False, False]
    assert (ruth.may("look"), ruth.may_somewhere("administrate"), Person("x", None).may_somewhere("look")) == (False, True, False)


def test_a_person_sees_and_steers_the_sessions_of_a_group_only(site: Served):
    ruth = site.signed_in("ruth")
    assert {one["id"] for one in ruth.get("/api/v1/sessions").json()} == {"every", "old"}
    assert ruth.get("/api/v1/sessions/every").headers["x-icestream-role"] == "operate"
    assert ruth.get("/api/v1/sessions/old").headers["x-icestream-role"] == "look"
    assert ruth.post("/api/v1/sessions/every/actions", json=PAUSE).status_code == 400
    assert ruth.post("/api/v1/sessions/old/actions", json=PAUSE).status_code == 403
    for path in ("broken", "broken/events", "broken/log", "nothing", "broken/pictures/a/b", "broken/shares"):
        answer = ruth.get(f"/api/v1/sessions/{path}")
        assert (answer.status_code, "no session of this name" in answer.text) == (404, True)  # as if it did not exist
    assert ruth.get("/api/v1/audit").status_code == 403
    metrics = [ruth.get(path).status_code for path in ("/metrics", "/metrics/", "/metrics/every", "/metrics/broken")]
    assert metrics == [403, 403, 200, 404]
    assert ruth.get("/api/v1/me").json() | {"csrf": 0, "version": 0} == {
        "name": "ruth", "role": "operate", "creates": True, "operates": False, "audits": False,
        "sign_in": True, "single": None, "provider": None, "account": False, "csrf": 0, "version": 0,
    }  # fmt: skip


def test_a_session_is_made_under_names_that_a_person_may_use(people: Path, tmp_path: Path):
    shutil.copy(people, tmp_path / "access.json")
    (tmp_path / "sessions").mkdir()
    site = serve_folder(tmp_path / "sessions", tmp_path / "access.json", local=False, raw=(tmp_path,))
    asked = {"name": "other", "template": "movies_to_ctf", "values": {}, "dry_run": True}
    answer = site.signed_in("ruth").post("/api/v1/sessions", json=asked)
    assert (answer.status_code, answer.json()["fields"]) == (422, {"name": "ruth may not make a session of this name"})
    fields = site.signed_in("ruth").post("/api/v1/sessions", json=asked | {"name": "evening"}).json()["fields"]
    assert "name" not in fields


def share(site: Served, **asked: object) -> dict[str, object]:
    answer = site.signed_in("admin").post("/api/v1/sessions/every/shares", json=asked)
    assert answer.status_code == 201, answer.text
    return answer.json()


def open_link(site: Served, made: dict[str, object]) -> TestClient:
    guest = site.client()
    opened = guest.post("/api/v1/open-share", json={"secret": str(made["path"]).partition("#")[2]})
    assert (opened.status_code, opened.json()["session"], opened.json()["role"]) == (200, "every", "look")
    guest.headers["x-icestream-csrf"] = opened.json()["csrf"]
    return guest


def test_a_link_shows_one_session_and_lets_nobody_act(site: Served):
    made = share(site, hours=2, note="for the user of grid 3")
    secret = str(made["path"]).partition("#")[2]
    assert secret not in site.access.path.with_name("facility.db").read_bytes().decode("latin-1")
    guest = open_link(site, made)
    assert [one["id"] for one in guest.get("/api/v1/sessions").json()] == ["every"]
    assert guest.get("/api/v1/sessions/every/exposures").status_code == 200
    assert guest.get("/api/v1/sessions/old").status_code == 404
    assert guest.post("/api/v1/sessions/every/actions", json=PAUSE).status_code == 403
    assert guest.post("/api/v1/sessions/every/shares", json={}).status_code == 403
    assert guest.post("/api/v1/sessions", json={"name": "x", "template": "y"}).status_code == 403
    assert guest.get("/api/v1/audit").status_code == 403
    assert guest.get("/api/v1/me").json()["name"] == "a guest of admin"


def test_a_link_ends_when_it_expires_and_when_it_is_withdrawn(site: Served, monkeypatch: pytest.MonkeyPatch):
    made = share(site, hours=1)
    guest, admin = open_link(site, made), site.signed_in("admin")
    ended = admin.post(f"/api/v1/sessions/every/shares/{made['id']}/withdraw", json={})
    assert ended.json()[0]["withdrawn_at"] is not None
    assert guest.get("/api/v1/sessions/every").status_code == 401
    assert admin.post(f"/api/v1/sessions/every/shares/{made['id']}/withdraw", json={}).status_code == 404
    later = share(site, hours=1)
    guest = open_link(site, later)
    monkeypatch.setattr("icestream.facility.database.time.time", lambda: float(str(later["expires_at"])) + 1)
    assert guest.get("/api/v1/sessions/every").status_code == 401
    again = site.client().post("/api/v1/open-share", json={"secret": str(later["path"]).partition("#")[2]})
    assert (again.status_code, "expired" in again.text) == (401, True)


@pytest.mark.parametrize("asked", [{"hours": 0}, {"hours": 1e9}, {"hours": "nan"}, {"note": "x" * 201}, {"session": "old"}])
def test_odd_links_are_refused(site: Served, asked: dict[str, object]):
    assert site.signed_in("admin").post("/api/v1/sessions/every/shares", json=asked).status_code == 422
    assert site.client().post("/api/v1/open-share", json={"secret": "guessed"}).status_code == 401


def test_what_people_do_is_written_down_without_secrets(site: Served):
    admin = site.signed_in("admin")
    site.client().post("/api/v1/sign-in", json={"name": "admin", "password": "wrong secret"})
    admin.post("/api/v1/sessions/every/actions", json=PAUSE)
    admin.get("/api/v1/sessions/every")
    site.client().post("/api/v1/sessions/every/actions", json=PAUSE)  # a stranger: refused, and not written down
    rows = admin.get("/api/v1/audit").json()
    told = [(one["who"], one["action"], one["session"], one["status"]) for one in rows]
    assert told == [
        ("admin", "sessions/every/actions", "every", 400),
        ("admin", "sign-in", None, 401),
        ("admin", "sign-in", None, 200),
    ]
    assert "nobody takes this" in rows[0]["detail"]
    assert "wrong secret" not in str(rows) and PASSWORD not in str(rows)
    assert admin.get(f"/api/v1/audit?before={rows[1]['id']}").json() == rows[2:]


def test_nothing_is_written_down_of_strangers_but_tries(site: Served):
    wrong, big = {"name": "admin", "password": "wrong"}, {"name": "x" * guard.LARGEST_BODY_BYTES, "password": ""}
    for path, given in (("/api/v1/sign-in", wrong), ("/api/v1/open-share", {"secret": "guessed"})):
        for headers, status in (({"host": "evil.example"}, 421), ({"origin": "http://evil.example"}, 403)):
            assert site.client(**headers).post(path, json=given).status_code == status
        assert site.client().post(path, content="x=1", headers={"content-type": "text/plain"}).status_code == 415
        assert [site.client().post(path, json=one).status_code for one in ({}, big)] == [422, 413]
        tries = [site.client().post(path, json=given).status_code for _ in range(FREE_TRIES + 3)]
        assert tries == [401] * FREE_TRIES + [429] * 3
    database = site.callers.database
    assert database is not None
    rows = [(one.who, one.action, one.status) for one in database.audit(limit=99)]
    assert rows == [(None, "open-share", 401)] * FREE_TRIES + [("admin", "sign-in", 401)] * FREE_TRIES


def test_a_wrong_link_holds_up_no_other_address_and_no_password(site: Served):
    made = share(site, hours=1)
    for _ in range(FREE_TRIES + 1):
        site.client().post("/api/v1/open-share", json={"secret": "guessed"})
    secret = {"secret": str(made["path"]).partition("#")[2]}
    statuses = [
        site.client(peer=peer).post("/api/v1/open-share", json=secret).status_code for peer in ("testclient", "192.0.2.9")
    ]
    assert statuses == [429, 200]
    assert site.signed_in("admin").get("/api/v1/sessions/every").status_code == 200


def test_what_is_only_asked_is_not_written_down_and_what_failed_late_is(site: Served, monkeypatch: pytest.MonkeyPatch):
    guest, admin = open_link(site, share(site, hours=1)), site.signed_in("admin")
    plan = {"kind": "restart", "arguments": {"step": "nothing"}}
    asked = {"name": "evening", "template": "movies_to_ctf", "values": {}, "dry_run": True}
    for path, given in (("sessions/every/plans", plan), ("sessions/every/filters/nothing/count", {}), ("sessions", asked)):
        assert admin.post(f"/api/v1/{path}", json=given).status_code in (400, 404, 422)
    assert guest.post("/api/v1/sessions/every/actions", json=PAUSE).status_code == 403

    def written_and_then_lost(*_: object, **__: object) -> object:
        raise StoreUnavailable("the disk went away after the row was written")

    monkeypatch.setattr("icestream.web.acting.submit", written_and_then_lost)
    assert admin.post("/api/v1/sessions/every/actions", json={"kind": "resume"}).status_code == 503
    told = [(one["action"], one["status"]) for one in admin.get("/api/v1/audit").json()]
    assert told == [
        ("sessions/every/actions", 503),
        ("sign-in", 200),
        ("open-share", 200),
        ("sessions/every/shares", 201),
        ("sign-in", 200),
    ]


async def who_am_i(site: Served, client: TestClient) -> str:
    """Ask in the event loop of the test."""
    headers = [(b"host", b"127.0.0.1:8765"), (b"cookie", f"icestream={client.cookies['icestream']}".encode())]
    asked = {"method": "GET", "path": "/api/v1/me", "raw_path": b"/api/v1/me", "query_string": b"", "root_path": ""}
    scope = asked | {
        "type": "http",
        "headers": headers,
        "scheme": "http",
        "client": ("testclient", 1),
        "server": ("localhost", 1),
    }
    said = b""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal said
        said += message.get("body", b"")

    await site.app(scope, receive, send)
    return str(json.loads(said)["name"])


def test_a_locked_database_holds_up_guests_and_nobody_else(site: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database_module, "_PATIENCE_S", 60.0)
    guest, admin = open_link(site, share(site, hours=1)), site.signed_in("admin")

    async def play() -> None:
        locked = sqlite3.connect(site.access.path.with_name("facility.db"), isolation_level=None)
        locked.execute("BEGIN EXCLUSIVE")
        waiting = [asyncio.create_task(who_am_i(site, guest)) for _ in range(9)]
        for _ in range(3):
            assert await asyncio.wait_for(who_am_i(site, admin), 30) == "admin"
        assert not any(one.done() for one in waiting)
        locked.execute("ROLLBACK")
        locked.close()
        assert set(await asyncio.gather(*waiting)) == {"a guest of admin"}

    asyncio.run(play())


@pytest.mark.parametrize("change", ["role", "removed", "unreadable"])
def test_a_stream_ends_when_its_reader_may_not_do_the_same_any_more(site: Served, change: str):
    headers = site.signed_in("ruth").cookies
    known = Headers({"cookie": f"icestream={headers['icestream']}"})
    ruth = site.callers.identify(known)
    state = {"caller": ruth, "peer": ""}
    request = Request({"type": "http", "headers": known.raw, "state": state})
    here = cast(Site, SimpleNamespace(callers=site.callers, watchers=Watchers()))
    answer = streams._stream(here, request, "every", dict)  # noqa: SLF001
    assert isinstance(answer, EventStream)

    async def welcome() -> bool:
        return await answer._still_welcome()  # noqa: SLF001

    assert asyncio.run(welcome())
    if change == "role":
        site.access.allow("ruth", "look", ["ev*"])
    elif change == "removed":
        site.access.remove("ruth")
    else:
        site.access.path.chmod(0o644)
    assert not asyncio.run(welcome())


def test_only_a_trusted_proxy_says_who_has_signed_in(site: Served):
    through = site.client(peer=PROXY, **{"x-remote-user": "paul", "x-forwarded-for": "192.0.2.7"})
    assert through.get("/api/v1/me").json()["name"] == "paul"
    assert through.get("/api/v1/sessions/every").status_code == 200
    assert through.post("/api/v1/sessions/every/actions", json=PAUSE).status_code == 403  # a change needs what our page knows
    through.headers["x-icestream-csrf"] = through.get("/api/v1/me").json()["csrf"]
    assert through.post("/api/v1/sessions/every/actions", json=PAUSE).status_code == 400
    assert site.client(peer="192.0.2.7", **{"x-remote-user": "paul"}).get("/api/v1/sessions").status_code == 401
    for headers in ({"x-remote-user": "nobody known"}, {"x-remote-user": ""}, {}):
        assert site.client(peer=PROXY, **headers).get("/api/v1/sessions").status_code == 401
    row = site.signed_in("admin").get("/api/v1/audit").json()[1]
    assert (row["who"], row["address"]) == ("paul", "192.0.2.7")


def test_a_header_that_comes_twice_says_nothing(site: Served):
    client = site.client(peer=PROXY)
    answer = client.get("/api/v1/sessions", headers=[("x-remote-user", "paul"), ("x-remote-user", "admin")])
    assert answer.status_code == 401


def test_the_brake_counts_who_really_asks(site: Served):
    def guess(peer: str, said: str, name: str) -> int:
        client = site.client(peer=peer, **{"x-forwarded-for": said})
        return client.post("/api/v1/sign-in", json={"name": name, "password": "wrong"}).status_code

    for number in range(FREE_TRIES):
        assert guess(PROXY, "203.0.113.5", f"n{number}") == 401
    assert guess(PROXY, "203.0.113.5", "other") == 429
    assert guess(PROXY, f"1.1.1.1, 203.0.113.5, {PROXY}", "other") == 429  # what came before is the guesser's own word
    assert guess(PROXY, "203.0.113.6", "other") == 401  # another one behind the same proxy is not held up
    assert guess("203.0.113.77", "203.0.113.5", "third") == 401  # nobody else is believed


def test_which_proxies_are_trusted_is_said_by_address():
    proxies = trusted_proxies(["127.0.0.1", "10.1.0.0/24"], None)
    assert [address in proxies for address in ("127.0.0.1", "10.1.0.77", "10.2.0.1", "::1", "testclient", "")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip
    with pytest.raises(SessionError, match="must be an address"):
        trusted_proxies(["proxy.lab"], None)


def test_a_server_behind_a_proxy_stands_open_to_others(tmp_path: Path):
    access = AccessFile(tmp_path / "access.json")
    with pytest.raises(SessionError, match=r"--proxy 127\.0\.0\.1/32: others can reach"):
        check_listening(Listening(proxies=trusted_proxies(["127.0.0.1"], None)), access)
    with pytest.raises(SessionError, match="say with --proxy"):
        check_listening(Listening(proxies=trusted_proxies([], "x-remote-user")), access)


def test_events_pictures_and_pages_that_nobody_looks_at_keep_no_sign_in_alive(site: Served):
    admin = site.signed_in("admin")
    for _ in range(3):
        site.clock.now += 0.4 * IDLE_S
        admin.get("/api/v1/sessions/every", headers={"x-icestream-quiet": "1"})
        admin.get("/api/v1/sessions/every/pictures/a/b")
    assert admin.get("/api/v1/sessions/every").status_code == 401
    admin = site.signed_in("admin")
    for _ in range(3):
        site.clock.now += 0.4 * IDLE_S
        assert admin.get("/api/v1/sessions/every").status_code == 200


def test_changes_that_take_long_leave_threads_to_those_who_look(site: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "MOST_CHANGES", 3)
    go, begun = threading.Event(), threading.Semaphore(0)

    def slow(*_: object, **__: object) -> object:
        begun.release()
        go.wait(timeout=60)
        raise SessionError("it took long")

    monkeypatch.setattr("icestream.web.acting.submit", slow)
    admin = site.signed_in("admin")
    ask = {"kind": "resume"}
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(admin.post("/api/v1/sessions/every/actions", json=ask).status_code))
        for _ in range(3)
    ]
    monkeypatch.setattr("icestream.web.acting._LOCKS", _NoLocks())
    for thread in threads:
        thread.start()
        assert begun.acquire(timeout=60)
    full = admin.post("/api/v1/sessions/every/actions", json=ask)
    assert (full.status_code, "try again" in full.text) == (503, True)
    assert admin.get("/api/v1/sessions/every").status_code == 200
    go.set()
    for thread in threads:
        thread.join(timeout=60)
    assert statuses == [400, 400, 400]


class _NoLocks(dict[str, threading.Lock]):
    """A lock of its own for each who asks."""

    def __getitem__(self, _key: str) -> threading.Lock:
        return threading.Lock()


def test_a_session_is_found_without_looking_at_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "session.yaml").write_text("name: x\nsteps: {}\n", encoding="utf-8")
    monkeypatch.setattr(Places, "names", lambda _: pytest.fail("all sessions were looked at"))
    places = Places(tmp_path)
    assert places.folder_of("one") == tmp_path / "one"
    for name in ("", ".", "..", "../" + tmp_path.name + "/one", "one/", "o\0ne", "x" * 300, "é" * 200, "three"):
        with pytest.raises(UnknownSession):
            places.folder_of(name)


def test_a_database_that_others_may_read_is_refused(tmp_path: Path):
    database = FacilityDatabase(tmp_path / "facility.db")
    database.note(who="anna", address=None, action="x", session=None, detail="", status=200)
    assert database.path.stat().st_mode & 0o777 == 0o600
    database.path.chmod(0o644)
    with pytest.raises(SessionError, match="chmod 600"):
        database.audit(limit=1)
