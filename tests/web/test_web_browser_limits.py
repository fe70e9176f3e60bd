"""Moving limits of filters in a real browser: what they would drop is told before they are applied."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from icestream.flow.storage.session import open_session
from web.browsing import PATIENCE_MS, Server, Visit, browser, start_server, stop_server, visit
from web.paper_filter import write_filtered

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_filtered(tmp_path / "filtered")
    (tmp_path / "filtered" / "raw").mkdir()
    started = start_server(tmp_path / "filtered", tmp_path / "state")
    yield started
    stop_server(started)


@pytest.fixture
def page(server: Server, visit: Visit) -> Iterator[Page]:
    visit.page.goto(f"{server.address}/s/filtered/series")
    yield visit.page
    visit.complaints[:] = [one for one in visit.complaints if "net::" not in one]  # of a server that is gone


def test_a_limit_is_moved_counted_and_applied(page: Page, tmp_path: Path):
    bar = page.locator('[data-filter="good"]')
    expect(bar).to_contain_text("has dropped 9 of 40 exposures", timeout=PATIENCE_MS)
    slider = page.get_by_role("slider", name="Good CTFs: max_resolution_ang")
    slider.focus()
    box = slider.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=8)
    page.mouse.up()
    expect(bar).to_contain_text("would drop", timeout=PATIENCE_MS)
    expect(bar).not_to_contain_text(": 0 more")
    page.get_by_role("button", name="Undo").click()
    expect(bar).to_contain_text("has dropped 9 of 40 exposures", timeout=PATIENCE_MS)
    slider.focus()
    page.keyboard.press("Home")
    expect(bar).to_contain_text("would drop 40 of 40 exposures: 31 more, and 0 taken back", timeout=PATIENCE_MS)
    page.keyboard.press("End")
    expect(bar).to_contain_text("0 more, and 9 taken back", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Apply").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("9 taken back", timeout=PATIENCE_MS)
    dialog.get_by_label("Why").fill("thin ice")
    dialog.get_by_role("button", name="Apply").click()
    expect(page.locator(".toast")).to_contain_text("applied", timeout=PATIENCE_MS)
    limit = open_session(tmp_path / "filtered").document.steps["good"].params["max_resolution_ang"]
    assert limit > 6.9


def test_a_range_has_two_limits_that_do_not_cross(page: Page):
    low = page.get_by_role("slider", name="Good CTFs: defocus_um, low")
    high = page.get_by_role("slider", name="Good CTFs: defocus_um, high")
    low.focus()
    page.keyboard.press("End")
    bar = page.locator('[data-filter="good"]')
    expect(bar).to_contain_text("would drop 40 of 40", timeout=PATIENCE_MS)
    high.focus()
    page.keyboard.press("Home")
    expect(bar).to_contain_text("defocus_um", timeout=PATIENCE_MS)
    found = re.search(r"defocus_um=\[([\d.]+),([\d.]+)\]", bar.inner_text())
    assert found is not None
    assert float(found[1]) <= float(found[2])
