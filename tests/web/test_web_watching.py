"""Monitors and alarms through the interface: what they answer, who may acknowledge and edit, and that names stay data."""

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from paper_acquisition import write_acquisition
from paper_session import HOSTILE
from starlette.testclient import TestClient

from icestream.alarms.alarm_store import AlarmStore
from icestream.alarms.machine import Sampler
from icestream.facility.observing import Observer
from icestream.files import SESSION_ALARMS
from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.settings import Settings
from web.parts import PASSWORD, Served, serve_folder

S = "/api/v1/sessions/paper"
RULES = """
rules:
  - {name: thin, kind: measure, measure: ctf_defocus_micrometers, low: 3.0, window: 20}
  - {name: busy, kind: system, value: memory, high: 99.9}
  - {name: rejects, kind: summary, value: rejected_percent, high: 50}
"""


@pytest.fixture(scope="module")
def watched_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A running session of which every exposure is too close to focus, observed once."""
    folder = tmp_path_factory.mktemp("watched")
    paper = write_acquisition(folder / "paper", 24, name=HOSTILE)
    (paper.session.folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    (paper.session.folder / SESSION_ALARMS).write_text(RULES, encoding="utf-8")
    now = [paper.now + 10]
    observer = Observer(None, sampler=Sampler(gpus=tuple), clock=lambda: now[0], holder="test")
    assert observer.turn(paper.session.folder).opened != ()
    now[0] += 30
    assert observer.turn(paper.session.folder).opened == ()
    return folder


@pytest.fixture
def site(watched_folder: Path, granted: Path, tmp_path: Path) -> Served:
    shutil.copytree(watched_folder, tmp_path / "sessions")
    shutil.copy(granted, tmp_path / "access.json")
    return serve_folder(tmp_path / "sessions", tmp_path / "access.json")


@pytest.fixture
def anna(site: Served) -> TestClient:
    return site.signed_in()


def test_monitors_have_series_with_limits_the_machine_and_the_session(anna):
    page = anna.get(f"{S}/monitors").json()
    defocus = next(one for one in page["measures"] if one["series"]["measure"]["id"] == "ctf_a:ctf_defocus_micrometers")
    assert defocus["panel"] == "CTF"
    limits = {one["rule"]: (one["low"], one["high"]) for one in defocus["limits"]}
    assert limits == {"thin": (3.0, None), "ctf-defocus": (0.1, 4.0)}
    assert len(defocus["series"]["values"]) == 23
    machine = {line["value"]: line for line in page["machine"]["lines"]}
    assert len(page["machine"]["times"]) == len(machine["memory"]["values"]) == 2
    assert [one["high"] for one in machine["memory"]["limits"]] == [95.0, 99.9]
    figures = {one["name"]: one for one in page["summary"]}
    assert (figures["exposures"]["value"], figures["rejected_percent"]["unit"]) == (24, "%")
    assert figures["rejected_percent"]["limits"][0]["rule"] == "rejects"
    assert page["watched"]["trouble"] is None


def test_alarms_say_what_since_when_how_many_and_which_first(anna):
    page = anna.get(f"{S}/alarms").json()
    alarm = next(one["alarm"] for one in page["alarms"] if one["alarm"]["rule"] == "thin" and "ctf_a" in one["alarm"]["subject"])
    assert alarm["exposures"] == 20
    assert alarm["first"] == f"{HOSTILE} 0005"
    assert alarm["page"] == f"exposures/{alarm['newest_unit']}"
    assert anna.get(f"{S}/exposures/{alarm['first_unit']}").json()["name"] == alarm["first"]
    assert alarm["ended_at"] is None
    rules = {rule["name"]: rule["about_nothing"] for rule in page["rules"]}
    assert {name: rules[name] for name in ("thin", "stalled", "gain-peak")} == {
        "thin": False,
        "stalled": False,
        "gain-peak": True,
    }
    assert (page["document"], page["channels"], page["deliveries"]) == (RULES, [], [])
    (line,) = anna.get("/api/v1/sessions").json()
    assert line["alarms"] == anna.get(S).json()["alarms"] == sum(one["alarm"]["ended_at"] is None for one in page["alarms"])


def test_alarms_are_acknowledged_with_a_name_and_a_note(site, anna):
    number = anna.get(f"{S}/alarms").json()["alarms"][0]["alarm"]["number"]
    answer = anna.post(f"{S}/alarms/acknowledge", json={"numbers": [number], "note": HOSTILE})
    assert answer.json() == {"numbers": [number]}
    kept = next(one for one in anna.get(f"{S}/alarms").json()["alarms"] if one["alarm"]["number"] == number)
    assert (kept["acknowledged_by"], kept["note"]) == ("anna", HOSTILE)
    again = anna.post(f"{S}/alarms/acknowledge", json={"numbers": [number]})
    assert (again.status_code, "were acknowledged before" in again.text) == (409, True)
    screen = site.signed_in("screen", PASSWORD)
    for address, body in (
        ("acknowledge", {"numbers": [1]}),
        ("rules", {"before": "", "document": ""}),
        ("test", {"channel": "x"}),
    ):
        assert screen.post(f"{S}/alarms/{address}", json=body).status_code == 403
    assert screen.get(f"{S}/alarms").status_code == 200


def test_rules_are_checked_before_they_are_written_and_nobody_overwrites_another(site, anna):
    def put(document: str, before: str = RULES):
        return anna.post(f"{S}/alarms/rules", json={"before": before, "document": document})

    wrong = put("rules: [{name: a, kind: measure, measure: x, low: 3, high: 2}]")
    assert (wrong.status_code, "low is 3 and must be below high, which is 2" in wrong.text) == (400, True)
    assert put("rules: [{name: a, kind: stalled, channels: [chat]}]").status_code == 400
    path = site.folder / "paper" / SESSION_ALARMS
    assert path.read_text(encoding="utf-8") == RULES
    assert put("# mine\nwithout: [swap]\n").status_code == 200
    assert path.read_text(encoding="utf-8") == "# mine\nwithout: [swap]\n"
    assert "swap" not in {rule["name"] for rule in anna.get(f"{S}/alarms").json()["rules"]}
    late = put("defaults: false\n")
    assert (late.status_code, "somebody else has changed" in late.text) == (409, True)


def test_rules_that_cannot_be_read_are_told_and_the_page_stands(site, anna):
    (site.folder / "paper" / SESSION_ALARMS).write_text("rules: 3\n", encoding="utf-8")
    for address in ("monitors", "alarms"):
        page = anna.get(f"{S}/{address}").json()
        assert "rules: input should be a list" in page["watched"]["trouble"]
    assert anna.get(f"{S}/alarms").json()["alarms"] != []


def test_an_alarm_of_another_version_hides_no_session(site, anna):
    before = anna.get("/api/v1/sessions").json()[0]["alarms"]
    (path,) = (site.folder / "paper").glob("*.alarms.db")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alarm SET content = '{}'")
    database.close()
    (line,) = anna.get("/api/v1/sessions").json()
    assert (line["alarms"], line["trouble"]) == (before, None)
    assert anna.get(f"{S}/alarms").status_code == 400


def test_who_may_only_look_is_not_told_what_documents_and_servers_say(site, anna):
    path = site.folder / "paper" / SESSION_ALARMS
    path.write_text("mail_to: [anna@lab.org]\n", encoding="utf-8")
    (database,) = (site.folder / "paper").glob("*.alarms.db")
    store = AlarmStore(database)
    (tried,) = store.add_test(["mail"], now=1.0)
    store.mark(tried, "failed", now=2.0, error="mail server smtp.inside.lab.org, port 587: refused")
    screen = site.signed_in("screen", PASSWORD)
    told, hidden = (one.get(f"{S}/alarms").json() for one in (anna, screen))
    assert (told["document"], hidden["document"]) == ("mail_to: [anna@lab.org]\n", "")
    assert "smtp.inside" in told["deliveries"][0]["error"]
    assert [(one["state"], one["error"]) for one in hidden["deliveries"]] == [("failed", None)]
    assert "no mail goes to anna@lab.org" in told["watched"]["note"]
    path.write_text("mail_to: 3\n", encoding="utf-8")
    for page in ("alarms", "monitors"):
        assert str(path) in anna.get(f"{S}/{page}").json()["watched"]["trouble"]
        body = screen.get(f"{S}/{page}")
        assert body.json()["watched"]["trouble"] == "who operates the session is told why"
        assert not any(word in body.text for word in ("anna@lab.org", "smtp.inside", str(site.folder)))


def test_channels_are_tried(site, anna, tmp_path):
    facility = tmp_path / "facility.yaml"
    commands = {"good": "pass", "bad": "import sys; sys.exit('it is full')"}
    channels = [{"name": name, "kind": "command", "command": [sys.executable, "-c", code]} for name, code in commands.items()]
    facility.write_text(json.dumps({"channels": channels}), encoding="utf-8")
    served = serve_folder(site.folder, tmp_path / "access.json", settings=Settings(min_free_gb=0, cores=1, alarms=facility))
    client = replace(served, access=site.access).signed_in()
    tried = {one["channel"]: one["error"] for one in client.post(f"{S}/alarms/test", json={"channel": "all"}).json()}
    assert tried["good"] is None
    assert tried["bad"].endswith("ended with status 1: it is full")
    failed = next(one for one in client.get(f"{S}/alarms").json()["deliveries"] if one["state"] == "failed")
    assert (failed["channel"], failed["event"]) == ("bad", "test")
    unknown = client.post(f"{S}/alarms/test", json={"channel": "chat"})
    assert (unknown.status_code, "the facility has good, bad" in unknown.text) == (400, True)


def test_a_session_that_nobody_has_watched_answers(client):
    page = client.get("/api/v1/sessions/every/alarms").json()
    assert (page["alarms"], page["watched"]["looked_at"]) == ([], None)
    monitors = client.get("/api/v1/sessions/every/monitors").json()
    assert monitors["machine"] == {"host": None, "times": [], "lines": []}
    assert monitors["measures"] != []
