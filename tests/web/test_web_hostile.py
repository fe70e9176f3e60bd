"""Hostile clients: what each tries, and what it gets."""

import json
import re
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from paper_every_record import write_every_record
from paper_session import HOSTILE
from starlette.testclient import TestClient

from icestream.observe.queries import open_view
from icestream.web.guard import HEADERS, LARGEST_BODY_BYTES, LONGEST_ADDRESS
from icestream.web.pictures import NoPicture, read_picture
from icestream.web.places import find_places
from icestream.web.sign_in import FREE_TRIES
from web.parts import PASSWORD, Served

OUTSIDE = (
    "..",
    "../every",
    "..%2fevery",
    "%2e%2e",
    "%2e%2e%2fevery",
    "..%5cevery",
    "/etc",
    "%2fetc%2fpasswd",
    "every%00",
    "every/../../every",
    "every%2f..%2fevery",
    "x" * 256,
)


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("address", ["/api/v1/sessions/{}", "/api/v1/sessions/{}/log"])
def test_no_name_leads_out_of_the_folder(client, name, address):
    answer = client.get(address.format(name))
    assert answer.status_code in (404, 422) or answer.request.url.path != address.format(name), answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path", ["../answers.py", "..%2fanswers.py", "%2e%2e/answers.py", "/etc/passwd", "js/../../app.py", "%00"]
)
def test_static_files_stay_in_their_folder(client, path):
    answer = client.get(f"/static/{path}")
    assert answer.status_code == 404 or "<!doctype html>" in answer.text
    assert "import" not in answer.text


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("nothing", "thumbnail"),
        ("{key}", "image"),
        ("{key}", "frames.movie"),
        ("{key}", "__class__"),
        ("{key}", "session:steps/thumbnail.png"),
        ("{key}", "..%2f..%2fsession.yaml"),
        ("..%2f..", "thumbnail"),
        ("' OR 1=1 --", "thumbnail"),
    ],
)
def test_only_declared_pictures_are_sent(client, key, field):
    rows = client.get("/api/v1/sessions/every/exposures").json()["rows"]
    found = rows[0]["picture"]["key"]
    assert client.get(f"/api/v1/sessions/every/pictures/{found}/thumbnail").status_code == 200
    answer = client.get(f"/api/v1/sessions/every/pictures/{key.format(key=found)}/{field}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"


def test_a_link_out_of_the_session_is_not_followed(tmp_path):
    paper = write_every_record(tmp_path / "s")
    thumbnail = tmp_path / "s" / "steps" / "thumbnail.png"
    with open_view(paper.session) as view:
        (stored,) = view.records("align", limit=1)
        assert read_picture(view, stored.key, "thumbnail")[1] == "image/png"
        thumbnail.rename(tmp_path / "secret.png")
        thumbnail.symlink_to(tmp_path / "secret.png")
        with pytest.raises(NoPicture, match="not in the folder"):
            read_picture(view, stored.key, "thumbnail")
        thumbnail.unlink()
        with pytest.raises(NoPicture, match="not there any more"):
            read_picture(view, stored.key, "thumbnail")
        thumbnail.write_text("<svg onload=alert(1)>", encoding="utf-8")
        with pytest.raises(NoPicture, match="neither PNG nor JPEG"):
            read_picture(view, stored.key, "thumbnail")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost@evil.example", ""])
@pytest.mark.parametrize("path", ["/", "/api/v1/sessions", "/static/style.css"])
def test_a_name_that_is_not_ours_is_refused(open_site, host, path):
    assert open_site.client().get(path, headers={"host": host}).status_code == 421


def test_a_name_given_by_the_facility_is_ours(closed_site):
    assert closed_site.client().get("/api/v1/me", headers={"host": "icestream.lab.org"}).status_code == 200


CHANGE = {"kind": "pause", "arguments": {}}


def test_a_change_needs_what_only_our_page_knows(open_site):
    address, page = "/api/v1/sessions/every/actions", open_site.client()
    csrf = page.get("/api/v1/me").json()["csrf"]
    wrong = [{}, {"x-icestream-csrf": ""}, {"x-icestream-csrf": csrf[:-1]}, {"x-icestream-csrf": b"\xe9"}]
    for headers in wrong:
        answer = page.post(address, json=CHANGE, headers=headers)
        assert (answer.status_code, "x-icestream-csrf" in answer.text) == (403, True)
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        assert page.post(address, json=CHANGE, headers={"x-icestream-csrf": csrf, **headers}).status_code == 403
    plain = {"x-icestream-csrf": csrf, "content-type": "text/plain"}
    assert page.post(address, content=json.dumps(CHANGE), headers=plain).status_code == 415
    form = {"x-icestream-csrf": csrf, "content-type": "application/x-www-form-urlencoded"}
    assert page.post(address, content="kind=pause", headers=form).status_code == 415


def test_another_page_cannot_read_either(client):
    assert client.get("/api/v1/sessions", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    answer = client.get("/api/v1/sessions", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert client.options("/api/v1/sessions", headers={"origin": "http://evil.example"}).status_code in (403, 405, 415)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "TRACE"])
def test_pages_are_only_read(client, method):
    assert client.request(method, "/s/every").status_code == 405


@pytest.mark.parametrize(
    "cookie", ["icestream=forged", "icestream=", 'icestream="a; b"', "other=x; icestream=" + "A" * 43, "=;;=", "\x7f"]
)
def test_a_forged_cookie_stands_for_nobody(closed_site, cookie):
    answer = closed_site.client().get("/api/v1/sessions", headers={"cookie": cookie})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "header", ["Bearer ice_forged", "Bearer ", "Bearer", "Basic YW5uYTp4", "bearer \x01", "Bearer " + "x" * 5000]
)
def test_a_forged_token_stands_for_nobody(closed_site, header):
    assert closed_site.client().get("/api/v1/sessions", headers={"authorization": header}).status_code == 401


