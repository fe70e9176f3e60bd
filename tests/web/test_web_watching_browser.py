"""Monitors and alarms in a real browser: what is wrong is seen, acknowledged and followed, and rules are edited."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from paper_acquisition import write_acquisition
from paper_session import HOSTILE
from playwright.sync_api import Browser, expect

from icestream.alarms.machine import Sampler
from icestream.facility.observing import Observer
from icestream.files import SESSION_ALARMS
from icestream.flow.storage.session import DOCUMENT, Session, dump_document
from icestream.observe.session_alarms import alarm_store_of
from web.browsing import Server, Visit, browser, serious, start_server, stop_server, visit

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

RULES = "rules:\n  - {name: thin, kind: measure, measure: ctf_defocus_micrometers, low: 3.0, severity: critical}\n"


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Session]]:
    """A running session with alarms, and a server that was told of a channel; another observer has the turn."""
    paper = write_acquisition(tmp_path / "sessions" / "paper", 24, name=HOSTILE)
    folder = paper.session.folder
    (folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    (folder / SESSION_ALARMS).write_text(RULES, encoding="utf-8")
    facility = tmp_path / "facility.yaml"
    command = [sys.executable, "-c", "import sys; sys.exit('the pager is switched off')"]
    facility.write_text(json.dumps({"channels": [{"name": "pager", "kind": "command", "command": command}]}), encoding="utf-8")
    observer = Observer(None, sampler=Sampler(gpus=tuple), every_s=1200, holder="another")
    assert observer.turn(folder).opened != ()
    monkeypatch.setenv("ICESTREAM_ALARMS", str(facility))
    server = start_server(tmp_path / "sessions", tmp_path / "state")
    yield server, paper.session
    stop_server(server)
    shutil.rmtree(tmp_path / "sessions")


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (1360, "dark"), (390, "light")])
def test_both_pages_show_what_is_wrong(browser: Browser, watched, width, scheme):
    server, _ = watched
    visit = Visit(browser, width=width, scheme=scheme)
    page = visit.open(f"{server.address}/s/paper/monitors")
    expect(page.get_by_role("heading", name="CTF", exact=True)).to_be_visible()
    expect(page.locator(".plot canvas").first).to_be_visible()
    expect(page.get_by_text("thin: at least 3\N{NO-BREAK SPACE}µm").first).to_be_visible()
    expect(page.get_by_role("figure").filter(has_text="Free space on the disk")).to_be_visible()
    assert visit.too_wide() <= 0
    assert serious(page) == []
    page.get_by_role("navigation").get_by_role("link", name="Alarms").click()
    alarm = page.locator("article.alarm").filter(has_text="Defocus is outside its limits").first
    expect(alarm).to_contain_text("20\N{NO-BREAK SPACE}exposures")
    expect(alarm).to_contain_text("critical")
    expect(alarm.get_by_role("link", name=f"{HOSTILE} 0005").first).to_be_visible()
    assert visit.too_wide() <= 0
    assert serious(page) == []
    alarm.get_by_role("link", name="the exposure").click()
    expect(page.locator("h1")).to_contain_text("FoilHole_2913_0024")
    assert visit.complaints == []
    visit.context.close()


def test_an_alarm_is_acknowledged_a_channel_tried_and_rules_are_edited(browser: Browser, watched):
    server, session = watched
    visit = Visit(browser)
    page = visit.open(f"{server.address}/s/paper/alarms")
    first = page.locator("article.alarm").filter(has_text="Defocus is outside its limits").first
    first.get_by_role("button").click()
    page.get_by_label("Why").fill("nitrogen is being refilled")
    page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
    expect(first).to_contain_text("nitrogen is being refilled")
    kept = [one for one in alarm_store_of(session).alarms() if one.acknowledged_by is not None]
    assert [one.note for one in kept] == ["nitrogen is being refilled"]
    page.get_by_role("button", name="Test pager").click()
    expect(page.locator("#toasts")).to_contain_text("the pager is switched off")
    expect(page.get_by_role("heading", name="Messages that were not taken")).to_be_visible()
    page.get_by_text("Rules of this session").click()
    page.get_by_label("YAML").fill("rules: [{name: a, kind: measure, measure: x, low: 3, high: 2}]")
    page.get_by_role("button", name="Check and save").click()
    expect(page.locator("#toasts")).to_contain_text("low is 3 and must be below high, which is 2")
    page.get_by_label("YAML").fill(f"{RULES}without: [swap]\n")
    page.get_by_role("button", name="Check and save").click()
    expect(page.locator("#toasts")).to_contain_text("saved")
    expect(page.locator("tr", has=page.get_by_text("swap", exact=True))).to_have_count(0)
    assert (session.folder / SESSION_ALARMS).read_text(encoding="utf-8").endswith("without: [swap]\n")
    assert [one for one in visit.complaints if "400" not in one] == []  # the browser writes down the refusal
    visit.context.close()
