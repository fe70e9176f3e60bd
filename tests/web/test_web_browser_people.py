"""People in a real browser: a link is shared, opened, and withdrawn; who may do what is seen on the page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from icestream.flow.storage import DOCUMENT
from icestream.web.access import AccessFile
from icestream.web.server import ACCESS_FILE
from toys.session import make_toy_session, toy_steps
from web.browsing import PATIENCE_MS, Server, Visit, browser, start_server, stop_server
from web.parts import PASSWORD

__all__ = ["browser"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two sessions; anna administrates, ruth may look at one of them."""
    for name in ("ribosome", "secret"):
        made = make_toy_session(tmp_path / name, toy_steps(2), numbers=range(2))
        text = (made.folder / DOCUMENT).read_text(encoding="utf-8")
        (made.folder / DOCUMENT).write_text(text.replace("name: toy", f"name: {name}"), encoding="utf-8")
    (tmp_path / "sessions").mkdir()
    for name in ("ribosome", "secret"):
        (tmp_path / name / "session").rename(tmp_path / "sessions" / name)
    access = AccessFile(tmp_path / "state" / ACCESS_FILE)
    access.add_password("anna", PASSWORD, "administrate")
    access.add_password("ruth", PASSWORD, "look", sessions=["ribo*"])
    started = start_server(tmp_path / "sessions", tmp_path / "state")
    yield started
    stop_server(started)


def sign_in(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="ribosome")).to_be_visible(timeout=PATIENCE_MS)


def test_a_link_is_shared_opened_and_withdrawn(browser: Browser, server: Server):
    anna, guest = Visit(browser), Visit(browser, width=390, scheme="dark")
    page = anna.page
    sign_in(page, server.address, "anna")
    page.get_by_role("link", name="ribosome").click()
    page.get_by_role("button", name="Share").click()
    page.get_by_label("For whom").fill("user of grid 3")
    page.get_by_role("button", name="Make a link").click()
    link = page.get_by_role("textbox", name="The link")
    expect(link).to_be_visible(timeout=PATIENCE_MS)
    address = link.input_value()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert address.startswith(f"{server.address}/share#")

    guest.page.goto(address)
    expect(guest.page.locator(".workflow li")).to_have_count(12, timeout=PATIENCE_MS)
    assert "#" not in guest.page.url
    expect(guest.page.get_by_role("button", name="Pause")).to_have_count(0)
    expect(guest.page.get_by_role("button", name="Share")).to_have_count(0)
    guest.page.get_by_role("link", name="icestream").click()
    expect(guest.page.get_by_role("link", name="ribosome")).to_be_visible(timeout=PATIENCE_MS)
    expect(guest.page.get_by_role("link", name="secret")).to_have_count(0)
    expect(guest.page.get_by_role("link", name="New session")).to_have_count(0)

    page.get_by_role("button", name="Share").click()
    page.get_by_text("1\N{NO-BREAK SPACE}link so far").click()
    page.get_by_role("button", name="Withdraw the link user of grid 3").click()
    expect(page.locator(".toast")).to_contain_text("withdrawn", timeout=PATIENCE_MS)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    guest.page.goto(f"{server.address}/s/ribosome")
    expect(guest.page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=PATIENCE_MS)
    guest.page.goto(f"{server.address}/")  # the same address with another fragment would load nothing
    guest.page.goto(address)
    expect(guest.page.get_by_role("alert")).to_contain_text("expired, or was withdrawn", timeout=PATIENCE_MS)

    page.get_by_role("link", name="Audit").click()
    expect(page.locator("tbody")).to_contain_text("user of grid 3", timeout=PATIENCE_MS)
    expect(page.locator("tbody tr").last).to_contain_text("sign-in")
    for visit in (anna, guest):
        visit.context.close()
        assert [one for one in visit.complaints if "401" not in one] == []


def test_who_may_look_is_offered_no_action(browser: Browser, server: Server):
    ruth = Visit(browser)
    sign_in(ruth.page, server.address, "ruth")
    expect(ruth.page.get_by_role("link", name="secret")).to_have_count(0)
    expect(ruth.page.get_by_role("link", name="Audit")).to_have_count(0)
    ruth.page.get_by_role("link", name="ribosome").click()
    expect(ruth.page.locator(".workflow li")).to_have_count(12, timeout=PATIENCE_MS)
    expect(ruth.page.locator(".who").first).to_contain_text("may look")
    for name in ("Pause", "Start", "Share", "Close odd"):
        expect(ruth.page.get_by_role("button", name=name)).to_have_count(0)
    ruth.page.locator(".workflow").get_by_role("link", name="odd", exact=True).click()
    expect(ruth.page.get_by_label("factor", exact=True)).to_be_disabled(timeout=PATIENCE_MS)
    ruth.page.goto(f"{server.address}/s/secret")
    expect(ruth.page.locator(".notice.alert")).to_contain_text("no session of this name", timeout=PATIENCE_MS)
    ruth.context.close()
    assert [one for one in ruth.complaints if "404" not in one] == []