def test_a_stranger_gets_the_form_and_nothing_else(closed_site):
    stranger = closed_site.client()
    assert stranger.get("/s/every").status_code == 200
    me = stranger.get("/api/v1/me").json()
    assert (me["name"], me["csrf"], me["single"], me["sign_in"]) == (None, None, None, True)
    for path in ("sessions", "sessions/every", "sessions/every/log", "events", "openapi.json", "sessions/every/pictures/a/b"):
        answer = stranger.get(f"/api/v1/{path}")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_guessing_is_braked_for_address_and_name(closed_site):
    client = closed_site.client()
    for _ in range(FREE_TRIES):
        answer = client.post("/api/v1/sign-in", json={"name": "anna", "password": "wrong"})
        assert (answer.status_code, answer.json()["detail"]) == (401, "the name or the password is wrong")
    answer = client.post("/api/v1/sign-in", json={"name": "anna", "password": PASSWORD})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    closed_site.clock.now += 2
    assert client.post("/api/v1/sign-in", json={"name": "anna", "password": PASSWORD}).status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(closed_site):
    answer = closed_site.client().post("/api/v1/sign-in", json={"name": "anna", "password": PASSWORD})
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    secure = TestClient(closed_site.app, base_url="https://127.0.0.1:8765")
    answer = secure.post("/api/v1/sign-in", json={"name": "anna", "password": PASSWORD})
    assert "Secure" in answer.headers["set-cookie"]


def test_signing_out_ends_the_cookie_wherever_it_was_copied(closed_site):
    anna = closed_site.signed_in()
    copied = dict(anna.cookies)
    assert anna.get("/api/v1/sessions").status_code == 200
    assert anna.post("/api/v1/sign-out", json={}).status_code == 204
    assert closed_site.client().get("/api/v1/sessions", headers={"cookie": f"icestream={copied['icestream']}"}).status_code == 401


def test_who_may_look_cannot_act_and_who_lost_access_cannot_look(closed_site):
    screen = closed_site.signed_in("screen")
    assert screen.get("/api/v1/sessions/every").status_code == 200
    assert screen.post("/api/v1/sessions/every/actions", json=CHANGE).status_code == 403
    closed_site.access.remove("screen")
    assert screen.get("/api/v1/sessions/every").status_code == 401


def test_a_file_of_access_that_cannot_be_trusted_lets_nobody_in(closed_site):
    anna = closed_site.signed_in()
    closed_site.access.path.chmod(0o644)
    answer = anna.get("/api/v1/sessions")
    assert (answer.status_code, "nobody can be let in" in answer.text) == (503, True)


def test_huge_requests_are_refused(open_site):
    page = open_site.page()
    assert page.get("/api/v1/sessions/every/exposures?text=" + "x" * LONGEST_ADDRESS).status_code == 414
    assert page.get("/api/v1/sessions/every/exposures?text=" + "x" * 300).status_code == 422
    many = "&".join("range=a,1,2" for _ in range(9))
    assert page.get(f"/api/v1/sessions/every/exposures?{many}").status_code == 422
    assert page.get("/api/v1/sessions/every/exposures?limit=100000").status_code == 422
    assert page.get("/api/v1/sessions/every/exposures?offset=-1").status_code == 422
    assert page.get("/api/v1/sessions/every/exposures?unknown=1").status_code == 422
    huge = b'{"kind": "pause", "arguments": {"reason": "' + b"x" * LARGEST_BODY_BYTES + b'"}}'
    json_type = {"content-type": "application/json"}
    assert page.post("/api/v1/sessions/every/actions", content=huge, headers=json_type).status_code == 413
    said_small = {**json_type, "content-length": "10"}
    chunks = (huge[start : start + 1000] for start in range(0, len(huge), 1000))
    assert page.post("/api/v1/sessions/every/actions", content=chunks, headers=said_small).status_code == 413
    assert (
        page.post("/api/v1/sessions/every/actions", content=b"{", headers={**json_type, "content-length": "-1"}).status_code
        == 413
    )
    deep = b"[" * 30_000
    assert page.post("/api/v1/sessions/every/actions", content=deep, headers=json_type).status_code in (400, 422)


