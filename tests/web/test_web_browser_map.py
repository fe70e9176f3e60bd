"""The map in a real browser: from squares to holes to exposures, by mouse and by keyboard, and nothing serious for axe-core."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from icestream.microscope.grid import FIRST_SQUARE
from web.browsing import PATIENCE_MS, Server, Visit, browser, serious, start_server, stop_server, visit
from web.paper_grid import SETTINGS, write_grid

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mapped")
    write_grid(folder / "grid")
    started = start_server(folder / "grid", tmp_path_factory.mktemp("state"))
    yield started
    stop_server(started)


@pytest.fixture
def page(server: Server, visit: Visit) -> Page:
    visit.page.goto(f"{server.address}/s/grid/map")
    expect(visit.page.locator("svg.grid-map")).to_be_visible(timeout=PATIENCE_MS)
    return visit.page


def width(page: Page) -> float:
    return float((page.locator("svg.grid-map").get_attribute("viewBox") or "").split()[2])


def test_a_click_on_a_square_leads_to_its_holes_and_their_exposures(page: Page):
    expect(page.locator("svg.grid-map .square")).to_have_count(9)
    expect(page.locator("svg.grid-map image.atlas")).to_have_count(1)
    expect(page.get_by_role("heading", name="Holes to expose next")).to_be_visible()
    page.locator("svg.grid-map .square").nth(1).click(force=True)
    name = str(FIRST_SQUARE + 1)
    expect(page.get_by_role("heading", name=f"Square {name}")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("svg.grid-map .hole")).not_to_have_count(0)
    assert width(page) < 2 * SETTINGS.pitch_um
    page.get_by_role("region", name="Holes").get_by_role("link").first.click()
    expect(page.locator("h1")).to_contain_text("FoilHole_", timeout=PATIENCE_MS)
    page.go_back()
    expect(page.get_by_role("heading", name=f"Square {name}")).to_be_visible(timeout=PATIENCE_MS)


def test_the_keyboard_moves_and_zooms(page: Page):
    whole = width(page)
    page.locator("svg.grid-map").focus()
    page.keyboard.press("+")
    page.wait_for_function("(w) => document.querySelector('svg.grid-map').viewBox.baseVal.width < w - 1", arg=whole)
    assert width(page) == pytest.approx(whole / 1.4, rel=1e-3)
    before = (page.locator("svg.grid-map").get_attribute("viewBox") or "").split()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("([x]) => document.querySelector('svg.grid-map').viewBox.baseVal.x > Number(x)", arg=before[:1])
    page.keyboard.press("0")
    page.wait_for_function("(w) => Math.abs(document.querySelector('svg.grid-map').viewBox.baseVal.width - w) < 1e-3", arg=whole)


def test_the_colour_is_any_number_and_stays_in_the_address(page: Page):
    page.get_by_label("Coloured by").select_option(label="Number of exposures")
    expect(page.locator(".legend")).to_contain_text("Exposures", timeout=PATIENCE_MS)
    assert "colour=exposures" in page.url
    page.reload()
    expect(page.locator(".legend")).to_contain_text("Exposures", timeout=PATIENCE_MS)


@pytest.mark.parametrize(("size", "scheme"), [(1360, "light"), (1360, "dark"), (390, "light")])
def test_nothing_serious_is_found_on_the_map(browser: Browser, server: Server, size: int, scheme: str):
    seen = Visit(browser, width=size, scheme=scheme)
    for where in ("/s/grid/map", f"/s/grid/map?square={FIRST_SQUARE}"):
        page = seen.open(f"{server.address}{where}")
        expect(page.locator("svg.grid-map")).to_be_visible(timeout=PATIENCE_MS)
        assert serious(page) == []
        assert seen.too_wide() <= 0
    seen.context.close()
    assert seen.complaints == []
