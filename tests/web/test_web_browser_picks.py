"""Editing picks in a real browser, with the mouse and with the keyboard alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import open_session
from web.browsing import PATIENCE_MS, Server, Visit, browser, start_server, stop_server, visit
from web.picked_session import SETTINGS, make_picked, positions

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    make_picked(tmp_path)
    started = start_server(tmp_path / "session", tmp_path / "state")
    yield started
    stop_server(started)


@pytest.fixture
def page(server: Server, visit: Visit) -> Iterator[Page]:
    visit.page.goto(f"{server.address}/s/session/exposures/mic_1")
    yield visit.page
    visit.complaints[:] = [one for one in visit.complaints if "net::" not in one]  # of a server that is gone


def click_at(page: Page, y_px: float, x_px: float) -> None:
    """Click at a place of the micrograph, whose row 0 is at the bottom of the picture."""
    box = page.locator("svg.editing").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * x_px / 128, box["y"] + box["height"] * (1 - y_px / 128))


def test_picks_are_edited_with_the_mouse_and_the_keyboard(page: Page, tmp_path: Path):
    expect(page.locator(".overlay circle")).to_have_count(6, timeout=PATIENCE_MS)
    page.get_by_role("button", name="Edit picks").click()
    click_at(page, 20, 110)
    expect(page.locator(".marks .added")).to_have_count(1)
    click_at(page, 90, 30)
    expect(page.locator("circle.removed")).to_have_count(1)
    expect(page.locator(".image")).to_contain_text("1 to add, 1 to remove")
    click_at(page, 90, 30)  # it is kept after all
    expect(page.locator("circle.removed")).to_have_count(0)
    click_at(page, 90, 30)
    page.locator("svg.editing").focus()
    for _ in range(10):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".image")).to_contain_text("2 to add, 1 to remove")
    page.get_by_role("button", name="Save picks").click()
    page.get_by_label("Why").fill("by eye")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.locator(".toast")).to_contain_text("mic_1 is recomputed at edited", timeout=PATIENCE_MS)
    expect(page.locator("svg.editing")).to_have_count(0)
    session = open_session(tmp_path / "session")
    run_session(session, SETTINGS)
    found = positions(session)
    assert len(found) == 4
    assert (40, 60) in found and (90, 30) not in found
    assert any(abs(y - 20) <= 1 and abs(x - 110) <= 1 for y, x in found)
    expect(page.locator(".overlay.colour-1 circle")).to_have_count(4, timeout=PATIENCE_MS)