@pytest.mark.parametrize(
    "query",
    [
        "sort=name'--",
        "sort=find:nothing",
        "range=find:picks_per_micrograph,a,b",
        "range=find:picks_per_micrograph",
        "state=<script>",
        "sort=__class__",
        "range=x,1,2",
    ],
)
def test_odd_questions_are_answered_with_what_is_wrong(client, query):
    answer = client.get(f"/api/v1/sessions/every/exposures?{query}")
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]


def test_wildcards_in_a_text_are_text(client):
    assert client.get("/api/v1/sessions/every/exposures?text=%25").json()["matching"] == 0
    assert client.get("/api/v1/sessions/every/exposures?text=Hole_000").json()["matching"] == 8


def test_names_are_data_in_every_answer(client, shown_folder):
    name = next(one for one in find_places(shown_folder).names() if one.startswith("hostile"))
    answer = client.get(f"/api/v1/sessions/{name}/exposures")
    assert answer.headers["content-type"] == "application/json"
    assert any(HOSTILE in row["name"] for row in answer.json()["rows"])
    page = client.get(f"/s/{name}")
    assert HOSTILE not in page.text and "hostile" not in page.text


def test_every_answer_says_what_the_browser_may_do(open_site, closed_site):
    answers = [open_site.client().get(path) for path in ("/", "/static/js/main.js", "/api/v1/me", "/api/v1/nothing")]
    answers += [closed_site.client().get("/api/v1/sessions"), open_site.client().get("/", headers={"host": "evil.example"})]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
    policy = answers[0].headers["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy
    assert answers[2].headers["cache-control"] == "no-store"


def test_the_page_has_no_script_or_style_of_its_own(client):
    page = client.get("/").text
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert not re.search(r"<style|\sstyle=|\son\w+=|https?://", page)


def test_an_unforeseen_error_says_nothing_of_the_inside(open_site, monkeypatch):
    def broken(*_args: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("icestream.web.details.read_log", broken)
    answer = open_site.client().get("/api/v1/sessions/every/log")
    assert (answer.status_code, "secret" in answer.text) == (500, False)
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_password_is_checked_by_two_at_a_time_at_most(closed_site, monkeypatch):
    at_once, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    def slow(_self: object, name: str, password: str) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        go.wait(timeout=30)
        with lock:
            at_once -= 1

    monkeypatch.setattr("icestream.web.access.AccessFile.by_password", slow)
    ask = lambda n: closed_site.client().post("/api/v1/sign-in", json={"name": f"n{n}", "password": "x"})  # noqa: E731
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(timeout=60)
    assert 1 <= most <= 2


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefghi")),
        "rules: " + "[" * 5000,
        "rules: !!python/object/apply:os.system ['touch /tmp/no']",
        "rules: *nothing",
        "a: &a [*a]",
        "x: " + "1" * 5000,
    ],
    ids=["bomb", "deep", "object", "no anchor", "endless", "number"],
)
def test_a_document_that_is_a_trap_is_refused(toy_site: Served, text: str):
    anna = toy_site.signed_in()
    answer = anna.post("/api/v1/sessions/session/alarms/rules", json={"before": "", "document": text})
    assert answer.status_code == 400, answer.text
    assert not (toy_site.folder / "alarms.yaml").exists()


def test_the_list_of_attacks_names_tests_and_scripts_that_there_are():
    root = Path(__file__).parents[2]
    text = (root / "docs" / "reliability.md").read_text(encoding="utf-8").partition("## Hostile clients")[2].partition("\n## ")[0]
    rows = [row.strip("|").split("|")[-1] for row in text.splitlines() if row.startswith("| ")][1:]
    known = "".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("test_*.py"))
    shown = [re.findall(r"`([^`]+)`", row) for row in rows if not set(row) <= set("- ")]
    assert len(shown) > 25
    for names in shown:
        assert names
        for name in names:
            assert f"def {name}(" in known if name.startswith("test_") else (root / name).is_file(), name
