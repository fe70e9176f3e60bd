"""Classes in a real browser: sorted, selected by hand, looked into."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from icestream.flow.storage.session import open_session
from web.browsing import PATIENCE_MS, Server, Visit, browser, start_server, stop_server, visit
from web.paper_classes import write_classes

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_classes(tmp_path / "classified")
    started = start_server(tmp_path / "classified", tmp_path / "state")
    yield started
    stop_server(started)


@pytest.fixture
def page(server: Server, visit: Visit) -> Iterator[Page]:
    visit.page.goto(f"{server.address}/s/classified/classes")
    yield visit.page
    visit.complaints[:] = [one for one in visit.complaints if "net::" not in one]  # of a server that is gone


def order(page: Page) -> list[str]:
    return [text.partition(":")[0] for text in page.locator(".tiles li").all_inner_texts() for text in [text.split("\n")[-1]]]


def test_classes_stay_at_their_places_are_sorted_and_selected_by_hand(page: Page, tmp_path: Path):
    tiles = page.locator(".tiles li")
    expect(tiles).to_have_count(8, timeout=PATIENCE_MS)
    assert order(page) == [str(one) for one in range(1, 9)]
    page.get_by_label("Sorted by").select_option(label="particles")
    expect(tiles.first).to_contain_text("3:")
    assert order(page) == ["3", "8", "5", "7", "1", "6", "4", "2"]
    page.get_by_label("Sorted by").select_option(label="place")
    two, three = page.get_by_role("button", name="class 2, set aside"), page.get_by_role("button", name="class 3, kept")
    two.click()
    three.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".selection")).to_contain_text("1 to keep, 1 to set aside")
    expect(page.get_by_role("button", name="class 2, kept")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Apply").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("chosen", timeout=PATIENCE_MS)
    dialog.get_by_role("button", name="Apply").click()
    expect(page.locator(".toast")).to_contain_text("applied", timeout=PATIENCE_MS)
    assert open_session(tmp_path / "classified").document.steps["chosen"].params == {"keep": [2], "drop": [3, 6]}


def test_members_of_a_class_lead_to_their_exposures(page: Page, visit: Visit):
    page.get_by_role("button", name="members of class 5").click()
    members = page.locator(".members")
    expect(members).to_contain_text("9 particles of the newest 3 exposures", timeout=PATIENCE_MS)
    page.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("version 1 of 2")).to_be_visible()
    members.get_by_role("link", name="mic_2").click()
    expect(page.locator("h1")).to_contain_text("mic_2", timeout=PATIENCE_MS)
    visit.complaints[:] = [one for one in visit.complaints if "404" not in one]  # the particles of this session have no images
